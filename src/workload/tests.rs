//! Counting, joining durations, loops, bounds.

use super::*;

fn seen<'a>(sql: &'a str, session: u64, duration_ms: Option<f64>) -> Observation<'a> {
    Observation { session, duration_ms, at_ms: Some(0), ..Observation::of(sql) }
}

#[test]
fn counts_by_template_and_remembers_the_first() {
    let mut workload = Workload::new();
    workload.observe(&Observation { file: "a.log", line: 7, user: Some(b"app"), ..seen("SELECT 1", 1, Some(2.0)) });
    workload.observe(&Observation { parameters: Some(b"$1 = '5'"), ..seen("SELECT 2", 1, Some(4.0)) });
    workload.observe(&seen("", 1, Some(4.0)));
    let [template] = workload.templates() else { panic!("one template") };
    assert_eq!((template.count, template.total_ms, template.min_ms, template.max_ms), (2, 6.0, 2.0, 4.0));
    assert_eq!((template.example.as_str(), template.place.line), ("SELECT 1", 7));
    assert_eq!((template.users.join(","), template.parameters.join(",")), ("app".to_owned(), "$1 = '5'".to_owned()));
}

#[test]
fn a_late_duration_joins_the_statement_of_its_own_session() {
    let mut workload = Workload::new();
    workload.observe(&seen("SELECT a", 1, None));
    workload.observe(&seen("SELECT b", 2, None));
    workload.duration(1, 10.0);
    workload.duration(1, 99.0);
    workload.duration(2, 20.0);
    workload.duration(3, 99.0);
    let times: Vec<f64> = workload.templates().iter().map(|template| template.total_ms).collect();
    assert_eq!(times, [10.0, 20.0]);
}

#[test]
fn an_error_is_counted_once() {
    let mut workload = Workload::new();
    let failed = |sql, session| Observation { outcome: Outcome::Failed, ..seen(sql, session, None) };
    workload.observe(&seen("SELECT a", 1, None));
    workload.observe(&failed("SELECT a", 1));
    workload.observe(&failed("SELECT a", 2));
    let [template] = workload.templates() else { panic!("one template") };
    assert_eq!((template.count, template.errors, workload.statements), (2, 2, 2));
}

#[test]
fn several_statements_in_one_string_count_each_and_share_no_time() {
    let mut workload = Workload::new();
    workload.observe(&seen("BEGIN; UPDATE t SET a = 1; COMMIT", 1, Some(5.0)));
    let times: Vec<(u64, f64)> =
        workload.templates().iter().map(|template| (template.count, template.total_ms)).collect();
    assert_eq!(times, [(1, 0.0), (1, 5.0), (1, 0.0)]);
}

#[test]
fn sees_loops_within_a_session_only() {
    let mut workload = Workload::new();
    for round in 0..12 {
        // Each session runs the child query once; only session 9 runs it in a loop.
        workload.observe(&seen("SELECT child", 100 + round, None));
        for sql in ["BEGIN", "SELECT looped", "COMMIT"] {
            workload.observe(&seen(sql, 9, None));
        }
    }
    let run = |sql: &str| {
        let template = workload.templates().iter().find(|template| template.example == sql).expect("seen");
        (template.longest_run, template.loops)
    };
    assert_eq!(run("SELECT child"), (1, 0));
    assert_eq!(run("SELECT looped"), (12, 1));
}

#[test]
fn a_saved_workload_can_be_merged() {
    let mut one = Workload::new();
    one.observe(&seen("SELECT 1", 1, Some(2.0)));
    let json = serde_json::to_string(&one).expect("JSON");
    let mut both: Workload = serde_json::from_str(&json).expect("the same");
    both.observe(&seen("SELECT 3", 1, Some(3.0)));
    let mut other = Workload::new();
    other.observe(&seen("SELECT 2", 1, Some(1.0)));
    other.observe(&seen("SELECT 2, 3", 1, None));
    both.merge(other);
    let [first, second] = both.templates() else { panic!("two templates") };
    assert_eq!((first.count, first.min_ms, first.max_ms, second.count), (3, 1.0, 3.0, 1));
}

#[test]
fn a_pause_within_a_transaction_is_counted_where_it_was_made() {
    let run = |log: &[(&str, i64, Option<f64>)]| {
        let mut workload = Workload::new();
        for (sql, at, duration) in log {
            match (*sql, duration) {
                ("", Some(milliseconds)) => workload.duration(1, *milliseconds),
                _ => workload.observe(&Observation { at_ms: Some(*at), ..seen(sql, 1, *duration) }),
            }
        }
        let idle = workload.templates().iter().find(|template| template.idles > 0);
        idle.map(|template| (template.example.clone(), template.idles, template.idle_ms))
    };
    let long = [
        ("BEGIN", 0, Some(0.0)),
        ("UPDATE t SET a = 1", 10, Some(5.0)),
        ("SELECT 1", 6000, Some(990.0)),
        ("COMMIT", 6001, Some(0.5)),
    ];
    assert_eq!(run(&long), Some(("UPDATE t SET a = 1".to_owned(), 1, 5000.0)));
    // Its own time is not idle.
    let busy = [("BEGIN", 0, Some(0.0)), ("UPDATE t SET a = 1", 9000, Some(9000.0)), ("COMMIT", 9001, Some(0.5))];
    assert_eq!(run(&busy), None);
    // Statements logged as they begin, their durations later.
    let split = [
        ("BEGIN", 0, None),
        ("", 0, Some(0.1)),
        ("UPDATE t SET a = 1", 10, None),
        ("", 0, Some(90.0)),
        ("COMMIT", 4100, None),
    ];
    assert_eq!(run(&split), Some(("UPDATE t SET a = 1".to_owned(), 1, 4000.0)));
    // Without an end, or outside: nothing.
    assert_eq!(run(&long[..3]), None);
    assert_eq!(run(&long[1..3]), None);
    let after = [
        ("BEGIN", 0, Some(0.0)),
        ("COMMIT", 1, Some(0.5)),
        ("SELECT 1", 9000, Some(0.1)),
        ("ROLLBACK", 9001, Some(0.1)),
    ];
    assert_eq!(run(&after), None);
}

#[test]
fn constants_that_change_in_the_text_are_noticed_and_parameters_are_not() {
    let mut workload = Workload::new();
    for number in 0..10 {
        workload.observe(&seen(&format!("SELECT {number}"), 1, None));
        workload.observe(&seen("SELECT a FROM t WHERE b = $1 LIMIT 5", 1, None));
    }
    let varied: Vec<u64> = workload.templates().iter().map(|template| template.varied).collect();
    assert_eq!(varied, [9, 0]);
}
