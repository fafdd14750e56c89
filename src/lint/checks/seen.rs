//! What only the log shows: loops, temporary files, waits.

use crate::lint::evidence::Evidence;
use crate::lint::matching::target_span;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject};
use crate::sql::facts::{Comparison, Operand, Predicate, StatementKind};

/// A SELECT by key that one session runs again and again: a query per row of another.
pub(super) fn n_plus_one(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let run = subject.template.longest_run;
    if f64::from(run) < rule.threshold("run", 10.0) || subject.facts.kind != StatementKind::Select {
        return Vec::new();
    }
    let by_key = |predicate: &&Predicate| {
        let value = |operand: Option<&Operand>| {
            operand.is_some_and(|operand| matches!(operand, Operand::Literal { .. } | Operand::Parameter { .. }))
        };
        predicate.conjunctive
            && predicate.comparison == Comparison::Eq
            && ((predicate.left.column().is_some() && value(predicate.right.as_ref()))
                || (predicate.right.as_ref().and_then(Operand::column).is_some() && value(Some(&predicate.left))))
    };
    let Some(predicate) = subject.facts.predicates.iter().find(by_key) else { return Vec::new() };
    let key = subject.text(if predicate.left.column().is_some() { predicate.left.span() } else { predicate.span });
    let loops = subject.template.loops;
    let times = if loops > 1 { format!(", in {loops} loops") } else { String::new() };
    let message = format!("one session ran this {run} times in a row, once for each {key}{times}");
    let suggestion = format!("fetch all rows at once: {key} = ANY($1), or a join with the query that gave the keys");
    vec![Hit::new(predicate.span, message).by(Evidence::Workload).instead(suggestion)]
}

/// INSERT of one row that one session runs again and again.
pub(super) fn single_row_insert_loop(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let run = subject.template.longest_run;
    let one_row = subject.facts.insert.as_ref().is_some_and(|insert| insert.rows.len() == 1);
    if !one_row || f64::from(run) < rule.threshold("run", 20.0) {
        return Vec::new();
    }
    let message = format!(
        "one session inserted {run} single rows in a row: each is a round trip, and without a transaction a commit"
    );
    vec![Hit::new(target_span(subject), message).by(Evidence::Workload)]
}

/// The statement's sort, hash or materialisation did not fit into work_mem.
pub(super) fn temp_file(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let template = subject.template;
    if template.temp_files == 0 || (template.temp_bytes as f64) < rule.threshold("bytes", 1_048_576.0) {
        return Vec::new();
    }
    let megabytes = template.temp_bytes as f64 / 1_048_576.0;
    let scope = subject.facts.scopes.first();
    let span = scope.and_then(|scope| scope.order_by.first()).map_or_else(|| target_span(subject), |key| key.span);
    let message = format!(
        "it wrote {} temporary files, {megabytes:.1} MiB in all: a sort or hash did not fit into work_mem",
        template.temp_files
    );
    vec![Hit::new(span, message).by(Evidence::Workload)]
}

/// The statement waited for other sessions' locks.
pub(super) fn lock_wait(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let template = subject.template;
    if template.lock_waits == 0 {
        return Vec::new();
    }
    let message = format!("it waited {} times for a lock, {:.0} ms in all", template.lock_waits, template.lock_wait_ms);
    vec![Hit::new(target_span(subject), message).by(Evidence::Workload)]
}

/// Transactions stood open and did nothing after the statement.
pub(super) fn idle_in_transaction(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let template = subject.template;
    if template.idles == 0 || template.idle_ms < rule.threshold("ms", 1000.0) {
        return Vec::new();
    }
    let seconds = template.idle_ms / 1000.0;
    let message = format!(
        "{} transactions stood idle after it, the longest for {seconds:.1} s, and kept what they had locked",
        template.idles
    );
    vec![Hit::new(target_span(subject), message).by(Evidence::Workload)]
}

/// One statement sent again and again as text, with other constants in it each time.
pub(super) fn literals_not_parameterised(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let template = subject.template;
    let (count, varied) = (template.count as f64, template.varied as f64);
    let is_query = !matches!(subject.facts.kind, StatementKind::Ddl | StatementKind::Other);
    if count < rule.threshold("count", 100.0) || varied < count * rule.threshold("share", 0.5) || !is_query {
        return Vec::new();
    }
    let message = format!(
        "it ran {} times with its constants in the text, {} times with others than before: each is parsed and planned anew",
        template.count, template.varied
    );
    vec![Hit::new(target_span(subject), message).by(Evidence::Workload)]
}
