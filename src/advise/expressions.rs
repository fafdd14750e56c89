//! Keys that are not plain columns: expressions that a statement compares with constants (`lower(email) = ..`, `data->>'sku' = ..`), and text
//! columns whose beginnings are searched (`LIKE 'abc%'`), which a B-tree answers by the operator class `text_pattern_ops` whatever the
//! collation is.

use super::model::Key;
use crate::sql::catalog::{Catalog, TableId, TableKind};
use crate::sql::facts::{
    Clause, ColumnRef, Comparison, Facts, Literal, Operand, Predicate, RelationId, RelationSource, Span,
};
use crate::sql::ident::quote;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};

/// Longer expressions are no habit of an application.
const MAX_BYTES: usize = 200;
/// The operator class by which a B-tree finds beginnings of text.
const PATTERN_OPS: &str = "text_pattern_ops";

/// A key that one occurrence of a table is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Computed {
    /// The occurrence.
    pub relation: RelationId,
    /// Its table.
    pub table: TableId,
    /// The key.
    pub key: Key,
    /// It is compared by equality.
    pub equal: bool,
}

/// The keys of a statement, in its order, without repeats.
pub(super) fn computed(facts: &Facts, sql: &str, catalog: &Catalog) -> Vec<Computed> {
    let mut found: Vec<Computed> = Vec::new();
    let of_rows = |one: &&Predicate| one.conjunctive && matches!(one.clause, Clause::Where | Clause::InnerOn);
    for predicate in facts.predicates.iter().filter(of_rows) {
        let Some(right) = &predicate.right else { continue };
        for (side, value) in [(&predicate.left, right), (right, &predicate.left)] {
            let one = key(predicate, side, value, facts, sql, catalog).filter(|one| !found.contains(one));
            found.extend(one);
        }
    }
    found
}

fn key(
    predicate: &Predicate,
    side: &Operand,
    value: &Operand,
    facts: &Facts,
    sql: &str,
    catalog: &Catalog,
) -> Option<Computed> {
    let equal = matches!(predicate.comparison, Comparison::Eq | Comparison::In);
    let range = matches!(
        predicate.comparison,
        Comparison::Lt | Comparison::Le | Comparison::Gt | Comparison::Ge | Comparison::Between
    );
    let beginning = predicate.comparison == Comparison::Like && begins(value) && std::ptr::eq(side, &predicate.left);
    if !value.is_constant() || !(equal || range || beginning) {
        return None;
    }
    let (columns, expression) = match side {
        Operand::Column(column) if beginning => (std::slice::from_ref(column), None),
        Operand::Expression { columns, aggregate: false, volatile: false, span, .. } => {
            (columns.as_slice(), Some(unqualified(sql, *span, columns)?))
        }
        _ => return None,
    };
    let first = columns.first()?;
    let relation = first.relation.filter(|relation| columns.iter().all(|other| other.relation == Some(*relation)))?;
    let RelationSource::Table { table: Some(table), .. } = facts.relations.get(relation.0)?.source else { return None };
    let stored = catalog.table(table);
    let plain = matches!(stored.kind, TableKind::Table | TableKind::Partitioned | TableKind::MaterializedView);
    let known = columns.iter().all(|column| stored.column(&column.name).is_some());
    let is_text = |name: &str| matches!(name.split('(').next(), Some("text" | "character varying"));
    let fits = expression.is_some() || stored.column(&first.name).is_some_and(|column| is_text(&column.type_name));
    (plain && known && fits).then(|| Computed {
        relation,
        table,
        key: Key {
            expression,
            operator_class: beginning.then(|| PATTERN_OPS.to_owned()),
            ..Key::ascending(first.name.clone())
        },
        equal,
    })
}

/// Whether a pattern of LIKE begins with something.
fn begins(pattern: &Operand) -> bool {
    let Operand::Literal { value: Literal::Text(text), .. } = pattern else { return false };
    text.chars().next().is_some_and(|first| !matches!(first, '%' | '_' | '\\'))
}

/// An expression's text with its columns as the table alone knows them; `None` where it has parameters, or is not read.
fn unqualified(sql: &str, span: Span, columns: &[ColumnRef]) -> Option<String> {
    let text = span.of(sql);
    if text.is_empty() || text.len() > MAX_BYTES || columns.is_empty() {
        return None;
    }
    let mut out = String::new();
    let mut done = 0;
    for column in columns {
        let (start, end) = (column.span.start.checked_sub(span.start)?, column.span.end.checked_sub(span.start)?);
        if (start as usize) < done {
            continue;
        }
        out.push_str(text.get(done..start as usize)?);
        out.push_str(&quote(&column.name));
        done = end as usize;
    }
    out.push_str(text.get(done..)?);
    let tokens: Vec<Token> = Lexer::new(out.as_bytes(), LexOptions::default()).collect();
    let odd = |token: &Token| matches!(token.kind, TokenKind::Param(_) | TokenKind::Junk | TokenKind::Other);
    (!tokens.iter().any(odd)).then_some(out)
}

/// Expressions as PostgreSQL prints them differ from what was written in parentheses, blanks and casts to text.
pub(super) fn is_same(printed: &str, written: &str) -> bool {
    let bare = |text: &str| -> String {
        let text = text.to_lowercase().replace("::text", "").replace("::character varying", "");
        text.chars().filter(|letter| !letter.is_whitespace() && !matches!(letter, '(' | ')' | '"')).collect()
    };
    bare(printed) == bare(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::ddl::catalog_from_ddl;
    use crate::sql::{facts, parse};

    fn keys(sql: &str) -> Vec<String> {
        let ddl =
            "create table people (id int primary key, email text, \"Name\" varchar(9), born timestamp, data jsonb);
                   create table other (id int, email text)";
        let (catalog, _) = catalog_from_ddl(ddl);
        let found = computed(&facts(&parse(sql).unwrap(), &catalog), sql, &catalog);
        let one = |it: &Computed| {
            let class = it.key.operator_class.as_deref().unwrap_or("");
            format!("{} {class}", it.key.expression.as_deref().unwrap_or(&it.key.column)).trim().to_owned()
        };
        found.iter().map(one).collect()
    }

    #[test]
    fn expressions_and_beginnings() {
        assert_eq!(keys("select * from people p where lower(p.email) = 'x' and id = 3"), ["lower(email)"]);
        assert_eq!(keys("select * from people where data->>'sku' = 'x'"), ["data->>'sku'"]);
        assert_eq!(
            keys("select * from people p where date_trunc('day', p.born) >= '2026-01-01'"),
            ["date_trunc('day', born)"]
        );
        assert_eq!(keys("select * from people where \"Name\" like 'abc%'"), ["Name text_pattern_ops"]);
        assert_eq!(keys("select * from people where lower(email) like 'abc%'"), ["lower(email) text_pattern_ops"]);
        assert_eq!(keys("select * from people where 5 < length(people.\"Name\")"), ["length(\"Name\")"]);
        // Not searched by a beginning, under an OR, over two tables, by a parameter inside, or not always the same.
        for sql in [
            "select * from people where email like '%abc'",
            "select * from people where email not like 'abc%'",
            "select * from people where lower(email) = 'x' or id = 3",
            "select * from people p join other o on lower(p.email) = lower(o.email)",
            "select * from people p, other o where p.email || o.email = 'x'",
            "select * from people where data->>$1 = 'x'",
            "select * from people where born + (random() * interval '1 day') > '2026-01-01'",
            "select count(*) from people group by born having max(email) = 'x'",
            "select * from people where id like 'abc%'",
        ] {
            assert_eq!(keys(sql), [""; 0], "{sql}");
        }
        assert!(is_same("lower((email)::text)", "LOWER(email)") && is_same("(data ->> 'k'::text)", "data->>'k'"));
        assert!(!is_same("lower(email)", "upper(email)"));
    }
}
