//! The house rules, read from the sources: floors, sizes, what no file may say.
//!
//! Every check is a function from one source to its complaints, and has a test that it can fail.

mod source;

use std::fs;
use std::path::Path;

use self::source::Source;

/// A room and the rooms it may import from besides those below its floor.
struct Room {
    name: &'static str,
    floor: u8,
    arrows: &'static [&'static str],
}

const fn room(name: &'static str, floor: u8, arrows: &'static [&'static str]) -> Room {
    Room { name, floor, arrows }
}

/// The floor map of `src/lib.rs`.
const ROOMS: &[Room] = &[
    room("error", 0, &[]),
    room("wire", 1, &[]),
    room("sql", 1, &[]),
    room("config", 1, &[]),
    room("route", 2, &[]),
    room("workload", 2, &[]),
    room("logs", 2, &["workload"]),
    room("lint", 2, &["route", "workload"]),
    room("advise", 2, &["route", "workload"]),
    room("net", 3, &[]),
    room("pool", 3, &["net"]),
    room("exec", 3, &["pool", "net"]),
    room("db", 3, &["net"]),
    room("report", 3, &[]),
    room("proxy", 4, &["web"]),
    room("web", 4, &[]),
    room("cli", 5, &[]),
    room("main", 6, &[]),
    room("lib", 6, &[]),
];

/// Rooms without I/O, clock or globals.
const PURE_ROOMS: &[&str] = &["route", "lint", "advise", "logs", "workload"];

const MAX_CODE_LINES: usize = 500;

fn find_room(name: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.name == name)
}

fn may_import(from: &Room, to: &Room) -> bool {
    from.name == to.name || to.floor < from.floor || from.arrows.contains(&to.name)
}

/// The rooms that the code names by `crate::room`, `crate::{room, ..}` or enough `super::`.
fn imported_rooms(source: &Source) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let rest = &source.code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(heads_of_group(group)),
            None => rooms.push(leading_ident(rest)),
        }
    }
    let root = "super::".repeat(source.depth());
    for (at, _) in source.code.match_indices(&root) {
        let part_of_longer_path = source.code[..at].ends_with("::");
        if !part_of_longer_path {
            rooms.push(leading_ident(&source.code[at + root.len()..]));
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn leading_ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first identifier of each member of `{a::b, c::{d, e}, f}`, the opening brace taken off.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut fresh) = (Vec::new(), 1_u32, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return heads,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && depth == 1 && !c.is_whitespace() => {
                heads.push(leading_ident(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn check_floors(source: &Source) -> Vec<String> {
    let Some(from) = find_room(source.room()) else {
        return vec![format!("`{}` is on no floor: add it to the floor map here and in src/lib.rs", source.room())];
    };
    let known = imported_rooms(source).into_iter().filter_map(|name| find_room(&name));
    known
        .filter(|to| !may_import(from, to))
        .map(|to| format!("{} (floor {}) imports from {} (floor {})", from.name, from.floor, to.name, to.floor))
        .collect()
}

fn check_opening(source: &Source) -> Vec<String> {
    let opens = source.raw.starts_with("//! ");
    (!opens).then(|| "does not open with `//!`".to_owned()).into_iter().collect()
}

fn check_size(source: &Source) -> Vec<String> {
    let lines = source.code_lines();
    (lines > MAX_CODE_LINES)
        .then(|| format!("{lines} lines of code before its tests; split it by meaning under {MAX_CODE_LINES}"))
        .into_iter()
        .collect()
}

fn check_parser_crate(source: &Source) -> Vec<String> {
    let named = source.room() != "sql" && words(&source.code).any(|word| word == "sqlparser");
    named.then(|| "names the crate sqlparser; only sql/ may".to_owned()).into_iter().collect()
}

fn check_purity(source: &Source) -> Vec<String> {
    if !PURE_ROOMS.contains(&source.room()) {
        return Vec::new();
    }
    let mut complaints: Vec<String> = ["tokio", "Instant", "SystemTime", "thread_local"]
        .into_iter()
        .filter(|forbidden| words(&source.code).any(|word| word == *forbidden))
        .map(|forbidden| format!("a pure room names {forbidden}"))
        .collect();
    for line in source.code.lines().map(str::trim_start) {
        let declares = ["static ", "pub static ", "pub(super) static ", "pub(crate) static "];
        let mutable = ["static mut", "Mutex", "RwLock", "Atomic", "RefCell"];
        if declares.iter().any(|start| line.starts_with(start)) && mutable.iter().any(|kind| line.contains(kind)) {
            complaints.push(format!("a pure room has mutable global state: {line}"));
        }
    }
    complaints
}

fn check_forbidden_code(source: &Source) -> Vec<String> {
    let always = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "allow(dead_code)", "dbg!("];
    let printing = ["println!(", "print!(", "eprintln!(", "eprint!("];
    let mut complaints = Vec::new();
    for (number, line) in (1..).zip(source.code.lines()) {
        for forbidden in always.iter().chain(&printing) {
            let found = line.match_indices(forbidden).any(|(at, _)| {
                let inside_a_word = line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                !inside_a_word || forbidden.starts_with('.')
            });
            if found {
                let hint = if printing.contains(forbidden) { " (print through cli::output)" } else { "" };
                complaints.push(format!("line {number}: `{forbidden}`{hint}"));
            }
        }
    }
    complaints
}

fn check_leftovers(source: &Source) -> Vec<String> {
    ["TODO", "FIXME", "XXX"]
        .into_iter()
        .filter(|marker| words(&source.raw).any(|word| word == *marker))
        .map(|marker| format!("says {marker}: do it or open an issue"))
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Every complaint about one file.
fn check(source: &Source) -> Vec<String> {
    let mut complaints = check_opening(source);
    complaints.extend(check_leftovers(source));
    complaints.extend(check_parser_crate(source));
    if !source.is_test {
        complaints.extend(check_floors(source));
        complaints.extend(check_size(source));
        complaints.extend(check_purity(source));
        complaints.extend(check_forbidden_code(source));
    }
    complaints.into_iter().map(|complaint| format!("src/{}: {complaint}", source.path)).collect()
}

/// Files that no parent declares as a module: the compiler never sees them, so nothing in them is checked or run.
fn orphans(found: &[Source]) -> Vec<String> {
    let declared: Vec<String> = found.iter().flat_map(Source::declared_modules).collect();
    let roots = ["lib.rs", "main.rs"];
    let lost = found.iter().filter(|source| !roots.contains(&source.path.as_str()));
    lost.filter(|source| !declared.contains(&source.module())).map(|source| source.path.clone()).collect()
}

fn sources(root: &Path, below: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &root, &mut found);
    let tests: Vec<String> = found.iter().flat_map(Source::declared_tests).collect();
    for source in &mut found {
        source.is_test = tests.iter().any(|module| source.is_of_module(module));
    }
    assert!(found.len() > 20, "only {} sources found: is the path right?", found.len());
    let complaints: Vec<String> = found.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn no_file_is_forgotten() {
    for (dir, fewest) in [("src", 20), ("tests/it", 5)] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let mut found = Vec::new();
        sources(&root, &root, &mut found);
        assert!(found.len() > fewest);
        assert_eq!(orphans(&found), Vec::<String>::new(), "below {dir}, declared by no `mod`");
    }
}

#[test]
fn a_forgotten_file_is_found() {
    let file = |path: &str, code: &str| Source::new(path, code);
    let tree = [
        file("lib.rs", "pub mod lint;\n"),
        file("lint/mod.rs", "mod runner;\npub(crate) mod rule;\n#[cfg(test)]\nmod tests;\n"),
        file("lint/runner.rs", "mod deep;\n"),
        file("lint/runner/deep.rs", ""),
        file("lint/rule.rs", ""),
        file("lint/tests.rs", ""),
        file("lint/lost.rs", "// mod lost;\n"),
    ];
    assert_eq!(orphans(&tree), ["lint/lost.rs"]);
}

#[test]
fn a_broken_floor_is_found() {
    let complaints = |path: &str, code: &str| check_floors(&Source::new(path, code)).len();
    assert_eq!(complaints("lint/mod.rs", "use crate::db::connect;"), 1, "upwards");
    assert_eq!(complaints("sql/mod.rs", "use crate::wire::Frame;"), 1, "sideways");
    assert_eq!(complaints("workload/mod.rs", "fn f() { crate::logs::g() }"), 1, "sideways, in a path");
    assert_eq!(complaints("lint/mod.rs", "use crate::{error::Error, exec::{a, db}, pool};"), 2, "in a group");
    assert_eq!(complaints("lint/runner.rs", "use super::super::net::x;"), 1, "by super");
    assert_eq!(complaints("cellar/mod.rs", ""), 1, "a room on no floor");
    assert_eq!(complaints("lint/mod.rs", "use crate::{error::Error, route, sql::facts, workload};"), 0, "arrows");
    assert_eq!(
        complaints("exec/mod.rs", "use crate::net::x; // crate::proxy\n"),
        0,
        "arrows chain, comments do not count"
    );
    assert_eq!(complaints("lint/runner.rs", "use super::Rule; use super::super::sql::x;"), 0, "by super, allowed");
}

#[test]
fn an_untidy_file_is_found() {
    let complaints = |path: &str, code: &str| check(&Source::new(path, code));
    let one = |path: &str, code: &str| complaints(path, code).len() == 1;
    assert!(one("lint/a.rs", "fn f() {}\n"), "no opening");
    assert!(one("lint/a.rs", "//! A.\nuse sqlparser::ast;\n"));
    assert!(one("lint/a.rs", "//! A.\nuse std::time::Instant;\n"));
    assert!(one("lint/a.rs", "//! A.\nstatic CACHE: Mutex<u8> = Mutex::new(0);\n"));
    assert!(one("db/a.rs", "//! A.\nfn f() { x.unwrap() }\n"));
    assert!(one("db/a.rs", "//! A.\nfn f() { panic!(\"no\") }\n"));
    assert!(one("db/a.rs", "//! A.\nfn f() { println!(\"hello\") }\n"));
    assert!(one("db/a.rs", concat!("//! A.\n// TO", "DO: more\n")));
    assert!(one("db/a.rs", &format!("//! A.\n{}", "fn f() {}\n".repeat(MAX_CODE_LINES + 1))));
    assert!(complaints("sql/a.rs", "//! A.\nuse sqlparser::ast;\n").is_empty());
    assert!(complaints("db/a.rs", "//! A.\nfn f() { x.unwrap_or(1); y(\"panic!(\") }\n").is_empty());
    assert!(complaints("db/a.rs", "//! A.\n#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }\n").is_empty());
    let mut of_tests = Source::new("db/odd.rs", "//! A.\nfn f() { x.unwrap() }\nuse sqlparser::ast;\n");
    of_tests.is_test = true;
    assert_eq!(check(&of_tests).len(), 1, "tests may unwrap, but not name the parser");
}
