//! SHOW STATS and its kin, TOTALS and TEMPLATES.

use crate::proxy::admin::table::{Table, Value};
use crate::proxy::login::House;
use crate::proxy::meter::Totals;
use crate::proxy::meter::period::Period;

/// What is counted, by the names that PgBouncer gives it in STATS; in microseconds where it is a time.
struct Counts {
    transactions: u64,
    queries: u64,
    received: u64,
    sent: u64,
    transaction_time: u64,
    query_time: u64,
    wait_time: u64,
    assignments: u64,
    client_parses: u64,
    server_parses: u64,
    binds: u64,
    errors: u64,
}

impl Counts {
    fn of(totals: &Totals) -> Self {
        Self {
            transactions: totals.transactions,
            queries: totals.queries.iter().map(|(all, _)| all).sum(),
            received: totals.from_clients,
            sent: totals.to_clients,
            transaction_time: totals.transaction_nanos / 1000,
            query_time: totals.server.nanos / 1000,
            wait_time: totals.wait.nanos / 1000,
            assignments: totals.assignments,
            client_parses: totals.client_parses,
            server_parses: totals.server_parses,
            binds: totals.binds,
            errors: totals.queries.iter().map(|(_, failed)| failed).sum(),
        }
    }

    /// In the order of PgBouncer's columns, those of later versions last.
    fn list(&self) -> [u64; 12] {
        [
            self.transactions,
            self.queries,
            self.received,
            self.sent,
            self.transaction_time,
            self.query_time,
            self.wait_time,
            self.assignments,
            self.client_parses,
            self.server_parses,
            self.binds,
            self.errors,
        ]
    }

    /// Averages of a period: numbers a second, times for each.
    fn averages(&self, before: &Self, seconds: f64) -> [u64; 12] {
        let (now, before) = (self.list(), before.list());
        let mut change = now;
        change.iter_mut().zip(before).for_each(|(now, before)| *now = now.saturating_sub(before));
        let [transactions, queries, .., assignments, _, _, _, _] = change;
        for (at, value) in change.iter_mut().enumerate() {
            *value = match at {
                4 => *value / transactions.max(1),
                5 => *value / queries.max(1),
                6 => *value / assignments.max(1),
                _ => (*value as f64 / seconds.max(0.001)) as u64,
            };
        }
        change
    }
}

/// STATS; what PgBouncer 1.18 has comes first, in its order.
const BOTH: [&str; 25] = [
    "database",
    "#total_xact_count",
    "#total_query_count",
    "#total_received",
    "#total_sent",
    "#total_xact_time",
    "#total_query_time",
    "#total_wait_time",
    "#avg_xact_count",
    "#avg_query_count",
    "#avg_recv",
    "#avg_sent",
    "#avg_xact_time",
    "#avg_query_time",
    "#avg_wait_time",
    "#total_server_assignment_count",
    "#total_client_parse_count",
    "#total_server_parse_count",
    "#total_bind_count",
    "#total_error_count",
    "#avg_server_assignment_count",
    "#avg_client_parse_count",
    "#avg_server_parse_count",
    "#avg_bind_count",
    "#avg_error_count",
];

/// STATS_TOTALS and STATS_AVERAGES.
const ONE_KIND: [&str; 13] = [
    "database",
    "#xact_count",
    "#query_count",
    "#bytes_received",
    "#bytes_sent",
    "#xact_time",
    "#query_time",
    "#wait_time",
    "#server_assignment_count",
    "#client_parse_count",
    "#server_parse_count",
    "#bind_count",
    "#error_count",
];

/// Which columns are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Totals, then averages.
    Both,
    /// Totals.
    Totals,
    /// Averages.
    Averages,
}

fn row(period: &Period, columns: Columns) -> Vec<Value> {
    let now = Counts::of(&period.now);
    let totals = now.list();
    let averages = Counts::of(&period.latest).averages(&Counts::of(&period.before), period.seconds);
    let values = |list: &[u64]| -> Vec<Value> { list.iter().map(|value| (*value).into()).collect() };
    match columns {
        Columns::Both => {
            let ((early, late), (avg_early, avg_late)) = (totals.split_at(7), averages.split_at(7));
            values(&[early, avg_early, late, avg_late].concat())
        }
        Columns::Totals => values(&totals),
        Columns::Averages => values(&averages),
    }
}

/// SHOW STATS, STATS_TOTALS, STATS_AVERAGES.
pub fn stats(house: &House, columns: Columns) -> Table {
    let mut table = if columns == Columns::Both { Table::new(&BOTH) } else { Table::new(&ONE_KIND) };
    for database in house.all_databases() {
        let mut values = vec![database.name.clone().into()];
        values.extend(row(&database.meter.period(), columns));
        table.rows.push(values);
    }
    table
}

/// SHOW TOTALS: the same of all databases, one line each.
pub fn totals(house: &House) -> Table {
    let mut table = Table::new(&["name", "#value"]);
    let rows: Vec<_> =
        house.all_databases().into_iter().map(|database| row(&database.meter.period(), Columns::Both)).collect();
    for (at, name) in BOTH.iter().skip(1).enumerate() {
        let numbers = rows.iter().filter_map(|row| match row.get(at) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        });
        table.row([name.trim_start_matches('#').into(), Value::Number(numbers.sum())]);
    }
    table
}

/// SHOW TEMPLATES: what took most time first.
pub fn templates(house: &House) -> Table {
    let mut table =
        Table::new(&["database", "fingerprint", "#calls", "#total_time", "#avg_time", "#rows", "#errors", "template"]);
    for shown in house.templates.iter().flat_map(|templates| templates.shown()) {
        let numbers = shown.numbers;
        table.row([
            shown.database.into(),
            shown.fingerprint.map(|fingerprint| fingerprint.to_string()).into(),
            numbers.calls.into(),
            (numbers.nanos / 1000).into(),
            (numbers.nanos / 1000 / numbers.calls.max(1)).into(),
            numbers.rows.into(),
            numbers.errors.into(),
            shown.text.into(),
        ]);
    }
    table
}

/// SHOW FINDINGS: the worst first, then what took most time.
pub fn findings(house: &House) -> Table {
    let columns = ["database", "rule", "severity", "evidence", "fingerprint", "#calls", "#total_time", "message"];
    let mut table = Table::new(&[&columns[..], &["instead", "template"]].concat());
    let all: Vec<_> = house.templates.iter().flat_map(|templates| templates.shown()).collect();
    let mut rows: Vec<_> = all.iter().flat_map(|shown| shown.found.iter().map(move |found| (found, shown))).collect();
    // Equal ones stay in the order of their time.
    rows.sort_by_key(|(found, _)| std::cmp::Reverse(found.severity));
    for (found, shown) in rows {
        table.row([
            shown.database.clone().into(),
            (*found.rule).to_owned().into(),
            found.severity.as_str().into(),
            found.evidence.into(),
            shown.fingerprint.map(|fingerprint| fingerprint.to_string()).into(),
            shown.numbers.calls.into(),
            (shown.numbers.nanos / 1000).into(),
            found.message.clone().into(),
            found.suggestion.clone().into(),
            shown.text.clone().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_the_period() {
        let counts = |scale: u64| Counts {
            transactions: 10 * scale,
            queries: 20 * scale,
            received: 100 * scale,
            sent: 200 * scale,
            transaction_time: 5_000 * scale,
            query_time: 4_000 * scale,
            wait_time: 50 * scale,
            assignments: 10 * scale,
            client_parses: 0,
            server_parses: 0,
            binds: 0,
            errors: 2 * scale,
        };
        let averages = counts(3).averages(&counts(1), 2.0);
        assert_eq!(averages, [10, 20, 100, 200, 500, 200, 5, 10, 0, 0, 0, 2]);
    }
}
