//! What is known of a database: tables, columns, indexes, constraints, row estimates, as plain data.
//!
//! Filled from a live database (`db/`) or from a DDL file (`sql::ddl`). Names are as PostgreSQL stores
//! them: folded to lower case unless they were quoted. Everything optional is `None` when its
//! source cannot know it (a DDL file knows no row counts), so a rule can tell "zero" from "unknown".

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

/// Where a catalog came from, which bounds the evidence that may be claimed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CatalogSource {
    /// No source: an empty catalog.
    #[default]
    None,
    /// A file of DDL statements.
    Ddl,
    /// A live database.
    Live,
}

/// A table's place in its catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub usize);

/// Schema-qualified name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema, `public` for most.
    pub schema: String,
    /// The relation's own name.
    pub name: String,
}

impl std::fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.schema == "public" { f.write_str(&self.name) } else { write!(f, "{}.{}", self.schema, self.name) }
    }
}

/// All that is known of one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// Where it came from.
    pub source: CatalogSource,
    /// Server version as `server_version_num` (150018), if live.
    pub server_version: Option<u32>,
    /// Schemas searched for unqualified names, in order.
    pub search_path: Vec<String>,
    /// Functions that users have made, by name; whether all of that name are plain, give one value, are declared immutable, and do
    /// not look like ones that read tables.
    #[serde(default)]
    pub functions: HashMap<String, bool>,
    /// Names of enums, as `format_type` prints them; known for a proxy's sharded databases only.
    #[serde(default)]
    pub enums: BTreeSet<String>,
    tables: Vec<Table>,
    by_name: HashMap<String, Vec<TableId>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            source: CatalogSource::None,
            server_version: None,
            search_path: vec!["public".to_owned()],
            functions: HashMap::new(),
            enums: BTreeSet::new(),
            tables: Vec::new(),
            by_name: HashMap::new(),
        }
    }
}

impl Catalog {
    /// An empty catalog of the given source.
    pub fn new(source: CatalogSource) -> Self {
        Self { source, ..Self::default() }
    }

    /// Adds a table; a table of the same schema and name is replaced.
    pub fn add(&mut self, table: Table) -> TableId {
        if let Some(id) = self.find(Some(&table.name.schema), &table.name.name) {
            self.tables[id.0] = table;
            return id;
        }
        let id = TableId(self.tables.len());
        self.by_name.entry(table.name.name.clone()).or_default().push(id);
        self.tables.push(table);
        id
    }

    /// Finds a relation by schema (or by the search path when `None`) and name, as PostgreSQL would.
    pub fn find(&self, schema: Option<&str>, name: &str) -> Option<TableId> {
        let ids = self.by_name.get(name)?;
        let in_schema = |schema: &str| ids.iter().copied().find(|id| self.tables[id.0].name.schema == schema);
        match schema {
            Some(schema) => in_schema(schema),
            None => self.search_path.iter().find_map(|schema| in_schema(schema)),
        }
    }

    /// The table of an id this catalog gave out.
    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[id.0]
    }

    /// The table of an id, to be changed.
    pub fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.tables[id.0]
    }

    /// All tables in the order they were added.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &Table)> {
        self.tables
            .iter()
            .enumerate()
            .map(|(index, table)| (TableId(index), table))
            .filter(|(id, table)| self.by_name.get(&table.name.name).is_some_and(|ids| ids.contains(id)))
    }

    /// Forgets a table. Its id stays valid and its data readable, but nothing finds it any more.
    pub fn remove(&mut self, id: TableId) {
        let Some(table) = self.tables.get(id.0) else { return };
        if let Some(ids) = self.by_name.get_mut(&table.name.name) {
            ids.retain(|other| *other != id);
        }
    }

    /// Gives a table another name in its schema.
    pub fn rename(&mut self, id: TableId, name: String) {
        self.remove(id);
        self.by_name.entry(name.clone()).or_default().push(id);
        if let Some(table) = self.tables.get_mut(id.0) {
            table.name.name = name;
        }
    }

    /// True when nothing is known.
    pub fn is_empty(&self) -> bool {
        self.tables().next().is_none()
    }
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TableKind {
    /// An ordinary table.
    #[default]
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: QualifiedName,
    /// What kind of relation it is.
    pub kind: TableKind,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Indexes, those of constraints too.
    pub indexes: Vec<Index>,
    /// Primary key, unique, foreign key, check and exclusion constraints.
    pub constraints: Vec<Constraint>,
    /// Estimated rows (`pg_class.reltuples`); `None` when never analyzed or not live.
    pub rows: Option<f64>,
    /// Size in pages of 8 KiB (`pg_class.relpages`).
    pub pages: Option<u64>,
    /// The parent when it is a partition.
    pub partition_of: Option<QualifiedName>,
    /// A view's query.
    pub definition: Option<String>,
    /// A view that stands for its query wherever it is read: no row security depends on who owns it.
    #[serde(default)]
    pub is_plain_view: bool,
}

impl Table {
    /// A table with no columns yet.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            name: QualifiedName { schema: schema.into(), name: name.into() },
            kind: TableKind::Table,
            columns: Vec::new(),
            indexes: Vec::new(),
            constraints: Vec::new(),
            rows: None,
            pages: None,
            partition_of: None,
            definition: None,
            is_plain_view: false,
        }
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// True when equality on all of `columns` selects at most one row (a valid, non-partial unique
    /// index or unique constraint whose columns are all among them).
    pub fn is_unique_by(&self, columns: &[&str]) -> bool {
        let covered = |keys: &[String]| !keys.is_empty() && keys.iter().all(|key| columns.contains(&key.as_str()));
        self.indexes.iter().any(|index| {
            index.unique
                && index.valid
                && index.predicate.is_none()
                && index.key_columns().is_some_and(|keys| covered(&keys))
        }) || self.constraints.iter().any(|constraint| {
            matches!(constraint.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
                && covered(&constraint.columns)
        })
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` prints it: `bigint`, `character varying(20)`, `timestamp with time zone`.
    pub type_name: String,
    /// Cannot be null.
    pub not_null: bool,
    /// Collation when it is not its type's.
    pub collation: Option<String>,
    /// The collation by which its values are compared, with its schema and in quotes where need be, when it is not the
    /// database's own; known from a live database only.
    #[serde(default)]
    pub compared_by: Option<String>,
    /// DEFAULT expression.
    pub default: Option<String>,
    /// GENERATED ALWAYS AS (..) STORED, or identity.
    pub generated: bool,
    /// Average width in bytes (`pg_stats.avg_width`).
    pub avg_width: Option<u32>,
    /// Distinct values as `pg_stats.n_distinct`: negative is a fraction of the rows.
    pub n_distinct: Option<f64>,
    /// Fraction of nulls.
    pub null_fraction: Option<f64>,
    /// Correlation of the physical order with the logical one, -1 to 1.
    pub correlation: Option<f64>,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Access method: `btree`, `gin`, ...
    pub method: String,
    /// Enforces uniqueness.
    pub unique: bool,
    /// Is the primary key's.
    pub primary: bool,
    /// Usable by queries (`pg_index.indisvalid`).
    pub valid: bool,
    /// Cannot be dropped on its own: backs a constraint (primary key, unique, exclusion), is the
    /// replica identity, or is a partition of a parent's index.
    pub constraint: bool,
    /// Key columns or expressions, in order.
    pub keys: Vec<IndexKey>,
    /// INCLUDE columns.
    pub include: Vec<String>,
    /// WHERE of a partial index, as SQL.
    pub predicate: Option<String>,
    /// Size in bytes, if live.
    pub size_bytes: Option<u64>,
    /// Scans since statistics were reset, if live.
    pub scans: Option<u64>,
}

impl Index {
    /// Key columns, or `None` when a key is an expression.
    pub fn key_columns(&self) -> Option<Vec<String>> {
        self.keys.iter().map(|key| key.column.clone()).collect()
    }
}

/// One key of an index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IndexKey {
    /// The column, or `None` for an expression.
    pub column: Option<String>,
    /// The expression as SQL when it is not a plain column.
    pub expression: Option<String>,
    /// Descending.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
    /// Operator class when it is not the default one (`text_pattern_ops`, `gin_trgm_ops`).
    pub operator_class: Option<String>,
    /// Collation when it is not the column's own.
    pub collation: Option<String>,
}

/// What a constraint enforces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ConstraintKind {
    /// PRIMARY KEY.
    PrimaryKey,
    /// UNIQUE.
    Unique,
    /// FOREIGN KEY to a table's columns.
    ForeignKey {
        /// The referenced table.
        table: QualifiedName,
        /// The referenced columns.
        columns: Vec<String>,
    },
    /// CHECK, as SQL.
    Check(String),
    /// EXCLUDE.
    Exclude,
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// Its name, empty when the DDL gave none.
    pub name: String,
    /// What it enforces.
    pub kind: ConstraintKind,
    /// The columns it speaks of.
    pub columns: Vec<String>,
}
