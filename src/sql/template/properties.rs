//! Properties of scanning, over statements and over bytes nobody would write.

use proptest::prelude::*;

use super::*;
use crate::sql::lexer::split_statements;

/// One token of a made-up statement, before white space and case are chosen.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Word(String),
    Quoted(String),
    Operator(&'static str),
    Punctuation(&'static str),
    Constant,
    /// `IN (..)` with that many constants.
    List(usize),
    /// `VALUES (..)` with that many rows of two.
    Rows(usize),
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "select", "from", "where", "and", "or", "not", "order", "group", "limit", "null", "as", "on", "join",
            "case", "end", "date", "is", "like", "set", "update", "delete", "distinct", "union", "array", "interval",
        ])
        .prop_map(str::to_owned),
        "[a-df-tv-wyz_][a-z0-9_]{0,20}",
    ]
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => word().prop_map(Part::Word),
        1 => "[A-Za-z .]{1,9}".prop_map(Part::Quoted),
        2 => prop::sample::select(vec!["=", "<", "<>", "!=", "||", "->>", "@>", "*", "/", "~*", "?", "#-"]).prop_map(Part::Operator),
        1 => prop::sample::select(vec![",", "(", ")", ".x", "::", "[", "]", ":="]).prop_map(Part::Punctuation),
        3 => Just(Part::Constant),
        1 => (1usize..6).prop_map(Part::List),
        1 => (1usize..6).prop_map(Part::Rows),
    ]
}

/// Choices that must not matter, drawn from bytes in turn.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl<'a> Choices<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter().cycle())
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[*self.0.next().unwrap() as usize % items.len()]
    }

    fn space(&mut self) -> &'static str {
        self.pick(&[" ", "\n", "\t ", " /* a /* b */ 'c */ ", " -- it's\n", "\r\n", " /**/ "])
    }

    fn recase(&mut self, word: &str) -> String {
        word.chars()
            .map(|letter| if self.pick(&[true, false]) { letter.to_ascii_uppercase() } else { letter })
            .collect()
    }

    /// A constant that keeps its kind, for the key.
    fn string(&mut self) -> &'static str {
        self.pick(&["'a'", "''", "'it''s'", "'/* no */'", "'-- no'", "'x'\n'y'", "'$$'", "'\\'"])
    }

    /// Any constant, for the fingerprint.
    fn constant(&mut self) -> &'static str {
        self.pick(&[
            "1.5",
            "'b'",
            "E'\\''",
            "$1",
            "$77",
            "2e5",
            "B'1'",
            "$q$ ' $q$",
            "U&'x' UESCAPE '!'",
            "99999999999999999999.0",
            "'z'",
        ])
    }
}

fn render(parts: &[Part], choices: &mut Choices<'_>, exact: bool) -> String {
    let mut sql = String::new();
    let mut open = Vec::new();
    for part in parts {
        let constant = |choices: &mut Choices<'_>| if exact { choices.string() } else { choices.constant() };
        match part {
            Part::Word(word) => sql.push_str(&choices.recase(word)),
            Part::Quoted(name) => sql.push_str(&format!("\"{name}\"")),
            Part::Operator(text) => sql.push_str(text),
            Part::Punctuation(text) => {
                match *text {
                    "(" => open.push(')'),
                    "[" => open.push(']'),
                    ")" | "]" => drop(open.pop()),
                    _ => {}
                }
                sql.push_str(text);
            }
            // Two strings in a row would be one when a line break comes between them.
            Part::Constant => sql.push_str(&format!("= {}", constant(choices))),
            Part::List(length) => {
                let length = if exact { *length } else { choices.pick(&[1, 2, 3, 9]) };
                let items: Vec<&str> = (0..length).map(|_| constant(choices)).collect();
                sql.push_str(&format!("in{}({})", choices.space(), items.join(choices.pick(&[",", " , ", ",/**/"]))));
            }
            Part::Rows(length) => {
                let length = if exact { *length } else { choices.pick(&[1, 2, 3, 9]) };
                let rows: Vec<String> =
                    (0..length).map(|_| format!("({},{})", constant(choices), constant(choices))).collect();
                sql.push_str(&format!("values{}{}", choices.space(), rows.join(choices.pick(&[",", " , "]))));
            }
        }
        sql.push_str(choices.space());
    }
    // Inside brackets a `;` ends nothing.
    sql.extend(open.into_iter().rev());
    sql.push_str(choices.pick(&["", ";", " ; ;", "-- end"]));
    sql
}

fn scan(sql: &[u8]) -> (TemplateKey, Fingerprint, Vec<Binding>, bool) {
    let mut scanner = Scanner::new(LexOptions::default());
    let scan = scanner.scan(sql);
    (scan.key, scan.fingerprint, scan.bindings.to_vec(), scan.complete)
}

/// Bytes that are mostly SQL's own characters.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => prop::sample::select(b"'\"$\\-/*eEuUbBxXnN&aA1.0_;:=<>+@?()[],\n\r \t".to_vec()), 1 => any::<u8>()];
    prop_oneof![prop::collection::vec(byte, 0..120), prop::collection::vec(any::<u8>(), 0..120)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_ordered_tokens(bytes in bytes(), standard_conforming_strings in any::<bool>()) {
        let options = LexOptions { standard_conforming_strings };
        let mut end = 0;
        for token in Lexer::new(&bytes, options) {
            prop_assert!(token.start >= end && token.end > token.start && token.end as usize <= bytes.len(), "{token:?}");
            end = token.end;
        }
        let mut scanner = Scanner::new(options);
        let scan = scanner.scan(&bytes);
        let mut end = 0;
        for binding in scan.bindings {
            prop_assert!(binding.start >= end && binding.end > binding.start && binding.end as usize <= bytes.len());
            end = binding.end;
        }
        let _ = crate::sql::lexer::decode_string(&bytes, options);
        let _ = crate::sql::lexer::decode_identifier(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        template_text(&text, options);
        let mut end = 0;
        for range in split_statements(&text, options) {
            prop_assert!(range.start >= end && text.get(range.clone()).is_some_and(|statement| !statement.is_empty()));
            end = range.end;
        }
    }

    #[test]
    fn what_does_not_matter_changes_nothing(parts in prop::collection::vec(part(), 1..30), one in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
        let (one_sql, other_sql) = (render(&parts, &mut Choices::new(&one), true), render(&parts, &mut Choices::new(&other), true));
        prop_assert_eq!(scan(one_sql.as_bytes()).0, scan(other_sql.as_bytes()).0, "{}\n---\n{}", one_sql, other_sql);
        let (one_sql, other_sql) = (render(&parts, &mut Choices::new(&one), false), render(&parts, &mut Choices::new(&other), false));
        prop_assert_eq!(scan(one_sql.as_bytes()).1, scan(other_sql.as_bytes()).1, "{}\n---\n{}", one_sql, other_sql);
        let text = |sql: &str| template_text(sql, LexOptions::default());
        prop_assert_eq!(text(&one_sql), text(&other_sql));
    }

    #[test]
    fn what_matters_changes_everything(parts in prop::collection::vec(part(), 1..30), place in any::<prop::sample::Index>(), new in part()) {
        let place = place.index(parts.len());
        let mut changed = parts.clone();
        changed[place] = new;
        let is_list = |part: &Part| matches!(part, Part::List(_) | Part::Rows(_) | Part::Constant);
        // Inside lists, neighbours may collapse; that is tested elsewhere.
        prop_assume!(changed != parts && !parts.iter().chain(&changed).any(|part| matches!(part, Part::Word(word) if word == "array")));
        let plain = [0u8; 4];
        let (one, other) = (render(&parts, &mut Choices::new(&plain), true), render(&changed, &mut Choices::new(&plain), true));
        let (one_scan, other_scan) = (scan(one.as_bytes()), scan(other.as_bytes()));
        prop_assert_ne!(one_scan.0, other_scan.0, "{}\n---\n{}", one, other);
        if std::mem::discriminant(&parts[place]) != std::mem::discriminant(&changed[place]) || !is_list(&parts[place]) {
            prop_assert_ne!(one_scan.1, other_scan.1, "{}\n---\n{}", one, other);
        }
    }

    #[test]
    fn other_constants_in_their_places_are_the_same_template(parts in prop::collection::vec(part(), 1..30), seed in any::<[u8; 32]>()) {
        let sql = render(&parts, &mut Choices::new(&seed), false);
        let before = scan(sql.as_bytes());
        prop_assert!(before.3);
        let mut spliced = String::new();
        let mut at = 0;
        for binding in &before.2 {
            spliced.push_str(&sql[at..binding.start as usize]);
            spliced.push_str(match binding.kind {
                BindingKind::Number => " 4711.5 ",
                BindingKind::String => " 'spliced' ",
                BindingKind::BitString => " X'0' ",
                BindingKind::Param(_) => " $9 ",
            });
            at = binding.end as usize;
        }
        spliced.push_str(&sql[at..]);
        let after = scan(spliced.as_bytes());
        prop_assert_eq!(before.1, after.1, "{}\n---\n{}", &sql, &spliced);
        prop_assert_eq!(before.2.len(), after.2.len());
    }
}
