//! Goldens of the template engine: `fixtures/templates/*.txt`, and that scanning allocates nothing once warm.
//!
//! A case is the SQL, a line `----`, and what comes of it; cases are parted by a blank line. A file whose name begins with
//! `lex-` shows tokens instead of templates. A case may begin with the line `# backslash escapes` for
//! `standard_conforming_strings = off`. `PGWEIR_UPDATE=1 cargo test --test it templates` rewrites what comes of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pgweir::sql::lexer::{LexOptions, Lexer, TokenKind, decode_identifier, decode_string};
use pgweir::sql::template::{BindingKind, Scanner, template_text};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a thread-local without a destructor
// and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/templates");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The SQL of each case with its options and its text as written.
fn cases(file: &str) -> Vec<(&str, LexOptions)> {
    file.split("\n\n")
        .map(|case| case.trim_matches('\n'))
        .filter(|case| !case.is_empty())
        .map(|case| {
            let sql = case.split_once("\n----").map_or(case, |(sql, _)| sql);
            let off = sql.starts_with("# backslash escapes\n");
            (sql, LexOptions { standard_conforming_strings: !off })
        })
        .collect()
}

fn body(sql: &str) -> &str {
    sql.strip_prefix("# backslash escapes\n").unwrap_or(sql)
}

fn tokens(sql: &str, options: LexOptions) -> String {
    let mut lexer = Lexer::new(sql.as_bytes(), options);
    let mut out = String::new();
    for token in &mut lexer {
        let text = &sql[token.start as usize..token.end as usize];
        write!(out, "{:<18} {}", format!("{:?}", token.kind), text.replace('\n', "\\n")).unwrap();
        let value = match token.kind {
            TokenKind::String(_) => format!("{:?}", decode_string(text.as_bytes(), options)),
            TokenKind::QuotedIdent | TokenKind::UnicodeIdent => format!("{:?}", decode_identifier(text.as_bytes())),
            _ => String::new(),
        };
        out.push_str(&if value.is_empty() { value } else { format!("   {value}") });
        out.push('\n');
    }
    if !lexer.is_complete() {
        out.push_str("incomplete\n");
    }
    out
}

fn template(sql: &str, options: LexOptions) -> String {
    let mut scanner = Scanner::new(options);
    let scan = scanner.scan(sql.as_bytes());
    let text = template_text(sql, options);
    let mut out = format!("{}\n{}", scan.fingerprint, if text.is_empty() { "(nothing)" } else { &text });
    for binding in scan.bindings {
        let kind = match binding.kind {
            BindingKind::Number => "number",
            BindingKind::String => "string",
            BindingKind::BitString => "bits",
            BindingKind::Param(_) => "param",
        };
        let text = &sql[binding.start as usize..binding.end as usize];
        write!(out, "\n  {kind:<6} {}", text.replace('\n', "\\n")).unwrap();
    }
    out.push('\n');
    if scan.statements != 1 {
        writeln!(out, "{} statements", scan.statements).unwrap();
    }
    if !scan.complete {
        out.push_str("incomplete\n");
    }
    out
}

#[test]
fn goldens() {
    let update = std::env::var_os("PGWEIR_UPDATE").is_some();
    let files = files();
    assert!(files.len() >= 10, "the goldens are missing: {files:?}");
    for path in files {
        let written = std::fs::read_to_string(&path).unwrap();
        let of_lexer = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lex-"));
        let mut found = String::new();
        for (sql, options) in cases(&written) {
            let outcome = if of_lexer { tokens(body(sql), options) } else { template(body(sql), options) };
            writeln!(found, "{sql}\n----\n{outcome}").unwrap();
        }
        let found = format!("{}\n", found.trim_end());
        if update {
            std::fs::write(&path, found).unwrap();
        } else {
            assert_eq!(found, written, "{} (PGWEIR_UPDATE=1 rewrites it)", path.display());
        }
    }
}

#[test]
fn scanning_allocates_nothing_once_warm() {
    let texts: Vec<String> = files().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let statements: Vec<&str> = texts.iter().flat_map(|text| cases(text)).map(|(sql, _)| body(sql)).collect();
    assert!(statements.len() > 100);
    let mut scanner = Scanner::new(LexOptions::default());
    let pass =
        |scanner: &mut Scanner| statements.iter().fold(0, |sum, sql| sum ^ scanner.scan(sql.as_bytes()).fingerprint.0);
    let first = pass(&mut scanner);
    let before = ALLOCATIONS.with(Cell::get);
    let second = pass(&mut scanner);
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!(first, second);
    // The counter counts.
    drop(std::hint::black_box(vec![first]));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1);
}
