//! Reads a live database's catalog into plain data: six queries in one read-only snapshot.

use std::collections::HashMap;

use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::catalog_sql::{COLUMNS, CONSTRAINTS, FINGERPRINT, FUNCTIONS, INDEXES, RELATIONS, SESSION, STATISTICS};
use super::fault::explain_failure;
use crate::error::{Error, Result};
use crate::sql::catalog::{
    Catalog, CatalogSource, Column, Constraint, ConstraintKind, Index, IndexKey, QualifiedName, Table, TableId,
    TableKind,
};

/// The oldest server whose catalogs have all that the queries read (`attgenerated`).
const OLDEST_SERVER: i32 = 120_000;

/// Reads everything that is known of the connected database.
///
/// Opens a transaction of its own on `client` (read only, repeatable read), so none may be open.
///
/// # Errors
/// The server is older than PostgreSQL 12, the role may not read its catalogs, or a strong lock on a
/// table held it up for longer than five seconds.
pub async fn load(client: &Client) -> Result<Catalog> {
    let begin = "begin isolation level repeatable read read only; \
                 set local lock_timeout = '5s'; set local statement_timeout = '60s'";
    client.batch_execute(begin).await.map_err(failure)?;
    let loaded = read(client).await;
    // Ends the transaction in either case; after a failed read the first error is the one worth telling.
    let ended = client.batch_execute("rollback").await.map_err(failure);
    let catalog = loaded?;
    ended?;
    Ok(catalog)
}

/// A query's rows with every value as text.
///
/// # Errors
/// The query failed.
pub async fn text_rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let messages = client.simple_query(sql).await.map_err(failure)?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

fn failure(error: tokio_postgres::Error) -> Error {
    explain_failure(&error, "reading the catalog failed")
}

async fn read(client: &Client) -> Result<Catalog> {
    let session = client.query_one(SESSION, &[]).await.map_err(failure)?;
    let version: i32 = get(&session, 0)?;
    if version < OLDEST_SERVER {
        return Err(Error::server(format!(
            "the server is PostgreSQL {}; 12 is the oldest understood",
            version / 10_000
        ))
        .hint("upgrade the server, or give the schema as a DDL file"));
    }
    let (relations, columns, statistics, indexes, constraints, functions) = tokio::try_join!(
        client.query(RELATIONS, &[]),
        client.query(COLUMNS, &[]),
        client.query(STATISTICS, &[]),
        client.query(INDEXES, &[]),
        client.query(CONSTRAINTS, &[]),
        client.query(FUNCTIONS, &[]),
    )
    .map_err(failure)?;

    let mut catalog = Catalog::new(CatalogSource::Live);
    catalog.server_version = u32::try_from(version).ok();
    catalog.search_path = get(&session, 1)?;
    for row in &functions {
        catalog.functions.insert(get(row, 0)?, get(row, 1)?);
    }
    let mut ids = HashMap::new();
    for row in &relations {
        let (oid, table) = relation(row)?;
        ids.insert(oid, catalog.add(table));
    }
    fill(&mut catalog, &ids, &columns, |table, row| {
        table.columns.push(column(row)?);
        Ok(())
    })?;
    for row in &statistics {
        apply_statistics(&mut catalog, row)?;
    }
    fill(&mut catalog, &ids, &indexes, |table, row| {
        table.indexes.push(index(row)?);
        Ok(())
    })?;
    fill(&mut catalog, &ids, &constraints, |table, row| {
        table.constraints.extend(constraint(row)?);
        Ok(())
    })?;
    Ok(catalog)
}

/// What tells one state of the definitions from another; statistics do not count.
///
/// # Errors
/// The server is lost.
pub async fn fingerprint(client: &Client) -> Result<String> {
    let row = client.query_one(FINGERPRINT, &[]).await;
    let row = row.map_err(|error| explain_failure(&error, "the definitions could not be looked at"))?;
    get(&row, 0)
}

/// Hands each row to the table its first column (an oid) names.
fn fill(
    catalog: &mut Catalog,
    ids: &HashMap<u32, TableId>,
    rows: &[Row],
    mut add: impl FnMut(&mut Table, &Row) -> Result<()>,
) -> Result<()> {
    for row in rows {
        let oid: u32 = get(row, 0)?;
        if let Some(id) = ids.get(&oid) {
            add(catalog.table_mut(*id), row)?;
        }
    }
    Ok(())
}

/// A column of a row; a type that does not fit is a server unlike any documented one.
fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|error| Error::server(format!("the server's catalog is not as documented: {error}")))
}

fn relation(row: &Row) -> Result<(u32, Table)> {
    let mut table = Table::new(get::<String>(row, 1)?, get::<String>(row, 2)?);
    table.kind = match get::<&str>(row, 3)? {
        "p" => TableKind::Partitioned,
        "v" => TableKind::View,
        "m" => TableKind::MaterializedView,
        "f" => TableKind::Foreign,
        _ => TableKind::Table,
    };
    table.rows = get(row, 4)?;
    table.pages = table.rows.and(get::<Option<i64>>(row, 5)?).and_then(|pages| u64::try_from(pages).ok());
    if let (Some(schema), Some(name)) = (get(row, 6)?, get(row, 7)?) {
        table.partition_of = Some(QualifiedName { schema, name });
    }
    table.definition = get(row, 8)?;
    table.is_plain_view = get(row, 9)?;
    Ok((get(row, 0)?, table))
}

fn column(row: &Row) -> Result<Column> {
    Ok(Column {
        name: get(row, 1)?,
        type_name: get(row, 2)?,
        not_null: get(row, 3)?,
        collation: get(row, 4)?,
        default: get(row, 5)?,
        generated: get(row, 6)?,
        compared_by: get(row, 7)?,
        ..Column::default()
    })
}

fn apply_statistics(catalog: &mut Catalog, row: &Row) -> Result<()> {
    let Some(id) = catalog.find(Some(get(row, 0)?), get(row, 1)?) else { return Ok(()) };
    let name: &str = get(row, 2)?;
    // Expression indexes have rows of their own in pg_stats under the index's name; those find no table here.
    if let Some(column) = catalog.table_mut(id).columns.iter_mut().find(|column| column.name == name) {
        column.avg_width = get::<Option<i32>>(row, 3)?.and_then(|width| u32::try_from(width).ok());
        column.n_distinct = get(row, 4)?;
        column.null_fraction = get(row, 5)?;
        column.correlation = get(row, 6)?;
    }
    Ok(())
}

fn index(row: &Row) -> Result<Index> {
    let columns: Vec<Option<String>> = get(row, 7)?;
    let mut expressions = get::<Vec<Option<String>>>(row, 8)?.into_iter();
    let mut descending = get::<Vec<bool>>(row, 9)?.into_iter();
    let mut nulls_first = get::<Vec<bool>>(row, 10)?.into_iter();
    let mut classes = get::<Vec<Option<String>>>(row, 11)?.into_iter();
    let mut collations = get::<Vec<Option<String>>>(row, 12)?.into_iter();
    let keys = columns
        .into_iter()
        .map(|column| IndexKey {
            column,
            expression: expressions.next().flatten(),
            descending: descending.next().unwrap_or(false),
            nulls_first: nulls_first.next().unwrap_or(false),
            operator_class: classes.next().flatten(),
            collation: collations.next().flatten(),
        })
        .collect();
    let unsigned = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(Index {
        name: get(row, 1)?,
        method: get(row, 2)?,
        unique: get(row, 3)?,
        primary: get(row, 4)?,
        valid: get(row, 5)?,
        constraint: get(row, 6)?,
        keys,
        include: get::<Option<Vec<Option<String>>>>(row, 13)?.unwrap_or_default().into_iter().flatten().collect(),
        predicate: get(row, 14)?,
        size_bytes: unsigned(get(row, 15)?),
        scans: unsigned(get(row, 16)?),
    })
}

fn constraint(row: &Row) -> Result<Option<Constraint>> {
    let kind = match get::<&str>(row, 2)? {
        "p" => ConstraintKind::PrimaryKey,
        "u" => ConstraintKind::Unique,
        "x" => ConstraintKind::Exclude,
        "c" => ConstraintKind::Check(get::<Option<String>>(row, 7)?.unwrap_or_default()),
        "f" => {
            // The other table may lie in a schema that this role cannot see.
            let (Some(schema), Some(name)) = (get(row, 4)?, get(row, 5)?) else { return Ok(None) };
            ConstraintKind::ForeignKey { table: QualifiedName { schema, name }, columns: get(row, 6)? }
        }
        _ => return Ok(None),
    };
    Ok(Some(Constraint { name: get(row, 1)?, kind, columns: get(row, 3)? }))
}
