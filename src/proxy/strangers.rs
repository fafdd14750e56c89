//! Calls of functions that were not there when a database's functions were read.
//!
//! Such a function was made since then, by somebody else, and may do anything to the session. Names before a parenthesis that
//! belong to PostgreSQL's grammar, or give names to something, are no calls.

use crate::proxy::changes::name;
use crate::proxy::functions::Functions;
use crate::sql::lexer::{Token, TokenKind};

/// Words of the grammar that a parenthesis may follow, and types whose names are words of it.
const GRAMMAR: [&str; 93] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "attach",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "conflict",
    "copy",
    "cross",
    "cube",
    "dec",
    "decimal",
    "default",
    "distinct",
    "do",
    "else",
    "escape",
    "except",
    "execute",
    "exists",
    "explain",
    "extract",
    "fetch",
    "filter",
    "float",
    "from",
    "full",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "inner",
    "insert",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "lateral",
    "least",
    "left",
    "like",
    "limit",
    "materialized",
    "merge",
    "national",
    "natural",
    "nchar",
    "not",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "operator",
    "or",
    "order",
    "over",
    "partition",
    "position",
    "precision",
    "returning",
    "right",
    "rollup",
    "row",
    "rows",
    "select",
    "set",
    "sets",
    "similar",
    "some",
    "then",
    "time",
    "timestamp",
    "to",
    "unique",
    "union",
    "using",
    "values",
    "varchar",
];
/// More such words.
const MORE: [&str; 37] = [
    "varying",
    "when",
    "where",
    "with",
    "within",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "merge_action",
    "normalize",
    "overlay",
    "substring",
    "treat",
    "trim",
    "collation",
    "primary",
    "foreign",
    "exclude",
];
/// Words that may stand before an expression, and so before a call.
const BEFORE_EXPRESSIONS: [&str; 43] = [
    "all",
    "and",
    "any",
    "array",
    "between",
    "by",
    "call",
    "case",
    "cube",
    "default",
    "distinct",
    "else",
    "end",
    "escape",
    "filter",
    "first",
    "from",
    "function",
    "having",
    "ilike",
    "in",
    "is",
    "join",
    "lateral",
    "like",
    "limit",
    "next",
    "not",
    "offset",
    "on",
    "or",
    "procedure",
    "return",
    "returning",
    "rows",
    "range",
    "groups",
    "select",
    "then",
    "to",
    "when",
    "where",
    "zone",
];
/// Commands that only name things: what stands before a parenthesis there is no call.
const NAMING: [&str; 12] = [
    "grant", "revoke", "comment", "vacuum", "analyze", "analyse", "reindex", "truncate", "drop", "lock", "security",
    "prepare",
];

/// Whether a statement calls such a function.
pub fn are_called(sql: &[u8], tokens: &[Token], functions: &Functions) -> bool {
    if !functions.knows_names() || NAMING.contains(&name(sql, tokens.first()).as_str()) {
        return false;
    }
    let is_called = |at: usize| {
        let named = matches!(tokens.get(at).map(|token| token.kind), Some(TokenKind::Ident | TokenKind::QuotedIdent));
        named && functions.is_strange(&name(sql, tokens.get(at))) && is_call(sql, tokens, at)
    };
    (1..tokens.len())
        .any(|at| tokens.get(at).is_some_and(|next| next.kind == TokenKind::LeftParen) && is_called(at - 1))
}

/// Whether the name at `at`, with a parenthesis behind it, may be that of a function that is called.
fn is_call(sql: &[u8], tokens: &[Token], at: usize) -> bool {
    let kind = |at: usize| tokens.get(at).map(|token| token.kind);
    let word = |at: usize| if kind(at) == Some(TokenKind::Ident) { name(sql, tokens.get(at)) } else { String::new() };
    let mut start = at;
    while start >= 2 && kind(start - 1) == Some(TokenKind::Dot) {
        start -= 2;
    }
    let own = word(at);
    if start == at && (GRAMMAR.contains(&own.as_str()) || MORE.contains(&own.as_str())) {
        return false;
    }
    let Some(before) = start.checked_sub(1) else { return true };
    match kind(before) {
        // A type, or an alias with names for its columns.
        Some(TokenKind::Cast | TokenKind::QuotedIdent) => false,
        Some(TokenKind::RightParen) => (0..before).any(|at| word(at) == "distinct" && word(at + 1) == "on"),
        Some(TokenKind::Comma) => !names_a_query(sql, tokens, at + 1),
        Some(TokenKind::Ident) => {
            let before = word(before);
            // Whatever comes after ON in CREATE INDEX is a table.
            let of_index = before == "on" && word(0) == "create" && matches!(word(1).as_str(), "index" | "unique");
            BEFORE_EXPRESSIONS.contains(&before.as_str()) && !of_index
        }
        _ => true,
    }
}

/// Whether the parenthesis at `open` holds the columns of a WITH query.
fn names_a_query(sql: &[u8], tokens: &[Token], open: usize) -> bool {
    let close = tokens.iter().skip(open).position(|token| token.kind == TokenKind::RightParen).map(|at| at + open);
    let Some(close) = close else { return false };
    let mut rest = tokens.get(close + 1..).unwrap_or_default().iter().map(|token| (token.kind, name(sql, Some(token))));
    if rest.next().is_none_or(|(_, word)| word != "as") {
        return false;
    }
    let mut rest = rest.skip_while(|(_, word)| matches!(word.as_str(), "not" | "materialized"));
    let open = rest.next().is_some_and(|(kind, _)| kind == TokenKind::LeftParen);
    let queries = ["select", "with", "values", "insert", "update", "delete", "merge", "table"];
    open && rest.next().is_some_and(|(kind, word)| kind == TokenKind::LeftParen || queries.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::{LexOptions, Lexer};
    use std::collections::HashMap;

    fn called(sql: &str) -> bool {
        let names = ["count", "lower", "now", "my_own"].map(|name| vec![Some(name.to_owned())]);
        let functions = Functions::new(HashMap::new(), HashMap::new()).among(&names.to_vec());
        let tokens: Vec<Token> = Lexer::new(sql.as_bytes(), LexOptions::default()).collect();
        are_called(sql.as_bytes(), &tokens, &functions)
    }

    #[test]
    fn ordinary_statements_call_nobody_unknown() {
        for sql in [
            "select count(*), lower(a), my_own(1), public.my_own(2), \"now\"() from t where a in (1, 2) and (b or not (c))",
            "insert into t (a, b) values (1, $2) on conflict (a) do update set (a, b) = (1, 2) returning (a)",
            "insert into public.t (a) select a from u",
            "insert into t as x (a) values (1)",
            "select a::varchar(10), b::numeric(10, 2), c::public.geometry(1, 2), cast(d as character varying(3)) from t",
            "with x (a) as (select 1), y (b, c) as materialized (values (1, 2)) select * from x, y",
            "with recursive x (a) as (select 1 union all (select 2)) select * from x",
            "select * from (values (1, 2)) v (a, b) join t u (c) using (a) cross join lateral (select 1) z",
            "select sum from t group by grouping sets ((a), (b)), rollup (a), cube (b)",
            "select count(*) filter (where a) over (partition by b order by c) from t",
            "select exists (select 1), array(select 1), row(1), coalesce(a, b), extract(year from d), substring(a from 1) from t",
            "select interval '1' day, time (3) '10:00', case when (a) then (b) else (c) end",
            "copy t (a, b) from stdin",
            "explain (costs off) select 1",
            "create table t (a numeric(10, 2), b varchar(3), primary key (a), unique (b), foreign key (b) references u (b), check (a > 1))",
            "create unique index i on t (lower(a))",
            "grant execute on function stranger(int) to x",
            "merge into t using (select 1) s on (t.a = s.a) when not matched then insert (a) values (1)",
            "declare c cursor with hold for select count(*) from t",
            "prepare p (int) as select $1",
        ] {
            assert!(!called(sql), "{sql}");
        }
    }

    #[test]
    fn a_stranger_is_seen_wherever_it_is_called() {
        for sql in [
            "select stranger()",
            "select public.stranger(1)",
            "select \"Now\"()",
            "select lower(stranger(1))",
            "select * from t, stranger(1) as x (a int)",
            "select * from stranger(1) x (a)",
            "select * from t join lateral stranger(t.a) on true",
            "select distinct on (a) stranger(b) from t",
            "select 1 where not stranger(1) and a between stranger(2) and 3",
            "insert into t values (1, stranger(2))",
            "insert into t (a) values (1) on conflict (a) do update set a = stranger(1) returning stranger(2)",
            "update t set a = stranger(a)",
            "select now() at time zone stranger()",
            "call stranger(1)",
            "explain analyze select stranger(1)",
            "create trigger x before insert on t for each row execute function stranger()",
            "create view v as select stranger()",
            "select a[stranger(1)] || stranger(2), 'x'::text || stranger(1) from t order by stranger(3) limit stranger(4)",
            "with x as (select stranger(1)) select 1",
        ] {
            assert!(called(sql), "{sql}");
        }
    }
}
