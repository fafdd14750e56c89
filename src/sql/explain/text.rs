//! Plans as `EXPLAIN` prints them for people, and auto_explain by default.

use super::PlanNode;

/// Reads a plan's lines; `None` when there is no node in them.
pub(super) fn read(lines: &[&str]) -> Option<PlanNode> {
    // Nodes that are open, with the column of their names.
    let mut open: Vec<(usize, PlanNode)> = Vec::new();
    for line in lines {
        let indent = line.len() - line.trim_start().len();
        match node(line) {
            Some((column, node)) => {
                while open.len() > 1 && open.last().is_some_and(|(other, _)| *other >= column) {
                    close(&mut open);
                }
                open.push((column, node));
            }
            None => {
                if let Some((_, node)) = open.iter_mut().rev().find(|(column, _)| *column < indent || *column == 0) {
                    property(node, line.trim());
                }
            }
        }
    }
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop().map(|(_, node)| node)
}

fn close(open: &mut Vec<(usize, PlanNode)>) {
    if let Some((_, child)) = open.pop()
        && let Some((_, parent)) = open.last_mut()
    {
        parent.children.push(child);
    }
}

/// `->  Seq Scan on shop.orders o  (cost=0.00..35.50 rows=10 width=4) (actual time=..)`, and the column of its name.
fn node(line: &str) -> Option<(usize, PlanNode)> {
    let (head, numbers) = line.split_once("  (cost=")?;
    let name = head.trim_start().strip_prefix("->").unwrap_or(head).trim_start();
    let column = head.len() - name.len();
    let mut node = PlanNode::default();
    let (cost, rest) = numbers.split_once(')')?;
    let mut words = cost.split(' ');
    let (startup, total) = words.next()?.split_once("..")?;
    node.startup_cost = startup.parse().ok()?;
    node.total_cost = total.parse().ok()?;
    for word in words {
        match word.split_once('=') {
            Some(("rows", rows)) => node.rows = rows.parse().unwrap_or_default(),
            Some(("width", width)) => node.width = width.parse().unwrap_or_default(),
            _ => {}
        }
    }
    actual(&mut node, rest);
    named(&mut node, name);
    Some((column, node))
}

/// ` (actual time=0.01..0.02 rows=5 loops=2)`
fn actual(node: &mut PlanNode, rest: &str) {
    let Some((_, numbers)) = rest.split_once("(actual ") else { return };
    let number = |wanted: &str| {
        let mut words = numbers.trim_end_matches(')').split(' ');
        words.find_map(|word| word.strip_prefix(wanted)?.strip_prefix('=')?.parse::<f64>().ok())
    };
    node.loops = number("loops").unwrap_or(1.0);
    node.actual_rows = number("rows").map(|rows| rows * node.loops);
}

/// `Parallel Index Only Scan using i on shop.orders o`
fn named(node: &mut PlanNode, name: &str) {
    let name = name.strip_prefix("Parallel ").unwrap_or(name);
    let (kind, target) = match name.split_once(" on ") {
        Some((kind, target)) => (kind, Some(target)),
        None => (name, None),
    };
    let (kind, index) = match kind.split_once(" using ") {
        Some((kind, index)) => (kind, Some(index)),
        None => (kind, None),
    };
    node.node_type = kind.strip_suffix(" Backward").unwrap_or(kind).to_owned();
    node.index = index.map(plain);
    let Some(target) = target else { return };
    if kind == "Bitmap Index Scan" {
        node.index = Some(plain(target));
        return;
    }
    let mut words = target.split(' ');
    let table = words.next().unwrap_or_default();
    let (schema, relation) = match table.split_once('.') {
        Some((schema, relation)) => (Some(schema), relation),
        None => (None, table),
    };
    node.schema = schema.map(plain);
    node.relation = Some(plain(relation));
    node.alias = Some(words.next().map_or_else(|| plain(relation), plain));
}

/// A name without quotes.
fn plain(name: &str) -> String {
    name.trim_matches('"').to_owned()
}

fn property(node: &mut PlanNode, line: &str) {
    let Some((name, value)) = line.split_once(": ") else { return };
    let value = value.trim();
    match name {
        "Filter" => node.filter = Some(value.to_owned()),
        "Index Cond" | "Recheck Cond" if node.index_condition.is_none() => {
            node.index_condition = Some(value.to_owned())
        }
        "Hash Cond" | "Merge Cond" | "Join Filter" if node.join_condition.is_none() => {
            node.join_condition = Some(value.to_owned());
        }
        "Sort Key" => node.sort_key = value.split(", ").map(str::to_owned).collect(),
        "Rows Removed by Filter" => node.removed_rows = value.parse().ok().map(|rows: f64| rows * node.loops.max(1.0)),
        // external merge  Disk: 1234kB
        "Sort Method" => {
            let disk = value.split_once("Disk: ").map(|(_, size)| size.trim_end_matches("kB"));
            node.disk_bytes = disk.and_then(|size| size.parse::<u64>().ok()).map(|size| size * 1024);
        }
        _ => {}
    }
}
