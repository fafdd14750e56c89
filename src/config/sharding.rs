//! The settings that say how tables lie on the shards.

use std::collections::BTreeMap;
use std::fmt;

use super::define::{FromNode, Group, Reader, choices, scalar, settings};
use super::problem::{did_you_mean, one_of};
use super::tree::{Node, Value};
use super::values::{ByteSize, FromKey};

settings! {
    /// How tables lie on the shards. A table that is named nowhere here cannot be used.
    pub struct Sharding {
        /// The placement of tables that name none.
        placement: Placement = "hash",
        /// Sharded tables: each row lies on the shard that its key's value says.
        tables: BTreeMap<TableName, ShardedTable> = absent,
        /// Reference tables: a full copy on every shard.
        reference: Vec<TableName> = absent,
        /// How much a query may collect from the shards where one of them must see all rows to compute the answer.
        max_collected: ByteSize = "64MB",
        /// Local tables, and the shard on which each one lies.
        local: BTreeMap<TableName, String> = absent,
    }
}

settings! {
    /// One sharded table.
    pub struct ShardedTable {
        /// The column whose value says on which shard a row lies.
        key: KeyColumn = required,
        /// Where the key's values lie; the database's placement unless given. Tables with equal placements and
        /// key types are colocated: rows with equal keys lie on one shard and can be joined there.
        placement: Option<Placement> = absent,
        /// What is known to hold on each shard only, not over all of them, for this table. Without it,
        /// such a definition of the table is refused; and the first shard's sequences count for all.
        accept: Vec<PerShard> = absent,
    }
}

choices! {
    /// What holds on each shard only.
    pub enum PerShard {
        /// UNIQUE, PRIMARY KEY and EXCLUDE without the sharding key.
        Unique = "unique-per-shard",
        /// Foreign keys that do not follow the sharding key.
        ForeignKey = "foreign-key-per-shard",
        /// Sequences, serial and identity columns: each shard counts for itself.
        Sequence = "sequence-per-shard",
    }
}

/// Where a key's values lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placement {
    /// By PostgreSQL's hash of the value, through buckets.
    Hash {
        /// Number of buckets, a power of two.
        buckets: u32,
        /// The buckets of each shard; none where they follow from the shards' names.
        map: BTreeMap<String, Buckets>,
    },
    /// By ranges of values.
    Range(Vec<RangePart>),
    /// By listed values.
    List(Vec<ListPart>),
}

settings! {
    /// Placement by hash: values are spread over buckets, buckets over shards.
    pub struct HashPlacement {
        /// Number of buckets, a power of two. It can never be changed once there are rows.
        buckets: u32 = "4096",
        /// The buckets of each shard, as `pgweir placement` prints them. Without it they follow from the shards' names, and
        /// another name or another shard means other places for rows; with it they stay where they are.
        map: BTreeMap<String, Buckets> = absent,
    }
    check check_buckets;
}

/// One range of values and its shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RangePart {
    /// The first value in it, as text; unbounded when absent.
    pub from: Option<String>,
    /// The first value beyond it, as text; unbounded when absent.
    pub to: Option<String>,
    /// Its shard's name.
    pub shard: String,
}

settings! {
    /// One range of a placement by range.
    pub struct RangeEntry {
        /// The first value in it; no lower bound unless given.
        from: Option<String> = absent,
        /// The first value beyond it; no upper bound unless given.
        to: Option<String> = absent,
        /// Its shard.
        shard: String = required,
    }
}

/// Some values and their shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListPart {
    /// The values, as text.
    pub values: Vec<String>,
    /// Their shard's name.
    pub shard: String,
}

settings! {
    /// One entry of a placement by list.
    pub struct ListEntry {
        /// The values.
        values: Vec<String> = required,
        /// Their shard.
        shard: String = required,
    }
}

impl From<HashPlacement> for Placement {
    fn from(hash: HashPlacement) -> Self {
        Self::Hash { buckets: hash.buckets, map: hash.map }
    }
}

/// Numbers of buckets, as ranges: first and last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Buckets(pub Vec<(u32, u32)>);

impl Buckets {
    /// The buckets of these numbers, which are in order.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            if first == last { write!(f, "{space}{first}")? } else { write!(f, "{space}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromNode for Buckets {
    fn what() -> String {
        "numbers of buckets: `0-99 150 200-299`".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, &Self::what(), reader)?;
        let one = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
            (first <= last && last < MAX_BUCKETS).then_some((first, last))
        };
        let ranges: Option<Vec<_>> = text.split([' ', ',', '\n']).filter(|range| !range.is_empty()).map(one).collect();
        match ranges {
            Some(ranges) => Some(Self(ranges)),
            None => reader.problem(
                node.at,
                format!("`{}` is no list of buckets", reader.path()),
                format!("write {}", Self::what()),
            ),
        }
    }
}

/// The largest number of buckets.
const MAX_BUCKETS: u32 = 65536;

impl FromNode for Placement {
    fn what() -> String {
        "`{hash: {buckets: 4096}}`, `{range: [...]}` or `{list: [...]}`".to_owned()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        const KINDS: [&str; 3] = ["hash", "range", "list"];
        if matches!(&node.value, Value::Scalar(text) if text == "hash") {
            return HashPlacement::read(&Node::empty(node.at), reader).map(Self::from);
        }
        let entry = match &node.value {
            Value::Map(entries) if entries.len() == 1 => entries.first(),
            _ => None,
        };
        let Some((key, value)) = entry else {
            let what = format!("`{}` is no placement", reader.path());
            return reader.problem(node.at, what, format!("write {}", Self::what()));
        };
        reader.within(&key.text, |reader| match key.text.as_str() {
            "hash" => HashPlacement::read(value, reader).map(Self::from),
            "range" => Vec::<RangeEntry>::read(value, reader).map(|parts| {
                let part = |entry: RangeEntry| RangePart { from: entry.from, to: entry.to, shard: entry.shard };
                Self::Range(parts.into_iter().map(part).collect())
            }),
            "list" => Vec::<ListEntry>::read(value, reader).map(|parts| {
                let part = |entry: ListEntry| ListPart { values: entry.values, shard: entry.shard };
                Self::List(parts.into_iter().map(part).collect())
            }),
            "schema" => {
                let hint = "write `hash`, `range` or `list`";
                reader.problem(key.at, "placement by schema is not available yet in this version", hint)
            }
            other => {
                let hint = did_you_mean(other, KINDS)
                    .map_or(format!("there are {}", one_of(KINDS)), |kind| format!("did you mean `{kind}`?"));
                reader.problem(key.at, format!("there is no placement `{other}`"), hint)
            }
        })
    }

    fn document(path: &str, out: &mut Vec<Group>) {
        if path != "databases.<name>.sharding.placement" {
            return; // The same three kinds are documented there.
        }
        HashPlacement::document(&format!("{path}.hash"), out);
        Vec::<RangeEntry>::document(&format!("{path}.range"), out);
        Vec::<ListEntry>::document(&format!("{path}.list"), out);
    }
}

fn check_buckets(hash: &HashPlacement, node: &Node, reader: &mut Reader) -> bool {
    if hash.buckets.is_power_of_two() && hash.buckets <= MAX_BUCKETS {
        return hash.map.is_empty() || check_map(hash, node, reader);
    }
    let at = node.get("buckets").map_or(node.at, |node| node.at);
    let near = hash.buckets.clamp(1, MAX_BUCKETS).next_power_of_two();
    let what = format!("{} buckets: the number must be a power of two up to {MAX_BUCKETS}", hash.buckets);
    reader.problem(at, what, format!("write {near}; 4096 suits most")).unwrap_or(false)
}

/// Each bucket is some shard's, and one's only.
fn check_map(hash: &HashPlacement, node: &Node, reader: &mut Reader) -> bool {
    let at = node.get("map").map_or(node.at, |node| node.at);
    let mut owners = vec![0_u8; hash.buckets as usize];
    for bucket in hash.map.values().flat_map(Buckets::iter) {
        match owners.get_mut(bucket as usize) {
            Some(owners) => *owners = owners.saturating_add(1),
            None => {
                let what = format!("bucket {bucket} is beyond the {} that there are", hash.buckets);
                return reader.problem(at, what, "`pgweir placement show --map` prints a map").unwrap_or(false);
            }
        }
    }
    let wrong = owners.iter().position(|owners| *owners != 1);
    let Some(bucket) = wrong else { return true };
    let what = match owners.get(bucket) {
        Some(0) => format!("bucket {bucket} is no shard's"),
        _ => format!("bucket {bucket} is more than one shard's"),
    };
    reader.problem(at, what, "give each bucket to one shard").unwrap_or(false)
}

/// A table's name as PostgreSQL stores it: `orders`, `sales.orders`. Capitals count: a table that was
/// created without quotes is in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, `public` unless given.
    pub schema: String,
    /// The table's own name.
    pub name: String,
}

impl TableName {
    /// Reads `table` or `schema.table`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, name) = text.split_once('.').unwrap_or(("public", text));
        if schema.is_empty() || name.is_empty() || name.contains('.') || text.contains('\0') {
            return Err(format!("`{text}` is no table's name; write `table` or `schema.table`"));
        }
        Ok(Self { schema: schema.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == "public" { f.write_str(&self.name) } else { write!(f, "{}.{}", self.schema, self.name) }
    }
}

impl FromKey for TableName {
    fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
    fn from_key(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl FromNode for TableName {
    fn what() -> String {
        "`table` or `schema.table`".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match Self::parse(scalar(node, &Self::what(), reader)?) {
            Ok(name) => Some(name),
            Err(what) => reader.problem(node.at, what, "capitals count: write the name as PostgreSQL stores it"),
        }
    }
}

/// The name of a sharded table's key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn(
    /// The column's name as PostgreSQL stores it.
    pub String,
);

impl FromNode for KeyColumn {
    fn what() -> String {
        "a column's name".to_owned()
    }
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(&node.value, Value::List(items) if items.len() != 1) {
            let hint = "name one column; the others may follow in the table's primary key";
            return reader.problem(node.at, "a key of several columns is not available yet in this version", hint);
        }
        let node = match &node.value {
            Value::List(items) => items.first().unwrap_or(node),
            _ => node,
        };
        String::read(node, reader).map(Self)
    }
}
