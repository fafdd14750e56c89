//! EXPLAIN's answer as plain data, so that rooms which never touch a server can reason about plans.
//!
//! Filled from `EXPLAIN (FORMAT JSON)` (by `db/` from a live server, or from an auto_explain line in a log).

mod text;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What auto_explain logs of an execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// The statement.
    pub sql: String,
    /// Its parameters, as PostgreSQL logs them.
    pub parameters: Option<String>,
    /// The plan that was run.
    pub plan: PlanNode,
}

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanNode {
    /// `Seq Scan`, `Index Only Scan`, `Hash Join`, `Sort`, ...
    pub node_type: String,
    /// What it is to its parent: `Outer`, `Inner`, `Member`, `SubPlan`, `InitPlan`, ...
    pub relationship: Option<String>,
    /// Schema of the relation scanned (only with VERBOSE).
    pub schema: Option<String>,
    /// The relation scanned or modified.
    pub relation: Option<String>,
    /// The relation's alias in the statement.
    pub alias: Option<String>,
    /// The index used. HypoPG's hypothetical ones are named `<oid>btree_table_column`.
    pub index: Option<String>,
    /// Estimated cost until the first row, in the planner's units.
    pub startup_cost: f64,
    /// Estimated cost of all rows, in the planner's units.
    pub total_cost: f64,
    /// Estimated rows.
    pub rows: f64,
    /// Estimated bytes a row.
    pub width: u32,
    /// The condition an index answers.
    pub index_condition: Option<String>,
    /// The condition tested on each row read.
    pub filter: Option<String>,
    /// The join's condition beyond its parameters (hash, merge or join filter).
    pub join_condition: Option<String>,
    /// `Inner`, `Left`, `Semi`, `Anti`, ...
    pub join_type: Option<String>,
    /// Sort keys.
    pub sort_key: Vec<String>,
    /// How often it was run, where the plan was measured, and 0 elsewhere.
    #[serde(default)]
    pub loops: f64,
    /// Rows that it gave in all of these.
    #[serde(default)]
    pub actual_rows: Option<f64>,
    /// Rows that it read and that its filter dropped.
    #[serde(default)]
    pub removed_rows: Option<f64>,
    /// Bytes that its sort wrote to disk.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Its inputs.
    pub children: Vec<PlanNode>,
}

impl PlanNode {
    /// Reads the document that `EXPLAIN (FORMAT JSON)` answers: an array with one object holding `Plan`.
    /// `None` when it is something else.
    pub fn from_json(document: &Value) -> Option<Self> {
        let top = document.as_array().and_then(|items| items.first()).unwrap_or(document);
        Some(node(top.get("Plan")?))
    }

    /// Reads what auto_explain logs behind `plan:`, as text or JSON: the statement, its parameters where they are there, and the plan.
    pub fn from_log(logged: &str) -> Option<Logged> {
        if logged.trim_start().starts_with('{') {
            let document: Value = serde_json::from_str(logged).ok()?;
            let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
            let plan = Self::from_json(&document)?;
            return Some(Logged { sql: text("Query Text")?, parameters: text("Query Parameters"), plan });
        }
        let lines: Vec<&str> = logged.lines().collect();
        // The statement may have many lines, and the plan begins with its first cost.
        let first = lines.iter().position(|line| line.contains("  (cost="))?;
        let (before, plan) = lines.split_at(first);
        let head = before.join("\n");
        let sql = head.trim_start().strip_prefix("Query Text: ")?;
        let (sql, parameters) = match sql.rsplit_once("\nQuery Parameters: ") {
            Some((sql, parameters)) => (sql, Some(parameters.to_owned())),
            None => (sql, None),
        };
        Some(Logged { sql: sql.to_owned(), parameters, plan: text::read(plan)? })
    }

    /// This node and all below it, parents first.
    pub fn walk(&self) -> Vec<&PlanNode> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(node) = all.get(next).copied() {
            all.extend(node.children.iter());
            next += 1;
        }
        all
    }
}

fn node(value: &Value) -> PlanNode {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| value.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let join_condition = ["Hash Cond", "Merge Cond", "Join Filter"].iter().find_map(|key| text(key));
    let list = |key: &str| value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let measured = |key: &str| value.get(key).and_then(Value::as_f64);
    let loops = number("Actual Loops");
    PlanNode {
        loops,
        actual_rows: measured("Actual Rows").map(|rows| rows * loops),
        removed_rows: measured("Rows Removed by Filter").map(|rows| rows * loops.max(1.0)),
        disk_bytes: (text("Sort Space Type").as_deref() == Some("Disk"))
            .then(|| value.get("Sort Space Used").and_then(Value::as_u64).map(|size| size * 1024))
            .flatten(),
        node_type: text("Node Type").unwrap_or_default(),
        relationship: text("Parent Relationship"),
        schema: text("Schema"),
        relation: text("Relation Name"),
        alias: text("Alias"),
        index: text("Index Name"),
        startup_cost: number("Startup Cost"),
        total_cost: number("Total Cost"),
        rows: number("Plan Rows"),
        width: value.get("Plan Width").and_then(Value::as_u64).and_then(|width| u32::try_from(width).ok()).unwrap_or(0),
        index_condition: text("Index Cond"),
        filter: text("Filter"),
        join_condition,
        join_type: text("Join Type"),
        sort_key: list("Sort Key").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        // The server bounds its own nesting (max_stack_depth), and serde_json bounds a document's at 128.
        children: list("Plans").iter().map(node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_auto_explain_logs() {
        let logged = "Query Text: SELECT o.id\n  FROM orders o\nQuery Parameters: $1 = '7'\n\
            Limit  (cost=1.00..20.25 rows=7 width=12) (actual time=0.1..0.2 rows=2 loops=1)\n  \
              ->  Nested Loop Left Join  (cost=1.00..20.25 rows=7 width=12) (actual time=0.1..0.2 rows=2 loops=1)\n        \
                    Join Filter: (o.id = i.order_id)\n        \
                    ->  Parallel Seq Scan on shop.\"Orders\" o  (cost=0.00..35.50 rows=10 width=4) (actual time=0.1..0.2 rows=3 loops=2)\n              \
                          Filter: (note = 'a: b'::text)\n              \
                          Rows Removed by Filter: 500\n        \
                    ->  Sort  (cost=0.10..0.20 rows=5 width=8) (actual time=1.0..2.0 rows=5 loops=1)\n              \
                          Sort Key: i.a, i.b DESC\n              \
                          Sort Method: external merge  Disk: 2048kB\n              \
                          ->  Index Only Scan using i_pkey on items i  (cost=0.10..0.20 rows=1 width=8) (never executed)\n                    \
                                Index Cond: (order_id = $1)";
        let Logged { sql, parameters, plan } = PlanNode::from_log(logged).unwrap();
        assert_eq!((sql.as_str(), parameters.as_deref()), ("SELECT o.id\n  FROM orders o", Some("$1 = '7'")));
        let kinds: Vec<_> = plan.walk().iter().map(|node| node.node_type.as_str()).collect();
        assert_eq!(kinds, ["Limit", "Nested Loop Left Join", "Seq Scan", "Sort", "Index Only Scan"]);
        let nodes = plan.walk();
        assert_eq!((nodes[2].relation.as_deref(), nodes[2].alias.as_deref()), (Some("Orders"), Some("o")));
        assert_eq!((nodes[2].actual_rows, nodes[2].removed_rows), (Some(6.0), Some(1000.0)));
        assert_eq!((nodes[2].total_cost, nodes[2].filter.as_deref()), (35.5, Some("(note = 'a: b'::text)")));
        assert_eq!((nodes[3].disk_bytes, nodes[3].sort_key.len()), (Some(2 << 20), 2));
        assert_eq!(
            (nodes[4].index.as_deref(), nodes[4].index_condition.as_deref()),
            (Some("i_pkey"), Some("(order_id = $1)"))
        );
        let json =
            r#"{"Query Text": "SELECT 1", "Plan": {"Node Type": "Result", "Actual Rows": 1, "Actual Loops": 3}}"#;
        let Logged { sql, plan, .. } = PlanNode::from_log(json).unwrap();
        assert_eq!((sql.as_str(), plan.actual_rows), ("SELECT 1", Some(3.0)));
        for other in ["", "Query Text: x", "<explain/>", "{\"Plan\": {}}"] {
            assert_eq!(PlanNode::from_log(other), None, "{other}");
        }
    }

    #[test]
    fn reads_a_plan_and_walks_it() {
        let document = serde_json::json!([{"Plan": {
        "Node Type": "Hash Join", "Join Type": "Inner", "Startup Cost": 1.5, "Total Cost": 20.25, "Plan Rows": 7,
        "Plan Width": 12, "Hash Cond": "(o.id = i.order_id)",
        "Plans": [
            {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Relation Name": "orders", "Alias": "o", "Filter": "(x > 1)"},
            {"Node Type": "Hash", "Plans": [{"Node Type": "Index Scan", "Index Name": "i_pkey", "Index Cond": "(id = $1)"}]}
        ]}}]);
        let plan = PlanNode::from_json(&document).unwrap();
        assert_eq!(plan.total_cost, 20.25);
        assert_eq!(plan.join_condition.as_deref(), Some("(o.id = i.order_id)"));
        let kinds: Vec<_> = plan.walk().iter().map(|node| node.node_type.as_str()).collect();
        assert_eq!(kinds, ["Hash Join", "Seq Scan", "Hash", "Index Scan"]);
        assert_eq!(PlanNode::from_json(&serde_json::json!("Seq Scan on t")), None);
    }
}
