//! What a function that users have defined may leave in its session, read from its body.

use std::collections::HashMap;

use crate::proxy::care::Care;
use crate::proxy::changes::{Change, change, name};
use crate::proxy::functions::{Functions, Trait};
use crate::proxy::traces;
use crate::sql::lexer::{LexOptions, Lexer, Token, TokenKind};

/// A function as its definition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    /// Its name; several may share one.
    pub name: String,
    /// The language of its body.
    pub language: String,
    /// Its body, or its whole definition where the body is not kept as text.
    pub body: String,
}

/// The functions that may leave something, by name, given what is known of these and of tables already.
pub fn judge(defined: &[Defined], known: &Functions) -> HashMap<String, Trait> {
    let mut current = Functions::with(known, HashMap::new());
    let bodies: Vec<(&Defined, Vec<Token>)> = defined.iter().map(|defined| (defined, tokens(&defined.body))).collect();
    loop {
        let mut more = false;
        let mut found = current.functions().clone();
        for (defined, tokens) in &bodies {
            let left = body(defined, tokens, &current);
            if !left.care.is_nothing() {
                more |= found.entry(defined.name.clone()).or_default().join(&left);
            }
        }
        if !more {
            return found;
        }
        current = Functions::with(known, found);
    }
}

fn tokens(body: &str) -> Vec<Token> {
    Lexer::new(body.as_bytes(), LexOptions::default()).collect()
}

/// What one function may leave.
fn body(defined: &Defined, tokens: &[Token], known: &Functions) -> Trait {
    let sql = defined.body.as_bytes();
    let mut settings = Vec::new();
    let mut care = match defined.language.as_str() {
        "sql" | "plpgsql" => statements(sql, tokens, known, &mut settings),
        // The name of a function in the server.
        "internal" if !["set_config", "advisory"].iter().any(|word| defined.body.contains(word)) => Care::CLEAN,
        _ => Care::UNSEEN,
    };
    if care.has(Care::SETTINGS) {
        care.add(traces::of_hidden(sql));
    }
    if care.has(Care::DEFINES | Care::SETTINGS) && speaks_of_definitions(sql) {
        care.add(Care::TEACHES);
    }
    // What a function defines is looked for when it is committed.
    care = care.without(Care::DEFINES | Care::ENDS);
    if care.has(Care::CREATES) {
        care = care.without(Care::CREATES) | Care::STATE;
    }
    if care.has(Care::NAMED | Care::SETTINGS) {
        traces::dotted_names(sql, &mut settings);
    }
    Trait { care, settings, ..Trait::default() }
}

/// Whether a text that cannot be followed may make functions, or things that call them.
pub fn speaks_of_definitions(sql: &[u8]) -> bool {
    let makes = ["create", "alter", "replace"];
    let what = [
        "function",
        "procedure",
        "routine",
        "aggregate",
        "operator",
        "trigger",
        "rule",
        "view",
        "policy",
        "domain",
        "cast",
        "extension",
        "default",
        "generated",
        "check",
        "attach",
        "inherit",
        "references",
        "rename",
    ];
    let text = String::from_utf8_lossy(sql).to_ascii_lowercase();
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.clone().any(|word| makes.contains(&word)) && words.any(|word| what.contains(&word))
}

fn statements(sql: &[u8], tokens: &[Token], known: &Functions, settings: &mut Vec<String>) -> Care {
    let mut care = traces::of_calls(sql, tokens, known, settings);
    let word = |at: usize| name(sql, tokens.get(at));
    // A whole definition, which stands for a body that is not kept as text, begins with what is no statement of it.
    let mut begins = !(word(0) == "create" && word(1) == "or" && matches!(word(3).as_str(), "function" | "procedure"));
    for (at, token) in tokens.iter().enumerate() {
        let this = word(at);
        let grants = matches!(word(at + 1).as_str(), "function" | "procedure" | "on");
        if this == "execute" && !grants {
            // It runs text.
            return care | Care::UNSEEN;
        }
        if begins && token.kind == TokenKind::Ident {
            let rest = tokens.get(at..).unwrap_or_default();
            let end = rest.iter().position(|token| token.kind == TokenKind::Semicolon).unwrap_or(rest.len());
            care.add(statement(sql, rest.get(..end).unwrap_or_default(), settings));
        }
        begins = token.kind == TokenKind::Semicolon
            || token.bytes(sql) == b">>"
            || matches!(this.as_str(), "begin" | "then" | "else" | "loop" | "atomic");
    }
    care
}

fn statement(sql: &[u8], tokens: &[Token], settings: &mut Vec<String>) -> Care {
    let care = match change(sql, tokens) {
        Some(Change::Follow(effect)) => {
            settings.extend(effect.names());
            effect.care()
        }
        Some(Change::Named(names)) => {
            settings.extend(names);
            Care::NAMED
        }
        Some(Change::Any) => Care::SETTINGS,
        Some(Change::Nothing) | None => Care::CLEAN,
    };
    care | match name(sql, tokens.first()).as_str() {
        // The procedure itself is looked at by its name, and INTO gives to a variable.
        "call" | "select" | "with" => Care::CLEAN,
        _ => traces::of_command(sql, tokens),
    }
}

/// A relation and a function that it calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// A table, a view or an aggregate.
    pub relation: String,
    /// The function's name, or what stands for several.
    pub function: String,
    /// It is called only when something is written.
    pub writing: bool,
}

/// The tables and views whose use may leave something: `reaches` are pairs of a relation and another that its use may touch. What `*` calls may leave anything, `?` asks what was drawn from a sequence, and `+` draws.
pub fn spread(
    functions: &HashMap<String, Trait>,
    callers: &[Caller],
    reaches: &[(String, String)],
) -> HashMap<String, Trait> {
    let mut tables: HashMap<String, Trait> = HashMap::new();
    for Caller { relation, function, writing } in callers {
        // Functions in C are known by their names.
        let mut settings = Vec::new();
        let care = match function.strip_prefix('*') {
            Some(text) => {
                traces::dotted_names(text.as_bytes(), &mut settings);
                Care::UNSEEN
            }
            None if function == "?" => Care::ASKS,
            None if function == "+" => Care::DRAWS,
            None => traces::builtin(function, b"", &[], &mut settings).without(Care::ENDS),
        };
        let by_name = Trait { care, settings, ..Trait::default() };
        for found in functions.get(function).into_iter().chain(Some(&by_name)).filter(|found| !found.care.is_nothing())
        {
            let mut found = found.clone();
            if *writing {
                found.writing = found.care.only(Care::DRAWS | Care::ASKS | Care::NOTIFIES);
                found.care = found.care.without(found.writing);
            }
            tables.entry(relation.clone()).or_default().join(&found);
        }
    }
    loop {
        let mut more = false;
        for (from, to) in reaches {
            if let Some(found) = tables.get(to).cloned() {
                more |= tables.entry(from.clone()).or_default().join(&found);
            }
        }
        if !more {
            return tables;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(functions: &[(&str, &str, &str)]) -> HashMap<String, Trait> {
        let defined = functions.iter().map(|(name, language, body)| Defined {
            name: (*name).to_owned(),
            language: (*language).to_owned(),
            body: (*body).to_owned(),
        });
        judge(&defined.collect::<Vec<_>>(), &Functions::default())
    }

    #[test]
    fn ordinary_bodies_leave_nothing() {
        let bodies = [
            ("a", "plpgsql", "declare x int; begin update t set a = 1; select 1 into x; return x; end"),
            ("b", "sql", "insert into t values (1) on conflict (a) do update set a = 2 returning a"),
            ("c", "plpgsql", "begin new.at := now(); perform pg_notify('c', new.a::text); return new; end"),
            (
                "d",
                "plpgsql",
                "begin perform set_config('a.b', 'x', true); set local work_mem = '1MB'; perform a(); end",
            ),
            ("e", "sql", "select pg_advisory_xact_lock(1)"),
        ];
        let judged = judged(&bodies);
        assert!(judged.values().all(|found| found.care.is_clean() && found.settings.is_empty()), "{judged:?}");
        assert!(judged["c"].care.has(Care::NOTIFIES) && !judged["a"].care.has(Care::NOTIFIES));
    }

    #[test]
    fn what_bodies_leave_is_found_through_calls() {
        let found = judged(&[
            (
                "sets",
                "plpgsql",
                "begin if true then set app.one = 'x'; end if; perform set_config('work_mem', x, false); end",
            ),
            ("locks", "sql", "select pg_advisory_lock(1)"),
            ("makes", "plpgsql", "begin create temp table if not exists t (a int); end"),
            ("runs", "plpgsql", "begin execute 'set ' || x || ' to app.two'; end"),
            ("other", "plpython3u", "plpy.execute('set app.three to 1')"),
            ("middle", "sql", "select sets()"),
            ("outer", "plpgsql", "begin return middle() + locks(); end"),
        ]);
        let care = |name: &str| found[name].care;
        assert_eq!((care("sets"), care("middle")), (Care::NAMED, Care::NAMED));
        assert_eq!((care("locks"), care("makes")), (Care::STATE, Care::STATE));
        let unseen = Care::UNSEEN | Care::DRAWS;
        assert_eq!((care("runs"), care("other")), (unseen, unseen));
        assert_eq!(care("outer"), Care::NAMED | Care::STATE);
        for name in ["app.one", "work_mem"] {
            assert!(found["outer"].settings.contains(&name.to_owned()), "{:?}", found["outer"]);
        }
        assert!(found["runs"].settings.contains(&"app.two".to_owned()));
        assert!(found["other"].settings.contains(&"app.three".to_owned()));
    }

    #[test]
    fn tables_do_what_their_triggers_do() {
        let functions = judged(&[
            ("sets", "sql", "select set_config('a.b', 'x', false)"),
            ("draws", "sql", "insert into t default values"),
        ]);
        let calls = |relation: &str, function: &str, writing| Caller {
            relation: relation.to_owned(),
            function: function.to_owned(),
            writing,
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let tables = spread(
            &functions,
            &[calls("part", "sets", false), calls("plain", "harmless", false), calls("noted", "draws", true)],
            &[pair("parent", "part"), pair("view", "parent"), pair("plain", "other")],
        );
        assert_eq!(tables.len(), 4);
        assert_eq!(tables["view"].settings, ["a.b"]);
        assert_eq!((tables["noted"].care, tables["noted"].writing), (Care::CLEAN, Care::DRAWS));
    }
}
