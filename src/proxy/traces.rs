//! What commands and the functions they call leave in a session, by their tokens.

use crate::proxy::bodies::speaks_of_definitions;
use crate::proxy::care::Care;
use crate::proxy::changes::name;
use crate::proxy::functions::Functions;
use crate::sql::lexer::{LexOptions, Token, TokenKind, decode_string};

/// Most names of settings that are taken from one text.
const MAX_NAMES: usize = 100;
/// Longest name of a setting that is looked for.
const MAX_NAME: usize = 128;

/// What the command itself leaves; settings that SET and its like change are not in it.
pub fn of_command(sql: &[u8], tokens: &[Token]) -> Care {
    let word = |at: usize| name(sql, tokens.get(at));
    let has = |wanted: [&str; 2]| (0..tokens.len()).any(|at| word(at) == wanted[0] && word(at + 1) == wanted[1]);
    let marked_if = |marked: bool, care: Care| if marked { care } else { Care::CLEAN };
    let left = match word(0).as_str() {
        "do" => of_hidden(sql) | Care::UNSEEN | Care::ENDS | marked_if(speaks_of_definitions(sql), Care::TEACHES),
        "call" => Care::UNSEEN | Care::ENDS,
        "load" => Care::STAYS,
        "listen" => Care::STATE,
        "notify" => Care::NOTIFIES,
        "unlisten" | "close" => Care::ENDS,
        "deallocate" | "discard" => Care::ENDS,
        "drop" => Care::ENDS,
        "declare" => marked_if(has(["with", "hold"]), Care::STATE),
        "alter" | "import" => marked_if(defines(&word(1)), Care::DEFINES) | marked_if(teaches(&word(1)), Care::TEACHES),
        "create" => created(sql, tokens),
        "select" | "with" | "table" | "values" => {
            let temporary = ["temp", "temporary", "local", "pg_temp"].into_iter().any(|temp| has(["into", temp]));
            let into =
                (1..tokens.len()).any(|at| word(at) == "into" && !matches!(word(at - 1).as_str(), "insert" | "merge"));
            if temporary { Care::STATE } else { marked_if(into, Care::CREATES) }
        }
        // A SELECT in parentheses.
        "" => marked_if((0..tokens.len()).any(|at| word(at) == "into"), Care::STATE),
        _ => Care::CLEAN,
    };
    // Defaults and triggers draw from sequences.
    let writes = match word(0).as_str() {
        "insert" | "update" | "delete" | "merge" | "copy" | "alter" | "import" | "call" => true,
        "with" | "explain" | "" => {
            (0..tokens.len()).any(|at| matches!(word(at).as_str(), "insert" | "update" | "delete" | "merge"))
        }
        _ => false,
    };
    left | marked_if(writes, Care::DRAWS)
}

/// What code may do to sequences that cannot be followed.
pub fn of_hidden(sql: &[u8]) -> Care {
    let asks = |word: &[u8]| word.eq_ignore_ascii_case(b"currval") || word.eq_ignore_ascii_case(b"lastval");
    let mut words = sql.split(|byte| !byte.is_ascii_alphanumeric());
    if words.any(asks) { Care::DRAWS | Care::ASKS } else { Care::DRAWS }
}

/// What CREATE leaves.
fn created(sql: &[u8], tokens: &[Token]) -> Care {
    let word = |at: usize| name(sql, tokens.get(at));
    // What may stand before TABLE, VIEW or SEQUENCE; a column may be called temp.
    let before = |word: &str| {
        let prefixes = ["or", "replace", "local", "global", "temp", "temporary", "unlogged", "recursive", "constraint"];
        prefixes.contains(&word)
    };
    let kind = (1..7).find(|at| !before(&word(*at))).unwrap_or_default();
    let temporary = (1..kind).any(|at| word(at).starts_with("temp"));
    let mut care =
        if temporary || (0..tokens.len()).any(|at| word(at) == "pg_temp") { Care::STATE } else { Care::CREATES };
    if defines(&word(kind)) {
        care.add(Care::DEFINES);
    }
    if teaches(&word(kind)) {
        care.add(Care::TEACHES);
    }
    match word(kind).as_str() {
        // Whatever is in it may be called in the same transaction, before it was looked at.
        "function" | "procedure" | "extension" | "aggregate" | "operator" | "event" => care | Care::UNSEEN,
        "index" | "unique" | "database" | "role" | "user" | "group" | "tablespace" | "policy" | "trigger" => {
            care.without(Care::CREATES)
        }
        _ => care,
    }
}

/// Whether definitions of this kind are, or may call, functions.
fn defines(kind: &str) -> bool {
    !matches!(
        kind,
        "index"
            | "unique"
            | "database"
            | "role"
            | "user"
            | "group"
            | "tablespace"
            | "sequence"
            | "system"
            | "statistics"
    )
}

/// Whether definitions of this kind are functions, or call them without the parentheses of a call.
fn teaches(kind: &str) -> bool {
    let kinds = ["function", "procedure", "routine", "aggregate", "operator", "extension", "event", "cast", "type"];
    kinds.contains(&kind)
}

/// What the functions do that are called by name, and the tables' triggers; settings they change are added to `names`.
pub fn of_calls(sql: &[u8], tokens: &[Token], functions: &Functions, names: &mut Vec<String>) -> Care {
    let mut care = Care::CLEAN;
    let first = name(sql, tokens.first());
    let controls = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "set", "show"];
    if let Some(everywhere) = functions.everywhere().filter(|_| !controls.contains(&first.as_str())) {
        care.add(everywhere.care);
        names.extend(everywhere.settings.iter().cloned());
    }
    if functions.watch_definitions && matches!(first.as_str(), "create" | "alter" | "drop") {
        care.add(Care::UNSEEN);
    }
    let mut writing = Care::CLEAN;
    for (at, token) in tokens.iter().enumerate() {
        let is_call = tokens.get(at + 1).is_some_and(|next| next.kind == TokenKind::LeftParen);
        match token.kind {
            TokenKind::UnicodeIdent if is_call => care.add(Care::UNSEEN),
            TokenKind::Ident | TokenKind::QuotedIdent => {
                if !is_call && functions.is_empty() {
                    continue;
                }
                let called = name(sql, Some(token));
                // A function of a row may be written like one of its columns.
                let is_attribute = at > 0 && tokens.get(at - 1).is_some_and(|before| before.kind == TokenKind::Dot);
                let found = if is_call || is_attribute { functions.function(&called) } else { None };
                for found in found.into_iter().chain(functions.table(&called)) {
                    care.add(found.care);
                    writing.add(found.writing);
                    names.extend(found.settings.iter().cloned());
                }
                if is_call {
                    care.add(builtin(&called, sql, tokens.get(at + 2..).unwrap_or_default(), names));
                }
            }
            _ => {}
        }
    }
    if !writing.is_nothing() && (0..tokens.len()).any(|at| writes(&name(sql, tokens.get(at)))) {
        care.add(writing);
    }
    care
}

/// Whether a word is found in every statement that fires triggers, or computes defaults and constraints.
fn writes(word: &str) -> bool {
    let words = ["insert", "update", "delete", "merge", "copy", "truncate", "alter", "import", "call", "refresh"];
    words.contains(&word)
}

/// What PostgreSQL's own functions do, and those of well-known extensions; `arguments` follow the parenthesis.
pub fn builtin(called: &str, sql: &[u8], arguments: &[Token], names: &mut Vec<String>) -> Care {
    match called {
        "set_config" if local_only(sql, arguments) => Care::CLEAN,
        "set_config" => match arguments.first().filter(|_| argument_is_one_token(arguments)) {
            Some(token) if matches!(token.kind, TokenKind::String(_)) => {
                let setting = decode_string(token.bytes(sql), LexOptions::default());
                names.extend(setting.map(|setting| setting.to_ascii_lowercase()));
                Care::NAMED
            }
            _ => Care::SETTINGS,
        },
        "nextval" | "setval" => Care::DRAWS,
        "pg_notify" => Care::NOTIFIES,
        "currval" | "lastval" => Care::ASKS,
        "set_limit" => {
            names.push("pg_trgm.similarity_threshold".to_owned());
            Care::NAMED
        }
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            Care::STATE
        }
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => Care::ENDS,
        "setseed"
        | "dblink_connect"
        | "dblink_connect_u"
        | "pg_create_logical_replication_slot"
        | "pg_create_physical_replication_slot"
        | "pg_replication_origin_session_setup" => Care::STAYS,
        // They run SQL that they are given as text.
        "query_to_xml"
        | "query_to_xmlschema"
        | "query_to_xml_and_xmlschema"
        | "ts_stat"
        | "ts_rewrite"
        | "crosstab"
        | "crosstab2"
        | "crosstab3"
        | "crosstab4"
        | "connectby"
        | "xpath_table"
        | "set_user"
        | "reset_user"
        | "set_session_auth" => Care::UNSEEN,
        _ => Care::CLEAN,
    }
}

fn argument_is_one_token(arguments: &[Token]) -> bool {
    arguments.get(1).is_some_and(|token| token.kind == TokenKind::Comma)
}

/// Whether a call of set_config, given from behind its parenthesis, ends with the constant `true`.
fn local_only(sql: &[u8], arguments: &[Token]) -> bool {
    let mut depth = 0usize;
    let close = arguments.iter().position(|token| match token.kind {
        TokenKind::LeftParen => {
            depth += 1;
            false
        }
        TokenKind::RightParen if depth == 0 => true,
        TokenKind::RightParen => {
            depth -= 1;
            false
        }
        _ => false,
    });
    let Some(close) = close.filter(|&close| close >= 2) else { return false };
    name(sql, arguments.get(close - 1)) == "true"
        && arguments.get(close - 2).is_some_and(|token| token.kind == TokenKind::Comma)
}

/// Adds everything in `text` that could be the name of a custom setting: words joined by dots, in strings too.
pub fn dotted_names(text: &[u8], names: &mut Vec<String>) {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    for word in text.split(|byte| !is_name(byte)) {
        let parts_are_names = || {
            word.split(|byte| *byte == b'.')
                .all(|part| part.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_'))
        };
        if word.len() > MAX_NAME || !word.contains(&b'.') || !parts_are_names() || names.len() >= MAX_NAMES {
            continue;
        }
        let found = String::from_utf8_lossy(word).to_ascii_lowercase();
        if !names.contains(&found) {
            names.push(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_settings_are_found_anywhere() {
        let mut names = Vec::new();
        dotted_names(b"execute 'set App.Tenant = ' || x; a.b.c, 1.5 .x y. 'my.app.tenant'", &mut names);
        assert_eq!(names, ["app.tenant", "a.b.c", "my.app.tenant"]);
    }
}
