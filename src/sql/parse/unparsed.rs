//! What can be said of a statement that has no tree: its command, and every name in it.
//!
//! A router asks which tables a statement could touch. The answer here is a superset: every name that stands in the
//! text, whatever it is, so that "none of the sharded tables is among them" is a proof.

use super::Parsed;
use crate::sql::dialect::PgDialect;
use crate::sql::facts::StatementKind;
use sqlparser::ast::Statement;
use sqlparser::tokenizer::{Token, Tokenizer};

/// A name that stands in a statement, perhaps qualified, folded as PostgreSQL folds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mentioned {
    /// What stands before the last dot, folded: `app` of `app.orders`, `a.b` of `a.b.c`.
    pub qualifier: Option<String>,
    /// The last part, folded unless quoted.
    pub name: String,
}

/// Every name in the text, each once, sorted: tables, columns, functions, keywords without quotes too. `None` when
/// the text cannot even be split into tokens, so that nothing can be excluded; names inside string constants are not
/// seen, so a statement that runs text as SQL (DO, EXECUTE of a function's argument) must be judged by its [`classify`].
pub fn tables_mentioned(sql: &str) -> Option<Vec<Mentioned>> {
    let tokens = Tokenizer::new(&PgDialect, sql).with_unescape(true).tokenize().ok()?;
    let mut names = Vec::new();
    let mut parts: Vec<String> = Vec::new();
    let mut after_dot = false;
    for token in tokens.iter().filter(|token| !super::tokens::is_space(token)) {
        match token {
            Token::Word(word) => {
                if !after_dot {
                    finish(&mut parts, &mut names);
                }
                parts.push(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() });
                after_dot = false;
            }
            Token::Period => after_dot = true,
            _ => {
                finish(&mut parts, &mut names);
                after_dot = false;
            }
        }
    }
    finish(&mut parts, &mut names);
    names.sort();
    names.dedup();
    Some(names)
}

fn finish(parts: &mut Vec<String>, names: &mut Vec<Mentioned>) {
    if let Some(name) = parts.pop() {
        let qualifier = (!parts.is_empty()).then(|| parts.join("."));
        names.push(Mentioned { qualifier, name });
    }
    parts.clear();
}

/// Whether a statement is better run by itself: PostgreSQL refuses VACUUM, some of REINDEX, and CREATE INDEX CONCURRENTLY and its kin,
/// inside a transaction block, and ANALYZE keeps its locks in one, on catalogs too that the databases of one server share.
pub fn stands_alone(sql: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&PgDialect, sql).tokenize() else { return false };
    let mut words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.as_str()),
        _ => None,
    });
    words
        .next()
        .is_some_and(|first| ["vacuum", "analyze", "reindex"].iter().any(|command| first.eq_ignore_ascii_case(command)))
        || words.take(4).any(|word| word.eq_ignore_ascii_case("concurrently"))
}

/// The name of the index that a CREATE INDEX CONCURRENTLY makes, with its table's schema where that is written.
pub fn concurrent_index(statement: &Parsed) -> Option<String> {
    let Statement::CreateIndex(index) = &statement.ast else { return None };
    let name = index.name.as_ref().filter(|_| index.concurrently)?;
    let schema = index.table_name.0.split_last()?.1;
    Some(schema.iter().map(|part| format!("{part}.")).collect::<String>() + &name.to_string())
}

/// What a statement does by its first words, and the command in capitals for messages.
///
/// WITH is followed to the statement behind it only by the tree: here it counts as [`StatementKind::Other`] when
/// a word of writing stands anywhere in it.
pub fn classify(sql: &str) -> (StatementKind, String) {
    let Ok(tokens) = Tokenizer::new(&PgDialect, sql).tokenize() else {
        return (StatementKind::Other, sql.split_whitespace().next().unwrap_or("").to_uppercase());
    };
    let words: Vec<String> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
            _ => None,
        })
        .collect();
    let at = |index: usize| words.get(index).map_or("", String::as_str);
    let has = |word: &str| words.iter().any(|other| other == word);
    let kind = match at(0) {
        "SELECT" | "VALUES" | "TABLE" => StatementKind::Select,
        "WITH" if ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|word| has(word)) => StatementKind::Other,
        "WITH" => StatementKind::Select,
        "INSERT" => StatementKind::Insert,
        "UPDATE" => StatementKind::Update,
        "DELETE" => StatementKind::Delete,
        "MERGE" => StatementKind::Merge,
        "TRUNCATE" => StatementKind::Truncate,
        "COPY" if has("FROM") && !copies_query(&tokens) => StatementKind::CopyFrom,
        "COPY" => StatementKind::CopyTo,
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" | "COMMENT" | "REASSIGN" | "SECURITY" | "REFRESH"
        | "REINDEX" | "IMPORT" => StatementKind::Ddl,
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            StatementKind::Transaction
        }
        "PREPARE" if at(1) == "TRANSACTION" => StatementKind::Transaction,
        "SET" if at(1) == "TRANSACTION" || at(1) == "CONSTRAINTS" => StatementKind::Transaction,
        "SET" | "RESET" | "SHOW" | "DISCARD" => StatementKind::Session,
        "EXPLAIN" => StatementKind::Explain,
        _ => StatementKind::Other,
    };
    (kind, command(kind, &words))
}

/// COPY (query): a parenthesis stands right behind the word.
fn copies_query(tokens: &[Token]) -> bool {
    tokens.iter().filter(|token| !super::tokens::is_space(token)).nth(1) == Some(&Token::LParen)
}

/// The words that name the command: two for most DDL, one otherwise.
fn command(kind: StatementKind, words: &[String]) -> String {
    let skipped =
        ["OR", "REPLACE", "UNIQUE", "TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL", "RECURSIVE", "CONSTRAINT"];
    let first = words.first().map_or("", String::as_str);
    let second = words.iter().skip(1).find(|word| !skipped.contains(&word.as_str()));
    let third = || words.iter().skip_while(|word| word.as_str() != "MATERIALIZED" && word.as_str() != "FOREIGN").nth(1);
    match (kind, second) {
        (StatementKind::Ddl, Some(second)) if ["CREATE", "ALTER", "DROP", "REFRESH"].contains(&first) => {
            match (second.as_str(), third()) {
                ("MATERIALIZED" | "FOREIGN", Some(third)) => format!("{first} {second} {third}"),
                _ => format!("{first} {second}"),
            }
        }
        _ => first.to_owned(),
    }
}
