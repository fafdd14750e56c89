//! What is shown of a choice besides the choice: in which order to create the indexes, and how plans change.

use super::model::{Plans, Recommendation, Step};
use super::whatif::Set;
use super::worth::{Chooser, State};
use crate::error::Result;
use crate::sql::explain::PlanNode;

/// Up to so many indexes every order is looked at one by one; beyond it, the order is that of the last look.
const MAX_ORDERED: usize = 16;
/// Statements whose plans are shown.
const SHOWN_PLANS: usize = 40;

/// The chosen indexes (pool positions, as the recommendations are sorted) in the order in which each brings the most for its size.
pub(super) fn order(chooser: &mut Chooser<'_>, indexes: &[usize]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut chosen = Set::default();
    let mut cost = chooser.start().total;
    let mut left: Vec<usize> = (0..indexes.len()).collect();
    while !left.is_empty() {
        let mut judged: Vec<(f64, usize, State)> = Vec::new();
        for &at in &left {
            let Some(&index) = indexes.get(at) else { continue };
            let mut set = chosen.clone();
            set.insert(index);
            if let Some(state) = chooser.judge(&set)? {
                // Sizes are far below 2^52, where f64 is exact.
                judged.push(((cost - state.total) / chooser.bytes(index).max(1) as f64, at, state));
            }
        }
        judged.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        let taken = if left.len() > MAX_ORDERED { judged.len() - MAX_ORDERED } else { 1 };
        let Some((_, first, state)) = judged.first().cloned() else { break };
        steps.push(Step { recommendation: first, bytes: state.bytes, cost: state.total });
        (chosen, cost) = (state.set, state.total);
        left.retain(|at| *at != first);
        for (_, at, _) in judged.into_iter().skip(1).take(taken.saturating_sub(1)) {
            let Some(&index) = indexes.get(at) else { continue };
            chosen.insert(index);
            if let Some(state) = chooser.judge(&chosen)? {
                cost = state.total;
                steps.push(Step { recommendation: at, bytes: state.bytes, cost });
            }
            left.retain(|other| *other != at);
        }
    }
    Ok(steps)
}

/// Plans of the statements that are helped, today and with all recommendations.
pub(super) fn plans(chooser: &mut Chooser<'_>, indexes: &[usize], found: &[Recommendation]) -> Vec<Plans> {
    let mut statements: Vec<usize> = Vec::new();
    for rank in 0..found.iter().map(|one| one.statements.len()).max().unwrap_or_default() {
        for statement in found.iter().filter_map(|one| one.statements.get(rank)) {
            if !statements.contains(statement) {
                statements.push(*statement);
            }
        }
    }
    statements.truncate(SHOWN_PLANS);
    let after: Vec<Option<PlanNode>> =
        statements.iter().map(|statement| chooser.what_if.plan(*statement, indexes)).collect();
    let before: Vec<Option<PlanNode>> =
        statements.iter().map(|statement| chooser.what_if.plan(*statement, &[])).collect();
    let plans = statements.into_iter().zip(before).zip(after);
    let plans = plans.filter_map(|((statement, before), after)| {
        Some(Plans { statement, before: before?, after: named(after?, found) })
    });
    plans.collect()
}

/// A plan with the names that its indexes will have.
fn named(mut plan: PlanNode, found: &[Recommendation]) -> PlanNode {
    let at = plan.index.as_deref().and_then(|name| name.strip_prefix('#')).and_then(|at| at.parse::<usize>().ok());
    if let Some(one) = at.and_then(|at| found.get(at)) {
        plan.index = Some(one.name.clone());
    }
    plan.children = plan.children.into_iter().map(|child| named(child, found)).collect();
    plan
}
