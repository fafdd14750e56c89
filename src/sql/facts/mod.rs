//! What one statement says: tables, predicates, sort orders, as flat plain data.
//!
//! Facts are extracted once per template from the tree, with SQL's scoping rules, and are what
//! `lint/`, `advise/` and `route/` reason about. Everything carries the byte span in the statement's
//! text it came from. A name that could not be resolved stays unresolved (`None`), and a construct
//! that this room does not understand sets [`Facts::unknown`]: whoever needs a proof must then refuse.

mod build;
mod call;
mod copy;
mod dml;
mod from;
mod functions;
mod literal;
mod operand;
mod predicates;
mod query;
mod resolve;
mod statement;
mod value;

pub use build::facts;
pub(crate) use build::view_columns;
pub(crate) use functions::is_aggregate;
pub(crate) use literal::decode_string;
pub(crate) use resolve::{folded, qualified};
pub use value::{ColumnRef, Literal, Operand, Shape};

use crate::sql::catalog::TableId;

/// A half-open byte range in the statement's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The text it covers, empty when it does not fit `text`.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start as usize..self.end as usize).unwrap_or("")
    }
}

/// A scope's place in [`Facts::scopes`]; scope 0 is the statement's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ScopeId(pub usize);

/// A relation's place in [`Facts::relations`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationId(pub usize);

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, VALUES, TABLE (without a data-modifying CTE: with one it is [`StatementKind::Other`]).
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// TRUNCATE.
    Truncate,
    /// COPY .. FROM.
    CopyFrom,
    /// COPY .. TO.
    CopyTo,
    /// CREATE, ALTER, DROP, GRANT, COMMENT, ...
    Ddl,
    /// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, ...
    Transaction,
    /// SET, RESET, SHOW, DISCARD.
    Session,
    /// EXPLAIN of another statement.
    Explain,
    /// PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH, CLOSE, LISTEN, CALL, DO, VACUUM, ...
    Other,
}

/// What kind of query a scope belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeKind {
    /// The statement's own.
    Statement,
    /// A subquery in FROM.
    Derived {
        /// Declared LATERAL.
        lateral: bool,
    },
    /// A common table expression.
    Cte {
        /// Its name.
        name: String,
        /// Under WITH RECURSIVE.
        recursive: bool,
    },
    /// EXISTS (..).
    Exists {
        /// NOT EXISTS.
        negated: bool,
    },
    /// x IN (..).
    InSubquery {
        /// NOT IN.
        negated: bool,
    },
    /// A scalar subquery, or one under ANY/ALL/ARRAY.
    Scalar,
    /// An arm of UNION, INTERSECT or EXCEPT.
    SetArm,
    /// The query of INSERT .. SELECT, CREATE TABLE AS, EXPLAIN, COPY (..).
    Source,
}

/// One query block.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// The block it stands in; `None` for the statement's own.
    pub parent: Option<ScopeId>,
    /// What it is to its parent.
    pub kind: ScopeKind,
    /// Where it stands.
    pub span: Span,
    /// SELECT DISTINCT (without ON).
    pub distinct: bool,
    /// SELECT DISTINCT ON (..).
    pub distinct_on: bool,
    /// Items of the SELECT list or of RETURNING; empty for a set operation, whose arms have them.
    pub projection: Vec<Projection>,
    /// GROUP BY expressions, an alias giving the value behind it (grouping sets set `grouping_sets`).
    pub group_by: Vec<Operand>,
    /// GROUPING SETS, ROLLUP or CUBE.
    pub grouping_sets: bool,
    /// Has HAVING.
    pub having: bool,
    /// An aggregate function is called in it.
    pub aggregate: bool,
    /// A window function is called in it.
    pub window: bool,
    /// ORDER BY. An output name gives the projected value behind it; behind a set operation it stays unresolved.
    pub order_by: Vec<SortKey>,
    /// LIMIT or FETCH FIRST.
    pub limit: Option<Operand>,
    /// OFFSET.
    pub offset: Option<Operand>,
    /// FOR UPDATE, FOR SHARE, ...: `Some(skip_locked_or_nowait)`.
    pub locking: Option<bool>,
    /// Has a WHERE clause.
    pub has_where: bool,
}

/// One item of a SELECT list or of RETURNING.
#[derive(Debug, Clone, PartialEq)]
pub enum Projection {
    /// `*`
    Star(Span),
    /// `t.*`, and the relation it names.
    QualifiedStar(Span, Option<RelationId>),
    /// An expression with its alias.
    Item {
        /// What it computes.
        value: Operand,
        /// AS name.
        alias: Option<String>,
        /// Where it stands.
        span: Span,
    },
}

/// One ORDER BY key.
#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    /// What is sorted by. A position (`ORDER BY 1`) is an integer constant here.
    pub value: Operand,
    /// DESC.
    pub descending: bool,
    /// Explicit NULLS FIRST (true) or NULLS LAST (false).
    pub nulls_first: Option<bool>,
    /// Where it stands.
    pub span: Span,
}

/// Where the rows of a relation occurrence come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RelationSource {
    /// A table or view, as written, and what the catalog makes of it.
    Table {
        /// The schema as written.
        schema: Option<String>,
        /// The name as written (folded unless quoted).
        name: String,
        /// What the catalog found, if one was at hand.
        table: Option<TableId>,
    },
    /// A reference to a CTE.
    Cte(ScopeId),
    /// A subquery in FROM.
    Derived(ScopeId),
    /// A function in FROM, by name.
    Function(String),
    /// VALUES in FROM.
    Values,
    /// Something else (JSON_TABLE, XMLTABLE, ...).
    Other,
}

/// How a relation is joined to what stands before it in its FROM item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// The first of a FROM item.
    First,
    /// Separated by a comma.
    Comma,
    /// CROSS JOIN.
    Cross,
    /// [INNER] JOIN with ON, USING or NATURAL.
    Inner,
    /// LEFT [OUTER] JOIN: this relation is the nullable side.
    Left,
    /// RIGHT [OUTER] JOIN: this relation is the preserved side.
    Right,
    /// FULL [OUTER] JOIN.
    Full,
}

/// Whether the statement reads or writes this occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// The target of INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, or the object of DDL.
    Write,
}

/// One occurrence of a relation (PostgreSQL's range-table entry).
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// The block whose FROM (or target) it is.
    pub scope: ScopeId,
    /// Where its rows come from.
    pub source: RelationSource,
    /// Its alias.
    pub alias: Option<String>,
    /// How it is joined.
    pub join: JoinKind,
    /// On the nullable side of some outer join above it.
    pub nullable: bool,
    /// Read or written.
    pub access: Access,
    /// Where its name stands.
    pub span: Span,
}

impl Relation {
    /// The name by which columns may qualify it.
    pub fn visible_name(&self) -> Option<&str> {
        match (&self.alias, &self.source) {
            (Some(alias), _) => Some(alias),
            (None, RelationSource::Table { name, .. } | RelationSource::Function(name)) => Some(name),
            _ => None,
        }
    }
}

/// How two operands are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Eq,
    /// `<>`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// IN (list or subquery), `= ANY (..)`.
    In,
    /// NOT IN, `<> ALL (..)`.
    NotIn,
    /// BETWEEN: the right side is a list of two.
    Between,
    /// NOT BETWEEN.
    NotBetween,
    /// LIKE, `~~`.
    Like,
    /// NOT LIKE.
    NotLike,
    /// ILIKE, `~~*`.
    ILike,
    /// NOT ILIKE.
    NotILike,
    /// `~`, `~*`, SIMILAR TO.
    Regex,
    /// `!~`, `!~*`, NOT SIMILAR TO.
    NotRegex,
    /// IS NULL: no right side.
    IsNull,
    /// IS NOT NULL: no right side.
    IsNotNull,
    /// IS [NOT] DISTINCT FROM.
    Distinct {
        /// IS NOT DISTINCT FROM.
        negated: bool,
    },
    /// EXISTS: the left side is the subquery, no right side.
    Exists {
        /// NOT EXISTS.
        negated: bool,
    },
    /// A boolean column or function on its own, or a constant: no right side.
    Truth,
    /// Any other operator (`@>`, `?`, `&&`, ...), as written.
    Operator(String),
}

/// The clause a predicate stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clause {
    /// WHERE.
    Where,
    /// ON or USING of an inner join (or CROSS/comma made explicit).
    InnerOn,
    /// ON or USING of an outer join.
    OuterOn,
    /// HAVING.
    Having,
    /// Anywhere else: CASE, FILTER, the SELECT list, ORDER BY, CHECK, ...
    Elsewhere,
}

/// One atomic condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The block it stands in.
    pub scope: ScopeId,
    /// The clause it stands in.
    pub clause: Clause,
    /// It holds for every row of its clause: only AND stands above it (no OR, NOT, CASE).
    pub conjunctive: bool,
    /// Which OR it stands under (the innermost), so that arms can be told together.
    pub disjunction: Option<u32>,
    /// Left side.
    pub left: Operand,
    /// How they are compared.
    pub comparison: Comparison,
    /// Right side, where there is one.
    pub right: Option<Operand>,
    /// Where it stands.
    pub span: Span,
}

/// What an INSERT supplies.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertFacts {
    /// The column list as written; `None` when there is none.
    pub columns: Option<Vec<String>>,
    /// Rows of VALUES; empty for INSERT .. SELECT and DEFAULT VALUES. `None` in a row is DEFAULT.
    pub rows: Vec<Vec<Option<Operand>>>,
    /// INSERT .. SELECT: its scope.
    pub query: Option<ScopeId>,
    /// DEFAULT VALUES.
    pub default_values: bool,
    /// ON CONFLICT is there: the columns set by DO UPDATE (empty for DO NOTHING).
    pub on_conflict: Option<Vec<String>>,
}

/// How COPY's rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFormat {
    /// Fields with escapes.
    Text,
    /// Fields in quotes.
    Csv {
        /// QUOTE.
        quote: u8,
        /// ESCAPE.
        escape: u8,
    },
    /// Fields with lengths.
    Binary,
}

/// What a COPY says besides its table or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFacts {
    /// The column list as written; `None` when there is none.
    pub columns: Option<Vec<String>>,
    /// Rows come from the client or go to it, not to a file or a program of the server.
    pub by_client: bool,
    /// Their form.
    pub format: CopyFormat,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL.
    pub null: String,
    /// The first row has the columns' names.
    pub header: bool,
    /// An option that is not among these, or is not understood.
    pub other: bool,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionCall {
    /// The block it stands in.
    pub scope: ScopeId,
    /// Schema as written.
    pub schema: Option<String>,
    /// Name in lower case unless quoted.
    pub name: String,
    /// Number of arguments; the star of `count(*)` is none.
    pub arguments: usize,
    /// Called with OVER.
    pub window: bool,
    /// Where it stands.
    pub span: Span,
}

/// Everything that is known of one statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What it does.
    pub kind: StatementKind,
    /// The command's word or words in capitals, for messages: `CREATE TABLE`, `VACUUM`.
    pub command: String,
    /// Query blocks; the first is the statement's own.
    pub scopes: Vec<Scope>,
    /// Relation occurrences.
    pub relations: Vec<Relation>,
    /// Atomic conditions of every clause.
    pub predicates: Vec<Predicate>,
    /// UPDATE .. SET, ON CONFLICT DO UPDATE SET and MERGE's: (column, new value); also those of data-modifying CTEs, told
    /// apart by the column's relation.
    pub assignments: Vec<(ColumnRef, Operand)>,
    /// What an INSERT supplies, when the statement itself is one (not a CTE inside it).
    pub insert: Option<InsertFacts>,
    /// What INSERTs inside WITH and MERGE supply, each with its target.
    pub other_inserts: Vec<(RelationId, InsertFacts)>,
    /// What a COPY says.
    pub copy: Option<CopyFacts>,
    /// Function calls anywhere.
    pub functions: Vec<FunctionCall>,
    /// Highest `$n`, 0 when there is none.
    pub parameters: u32,
    /// A set operation (UNION, INTERSECT, EXCEPT) is in it; `true` in the pair for ALL.
    pub set_operations: Vec<(String, bool, Span)>,
    /// Has RETURNING.
    pub returning: bool,
    /// A data-modifying statement inside WITH.
    pub writes_in_cte: bool,
    /// Why the facts are incomplete, if they are: a construct not understood, or one the parser is known to misread.
    pub unknown: Option<String>,
}

#[cfg(test)]
mod tests;
