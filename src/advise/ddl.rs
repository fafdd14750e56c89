//! The SQL to run: names, CREATE and DROP.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::model::{Definition, Key, Method};
use crate::sql::catalog::{Catalog, Index, Table, TableKind};
use crate::sql::ident::quote;

/// PostgreSQL's names are cut beyond 63 bytes (`NAMEDATALEN - 1`).
const MAX_NAME_BYTES: usize = 63;

/// Names that are taken in each schema: relations and indexes share one namespace.
#[derive(Debug, Default)]
pub struct Names {
    taken: BTreeSet<(String, String)>,
}

impl Names {
    /// All names of the catalog.
    pub fn of(catalog: &Catalog) -> Self {
        let mut taken = BTreeSet::new();
        for (_, table) in catalog.tables() {
            let schema = &table.name.schema;
            taken.insert((schema.clone(), table.name.name.clone()));
            taken.extend(table.indexes.iter().map(|index| (schema.clone(), index.name.clone())));
        }
        Self { taken }
    }

    /// Marks a name of the table's schema as taken.
    pub(super) fn take(&mut self, table: &Table, name: &str) {
        self.taken.insert((table.name.schema.clone(), name.to_owned()));
    }

    /// A free name for an index: `table_column_column_idx`, as PostgreSQL itself would choose, numbered when taken.
    pub fn choose(&mut self, table: &Table, definition: &Definition) -> String {
        let mut stem = table.name.name.clone();
        for key in &definition.keys {
            stem.push('_');
            let words = key.expression.as_deref().map(words);
            stem.push_str(words.as_deref().unwrap_or(&key.column));
        }
        if definition.method != Method::Btree {
            stem.push('_');
            stem.push_str(definition.method.word());
        }
        for number in 0_u32.. {
            let suffix = if number == 0 { "_idx".to_owned() } else { format!("_idx{number}") };
            let name = format!("{}{suffix}", cut(&stem, MAX_NAME_BYTES - suffix.len()));
            if self.taken.insert((table.name.schema.clone(), name.clone())) {
                return name;
            }
        }
        stem
    }
}

/// An expression's letters and digits, for a name.
fn words(expression: &str) -> String {
    let parts = expression.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_").to_lowercase()
}

fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

/// The table's name as SQL, always with its schema, so that the reader's search_path does not matter.
pub fn quote_table(table: &Table) -> String {
    format!("{}.{}", quote(&table.name.schema), quote(&table.name.name))
}

/// `table (keys) INCLUDE (columns) WHERE condition`: what follows ON in CREATE INDEX.
pub fn body(table: &Table, definition: &Definition) -> String {
    let keys: Vec<String> = definition.keys.iter().map(key).collect();
    let using = match definition.method {
        Method::Btree => String::new(),
        other => format!(" USING {}", other.word()),
    };
    let mut text = format!("{}{using} ({})", quote_table(table), keys.join(", "));
    if !definition.include.is_empty() {
        let columns: Vec<_> = definition.include.iter().map(|column| quote(column)).collect();
        // Writing to a String cannot fail.
        let _ = write!(text, " INCLUDE ({})", columns.join(", "));
    }
    if let Some(predicate) = &definition.predicate {
        let _ = write!(text, " WHERE {predicate}");
    }
    text
}

/// `CREATE INDEX CONCURRENTLY name ON ..;`. A partitioned table takes no CONCURRENTLY.
pub fn create(table: &Table, definition: &Definition, name: &str) -> String {
    let concurrently = if table.kind == TableKind::Partitioned { "" } else { "CONCURRENTLY " };
    format!("CREATE INDEX {concurrently}{} ON {};", quote(name), body(table, definition))
}

/// `DROP INDEX CONCURRENTLY schema.name;`
pub(super) fn drop_index(table: &Table, index: &Index) -> String {
    let concurrently = if table.kind == TableKind::Partitioned { "" } else { "CONCURRENTLY " };
    format!("DROP INDEX {concurrently}{}.{};", quote(&table.name.schema), quote(&index.name))
}

fn key(key: &Key) -> String {
    let mut text = match &key.expression {
        Some(expression) => format!("({expression})"),
        None => quote(&key.column).into_owned(),
    };
    if let Some(class) = &key.operator_class {
        text.push(' ');
        text.push_str(class);
    }
    if key.descending {
        text.push_str(" DESC");
    }
    match (key.descending, key.nulls_first) {
        (true, false) => text.push_str(" NULLS LAST"),
        (false, true) => text.push_str(" NULLS FIRST"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::TableId;

    fn definition(keys: Vec<Key>, include: &[&str]) -> Definition {
        Definition {
            include: include.iter().map(|name| (*name).to_owned()).collect(),
            ..Definition::new(TableId(0), keys)
        }
    }

    #[test]
    fn writes_ddl_that_postgresql_reads_as_meant() {
        let table = Table::new("My Schema", "order");
        let latest = Key { descending: true, nulls_first: true, ..Key::ascending("created") };
        let last = Key { descending: true, ..Key::ascending("Größe") };
        let definition = definition(vec![Key::ascending("user"), latest, last], &["amount"]);
        assert_eq!(
            create(&table, &definition, "an index"),
            "CREATE INDEX CONCURRENTLY \"an index\" ON \"My Schema\".\"order\" \
             (\"user\", created DESC, \"Größe\" DESC NULLS LAST) INCLUDE (amount);"
        );
        let parent = Table { kind: TableKind::Partitioned, ..Table::new("public", "p") };
        assert_eq!(
            create(&parent, &self::definition(vec![Key::ascending("a")], &[]), "i"),
            "CREATE INDEX i ON public.p (a);"
        );
    }

    #[test]
    fn names_are_free_and_fit() {
        let mut catalog = Catalog::default();
        let mut table = Table::new("public", "t");
        table.indexes.push(Index { name: "t_a_idx".into(), ..Index::default() });
        catalog.add(table.clone());
        let mut names = Names::of(&catalog);
        let wanted = definition(vec![Key::ascending("a")], &[]);
        assert_eq!(names.choose(&table, &wanted), "t_a_idx1");
        assert_eq!(names.choose(&table, &wanted), "t_a_idx2");
        let long = definition(vec![Key::ascending("ä".repeat(40)), Key::ascending("b")], &[]);
        let name = names.choose(&table, &long);
        assert!(name.len() <= 63 && name.ends_with("_idx") && name.starts_with("t_ä"), "{name}");
    }
}
