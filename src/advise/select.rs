//! The choice: which possible indexes together bring most.
//!
//! 1. *Seeds*: a statement is planned with all its possible indexes at once, so the planner itself says which
//!    matter; those are taken away and it is asked again, for narrow ones, plain ones and covering ones apart.
//! 2. *Growth* ([`super::grow`]): the index with the best gain is added while it pays, re-scored at each step.
//! 3. *Pruning*: each index's marginal gain with all others in place; what does not clear the thresholds goes.
//!
//! Growth runs twice, by the byte and outright, and the cheaper outcome is kept.

use std::collections::BTreeSet;

use super::candidates::candidates;
use super::ddl::{Names, create};
use super::grow::{Chooser, State};
use super::model::{Advice, CostFailure, CostModel, Definition, Evidence, Options, Recommendation, Skipped, Statement};
use super::whatif::{Set, WhatIf};
use crate::error::Result;
use crate::sql::catalog::{Catalog, Table, TableId};
use crate::sql::facts::{Access, RelationSource, StatementKind};

/// How often a statement's used indexes are taken away and the planner asked again, for each tier.
const SEED_ROUNDS: usize = 3;

/// Statements propose indexes, dearest first, until this share of the workload's cost is covered.
const SEEDED_SHARE: f64 = 0.995;

/// Steps of the work, for a progress bar: (done, of, what).
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// Works out the advice. Names of real indexes that today's plans use come beside it.
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
) -> Result<(Advice, BTreeSet<String>)> {
    let mut what_if = WhatIf::new(model, statements, catalog);
    let (base, skipped) = price_today(&mut what_if, statements, progress)?;
    let mut seeds = Seeds { what_if: &mut what_if, catalog, options, picked: Set::default(), looked_at: 0 };
    let order = dearest_first(statements, &base);
    for (done, at) in order.iter().enumerate() {
        progress(done, order.len(), "looking for indexes");
        if let (Some(Some(base)), Some(statement)) = (base.get(*at), statements.get(*at)) {
            seeds.seed(*at, statement, *base)?;
        }
    }
    let (picked, candidates) = (seeds.picked, seeds.looked_at);
    let mut chooser = Chooser::new(what_if, statements, options, &base, &picked, table_bytes(statements, catalog))?;
    let mut best: Option<State> = None;
    for (run, by_byte) in [true, false].into_iter().enumerate() {
        progress(run, 2, "choosing among them");
        let outcome = chooser.choose(by_byte)?;
        if best.as_ref().is_none_or(|best| chooser.burden(&outcome) < chooser.burden(best)) {
            best = Some(outcome);
        }
    }
    let best = match best {
        Some(best) => best,
        None => chooser.start(),
    };
    let mut recommendations = recommend(&mut chooser, &best, statements, catalog)?;
    recommendations.sort_by(|a, b| (b.cost_before - b.cost_after).total_cmp(&(a.cost_before - a.cost_after)));
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

/// Collects what the planner picks.
struct Seeds<'s, 'm> {
    what_if: &'s mut WhatIf<'m>,
    catalog: &'s Catalog,
    options: &'s Options,
    picked: Set,
    looked_at: usize,
}

impl Seeds<'_, '_> {
    fn seed(&mut self, at: usize, statement: &Statement, base: f64) -> Result<()> {
        let Some(facts) = &statement.facts else { return Ok(()) };
        let found = candidates(facts, self.catalog, self.options);
        self.looked_at += found.len();
        let tiers: [fn(&Definition) -> bool; 4] = [
            |index| index.keys.len() == 1 && index.include.is_empty(),
            |index| index.keys.len() <= 2 && index.include.is_empty(),
            |index| index.include.is_empty(),
            |_| true,
        ];
        for tier in tiers {
            let mut left: Set = found.iter().filter(|index| tier(index)).map(|index| self.what_if.add(index)).collect();
            for _ in 0..SEED_ROUNDS {
                let (cost, used) = match self.what_if.price(at, &left) {
                    Ok(priced) => priced,
                    Err(CostFailure::Fatal(error)) => return Err(error),
                    Err(_) => break,
                };
                if used.is_empty() || cost >= base * (1.0 - self.options.min_workload_gain) {
                    break;
                }
                for item in used.iter() {
                    self.picked.insert(item);
                    left.remove(item);
                }
            }
        }
        Ok(())
    }
}

fn recommend(
    chooser: &mut Chooser<'_>,
    best: &State,
    statements: &[Statement],
    catalog: &Catalog,
) -> Result<Vec<Recommendation>> {
    let mut names = Names::of(catalog);
    let mut found = Vec::new();
    for index in best.set.iter() {
        let Some(definition) = chooser.what_if.pool.get(index).cloned() else { continue };
        let worth = chooser.worth(best, index)?;
        let table = catalog.table(definition.table);
        let name = names.choose(table, &definition);
        let evidence = chooser.what_if.evidence(index);
        found.push(Recommendation {
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
        });
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
    let holds = |name: &String| index.include.contains(name) || index.keys.iter().any(|key| &key.column == name);
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
