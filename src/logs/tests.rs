//! Logs as they are written by servers, whole, cut, and hostile.

use proptest::prelude::*;

use super::*;
use crate::sql::explain::PlanNode;
use crate::workload::{Counts, Observation, Outcome};

/// Writes down what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Sink for Notes {
    fn observe(&mut self, seen: &Observation<'_>) {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
        let outcome = match seen.outcome {
            Outcome::Executed => seen.duration_ms.map_or("ran".to_owned(), |milliseconds| format!("{milliseconds} ms")),
            Outcome::Failed => "failed".to_owned(),
            Outcome::TempFile(bytes) => format!("temp {bytes}"),
            Outcome::LockWait(milliseconds) => format!("waited {milliseconds}"),
        };
        self.0.push(format!(
            "{}:{} {} {}@{} {} [{}] {}",
            seen.line,
            seen.session,
            outcome,
            text(seen.user),
            text(seen.database),
            text(seen.application),
            text(seen.parameters),
            text(Some(seen.sql)),
        ));
    }

    fn duration(&mut self, session: u64, milliseconds: f64) {
        self.0.push(format!("{session} took {milliseconds}"));
    }

    fn planned(&mut self, seen: &Observation<'_>, plan: PlanNode) {
        let (sql, ms) = (String::from_utf8_lossy(seen.sql), seen.duration_ms.unwrap_or_default());
        self.0.push(format!("{}:{} {} in {ms} ms {sql}", seen.line, seen.session, plan.node_type));
    }

    fn counted(&mut self, seen: &Observation<'_>, counts: Counts) {
        let sql = String::from_utf8_lossy(seen.sql);
        self.0.push(format!("{}: {} in {} ms {sql}", seen.line, counts.calls, counts.total_ms));
    }
}

/// Hands out a few bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.len().min(self.1).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

pub(super) fn notes(log: &[u8], options: &Options) -> (Vec<String>, Result<Report>) {
    let mut sink = Notes::default();
    let report = read(&mut Drip(log, usize::MAX), "x.log", options, &mut sink);
    (sink.0, report)
}

pub(super) fn read_auto(log: &str) -> (Vec<String>, Report) {
    let (notes, report) = notes(log.as_bytes(), &Options::default());
    (notes, report.expect("a log"))
}

pub(super) const STDERR: &str = "\
2026-11-22 22:41:36.123 UTC [42] app@shop LOG:  duration: 1.500 ms  statement: SELECT *
\tFROM t
\t\tWHERE x = 'a'
2026-11-22 22:41:36.124 UTC [43] app@shop LOG:  duration: 0.020 ms  parse <unnamed>: SELECT $1
2026-11-22 22:41:36.124 UTC [43] app@shop LOG:  duration: 0.010 ms  bind <unnamed>: SELECT $1
2026-11-22 22:41:36.124 UTC [43] app@shop DETAIL:  parameters: $1 = '7', $2 = NULL
2026-11-22 22:41:36.125 UTC [43] app@shop LOG:  duration: 0.030 ms  execute <unnamed>: SELECT $1
2026-11-22 22:41:36.125 UTC [43] app@shop DETAIL:  parameters: $1 = 'a
\tb', $2 = NULL
2026-11-22 22:41:36.126 UTC [42] app@shop LOG:  statement: UPDATE t SET x = 1
2026-11-22 22:41:36.127 UTC [1] LOG:  checkpoint starting: time
2026-11-22 22:41:36.127 UTC [42] app@shop LOG:  duration: 12.345 ms
2026-11-22 22:41:36.128 UTC [42] app@shop ERROR:  relation \"nope\" does not exist at character 15
2026-11-22 22:41:36.128 UTC [42] app@shop STATEMENT:  SELECT * FROM
\tnope
2026-11-22 22:41:36.129 UTC [42] app@shop LOG:  temporary file: path \"base/pgsql_tmp/x\", size 4096
2026-11-22 22:41:36.129 UTC [42] app@shop STATEMENT:  SELECT 1
2026-11-22 22:41:36.130 UTC [42] app@shop LOG:  duration: 9.100 ms  plan:
\tQuery Text: SELECT 1
\tResult  (cost=0.00..0.01 rows=1 width=4)
";

pub(super) const STDERR_NOTES: &[&str] = &[
    "1:42 1.5 ms app@shop - [-] SELECT *\nFROM t\n\tWHERE x = 'a'",
    "7:43 0.03 ms app@shop - [$1 = 'a\nb', $2 = NULL] SELECT $1",
    "10:42 ran app@shop - [-] UPDATE t SET x = 1",
    "42 took 12.345",
    "13:42 failed app@shop - [-] SELECT * FROM\nnope",
    "16:42 temp 4096 app@shop - [-] SELECT 1",
    "18:42 Result in 9.1 ms SELECT 1",
];

#[test]
fn a_session_that_was_ended_idle_in_its_transaction_is_noticed() {
    let log = "\
2026-11-22 22:41:36.100 UTC [42] LOG:  duration: 1.000 ms  statement: BEGIN
2026-11-22 22:41:36.200 UTC [42] LOG:  duration: 1.000 ms  statement: UPDATE t SET a = 1 WHERE id = 7
2026-11-22 22:41:46.700 UTC [42] FATAL:  terminating connection due to idle-in-transaction timeout
2026-11-22 22:41:47.000 UTC [43] FATAL:  terminating connection due to idle-in-transaction timeout
";
    let mut workload = crate::workload::Workload::new();
    read(&mut log.as_bytes(), "x.log", &Options::default(), &mut workload).expect("a log");
    let idle: Vec<_> = workload.templates().iter().filter(|template| template.idles > 0).collect();
    assert_eq!(idle.len(), 1);
    assert_eq!((idle[0].example.as_str(), idle[0].idle_ms), ("UPDATE t SET a = 1 WHERE id = 7", 10_500.0));
}

#[test]
fn reads_a_plain_log() {
    let (notes, report) = read_auto(STDERR);
    assert_eq!(notes, STDERR_NOTES);
    assert_eq!((report.lines, report.understood, report.samples.len()), (20, 20, 0));
    assert_eq!(report.format, "stderr, log_line_prefix = '%m [%p] %q%u@%d ' (detected)");
}

#[test]
fn carriage_returns_a_byte_order_mark_and_nul_bytes_change_nothing() {
    let (notes, _) = read_auto(&format!("\u{feff}{}", STDERR.replace('\n', "\r\n")));
    let without: Vec<String> = notes.iter().map(|note| note.replace('\r', "")).collect();
    assert_eq!(without, STDERR_NOTES);
    let (notes, _) = read_auto(&STDERR.replacen("2026", "\0\0\0\u{0}2026", 1));
    assert_eq!(notes, STDERR_NOTES);
}

#[test]
fn a_prefix_of_ones_own_is_read_and_a_wrong_one_is_an_error() {
    let log = "app|shop|77> LOG:  duration: 1 ms  statement: SELECT 1\n";
    let options = |prefix: &str| Options { log_line_prefix: Some(prefix.to_owned()), ..Options::default() };
    let (seen, report) = notes(log.as_bytes(), &options("%u|%d|%p> "));
    assert_eq!(seen, ["1:77 1 ms app@shop - [-] SELECT 1"]);
    assert!(report.is_ok());
    let (_, report) = notes(log.as_bytes(), &options("%m [%p] "));
    let error = report.expect_err("nothing is understood");
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("app|shop|77> LOG:"), "{error}");
    let (_, report) = notes(log.as_bytes(), &options("%m %Z"));
    assert_eq!(report.expect_err("no such escape").exit_code(), 2);
}

#[test]
fn a_prefix_that_nobody_knows_is_read_by_its_words() {
    let log = "db-7 {shop} pid=9 user=app db=shop LOG:  duration: 1 ms  statement: SELECT 1\n";
    let (notes, report) = read_auto(log);
    assert_eq!(notes, ["1:9 1 ms app@shop - [-] SELECT 1"]);
    assert!(report.format.contains("not recognised"), "{}", report.format);
}

#[test]
fn strange_lines_are_counted_and_shown() {
    let log = format!("hello\n{STDERR}cp: cannot stat 'x'\n");
    let (notes, report) = read_auto(&log);
    assert_eq!(notes.len(), STDERR_NOTES.len());
    assert_eq!((report.lines, report.understood), (22, 20));
    assert_eq!(report.samples, [(1, "hello".to_owned()), (22, "cp: cannot stat 'x'".to_owned())]);
}

const CSV_HEAD: &str = "2026-11-22 22:41:36.123 UTC,\"app\",\"shop\",42,\"[local]\",6741a2b3.2a,1,\"SELECT\",2026-11-22 22:41:00 UTC,3/7,0,";

fn csv_log() -> String {
    let tail = ",,,,,,,,\"psql\"";
    format!(
        "{CSV_HEAD}LOG,00000,\"duration: 1.500 ms  statement: SELECT \"\"A\"\"\nFROM t, u\",{tail},\"client backend\",,0\n\
         {CSV_HEAD}LOG,00000,\"duration: 2 ms  execute s: SELECT $1\",\"parameters: $1 = 'x, \"\"y\"\"'\"{tail}\n\
         {CSV_HEAD}ERROR,42P01,\"no such thing\",,,,,,\"SELECT nope\",8,,\"psql\",\"client backend\",,0\n"
    )
}

#[test]
fn reads_csvlog_of_old_and_new_servers() {
    let (notes, report) = read_auto(&csv_log());
    let session = prefix::session_of(b"6741a2b3.2a");
    assert_eq!(
        notes,
        [
            format!("1:{session} 1.5 ms app@shop psql [-] SELECT \"A\"\nFROM t, u"),
            format!("3:{session} 2 ms app@shop psql [$1 = 'x, \"y\"'] SELECT $1"),
            format!("4:{session} failed app@shop psql [-] SELECT nope"),
        ]
    );
    assert_eq!((report.format.as_str(), report.lines, report.understood), ("csvlog", 4, 4));
}

#[test]
fn csvlog_cut_at_either_end_loses_only_what_is_cut() {
    let log = csv_log();
    let cut = &log[60..log.len() - 30];
    let options = Options { format: LogFormat::Csvlog, ..Options::default() };
    let (seen, report) = notes(cut.as_bytes(), &options);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("SELECT $1"));
    let report = report.expect("one is left");
    assert!(report.understood < report.lines);
}

const JSON: &str = r#"{"timestamp":"2026-11-22 22:41:36.123 UTC","user":"app","dbname":"shop","pid":42,"session_id":"6741a2b3.2a","error_severity":"LOG","message":"duration: 1.5 ms  execute s: SELECT \"A\"\n\tFROM t WHERE x = $1","detail":"Parameters: $1 = 'é'","application_name":"psql"}
{"timestamp":"2026-11-22 22:41:36.124 UTC","pid":42,"error_severity":"ERROR","message":"bad","statement":"SELECT\n1/0"}
"#;

#[test]
fn reads_jsonlog() {
    let (notes, report) = read_auto(JSON);
    let session = prefix::session_of(b"6741a2b3.2a");
    let first = format!("1:{session} 1.5 ms app@shop psql [$1 = 'é'] SELECT \"A\"\n\tFROM t WHERE x = $1");
    assert_eq!(notes, [first, "2:42 failed -@- - [-] SELECT\n1/0".to_owned()]);
    assert_eq!((report.format.as_str(), report.understood), ("jsonlog", 2));
}

#[test]
fn reads_sql_files_without_psql_commands_and_copy_data() {
    let sql = "-- a comment; here\n\\connect shop\nSELECT 1;\n\nCOPY t (a) FROM stdin;\n1;2\n\\.\n;;SELECT ';'\n  , 2;\nSELECT 3";
    let (notes, report) = read_auto(sql);
    let texts: Vec<(&str, &str)> = notes.iter().filter_map(|note| note.split_once(" ran -@- - [-] ")).collect();
    let expected =
        [("3:0", "SELECT 1"), ("5:0", "COPY t (a) FROM stdin"), ("8:0", "SELECT ';'\n  , 2"), ("10:0", "SELECT 3")];
    assert_eq!(texts, expected);
    assert_eq!((report.format.as_str(), report.statements), ("sql", 4));
}

#[test]
fn a_giant_statement_is_cut_and_what_follows_is_read() {
    let giant = "x".repeat(feed::MAX_MESSAGE * 2 + 17);
    for log in [
        format!("LOG:  statement: SELECT '{giant}'\nLOG:  statement: SELECT 2\n"),
        format!("LOG:  statement: SELECT '\n\t{}'\nLOG:  statement: SELECT 2\n", giant.replace("xxxx", "xx\n\t")),
        format!(
            "{CSV_HEAD}LOG,00000,\"statement: SELECT '{giant}'\",,,,,,,,,\"psql\"\n{CSV_HEAD}LOG,00000,\"statement: SELECT 2\",,,,,,,,,\"psql\"\n"
        ),
    ] {
        let (notes, report) = read_auto(&log);
        assert_eq!(notes.len(), 2, "{}", report.format);
        assert!(notes[0].len() <= feed::MAX_MESSAGE + 200);
        assert!(notes[1].ends_with("SELECT 2"), "{}", &notes[1]);
        assert_eq!(report.truncated, 1);
    }
}

#[test]
fn compressed_logs_are_read_by_their_first_bytes() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a folder");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(STDERR.as_bytes()).expect("memory");
    let packed = [gzip.finish().expect("memory"), zstd::encode_all(STDERR.as_bytes(), 1).expect("memory")];
    for bytes in packed {
        let path = folder.path().join("postgresql.log");
        std::fs::write(&path, bytes).expect("a file");
        let mut sink = Notes::default();
        read_file(path.to_str().expect("UTF-8"), &Options::default(), &mut sink, &|_| {}).expect("a log");
        assert_eq!(sink.0, STDERR_NOTES);
    }
    let error =
        read_file("/nonexistent.log", &Options::default(), &mut Notes::default(), &|_| {}).expect_err("missing");
    assert_eq!(error.exit_code(), 3);
}

/// Feeds a reader a few bytes at a time.
pub(super) fn drip(reader: &mut feed::Reader, log: &[u8], drip: usize) -> (Vec<String>, Report) {
    let mut sink = Notes::default();
    let mut report = Report::default();
    let mut context = Context { file: "x.log", line: 1, report: &mut report, sink: &mut sink };
    let (mut start, mut end) = (0, 0);
    while end < log.len() {
        end = (end + drip).min(log.len());
        let last = if end == log.len() { feed::End::Eof } else { feed::End::More };
        start += reader.feed(&log[start..end], last, &mut context);
    }
    assert_eq!(start, log.len());
    (sink.0, report)
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), format in 0..5usize) {
        let format = [LogFormat::Auto, LogFormat::Stderr, LogFormat::Csvlog, LogFormat::Jsonlog, LogFormat::Sql][format];
        let _ = notes(&bytes, &Options { format, ..Options::default() });
    }

    #[test]
    fn mutilated_logs_do_not_panic_and_chunks_do_not_matter(
        which in 0..4usize,
        drip in 1..90usize,
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut log = [STDERR.to_owned(), csv_log(), JSON.to_owned(), "SELECT 1; SELECT ';' ;\nSELECT $$a;$$".to_owned()][which].repeat(2).into_bytes();
        for (at, byte) in cuts {
            let at = at.index(log.len());
            log[at] = byte;
        }
        let format = [LogFormat::Stderr, LogFormat::Csvlog, LogFormat::Jsonlog, LogFormat::Sql][which];
        let options = Options { format, ..Options::default() };
        let (whole, report) = notes(&log, &options);
        // The same reader, fed a few bytes at a time.
        let (mut reader, _) = detect::reader(&log, "x.log", &options).expect("a format").expect("a reader");
        let (seen, other) = super::tests::drip(&mut reader, &log, drip);
        prop_assert_eq!(&whole, &seen);
        if let Ok(report) = report {
            prop_assert_eq!((report.lines, report.understood, report.samples), (other.lines, other.understood, other.samples));
        }
    }
}
