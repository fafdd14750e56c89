//! EXPLAIN's answer as plain data, so that rooms which never touch a server can reason about plans.
//!
//! Filled from `EXPLAIN (FORMAT JSON)` (by `db/` from a live server, or from an auto_explain line in a log).

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    PlanNode {
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
