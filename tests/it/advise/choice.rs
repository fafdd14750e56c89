//! The choice over a planner of our own making: determinism, the budget, thresholds, failures.

use pgweir::advise::input::{Seen, read};
use pgweir::advise::{Advice, CostFailure, CostModel, Definition, Evidence, Options, Priced, Statement, advise};
use pgweir::error::Error;
use pgweir::sql::catalog::{Catalog, TableId};
use pgweir::sql::ddl::catalog_from_ddl;
use proptest::prelude::*;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b int, c int, d int, e text);
                      CREATE TABLE u (id int PRIMARY KEY, t_id int, x int, y int);";

/// A planner for one table at a time: a scan costs 1000, and each leading key column that the text compares divides it by ten.
#[derive(Default)]
struct Toy {
    asked: usize,
    /// Tables whose indexes cannot be made.
    refuses: Option<TableId>,
    /// The question at which the server goes away.
    dies_at: Option<usize>,
}

impl CostModel for Toy {
    fn evidence(&self, _: TableId) -> Evidence {
        Evidence::Plan
    }

    fn price(&mut self, statement: &Statement, set: &[&Definition]) -> Result<Priced, CostFailure> {
        self.asked += 1;
        if self.dies_at == Some(self.asked) {
            return Err(CostFailure::Fatal(Error::server("gone")));
        }
        if statement.sql.contains("broken") {
            return Err(CostFailure::Statement("no such thing".to_owned()));
        }
        if let Some(at) = set.iter().position(|index| Some(index.table) == self.refuses) {
            return Err(CostFailure::Index(at, "no operator class".to_owned()));
        }
        let mut best = (1000.0, None);
        for (at, index) in set.iter().enumerate() {
            let compared = |key: &&pgweir::advise::Key| statement.sql.contains(&format!("{} = ", key.column));
            let matched = i32::try_from(index.keys.iter().take_while(compared).count()).unwrap();
            let width = (index.keys.len() + index.include.len()) as f64;
            let cost = 1000.0 / 10_f64.powi(matched) + width;
            if matched > 0 && cost < best.0 {
                best = (cost, Some(at));
            }
        }
        Ok(Priced { cost: best.0, used: best.1.into_iter().collect(), existing: Vec::new() })
    }

    fn size(&mut self, definition: &Definition) -> Result<u64, CostFailure> {
        Ok(100_000 * (definition.keys.len() + definition.include.len()) as u64)
    }
}

fn catalog() -> Catalog {
    catalog_from_ddl(SCHEMA).0
}

fn statements(texts: &[(&str, f64)], catalog: &Catalog) -> Vec<Statement> {
    read(texts.iter().map(|(sql, calls)| Seen { sql, calls: *calls, total_ms: None, parameters: None }), catalog)
        .statements
}

fn run(texts: &[(&str, f64)], model: &mut Toy, options: &Options) -> Advice {
    let catalog = catalog();
    advise(&statements(texts, &catalog), &catalog, model, options, &mut |_, _, _| {}, &|| 0.0).unwrap().0
}

fn ddl(advice: &Advice) -> Vec<&str> {
    advice.recommendations.iter().map(|found| found.ddl.as_str()).collect()
}

#[test]
fn a_wider_index_takes_the_place_of_what_it_covers() {
    let texts = [("select * from t where a = 1", 1.0), ("select * from t where a = 1 and b = 2", 1.0)];
    let advice = run(&texts, &mut Toy::default(), &Options::default());
    assert_eq!(ddl(&advice), ["CREATE INDEX CONCURRENTLY t_a_b_idx ON public.t (a, b);"]);
    assert_eq!(advice.recommendations[0].statements.len(), 2);
    assert_eq!((advice.cost_before, advice.cost_after), (2000.0, 102.0 + 12.0));
}

#[test]
fn a_small_budget_takes_what_brings_most_by_the_byte() {
    let texts = [("select * from t where a = 1 and b = 2", 100.0), ("select * from u where x = 1", 1.0)];
    let options = |budget| Options { storage_budget_bytes: Some(budget), covering: false, ..Options::default() };
    let one = run(&texts, &mut Toy::default(), &options(100_000));
    assert_eq!(ddl(&one).len(), 1);
    assert!(ddl(&one)[0].contains("public.t ("), "{:?}", ddl(&one));
    assert_eq!(ddl(&run(&texts, &mut Toy::default(), &options(300_000))).len(), 2);
    assert!(run(&texts, &mut Toy::default(), &options(99_999)).recommendations.is_empty());
}

#[test]
fn a_covering_index_must_pay_for_its_size_unless_a_budget_allows_it() {
    let mut catalog = catalog();
    let id = catalog.find(None, "t").unwrap();
    catalog.table_mut(id).pages = Some(100);
    let texts = [("select a, c from t where a = 1 and d > 3", 1.0)];
    let statements = statements(&texts, &catalog);
    let widths = |options: &Options| {
        let advice = advise(&statements, &catalog, &mut Wide, options, &mut |_, _, _| {}, &|| 0.0).unwrap().0;
        advice
            .recommendations
            .iter()
            .map(|found| found.definition.keys.len() + found.definition.include.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(widths(&Options::default()), [1]);
    assert_eq!(widths(&Options { storage_budget_bytes: Some(1 << 20), ..Options::default() }), [3]);
}

/// Each column an index holds, beyond the first, takes a little more off the cost, and each takes 100 kB.
struct Wide;

impl CostModel for Wide {
    fn evidence(&self, _: TableId) -> Evidence {
        Evidence::Plan
    }

    fn price(&mut self, _: &Statement, set: &[&Definition]) -> Result<Priced, CostFailure> {
        let width = |at: &usize| set[*at].keys.len() + set[*at].include.len();
        let best = (0..set.len()).filter(|at| set[*at].keys[0].column == "a").max_by_key(width);
        let cost = best.map_or(1000.0, |at| 100.0 - 5.0 * width(&at) as f64);
        Ok(Priced { cost, used: best.into_iter().collect(), existing: Vec::new() })
    }

    fn size(&mut self, definition: &Definition) -> Result<u64, CostFailure> {
        Ok(100_000 * (definition.keys.len() + definition.include.len()) as u64)
    }
}

#[test]
fn the_writes_that_maintain_an_index_are_counted() {
    let texts = [
        ("select * from t where a = 1", 10.0),
        ("insert into t (id, a) values (1, 2)", 5.0),
        ("update t set a = 3 where id = 1", 2.0),
        ("update t set b = 3 where id = 1", 100.0),
        ("delete from t where id = 1", 100.0),
        ("insert into u (id) values (1)", 100.0),
    ];
    let options = Options { min_workload_gain: 0.0001, ..Options::default() };
    let advice = run(&texts, &mut Toy::default(), &options);
    let on_a = advice.recommendations.iter().find(|found| found.name == "t_a_idx").unwrap();
    assert_eq!(on_a.writes, 7.0);
}

#[test]
fn told_to_stop_it_answers_with_what_it_knows() {
    use std::cell::Cell;
    let catalog = catalog();
    let statements =
        statements(&[("select * from t where a = 1", 10.0), ("select * from t where b = 2", 1.0)], &catalog);
    let mut answers = Vec::new();
    for questions in 0..200 {
        let left = Cell::new(questions);
        let spent = || {
            left.set(left.get() - 1);
            if left.get() < 0 { 1.0 } else { 0.0 }
        };
        let mut model = Toy::default();
        let found =
            advise(&statements, &catalog, &mut model, &Options::default(), &mut |_, _, _| {}, &spent).unwrap().0;
        assert!(found.cost_after <= found.cost_before);
        answers.push((found.cut_short, found.recommendations.len()));
    }
    assert_eq!(answers.first(), Some(&(true, 0)));
    assert_eq!(answers.last(), Some(&(false, 2)));
    assert!(answers.contains(&(true, 1)) || answers.contains(&(true, 2)), "{answers:?}");
}

#[test]
fn what_brings_too_little_is_left_out() {
    let texts = [("select * from t where a = 1", 1_000_000.0), ("select * from u where x = 1", 1.0)];
    let advice = run(&texts, &mut Toy::default(), &Options::default());
    assert_eq!(ddl(&advice), ["CREATE INDEX CONCURRENTLY t_a_idx ON public.t (a);"]);
    // An index that takes 90 % off a statement that is 0.5 % of the workload.
    let texts =
        [("select * from u", 1_000_000.0), ("select * from t where a = 1", 5_000.0), ("select * from t", 3_000.0)];
    assert_eq!(run(&texts, &mut Toy::default(), &Options::default()).recommendations.len(), 1);
    let strict = Options { min_statement_gain: 0.95, ..Options::default() };
    assert!(run(&texts, &mut Toy::default(), &strict).recommendations.is_empty());
    // What is large beside the whole workload need not be large beside its own statements.
    let texts = [("select * from u", 1.0), ("select * from t where a = 1", 1.0)];
    assert_eq!(run(&texts, &mut Toy::default(), &strict).recommendations.len(), 1);
}

#[test]
fn a_statement_without_a_plan_is_counted_and_an_index_that_cannot_be_is_passed_over() {
    let texts = [
        ("select * from t where a = 1 and e = 'broken'", 1.0),
        ("select * from u where x = 1", 1.0),
        ("select * from t where b = 1", 1.0),
    ];
    let catalog = catalog();
    let mut model = Toy { refuses: catalog.find(None, "u"), ..Toy::default() };
    let advice = run(&texts, &mut model, &Options::default());
    assert_eq!(advice.skipped.len(), 1);
    assert_eq!((advice.skipped[0].statement, advice.skipped[0].reason.as_str()), (0, "no such thing"));
    assert_eq!((advice.before[0], advice.before[1], advice.after[1]), (None, Some(1000.0), Some(1000.0)));
    assert_eq!(ddl(&advice), ["CREATE INDEX CONCURRENTLY t_b_idx ON public.t (b);"]);
}

#[test]
fn a_server_that_goes_away_ends_it_whenever_it_does() {
    let texts = [("select * from t where a = 1", 1.0), ("select * from u where x = 1", 1.0)];
    let mut whole = Toy::default();
    run(&texts, &mut whole, &Options::default());
    let catalog = catalog();
    let statements = statements(&texts, &catalog);
    for at in 1..=whole.asked {
        let mut model = Toy { dies_at: Some(at), ..Toy::default() };
        let outcome = advise(&statements, &catalog, &mut model, &Options::default(), &mut |_, _, _| {}, &|| 0.0);
        assert_eq!(outcome.err().map(|error| error.what), Some("gone".to_owned()), "at question {at}");
    }
}

fn a_workload() -> impl Strategy<Value = Vec<(String, f64)>> {
    let column = prop::sample::select(vec!["a", "b", "c", "d"]);
    let statement = (prop::collection::btree_set(column, 1..4), 1..1000_u32, any::<bool>());
    prop::collection::vec(statement, 1..6).prop_map(|statements| {
        let text = |(columns, calls, sorted): (std::collections::BTreeSet<&str>, u32, bool)| {
            let conditions: Vec<String> = columns.iter().map(|column| format!("{column} = 1")).collect();
            let order = if sorted { " order by id" } else { "" };
            (format!("select a from t where {}{order}", conditions.join(" and ")), f64::from(calls))
        };
        statements.into_iter().map(text).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn advice_keeps_its_promises(workload in a_workload(), budget in 0_u64..2_000_000) {
        let texts: Vec<(&str, f64)> = workload.iter().map(|(sql, calls)| (sql.as_str(), *calls)).collect();
        let options = Options { storage_budget_bytes: Some(budget), ..Options::default() };
        let advice = run(&texts, &mut Toy::default(), &options);
        prop_assert_eq!(&advice, &run(&texts, &mut Toy::default(), &options), "the same answer each time");
        prop_assert!(advice.recommendations.iter().map(|found| found.size_bytes).sum::<u64>() <= budget);
        prop_assert!(advice.cost_after <= advice.cost_before);
        for found in &advice.recommendations {
            prop_assert!(!found.statements.is_empty(), "used by a plan");
            prop_assert!(found.cost_after < found.cost_before * 0.9);
            prop_assert!(!pgweir::advise::candidates::exists(&found.definition, &catalog()));
        }
    }
}
