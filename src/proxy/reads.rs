//! Which statements are proven to be nothing but reads, so that a replica may answer them.
//!
//! Decided once per template and state of the catalog. The proof goes through the parser: a statement that it does not understand, a
//! function or relation that is not known to be harmless, a lock, a system view: any of these makes a statement
//! no read, and it goes to the primary, where everything is right.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pool::settings::{Settings, Value};
use crate::proxy::readable::Readable;
use crate::sql::catalog::Catalog;
use crate::sql::facts::{Access, Facts, RelationSource, StatementKind, facts};
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind, decode_identifier};
use crate::sql::parse::parse;
use crate::sql::template::{Scanner, TemplateKey};

/// Templates kept before the cache starts anew.
const MAX_TEMPLATES: usize = 20_000;

/// What a text is to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// One statement that reads and nothing else.
    Proven,
    /// It begins a transaction that promises to read only.
    Begin,
    /// It ends a transaction.
    End,
    /// Anything else.
    Unknown,
    /// It takes a lock, which others would look for on the primary.
    Locks,
    /// It may change what other statements mean: definitions, and code that nobody sees into.
    Defines,
}

/// Reads statements; one per worker thread.
#[derive(Debug)]
pub struct Reader {
    scanner: Scanner,
    known: HashMap<(u64, TemplateKey), Reads>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { scanner: Scanner::new(LexOptions::default()), known: HashMap::new() }
    }
}

impl Reader {
    /// What a text is, given what is known of its database. The session must have `standard_conforming_strings` on.
    pub fn read(&mut self, sql: &[u8], readable: &Arc<Readable>) -> Reads {
        let scan = self.scanner.scan(sql);
        let (key, single) = ((readable.id, scan.key), scan.statements == 1 && scan.complete);
        if let Some(&reads) = self.known.get(&key) {
            return reads;
        }
        let reads = judge(sql, single, readable);
        if self.known.len() >= MAX_TEMPLATES {
            self.known.clear();
        }
        self.known.insert(key, reads);
        reads
    }
}

/// Whether a session with these settings may read from replicas, and its texts be understood.
pub fn suits(settings: &Settings) -> bool {
    settings.iter().all(|(name, value)| {
        let (Value::Text(text) | Value::Sql(text)) = value;
        let text = text.trim_matches(['\'', '"', ' ']).to_ascii_lowercase();
        match name.as_str() {
            // Replicas have no serializable transactions.
            "default_transaction_isolation" | "transaction_isolation" => text != "serializable",
            // In some encodings a quote may be half of a character.
            "client_encoding" => ["utf", "unicode", "latin", "iso", "win125", "sql_ascii", "euc", "koi8"]
                .iter()
                .any(|fine| text.starts_with(fine)),
            _ => true,
        }
    })
}

fn judge(sql: &[u8], single: bool, readable: &Readable) -> Reads {
    let options = LexOptions::default();
    let tokens: Vec<Token> = Lexer::new(sql, options).filter(|token| token.kind != TokenKind::Semicolon).collect();
    let words: Vec<String> = tokens.iter().map(|token| word(sql, token)).collect();
    if words.iter().any(|word| word.starts_with("pg_advisory") || word.starts_with("pg_try_advisory")) {
        return Reads::Locks;
    }
    if !single {
        return if starts(sql, options).iter().any(|word| defines(word)) { Reads::Defines } else { Reads::Unknown };
    }
    let first = words.first().map(String::as_str).unwrap_or_default();
    match first {
        "begin" | "start" => return begin(&words),
        "commit" | "end" | "rollback" | "abort" => {
            let plain = words.len() == 1 || words.len() == 2 && matches!(words[1].as_str(), "work" | "transaction");
            return if plain { Reads::End } else { Reads::Unknown };
        }
        "lock" => return Reads::Locks,
        first if defines(first) => return Reads::Defines,
        "select" | "values" | "table" | "with" | "" => {}
        _ => return Reads::Unknown,
    }
    let proven = readable.is_known()
        && words.iter().all(|word| !readable.is_dubious(word))
        && std::str::from_utf8(sql)
            .ok()
            .and_then(|sql| parse(sql).ok())
            .is_some_and(|parsed| is_read(&facts(&parsed, &Catalog::default()), readable));
    if proven { Reads::Proven } else { Reads::Unknown }
}

fn is_read(facts: &Facts, readable: &Readable) -> bool {
    facts.kind == StatementKind::Select
        && facts.unknown.is_none()
        && !facts.writes_in_cte
        && facts.assignments.is_empty()
        && facts.insert.is_none()
        && facts.scopes.iter().all(|scope| scope.locking.is_none())
        && facts.functions.iter().all(|call| readable.has_function(call.schema.as_deref(), &call.name))
        && facts.relations.iter().all(|relation| {
            relation.access == Access::Read
                && match &relation.source {
                    RelationSource::Table { schema, name, .. } => readable.has_relation(schema.as_deref(), name),
                    RelationSource::Function(name) => readable.has_function(None, name),
                    RelationSource::Cte(_) | RelationSource::Derived(_) | RelationSource::Values => true,
                    RelationSource::Other => false,
                }
        })
}

/// BEGIN and its kin: a transaction that reads only, and that a replica can run.
fn begin(words: &[String]) -> Reads {
    let mut rest = words.get(1..).unwrap_or_default();
    if let [first, behind @ ..] = rest
        && matches!(first.as_str(), "work" | "transaction")
    {
        rest = behind;
    }
    let modes =
        ["isolation", "level", "read", "only", "committed", "uncommitted", "repeatable", "not", "deferrable", ""];
    let known = rest.iter().all(|word| modes.contains(&word.as_str()));
    let read_only = rest.windows(2).any(|pair| pair[0] == "read" && pair[1] == "only");
    if known && read_only { Reads::Begin } else { Reads::Unknown }
}

/// Whether a command may change what other statements mean.
fn defines(command: &str) -> bool {
    matches!(command, "create" | "alter" | "drop" | "do" | "call" | "import" | "reassign" | "security" | "refresh")
}

/// The first word of each statement.
fn starts(sql: &[u8], options: LexOptions) -> Vec<String> {
    let tokens: Vec<Token> = Lexer::new(sql, options).collect();
    let statements = tokens.split(|token| token.kind == TokenKind::Semicolon);
    statements.filter_map(|statement| statement.first()).map(|token| word(sql, token)).collect()
}

/// A name as PostgreSQL folds it; empty for what is no name.
fn word(sql: &[u8], token: &Token) -> String {
    match token.kind {
        TokenKind::Ident | TokenKind::QuotedIdent | TokenKind::UnicodeIdent => {
            decode_identifier(token.bytes(sql)).unwrap_or_default()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::readable::tests::sample;

    fn reads(sql: &str) -> Reads {
        Reader::default().read(sql.as_bytes(), &Arc::new(sample()))
    }

    #[test]
    fn reads_are_proven() {
        for sql in [
            "SELECT a, lower(b) FROM t WHERE a = 1 ORDER BY b LIMIT 10",
            "select 1;",
            "VALUES (1), (2)",
            "TABLE t",
            "WITH x AS (SELECT * FROM t) SELECT count(*) FROM x JOIN public.v USING (a)",
            "select coalesce(a, 1), a::text, now() from t",
            "select steady(a) from t",
            "select * from generate_series(1, 3) g",
            "select * from t union all select * from v",
            "select exists (select 1 from t where a = $1)",
        ] {
            assert_eq!(reads(sql), Reads::Proven, "{sql}");
        }
    }

    #[test]
    fn what_is_not_proven_is_no_read() {
        for sql in [
            "select * from t for update",
            "select * from (select * from t for share) x",
            "select nextval('s')",
            "select set_config('a.b', 'c', true)",
            "select * into copy from t",
            "with x as (delete from t returning *) select * from x",
            "select shaky(1)",
            "select (t).shaky from t",
            "select overloaded(1)",
            "select unheard_of(1)",
            "select random()",
            "select txid_current()",
            "select lo_create(0)",
            "select * from unheard_of",
            "select * from shaky_view",
            "select * from pg_stat_activity",
            "select * from pg_catalog.pg_class",
            "select * from information_schema.tables",
            "select pg_is_in_recovery()",
            "select current_setting('transaction_read_only')",
            "select 1; select 2",
            "show transaction_read_only",
            "explain analyze select * from t",
            "insert into t values (1)",
            "select * from t where",
            "execute p",
            "",
        ] {
            assert_eq!(reads(sql), Reads::Unknown, "{sql}");
        }
        assert_eq!(reads("select pg_advisory_xact_lock(1)"), Reads::Locks);
        assert_eq!(reads("select 1; CREATE view x as select 1"), Reads::Defines);
        assert_eq!(reads("do $$ begin end $$"), Reads::Defines);
    }

    #[test]
    fn read_only_transactions_are_known() {
        for sql in [
            "BEGIN READ ONLY",
            "begin transaction isolation level repeatable read, read only;",
            "start transaction read only deferrable",
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
        ] {
            assert_eq!(reads(sql), Reads::Begin, "{sql}");
        }
        for sql in [
            "begin",
            "begin read write",
            "begin read only, read write",
            "begin isolation level serializable read only",
            "begin; select 1",
            "start transaction isolation level read committed",
            "rollback to savepoint x",
            "commit and chain",
            "commit prepared 'x'",
        ] {
            assert_eq!(reads(sql), Reads::Unknown, "{sql}");
        }
        assert_eq!(reads("COMMIT"), Reads::End);
        assert_eq!(reads("rollback work;"), Reads::End);
    }

    #[test]
    fn settings_that_replicas_cannot_serve() {
        let one = |name: &str, value: &str| vec![(name.to_owned(), Value::Text(value.to_owned()))];
        assert!(suits(&one("client_encoding", "UTF8")) && suits(&one("timezone", "UTC")));
        assert!(!suits(&one("client_encoding", "SJIS")));
        assert!(!suits(&one("default_transaction_isolation", "serializable")));
    }
}
