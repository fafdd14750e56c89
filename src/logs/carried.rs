//! Logs that came by way of syslog, journald, containers and clouds; counts; other programs' logs.

use proptest::prelude::*;

use super::tests::{STDERR, STDERR_NOTES, notes, read_auto};
use super::*;

/// What a note says without its line and its session, which the carrier may change.
fn gist(notes: &[String]) -> Vec<String> {
    let without = |note: &String| {
        let (place, rest) = note.split_once(' ').expect("a note");
        if place.contains(':') { rest.to_owned() } else { note.clone() }
    };
    notes.iter().map(without).collect()
}

fn wanted() -> Vec<String> {
    gist(&STDERR_NOTES.iter().map(|note| (*note).to_owned()).collect::<Vec<_>>())
}

/// The messages of [`STDERR`], each with its further lines.
fn messages() -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = Vec::new();
    for line in STDERR.lines() {
        let companion = line.starts_with('\t') || line.contains(" DETAIL:  ") || line.contains(" STATEMENT:  ");
        match all.last_mut() {
            Some(last) if companion => last.push(line),
            _ => all.push(vec![line]),
        }
    }
    all
}

/// As PostgreSQL hands its messages to syslog: numbered, a part a line, long lines split before a blank.
fn syslog(head: impl Fn(&str) -> String, numbers: bool) -> String {
    let mut log = String::new();
    for (message, number) in messages().iter().zip(1..) {
        let mut part = 0;
        for line in message {
            let (first, second) =
                line.find("sql_tmp/x").map_or((*line, ""), |_| line.split_at(line.rfind(' ').unwrap()));
            for piece in [first, second].into_iter().filter(|piece| !piece.is_empty()) {
                part += 1;
                let pid = message[0].split(['[', ']']).nth(1).expect("a process");
                let numbered = if numbers { format!("[{number}-{part}] ") } else { String::new() };
                log.push_str(&format!("{}{numbered}{}\n", head(pid), piece.replace('\t', "#011")));
            }
        }
    }
    log
}

#[test]
fn syslog_puts_messages_together_again() {
    let heads: [fn(&str) -> String; 3] = [
        |pid| format!("Nov 22 22:41:36 db postgres[{pid}]: "),
        |pid| format!("<134>1 2026-11-22T22:41:36.123Z db postgres {pid} - - "),
        |pid| format!("2026-11-22T22:41:36.123456+00:00 db postgres[{pid}]: "),
    ];
    for head in heads {
        for numbers in [true, false] {
            let log = syslog(head, numbers);
            let (notes, report) = read_auto(&log);
            // A message is complete when its writer's next begins: the order is each writer's own.
            let sorted = |mut notes: Vec<String>| {
                notes.sort();
                notes
            };
            assert_eq!(sorted(gist(&notes)), sorted(wanted()), "{log}");
            assert!(
                report.format.starts_with("syslog: stderr, log_line_prefix = '%m [%p] %q%u@%d '"),
                "{}",
                report.format
            );
            assert_eq!((report.lines, report.understood), (21, 21));
        }
    }
}

#[test]
fn interleaved_writers_and_strangers_do_not_mix() {
    let log = "\
Nov 22 22:41:36 db postgres[42]: [1-1] LOG:  duration: 1 ms  statement: SELECT a,
Nov 22 22:41:36 db CRON[9]: (root) CMD (true)
Nov 22 22:41:36 db postgres[43]: [8-1] LOG:  duration: 2 ms  statement: SELECT b
Nov 22 22:41:36 db postgres[42]: [1-2] #011b
Nov 22 22:41:37 db postgres[43]: [8-2]  FROM long
Nov 22 22:41:37 db postgres[42]: [2-1] LOG:  duration: 3 ms  statement: SELECT c
";
    let (notes, report) = read_auto(log);
    assert_eq!(
        notes,
        ["1:42 1 ms -@- - [-] SELECT a,\nb", "3:43 2 ms -@- - [-] SELECT b FROM long", "6:42 3 ms -@- - [-] SELECT c"]
    );
    assert_eq!((report.lines, report.understood), (6, 6));
}

#[test]
fn journals_containers_and_clouds_are_unwrapped() {
    let quoted = |text: &str| serde_json::to_string(text).expect("JSON");
    let wrap = |each: &dyn Fn(&str) -> String| STDERR.lines().map(each).collect::<Vec<_>>().concat();
    let journal = wrap(&|line| {
        format!(
            "__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1795387296123000\n_TRANSPORT=stdout\n_PID=7\nMESSAGE={line}\n\n"
        )
    });
    let journal_json =
        wrap(&|line| format!("{{\"_PID\":\"7\",\"_TRANSPORT\":\"stdout\",\"MESSAGE\":{}}}\n", quoted(line)));
    let docker = wrap(&|line| format!("{{\"log\":{},\"stream\":\"stderr\"}}\n", quoted(&format!("{line}\n"))));
    let cloud =
        wrap(&|line| format!("{{\"insertId\":\"s=1\",\"labels\":{{\"a\":\"b\"}},\"textPayload\":{}}}\n", quoted(line)));
    let cri = wrap(&|line| {
        let (first, second) = line.split_at(line.len() / 2);
        let head = "2026-11-22T22:41:36.123456789Z stderr";
        format!("{head} P {first}\n{head} F {second}\n")
    });
    let watch = wrap(&|line| format!("2026-11-22T22:41:36.123Z {line}\n"));
    for (log, words) in [
        (journal, "journald export"),
        (journal_json, "lines wrapped in JSON"),
        (docker, "lines wrapped in JSON"),
        (cloud, "lines wrapped in JSON"),
        (cri, "lines after a time"),
        (watch, "lines after a time"),
    ] {
        let (notes, report) = read_auto(&log);
        assert_eq!(gist(&notes), wanted(), "{log}");
        assert!(report.format.starts_with(words), "{}", report.format);
        assert_eq!(report.lines, report.understood, "{words}");
    }
}

#[test]
fn a_record_of_cloudnativepg_is_csvlog_by_another_name() {
    let log = r#"{"level":"info","logger":"pgaudit","msg":"x"}
{"level":"info","logger":"postgres","msg":"record","record":{"log_time":"2026-11-22 22:41:36.123 UTC","user_name":"app","database_name":"shop","process_id":"42","session_id":"6741a2b3.2a","error_severity":"LOG","message":"duration: 1 ms  statement: SELECT 1","application_name":"psql"}}
"#;
    let (notes, _) = read_auto(log);
    let session = prefix::session_of(b"6741a2b3.2a");
    assert_eq!(notes, [format!("2:{session} 1 ms app@shop psql [-] SELECT 1")]);
}

#[test]
fn counts_of_pg_stat_statements_are_read() {
    let log = "userid,dbid,query,calls,total_exec_time,min_exec_time\n\
               10,5,\"SELECT \"\"A\"\"\nFROM t WHERE x = $1\",7,70.5,1\n\
               10,5,<insufficient privilege>,9,1,1\n\
               10,5,SELECT 2,3,0.5,0.1";
    let (seen, report) = read_auto(log);
    assert_eq!(seen, ["2: 7 in 70.5 ms SELECT \"A\"\nFROM t WHERE x = $1", "5: 3 in 0.5 ms SELECT 2"]);
    assert_eq!((report.format.as_str(), report.lines, report.understood), ("pg_stat_statements as CSV", 5, 5));
    let mut workload = crate::workload::Workload::new();
    read(&mut log.as_bytes(), "x.csv", &Options::default(), &mut workload).expect("counts");
    let [first, second] = workload.templates() else { panic!("two templates") };
    assert_eq!((first.count, first.total_ms, first.min_ms), (7, 70.5, 1.0));
    assert_eq!((second.count, workload.statements), (3, 10));
}

#[test]
fn a_log_of_pgbouncer_is_passed_over() {
    let log = "2026-11-22 22:41:36.123 UTC [42] LOG C-0x55: shop/app@10.0.0.1:5000 login attempt: db=shop\n".repeat(3);
    let (notes, report) = read_auto(&log);
    assert_eq!((notes.len(), report.foreign, report.lines, report.understood), (0, true, 3, 3));
    let (notes, report) = read_auto(&format!("{STDERR}{log}"));
    let owned: Vec<String> = STDERR_NOTES.iter().map(|note| (*note).to_owned()).collect();
    assert_eq!((notes.as_slice(), report.lines - report.understood), (owned.as_slice(), 0));
}

#[test]
fn bzip2_and_xz_are_read_and_cut_ones_are_errors() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a folder");
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(STDERR.as_bytes()).expect("memory");
    // xz of "LOG:  statement: SELECT 1\n", by xz(1).
    let packed = [(bzip2.finish().expect("memory"), 6), (XZ.to_vec(), 1)];
    for (bytes, count) in packed {
        for cut in [0, 20] {
            let path = folder.path().join("postgresql.log");
            std::fs::write(&path, &bytes[..bytes.len() - cut]).expect("a file");
            let mut workload = crate::workload::Workload::new();
            let report = read_file(path.to_str().expect("UTF-8"), &Options::default(), &mut workload, &|_| {});
            match (report, cut) {
                (Ok(report), 0) => assert_eq!(report.statements, count),
                (report, _) => assert_eq!(report.expect_err("it is cut").exit_code(), 3),
            }
        }
    }
}

const XZ: &[u8] = &[
    253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 22, 0, 0, 0, 116, 47, 229, 163, 1, 0, 25, 76, 79,
    71, 58, 32, 32, 115, 116, 97, 116, 101, 109, 101, 110, 116, 58, 32, 83, 69, 76, 69, 67, 84, 32, 49, 10, 0, 0, 0,
    83, 174, 247, 47, 138, 67, 108, 174, 0, 1, 50, 26, 32, 24, 148, 48, 31, 182, 243, 125, 1, 0, 0, 0, 0, 4, 89, 90,
];

proptest! {
    #[test]
    fn chunks_of_carried_logs_do_not_matter(which in 0..4usize, drip in 1..90usize,
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let head = |pid: &str| format!("Nov 22 22:41:36 db postgres[{pid}]: ");
        let journal = "__CURSOR=1\n__REALTIME_TIMESTAMP=1795387296123000\n_PID=7\nMESSAGE=LOG:  statement: SELECT 1\n\n";
        let counts = "query,calls,total_time\n\"SELECT 1;\nx\",2,3.5\n\"\"\"\",1,1\n";
        let json = "{\"log\":\"LOG:  statement: SELECT \\\"1\\\"\\n\"}\n";
        let mut log = [syslog(head, true), journal.repeat(4), json.repeat(4), counts.to_owned()][which].clone().into_bytes();
        for (at, byte) in cuts {
            let at = at.index(log.len());
            log[at] = byte;
        }
        let options = Options::default();
        let (whole, report) = notes(&log, &options);
        if let (Ok(Some((mut reader, _))), Ok(report)) = (detect::reader(&log, "x.log", &options), report) {
            let (seen, other) = super::tests::drip(&mut reader, &log, drip);
            prop_assert_eq!(&whole, &seen);
            prop_assert_eq!((report.lines, report.understood, report.samples), (other.lines, other.understood, other.samples));
        }
    }
}
