//! Just enough of Rust's lexical rules to tell code from comments and strings.

/// A source file as the checks see it.
pub struct Source {
    /// Path below `src`, such as `lint/mod.rs`.
    pub path: String,
    /// The file as written.
    pub raw: String,
    /// The same number of lines, with comments and the insides of strings blanked, up to its tests.
    pub code: String,
    /// Whether all of it is tests: its parent declares it under `#[cfg(test)]`.
    pub is_test: bool,
}

impl Source {
    /// Reads `raw` as the file at `path`.
    pub fn new(path: &str, raw: &str) -> Self {
        let code = blank_comments_and_strings(raw);
        let cut = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
        Self { path: path.to_owned(), raw: raw.to_owned(), code: code[..cut].to_owned(), is_test: false }
    }

    /// The modules, as paths without `.rs`, that this file declares for tests only.
    pub fn declared_tests(&self) -> Vec<String> {
        let dir = self.module();
        let after = self.raw.split("#[cfg(test)]\nmod ").skip(1);
        let names = after.filter_map(|text| text.split_once(';').map(|(name, _)| name));
        names.filter(|name| !name.contains(char::is_whitespace)).map(|name| format!("{dir}/{name}")).collect()
    }

    /// This file's module as a path without `.rs`: `lint` for `lint/mod.rs`, `lint/runner` for `lint/runner.rs`.
    pub fn module(&self) -> String {
        let path = self.path.strip_suffix("/mod.rs").or(self.path.strip_suffix(".rs"));
        path.unwrap_or_default().to_owned()
    }

    /// The modules that this file declares with a file of their own, as paths without `.rs`.
    pub fn declared_modules(&self) -> Vec<String> {
        let own = match self.path.as_str() {
            "lib.rs" | "main.rs" => String::new(),
            _ => format!("{}/", self.module()),
        };
        let text = blank_comments_and_strings(&self.raw);
        let names = text.lines().filter_map(|line| {
            let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            rest.trim_start_matches("pub(super) ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        });
        names.map(|name| format!("{own}{name}")).collect()
    }

    /// Whether this file is `module` (a path without `.rs`) or below it.
    pub fn is_of_module(&self, module: &str) -> bool {
        self.path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// The room: the first folder, or the file's name where it is in none.
    pub fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The module path's length: `lint/mod.rs` is 1, `lint/runner.rs` 2.
    pub fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    /// Lines of code before the tests; blank lines and comments do not count.
    pub fn code_lines(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }
}

/// Replaces comments and the insides of string and character literals by spaces; line ends stay.
pub fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        let kept = if end.blank { 0 } else { end.at - at };
        for (offset, c) in chars[at..end.at].iter().enumerate() {
            out.push(if offset < kept || *c == '\n' { *c } else { ' ' });
        }
        at = end.at;
    }
    out
}

struct End {
    at: usize,
    blank: bool,
}

fn token_end(chars: &[char], at: usize) -> End {
    let here = |offset: usize| chars.get(at + offset).copied();
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], here(1)) {
        ('/', Some('/')) => End { at: find(chars, at, |c| c == '\n'), blank: true },
        ('/', Some('*')) => End { at: block_comment_end(chars, at), blank: true },
        ('"', _) => End { at: quoted_end(chars, at, '"'), blank: true },
        ('r', Some('"' | '#')) if !word_before => raw_string_end(chars, at),
        // A lifetime has no closing quote right after one character.
        ('\'', Some('\\')) => End { at: quoted_end(chars, at, '\''), blank: true },
        ('\'', Some(_)) if here(2) == Some('\'') => End { at: at + 3, blank: true },
        _ => End { at: at + 1, blank: false },
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| wanted(*c)).map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> End {
    let open = find(chars, at + 1, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        // A raw identifier.
        return End { at: at + 1, blank: false };
    }
    let hashes = open - at - 1;
    let mut i = open + 1;
    while i < chars.len() {
        let closing = chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closing {
            return End { at: i + 1 + hashes, blank: true };
        }
        i += 1;
    }
    End { at: chars.len(), blank: true }
}

#[test]
fn comments_and_strings_are_blanked_and_code_is_kept() {
    let blanked = |text: &str| blank_comments_and_strings(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(blanked("a // b\nc /* d /* e */ f */ g"), "a c g");
    assert_eq!(blanked(r##"x("a\"b", r#"c "d" e"#, 'f', '\'', b"g") + y"##), "x( , , , , b ) + y");
    assert_eq!(blanked("fn f<'a>(x: &'a str, r#type: u8) {}"), "fn f<'a>(x: &'a str, r#type: u8) {}");
    assert_eq!(blank_comments_and_strings("\"a\nb\"\n/*\n*/").lines().count(), 4);
}

#[test]
fn code_ends_where_the_tests_begin() {
    let source =
        Source::new("lint/mod.rs", "//! Room.\nfn a() {}\n\n// b\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n");
    assert_eq!(source.code_lines(), 1);
    assert_eq!((source.room(), source.depth()), ("lint", 1));
    assert_eq!(Source::new("error.rs", "").room(), "error");
}

#[test]
fn modules_of_tests_are_known_from_their_parent() {
    let parent =
        Source::new("sql/template.rs", "#[cfg(test)]\nmod properties;\n#[cfg(test)]\nmod tests {\n    mod x;\n}\n");
    assert_eq!(parent.declared_tests(), ["sql/template/properties"]);
    assert!(Source::new("sql/template/properties.rs", "").is_of_module("sql/template/properties"));
    assert!(!Source::new("sql/template/properties2.rs", "").is_of_module("sql/template/properties"));
    assert_eq!(Source::new("logs/mod.rs", "#[cfg(test)]\nmod tests;\n").declared_tests(), ["logs/tests"]);
}
