//! The text is read back by a strict reader of Prometheus's format.

use super::text::Exposition;
use super::*;

use std::collections::BTreeSet;

/// Name with labels in their order, and value.
type Samples = Vec<(String, BTreeMap<String, String>, f64)>;

fn name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && text.chars().all(word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The labels between braces; every character must belong to one.
fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while !text.is_empty() {
        let (label, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(name(label) && !label.starts_with("__") && !label.contains(':'), "{label}");
        let (mut value, mut chars, mut closed) = (String::new(), rest.char_indices(), None);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    closed = Some(at);
                    break;
                }
                '\\' => value.push(match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => panic!("escape {other:?} in {text}"),
                }),
                c => value.push(c),
            }
        }
        assert!(found.insert(label.to_owned(), value).is_none(), "{label} twice");
        text = &rest[closed.unwrap_or_else(|| panic!("open: {text}")) + 1..];
        text = match text.strip_prefix(',') {
            Some(more) => more,
            None if text.is_empty() => text,
            None => panic!("{text}"),
        };
    }
    found
}

/// Reads a whole exposition, or panics.
fn read(text: &str) -> Samples {
    let (mut samples, mut done) = (Samples::new(), BTreeSet::new());
    let (mut helped, mut current) = (String::new(), (String::new(), String::new()));
    assert!(text.ends_with('\n') && !text.contains('\r'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0.to_owned();
            assert!(name(&helped));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = kind.split_once(' ').unwrap();
            assert_eq!(metric, helped, "TYPE follows its HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert!(done.insert(metric.to_owned()), "{metric} twice");
            assert_eq!(kind == "counter", metric.ends_with("_total"), "{metric}");
            current = (metric.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (full, inside) = match series.split_once('{') {
                Some((full, rest)) => (full, rest.strip_suffix('}').unwrap()),
                None => (series, ""),
            };
            let suffix = full.strip_prefix(&current.0).unwrap_or_else(|| panic!("{full} under {}", current.0));
            let allowed: &[&str] = if current.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(name(full) && allowed.contains(&suffix), "{line}");
            let labels = labels(inside);
            assert!(!samples.iter().any(|(other, set, _)| other == full && *set == labels), "twice: {line}");
            samples.push((full.to_owned(), labels, value.parse().unwrap()));
        }
    }
    check_histograms(&samples);
    samples
}

/// Buckets rise and the last one is all.
fn check_histograms(samples: &Samples) {
    let mut last: BTreeMap<(String, BTreeMap<String, String>), (f64, f64)> = BTreeMap::new();
    for (full, labels, value) in samples {
        let mut rest = labels.clone();
        if let Some(metric) = full.strip_suffix("_bucket") {
            let limit: f64 = rest.remove("le").unwrap().parse().unwrap();
            let before = last.insert((metric.to_owned(), rest), (limit, *value));
            assert!(before.is_none_or(|(low, count)| low < limit && count <= *value), "{full} {labels:?}");
        } else if let Some(metric) = full.strip_suffix("_count") {
            let all = last.remove(&(metric.to_owned(), rest));
            assert_eq!(all, Some((f64::INFINITY, *value)), "{full}");
        }
    }
    assert!(last.is_empty());
}

#[test]
fn names_cannot_break_out_of_their_quotes() {
    let mut text = Exposition::default();
    text.metric("a_total", "counter", "What is \\ counted.\nTwo lines.");
    text.sample(&[("database", "x\"} 1\n\\")], 3.0);
    text.metric("b_seconds", "histogram", "Times.");
    text.histogram(&[("d", "x")], &[(0.000001024, 1), (0.5, 2)], (1.5, 4));
    text.metric("c", "gauge", "Plain.");
    text.sample(&[], 0.25);
    let samples = read(&text.finish());
    assert_eq!(samples[0].1["database"], "x\"} 1\n\\");
    assert_eq!(samples[1].1["le"], "0.000001024");
    assert_eq!(samples.len(), 1 + 5 + 1);
}

#[test]
fn the_text_is_valid_whatever_things_are_called() {
    let text = "users: {\"a\\\"}\\n# TYPE x\": {password: s}}\n\
                databases: {\"d\\\"b\\\\\": {primary: \"postgres://127.0.0.1:1/d\"}}";
    let house = House::new(crate::config::parse(text, "t").unwrap(), 2).unwrap();
    let database = &house.databases["d\"b\\"];
    database.pool(0, "a\"}\n# TYPE x", &crate::net::prove::Secret::Nothing("a test")).unwrap();
    let counters = database.meter.at(1).unwrap();
    counters.answered(Tier::All, 3, 1);
    counters.client.record(5_000_000, 3);
    database.meter.error("server", b"23505");
    let samples = read(&metrics(&house));
    let value = |name: &str, label: (&str, &str)| {
        let found = samples
            .iter()
            .find(|(full, labels, _)| full == name && labels.get(label.0).is_some_and(|value| value == label.1));
        found.unwrap_or_else(|| panic!("{name}")).2
    };
    assert_eq!(value("pgweir_queries_total", ("outcome", "error")), 1.0);
    assert_eq!(value("pgweir_queries_total", ("tier", "all")), 2.0);
    assert_eq!(value("pgweir_query_seconds_bucket", ("le", "0.004194304")), 0.0);
    assert_eq!(value("pgweir_query_seconds_bucket", ("le", "0.008388608")), 3.0);
    assert_eq!(value("pgweir_query_seconds_sum", ("database", "d\"b\\")), 0.015);
    assert_eq!(value("pgweir_errors_total", ("sqlstate", "23505")), 1.0);
    assert_eq!(value("pgweir_pool_size", ("user", "a\"}\n# TYPE x")), 20.0);
    assert!(samples.iter().any(|(name, _, value)| name == "process_resident_memory_bytes" && *value > 1e6));
    assert!(samples.iter().any(|(name, _, value)| name == "process_start_time_seconds" && *value > 1.7e9));
    assert_eq!(unready(&house), Vec::<String>::new());
    house.clients.stop();
    assert_eq!(unready(&house), ["the proxy is shutting down"]);
}

#[test]
fn servers_that_hold_the_same_data_are_told_apart() {
    let text = "users: {u: {password: s}}\ndatabases: {d: {primary: \"postgres://u@127.0.0.1:1/d\", \
                replicas: [\"postgres://u@127.0.0.1:2/d\"]}}";
    let house = House::new(crate::config::parse(text, "t").unwrap(), 1).unwrap();
    let samples = read(&metrics(&house));
    let of = |name: &str, server: &str| {
        samples.iter().find(|(full, labels, _)| full == name && labels["server"] == server).map(|found| found.2)
    };
    assert_eq!(of("pgweir_server_readable", "127.0.0.1:2"), Some(0.0));
    assert!(of("pgweir_server_primary", "127.0.0.1:1").is_some());
    // Nobody has asked them yet.
    assert_eq!(of("pgweir_server_up", "127.0.0.1:2"), None);
}
