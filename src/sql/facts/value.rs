//! What stands on one side of a comparison, in a SELECT list or behind ORDER BY.

use super::{RelationId, ScopeId, Span};

/// A reference to a column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRef {
    /// The occurrence it belongs to, when that is certain.
    pub relation: Option<RelationId>,
    /// The qualifier as written. `excluded` of ON CONFLICT DO UPDATE is no relation: its columns stay unresolved.
    pub qualifier: Option<String>,
    /// The column's name (folded unless quoted); `*` for the whole row (`SELECT t FROM t`, `count(t.*)`). Where an alias
    /// list renamed a table's columns and the catalog knows them, the table's own name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// A literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A number as written (no sign).
    Number(String),
    /// A string constant, unescaped.
    Text(String),
    /// TRUE or FALSE.
    Bool(bool),
    /// NULL.
    Null,
    /// B'..', X'..' or another form, as written.
    Other(String),
}

/// One side of a comparison, a sort key, a projected value.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A plain column.
    Column(ColumnRef),
    /// A literal, perhaps under a cast (`'2024-01-01'::date`, `DATE '..'`) or a sign.
    Literal {
        /// Its value.
        value: Literal,
        /// A minus sign stands before it.
        negative: bool,
        /// The type it is cast to, as written in lower case.
        cast: Option<String>,
        /// The whole operand.
        span: Span,
        /// The constant itself, as the template's binding has it.
        literal: Span,
    },
    /// `$n`, perhaps under a cast.
    Parameter {
        /// n, from 1.
        number: u32,
        /// The type it is cast to, as written in lower case.
        cast: Option<String>,
        /// The whole operand.
        span: Span,
    },
    /// `(a, b, c)` in an IN list, a row, or ARRAY[..].
    List(Vec<Operand>, Span),
    /// A subquery.
    Subquery(ScopeId, Span),
    /// Anything else.
    Expression {
        /// The columns it mentions.
        columns: Vec<ColumnRef>,
        /// Its outermost shape.
        shape: Shape,
        /// It calls an aggregate (not as a window function).
        aggregate: bool,
        /// It calls a function whose result changes between calls or statements (random(), now(), nextval(), or not known).
        volatile: bool,
        /// Where it stands.
        span: Span,
    },
}

/// The outermost shape of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A function call, by name in lower case.
    Function(String),
    /// A cast, to the type as written in lower case.
    Cast(String),
    /// `+ - * / %` and friends.
    Arithmetic(String),
    /// `->`, `->>`, `#>`, `@>`, ... and other operators.
    Operator(String),
    /// COALESCE(..).
    Coalesce,
    /// CASE.
    Case,
    /// A row or array subscript, or something else.
    Other,
}

impl Operand {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Self::Column(column) => column.span,
            Self::Literal { span, .. }
            | Self::Parameter { span, .. }
            | Self::List(_, span)
            | Self::Subquery(_, span)
            | Self::Expression { span, .. } => *span,
        }
    }

    /// The column, when it is a plain one.
    pub fn column(&self) -> Option<&ColumnRef> {
        if let Self::Column(column) = self { Some(column) } else { None }
    }

    /// True for literals, parameters and lists of them.
    pub fn is_constant(&self) -> bool {
        match self {
            Self::Literal { .. } | Self::Parameter { .. } => true,
            Self::List(items, _) => items.iter().all(Self::is_constant),
            _ => false,
        }
    }
}
