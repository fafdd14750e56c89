//! Random queries and writes on one PostgreSQL and over three shards: equal answers, or a refusal.
//!
//! `PGWEIR_SEED` begins elsewhere, `PGWEIR_STATEMENTS` runs more of them.

use std::fmt::Write as _;

use super::raw::{Raw, bind, execute, field, parse, query, shown, sync};
use super::scatter::{Both, essence, is_refused};
use crate::hardening::Dice;

/// A table's columns by type: whole numbers, text, truth values, exact numbers.
struct Table {
    name: &'static str,
    ints: &'static [&'static str],
    texts: &'static [&'static str],
    numbers: &'static [&'static str],
    key: &'static str,
}

const TABLES: [Table; 4] = [
    Table { name: "customers", ints: &["id"], texts: &["name", "country"], numbers: &["score"], key: "id" },
    Table {
        name: "orders",
        ints: &["customer_id", "id"],
        texts: &["detail::text"],
        numbers: &["total"],
        key: "customer_id",
    },
    Table {
        name: "items",
        ints: &["customer_id", "order_id", "line", "qty"],
        texts: &["sku::text"],
        numbers: &["qty"],
        key: "customer_id",
    },
    Table { name: "countries", ints: &[], texts: &["code", "name"], numbers: &[], key: "" },
];

/// Writes statements.
struct Author {
    dice: Dice,
}

/// A relation in scope: its alias and its table.
type Seen = Vec<(String, &'static Table)>;

impl Author {
    fn below(&mut self, end: usize) -> usize {
        self.dice.below(end)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn int(&mut self, seen: &Seen) -> String {
        let columns: Vec<String> = seen
            .iter()
            .flat_map(|(alias, table)| table.ints.iter().map(move |column| format!("{alias}.{column}")))
            .collect();
        match self.below(6) {
            0..=2 if !columns.is_empty() => columns[self.below(columns.len())].clone(),
            3 if !columns.is_empty() => format!("{} % {}", columns[self.below(columns.len())], self.below(5) + 2),
            4 if !columns.is_empty() => format!("abs({} - {})", columns[self.below(columns.len())], self.below(40)),
            _ => self.below(50).to_string(),
        }
    }

    fn text(&mut self, seen: &Seen) -> String {
        let columns: Vec<String> = seen
            .iter()
            .flat_map(|(alias, table)| table.texts.iter().map(move |column| format!("{alias}.{column}")))
            .collect();
        let column = columns[self.below(columns.len())].clone();
        match self.below(4) {
            0 => format!("upper({column})"),
            1 => format!("coalesce({column}, 'none')"),
            _ => column,
        }
    }

    fn condition(&mut self, seen: &Seen, depth: usize) -> String {
        let comparison = self.pick(&["=", "<", ">", "<=", ">=", "<>"]);
        match self.below(if depth > 2 { 7 } else { 12 }) {
            0 | 1 => format!("{} {comparison} {}", self.int(seen), self.int(seen)),
            2 => format!("{} {comparison} {}", self.text(seen), self.pick(&["'de'", "'n1ä'", "'fr'", "'none'"])),
            3 => format!("{} is {}null", self.text(seen), self.pick(&["", "not "])),
            4 => format!("{} in ({}, {}, {})", self.int(seen), self.below(45), self.below(45), self.below(45)),
            5 => {
                let (alias, table) = seen[self.below(seen.len())].clone();
                if table.key.is_empty() {
                    "true".to_owned()
                } else {
                    format!("{alias}.{} = {}", table.key, self.below(45))
                }
            }
            6 => format!("{} between {} and {}", self.int(seen), self.below(20), self.below(60)),
            7 => format!("({} or {})", self.condition(seen, depth + 1), self.condition(seen, depth + 1)),
            8 => format!("not ({})", self.condition(seen, depth + 1)),
            9 => self.exists(seen, depth),
            10 => {
                let (inner, from) = self.from(&format!("s{depth}"), 1);
                let (not, column, condition) =
                    (self.pick(&["", "not "]), self.int(&inner), self.condition(&inner, depth + 2));
                format!("{} {not}in (select {column} from {from} where {condition})", self.int(seen))
            }
            _ => {
                let (inner, from) = self.from(&format!("s{depth}"), 1);
                format!("{} {comparison} (select max({}) from {from})", self.int(seen), self.int(&inner))
            }
        }
    }

    fn exists(&mut self, seen: &Seen, depth: usize) -> String {
        let (inner, from) = self.from(&format!("s{depth}"), 1);
        let both: Seen = seen.iter().chain(&inner).cloned().collect();
        let not = self.pick(&["", "not "]);
        format!("{not}exists (select from {from} where {})", self.condition(&both, depth + 2))
    }

    /// FROM with up to `most` relations, and what is in scope then.
    fn from(&mut self, prefix: &str, most: usize) -> (Seen, String) {
        let (mut seen, mut text) = (Seen::new(), String::new());
        for number in 0..self.below(most) + 1 {
            let table = &TABLES[self.below(TABLES.len())];
            let alias = format!("{prefix}{number}");
            seen.push((alias.clone(), table));
            if number == 0 {
                let _ = write!(text, "{} {alias}", table.name);
                continue;
            }
            let kind = self.pick(&["join", "join", "left join", "right join", "full join", ", lateral (select * from"]);
            let (before, before_table) = seen[self.below(number)].clone();
            // Full joins need conditions that can be merged.
            let equal = if table.key.is_empty() || before_table.key.is_empty() {
                let country = |alias: &str, table: &Table| match table.name {
                    "countries" => format!("{alias}.code"),
                    "customers" => format!("{alias}.country"),
                    _ => format!("{alias}.{}::text", table.key),
                };
                format!("{} = {}", country(&alias, table), country(&before, before_table))
            } else {
                format!("{alias}.{} = {before}.{}", table.key, before_table.key)
            };
            if kind.starts_with(',') {
                let inner = equal.replace(&format!("{alias}."), &format!("{}.", table.name));
                let _ = write!(text, " cross join lateral (select * from {} where {inner}) {alias}", table.name);
            } else {
                let _ = write!(text, " {kind} {} {alias} on {equal}", table.name);
            }
        }
        (seen, text)
    }

    fn value(&mut self, seen: &Seen) -> String {
        if self.below(2) == 0 { self.int(seen) } else { self.text(seen) }
    }

    fn aggregate(&mut self, seen: &Seen) -> String {
        let int = self.int(seen);
        let numbers: Vec<String> = seen
            .iter()
            .flat_map(|(alias, table)| table.numbers.iter().map(move |column| format!("{alias}.{column}::numeric")))
            .collect();
        match self.below(7) {
            0 => "count(*)".to_owned(),
            1 => format!("count(distinct {int})"),
            2 => format!("max({})", self.text(seen)),
            3 => format!("sum({int})"),
            4 if !numbers.is_empty() => format!("avg({})", numbers[self.below(numbers.len())]),
            5 => format!("count(*) filter (where {})", self.condition(seen, 2)),
            _ => format!("min({int}) + 1"),
        }
    }

    /// A SELECT whose order is total, as each of its columns is in it.
    fn select(&mut self) -> String {
        let (seen, from) = self.from("t", 3);
        let mut items: Vec<String> = (0..self.below(3) + 1).map(|_| self.value(&seen)).collect();
        let condition = if self.below(4) > 0 { format!(" where {}", self.condition(&seen, 0)) } else { String::new() };
        let mut rest = String::new();
        let mut distinct = "";
        match self.below(6) {
            0 | 1 => {
                let keys = items.len();
                items.extend((0..self.below(2) + 1).map(|_| self.aggregate(&seen)));
                let list: Vec<String> = (1..=keys).map(|number| number.to_string()).collect();
                let _ = write!(rest, " group by {}", list.join(", "));
                if self.below(3) == 0 {
                    let _ = write!(rest, " having count(*) > {}", self.below(4));
                }
            }
            2 => items = (0..self.below(3) + 1).map(|_| self.aggregate(&seen)).collect(),
            3 => distinct = "distinct ",
            4 => {
                let window = format!("rank() over (partition by {} order by {})", self.text(&seen), self.int(&seen));
                items.push(window);
            }
            _ => {}
        }
        let order: Vec<String> = (1..=items.len())
            .map(|number| format!("{number}{}", self.pick(&["", " desc", " nulls first", " desc nulls last"])))
            .collect();
        let mut sql = format!("select {distinct}{} from {from}{condition}{rest}", items.join(", "));
        if self.below(8) == 0 {
            let arm = self.pick(&["union", "union all", "intersect", "except"]);
            sql = format!("{sql} {arm} {sql}");
        }
        match self.below(5) {
            // Rows in any order are compared as a multiset.
            0 => sql,
            1 => format!("{sql} order by {} limit {} offset {}", order.join(", "), self.below(9), self.below(4)),
            2 => format!("with w as ({sql}) select count(*) from w"),
            3 => format!("select * from ({sql}) x limit 0"),
            _ => format!("{sql} order by {}", order.join(", ")),
        }
    }

    fn write(&mut self) -> String {
        let table = &TABLES[self.below(3)];
        let alias = "w0".to_owned();
        let seen: Seen = vec![(alias.clone(), table)];
        let returning = self.pick(&["", " returning *"]);
        match self.below(3) {
            0 => format!("delete from {} {alias} where {}{returning}", table.name, self.condition(&seen, 0)),
            1 => {
                let set = match table.name {
                    "customers" => format!("name = {}", self.text(&seen)),
                    "orders" => format!("total = {}", self.int(&seen)),
                    _ => format!("qty = ({}) % 100", self.int(&seen)),
                };
                format!("update {} {alias} set {set} where {}{returning}", table.name, self.condition(&seen, 0))
            }
            _ => {
                let rows: Vec<String> =
                    (0..self.below(5) + 1).map(|row| format!("({}, 'r{row}')", self.below(80) as i64 - 5)).collect();
                let conflict = self.pick(&["", " on conflict do nothing"]);
                format!("insert into customers (id, name) values {}{conflict} returning id, name", rows.join(", "))
            }
        }
    }
}

/// Whether the whole answer has an order.
fn is_ordered(sql: &str) -> bool {
    !sql.starts_with("with") && sql.rsplit_once(" order by ").is_some_and(|(_, keys)| !keys.contains(')'))
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_statements_are_answered_as_by_one_database() {
    let both = Both::new(3);
    let (mut one, mut several) = (both.one(), both.several());
    let seed = number("PGWEIR_SEED", 20_261_123);
    let count = number("PGWEIR_STATEMENTS", 2000);
    let mut author = Author { dice: Dice::new(seed as u64) };
    let (mut answered, mut refused, mut failed, mut wrong) = (0, 0, 0, Vec::new());
    for number in 0..count {
        let writes = author.below(4) == 0;
        let sql = if writes { author.write() } else { author.select() };
        let extended = [parse("", &sql), bind("", &[]), execute(), sync()].concat();
        let messages = if number % 3 == 0 { extended } else { query(&sql) };
        let mut seen = Vec::new();
        for raw in [&mut one, &mut several] {
            raw.query("begin");
            raw.send(&messages);
            let heard = raw.until_ready(1);
            let after = if writes && shown(&heard).ends_with("Z:T") { state(raw) } else { String::new() };
            raw.query("rollback");
            seen.push((heard, after));
        }
        let (expected, heard) = (&seen[0], &seen[1]);
        if is_refused(&heard.0) {
            refused += 1;
            continue;
        }
        let error = |frames: &[super::raw::Frame]| {
            frames.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'C'))
        };
        let right = match (error(&expected.0), error(&heard.0)) {
            // Which rows come before an error is left to chance.
            (Some(expected), Some(heard)) => {
                failed += 1;
                expected == heard
            }
            (None, None) if is_ordered(&sql) => expected.0 == heard.0 || shown(&expected.0) == shown(&heard.0),
            (None, None) => essence(&expected.0) == essence(&heard.0),
            _ => false,
        };
        if !right || expected.1 != heard.1 {
            let cut = |frames: &[super::raw::Frame]| shown(frames).chars().take(300).collect::<String>();
            let message = heard.0.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'M'));
            wrong.push(format!("{sql};\n{}\n{} {message:?}", cut(&expected.0), cut(&heard.0)));
        } else {
            answered += 1;
        }
    }
    println!("{answered} answered alike, {failed} of them with an error, {refused} refused");
    assert!(wrong.is_empty(), "seed {seed}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(answered * 100 >= count * 85, "{answered} of {count} answered");
    assert!(failed * 100 <= count * 10, "{failed} of {count} statements are no good questions");
}

/// All rows that can be written, as a number.
fn state(raw: &mut Raw) -> String {
    raw.value(
        "select md5((select string_agg(x::text, ';' order by x.id) from customers x) || \
         (select string_agg(x::text, ';' order by x.id, x.customer_id) from orders x) || \
         (select string_agg(x::text, ';' order by x.customer_id, x.order_id, x.line) from items x))",
    )
}
