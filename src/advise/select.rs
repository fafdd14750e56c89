//! The choice: which possible indexes together bring most.
//!
//! 1. *Seeds* ([`super::explore`]): a statement is planned with all its possible indexes at once, so the planner itself
//!    says which matter; those are taken away and it is asked again, for narrow ones, plain ones and covering
//!    ones apart, and for the parts of what it used.
//! 2. *Solving* ([`super::solve`]): the best set by the costs that are known, without the planner.
//! 3. *Looking around*: the planner's word on that set, on its neighbours, and on merged and shortened forms of
//!    its indexes. What that teaches is solved again, until nothing new is learned.
//! 4. *Pruning* ([`super::worth`]): each index's marginal gain with all others in place; what does not clear the
//!    thresholds goes.

use std::collections::BTreeSet;

use super::ddl::{Names, create};
use super::explore::Explorer;
use super::model::{Advice, CostFailure, CostModel, Definition, Evidence, Options, Recommendation, Skipped, Statement};
use super::tour;
use super::whatif::{Set, WhatIf};
use super::worth::{Chooser, State};
use crate::error::Result;
use crate::sql::catalog::{Catalog, Table, TableId};
use crate::sql::facts::{Access, RelationSource, StatementKind};

/// Statements propose indexes, dearest first, until this share of the workload's cost is covered.
const SEEDED_SHARE: f64 = 0.995;
/// How often the best set known is looked around at most.
const ROUNDS: usize = 6;
/// Sets for this many times the budget are looked at too, once, for indexes that could be merged.
const WIDER: [u64; 2] = [2, 4];

/// A round must bring this share of the cost for another one to follow.
const MIN_ROUND_GAIN: f64 = 0.003;
/// Shares of the time: statements' own indexes are known, wider sets are looked at, neighbours are looked at, and the last
/// improvement of a set ends.
const SEEDED_BY: f64 = 0.5;
const WIDENED_BY: f64 = 0.55;
const SETTLED_BY: f64 = 0.75;
const SOLVED_BY: f64 = 0.85;
/// How often the room that pruning made is filled at most.
const FILLS: usize = 4;

/// Steps of the work, for a progress bar: (done, of, what).
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// The share of the time that is spent: exploring and solving give way at shares of it, and from 1 on only the answer is
/// put together.
pub type Spent<'a> = &'a dyn Fn() -> f64;

/// Works out the advice. Names of real indexes that today's plans use come beside it. When time is short, the best set that
/// is known by then is the answer.
///
/// # Errors
/// Only what ends all costing (the server went away); a statement that cannot be costed is counted in
/// [`Advice::skipped`].
pub fn advise(
    statements: &[Statement],
    catalog: &Catalog,
    model: &mut dyn CostModel,
    options: &Options,
    progress: Progress<'_>,
    spent: Spent<'_>,
) -> Result<(Advice, BTreeSet<String>)> {
    let mut what_if = WhatIf::new(model, statements, catalog);
    let (base, skipped) = price_today(&mut what_if, statements, progress)?;
    let order = dearest_first(statements, &base);
    let chooser = Chooser::new(what_if, statements, options, &base, table_bytes(statements, catalog));
    let mut explorer = Explorer::new(chooser, catalog, options, spent);
    explorer.until = SEEDED_BY;
    for (done, at) in order.iter().enumerate() {
        progress(done, order.len(), "looking for indexes");
        if let Some(statement) = statements.get(*at) {
            explorer.seed(*at, statement)?;
        }
    }
    let best = settle(&mut explorer, &order, options, progress)?;
    let (candidates, cut_short) = (explorer.looked_at, explorer.stopped || spent() >= SOLVED_BY);
    let mut chooser = explorer.chooser;
    let mut recommended = recommend(&mut chooser, &best, statements, catalog)?;
    recommended.sort_by(|(_, a), (_, b)| (b.cost_before - b.cost_after).total_cmp(&(a.cost_before - a.cost_after)));
    let (indexes, recommendations): (Vec<usize>, Vec<Recommendation>) = recommended.into_iter().unzip();
    let order = tour::order(&mut chooser, &indexes)?;
    let plans = tour::plans(&mut chooser, &indexes, &recommendations);
    let start = chooser.start();
    let advice = Advice {
        after: base.iter().zip(&best.costs).map(|(base, cost)| base.map(|_| *cost)).collect(),
        before: base,
        cost_before: start.total,
        cost_after: best.total,
        recommendations,
        skipped,
        candidates,
        priced: chooser.what_if.priced,
        cut_short,
        order,
        plans,
    };
    Ok((advice, chooser.what_if.in_use))
}

/// The cost of one call of each statement today, and those that have none.
fn price_today(
    what_if: &mut WhatIf<'_>,
    statements: &[Statement],
    progress: Progress<'_>,
) -> Result<(Vec<Option<f64>>, Vec<Skipped>)> {
    let mut base = Vec::with_capacity(statements.len());
    let mut skipped = Vec::new();
    for statement in 0..statements.len() {
        progress(statement, statements.len(), "costing statements");
        match what_if.price(statement, &Set::default()) {
            Ok((cost, _)) => base.push(Some(cost)),
            Err(CostFailure::Fatal(error)) => return Err(error),
            Err(CostFailure::Statement(reason) | CostFailure::Index(_, reason)) => {
                base.push(None);
                skipped.push(Skipped { statement, reason });
            }
        }
    }
    Ok((base, skipped))
}

/// The statements that make up nearly all of the cost; the rest could not justify an index together.
fn dearest_first(statements: &[Statement], base: &[Option<f64>]) -> Vec<usize> {
    let cost = |at: usize| match (statements.get(at), base.get(at)) {
        (Some(statement), Some(Some(base))) => statement.calls * base,
        _ => 0.0,
    };
    let total: f64 = (0..statements.len()).map(cost).sum();
    let mut order: Vec<usize> = (0..statements.len()).filter(|at| cost(*at) > 0.0).collect();
    order.sort_by(|a, b| cost(*b).total_cmp(&cost(*a)).then(a.cmp(b)));
    let mut covered = 0.0;
    order.retain(|at| {
        let wanted = covered < total * SEEDED_SHARE;
        covered += cost(*at);
        wanted
    });
    order
}

/// Bytes of all tables that the statements name, with their partitions; without end when nobody ever counted them, so that
/// nothing is too dear.
fn table_bytes(statements: &[Statement], catalog: &Catalog) -> f64 {
    let relations =
        statements.iter().filter_map(|statement| statement.facts.as_ref()).flat_map(|facts| &facts.relations);
    let named: BTreeSet<_> = relations
        .filter_map(|relation| match relation.source {
            RelationSource::Table { table, .. } => table,
            _ => None,
        })
        .collect();
    let is_named = |id: TableId, table: &Table| {
        let mut parent = table.partition_of.as_ref();
        let mut is_named = named.contains(&id);
        while let Some(name) = parent.filter(|_| !is_named) {
            let above = catalog.find(Some(&name.schema), &name.name);
            is_named = above.is_some_and(|above| named.contains(&above));
            parent = above.and_then(|above| catalog.table(above).partition_of.as_ref());
        }
        is_named
    };
    let pages = catalog.tables().filter(|(id, table)| is_named(*id, table)).filter_map(|(_, table)| table.pages);
    // Page counts are far below 2^52, where f64 is exact.
    let bytes = pages.sum::<u64>() as f64 * 8_192.0;
    if bytes > 0.0 { bytes } else { f64::INFINITY }
}

/// Solves what is known and looks around the solution, until that teaches nothing new.
fn settle(explorer: &mut Explorer<'_>, order: &[usize], options: &Options, progress: Progress<'_>) -> Result<State> {
    let budget = options.storage_budget_bytes;
    let spent = explorer.spent;
    explorer.until = SETTLED_BY;
    for (done, factor) in WIDER.into_iter().enumerate() {
        progress(done, WIDER.len() + ROUNDS, "choosing among them");
        let problem = explorer.chooser.problem(budget.map(|budget| budget.saturating_mul(factor)));
        let wider = problem.solve(&Set::default(), &|| spent() >= WIDENED_BY);
        explorer.vary(&wider)?;
    }
    let mut best = explorer.chooser.start();
    for round in 0..ROUNDS {
        progress(WIDER.len() + round, WIDER.len() + ROUNDS, "choosing among them");
        let found = explorer.chooser.problem(budget).solve(&best.set, &|| spent() >= SOLVED_BY);
        let before = explorer.chooser.burden(&best);
        if let Some(state) = explorer.chooser.judge(&found)?
            && explorer.chooser.burden(&state) < before
        {
            best = state;
        }
        if spent() >= SETTLED_BY || round > 0 && explorer.chooser.burden(&best) > before * (1.0 - MIN_ROUND_GAIN) {
            break;
        }
        explorer.look_around(&best.set, order)?;
    }
    prune_and_fill(&mut explorer.chooser, best, budget, spent)
}

/// Takes out what does not clear the thresholds, and uses the room for something else.
fn prune_and_fill(chooser: &mut Chooser<'_>, from: State, budget: Option<u64>, spent: Spent<'_>) -> Result<State> {
    let mut barred = Set::default();
    let mut best: Option<State> = None;
    let mut next = from;
    for _ in 0..FILLS {
        let pruned = chooser.prune(next.clone())?;
        next.set.iter().filter(|index| !pruned.set.contains(*index)).for_each(|index| barred.insert(index));
        let clean = pruned.set == next.set;
        let mut problem = chooser.problem(budget);
        problem.bar(&barred);
        let refill = problem.solve(&pruned.set, &|| spent() >= SOLVED_BY);
        if best.as_ref().is_none_or(|best| chooser.burden(&pruned) < chooser.burden(best)) {
            best = Some(pruned);
        }
        match chooser.judge(&refill)? {
            Some(state) if !clean && spent() < SOLVED_BY => next = state,
            _ => break,
        }
    }
    Ok(best.unwrap_or_else(|| chooser.start()))
}

fn recommend(
    chooser: &mut Chooser<'_>,
    best: &State,
    statements: &[Statement],
    catalog: &Catalog,
) -> Result<Vec<(usize, Recommendation)>> {
    let mut names = Names::of(catalog);
    let mut found = Vec::new();
    for index in best.set.iter() {
        let Some(definition) = chooser.what_if.pool.get(index).cloned() else { continue };
        let worth = chooser.worth(best, index)?;
        let table = catalog.table(definition.table);
        let name = names.choose(table, &definition);
        let evidence = chooser.what_if.evidence(index);
        let recommendation = Recommendation {
            ddl: create(table, &definition, &name),
            size_bytes: chooser.bytes(index),
            cost_before: worth.before,
            cost_after: worth.after,
            why: why(&definition, worth.users.len(), evidence),
            statements: worth.users,
            writes: statements.iter().filter(|statement| maintains(statement, &definition)).map(|s| s.calls).sum(),
            evidence,
            name,
            definition,
        };
        found.push((index, recommendation));
    }
    Ok(found)
}

/// True when the statement adds entries to the index. (A delete does not, and an update of other columns can stay on
/// its page.)
fn maintains(statement: &Statement, index: &Definition) -> bool {
    let Some(facts) = &statement.facts else { return false };
    let mut written = facts.relations.iter().filter(|relation| relation.access == Access::Write);
    let is_written = written.any(
        |relation| matches!(relation.source, RelationSource::Table { table: Some(table), .. } if table == index.table),
    );
    let asks = |name: &String| index.predicate.as_ref().is_some_and(|predicate| predicate.contains(name.as_str()));
    let holds =
        |name: &String| index.include.contains(name) || index.keys.iter().any(|key| &key.column == name) || asks(name);
    is_written
        && match facts.kind {
            StatementKind::Insert | StatementKind::Merge => true,
            StatementKind::Update => facts.assignments.iter().any(|(column, _)| holds(&column.name)),
            _ => false,
        }
}

fn why(definition: &Definition, statements: usize, evidence: Evidence) -> String {
    let who = match evidence {
        Evidence::Plan => "PostgreSQL's planner uses it",
        Evidence::Stats => "by the table's statistics it would be used",
        Evidence::Schema => "by the statements' shape it would be used",
    };
    let what = if definition.include.is_empty() { "" } else { ", with the table itself left unread where it can be" };
    let plural = if statements == 1 { "statement" } else { "statements" };
    format!("{who} for {statements} {plural}{what}")
}
