//! Definitions: every shard gets them, so that all shards stay alike.

use crate::config::PerShard;
use crate::route::context::{Context, Use, table_name};
use crate::route::definition;
use crate::route::key::KeyType;
use crate::route::plan::{Route, TemplatePlan};
use crate::route::topology::{Sharded, TableUse};
use crate::sql::ddl::catalog_from_ddl;
use crate::sql::facts::{Access, ScopeKind, StatementKind};
use crate::sql::lexer::{LexOptions, Lexer, TokenKind};
use crate::sql::parse::tables_mentioned;

const REFUSED: &str = "ddl-refused";

/// DDL must not touch system catalogs through the proxy.
pub(super) fn on_system_tables(context: &Context<'_>) -> Option<TemplatePlan> {
    if context.facts.kind != StatementKind::Ddl {
        return None;
    }
    let (_, relation, _) = context
        .relations()
        .find(|(_, relation, used)| matches!(used, Use::System) && relation.access == Access::Write)?;
    let hint = "send the statement to a shard directly";
    Some(context.refuse(REFUSED, Some(relation.span), "it changes a system catalog", hint))
}

/// Every shard executes the same definition. What it creates must be usable afterwards: a table that the
/// configuration names, with a key that places rows and without promises over all rows that shards cannot keep.
/// A local table's definition goes to its shard.
pub(super) fn definition(context: &Context<'_>) -> Option<TemplatePlan> {
    if context.facts.kind != StatementKind::Ddl {
        return None;
    }
    let words = words(context.around.sql);
    let has = |word: &str| words.iter().any(|other| other == word);
    if context.facts.command.starts_with("CREATE") && (has("TEMP") || has("TEMPORARY")) {
        let hint = "write WITH, or create an ordinary table that the configuration names";
        return Some(context.refuse(REFUSED, None, "temporary tables are not available in a sharded database", hint));
    }
    let from_query = context.facts.scopes.iter().any(|scope| scope.kind == ScopeKind::Source);
    if (from_query && !context.facts.command.contains("VIEW"))
        || context.facts.scopes.first().is_some_and(|scope| !scope.projection.is_empty())
    {
        let hint = "create the table first, then insert rows by key";
        return Some(context.refuse(
            REFUSED,
            None,
            "a table made from a query would have other rows on each shard",
            hint,
        ));
    }
    if ["DATABASE", "TABLESPACE", "SYSTEM"].iter().any(|word| words.get(1).is_some_and(|second| second == word)) {
        let hint = "send it to each server directly";
        return Some(context.refuse(
            REFUSED,
            None,
            format!("{} concerns a server, not a database", context.facts.command),
            hint,
        ));
    }
    let creates_table = context.facts.command == "CREATE TABLE";
    if let Some(decided) = local(context, "ddl") {
        return Some(decided);
    }
    for (_, relation, used) in context.relations().filter(|(_, relation, _)| relation.access == Access::Write) {
        match used {
            Use::Unlisted if creates_table => return super::admission::unlisted_table(context),
            Use::Sharded(sharded) => {
                let problem = match creates_table {
                    true => created(context, sharded),
                    false => altered(&words, sharded),
                };
                if let Err((reason, hint)) = problem {
                    return Some(context.refuse(REFUSED, Some(relation.span), reason, hint));
                }
            }
            Use::Reference
                if words.iter().any(|word| word.ends_with("SERIAL") || word == "IDENTITY" || word == "NEXTVAL") =>
            {
                let reason = format!(
                    "{} would number its rows on each shard for itself, and the copies would differ",
                    table_name(relation)
                );
                return Some(context.refuse(
                    REFUSED,
                    Some(relation.span),
                    reason,
                    "number the rows in the application",
                ));
            }
            _ => {}
        }
    }
    Some(context.fixed("ddl", Route::All))
}

/// CREATE TABLE of a sharded table: its definition is read as a catalog and asked as an existing table's would be.
fn created(context: &Context<'_>, sharded: &Sharded) -> Result<(), (String, String)> {
    let (catalog, _) = catalog_from_ddl(context.around.sql);
    let table = catalog.find(Some(&sharded.name.schema), &sharded.name.name).map(|id| catalog.table(id));
    let Some(table) = table else {
        return Err(("the definition was not understood".to_owned(), "write a plain CREATE TABLE".to_owned()));
    };
    let Some(key) = table.column(&sharded.key) else {
        let hint = format!("add the column, or correct `sharding.tables.{}.key`", sharded.name);
        return Err((format!("{} has no column {}, its sharding key", sharded.name, sharded.key), hint));
    };
    KeyType::of_column(key).map_err(|why| (why, "choose another key".to_owned()))?;
    definition::check(context.topology, sharded, table)
}

/// Words in capitals, names as they are stored in capitals too, and parentheses. Comments and constants are left out, so that
/// one template has one answer.
fn words(sql: &str) -> Vec<String> {
    let mut lexer = Lexer::new(sql.as_bytes(), LexOptions::default());
    let mut words = Vec::new();
    for token in &mut lexer {
        let text = sql.get(token.start as usize..token.end as usize).unwrap_or_default();
        match token.kind {
            TokenKind::Ident => words.push(text.to_uppercase()),
            TokenKind::QuotedIdent => words.push(text.trim_matches('"').to_uppercase()),
            TokenKind::LeftParen => words.push("(".to_owned()),
            TokenKind::RightParen => words.push(")".to_owned()),
            _ => {}
        }
    }
    words
}

/// The list behind each UNIQUE, PRIMARY KEY or EXCLUDE names the sharding key.
fn lists_name_key(words: &[String], sharded: &Sharded) -> bool {
    let key = sharded.key.to_uppercase();
    let promises =
        words.iter().enumerate().filter(|(_, word)| matches!(word.as_str(), "UNIQUE" | "PRIMARY" | "EXCLUDE"));
    promises.into_iter().all(|(at, _)| {
        let list = words.iter().skip(at).skip_while(|word| *word != "(").take_while(|word| *word != ")");
        list.into_iter().any(|word| *word == key)
    })
}

/// Other DDL on a sharded table, by its words: the key column stays as it is, and what holds per shard only is accepted.
fn altered(words: &[String], sharded: &Sharded) -> Result<(), (String, String)> {
    let has = |word: &str| words.iter().any(|other| other == word);
    let names_key = has(&sharded.key.to_uppercase());
    let drops = words.windows(2).any(|pair| pair[0] == "DROP" && !matches!(&*pair[1], "DEFAULT" | "NOT" | "IDENTITY"));
    if has("ALTER") && names_key && (has("TYPE") || has("RENAME") || drops) {
        let reason = format!("it may change {}.{}, the sharding key", sharded.name, sharded.key);
        return Err((reason, "leave the key as it is, or move the rows to a new table".to_owned()));
    }
    if has("ALTER") && has("RENAME") && has("TO") && !has("COLUMN") && !has("CONSTRAINT") {
        let hint = "change the configuration and rename the table on each shard".to_owned();
        return Err((format!("it may rename {}, which the configuration names", sharded.name), hint));
    }
    let counts = has("IDENTITY") || has("NEXTVAL") || words.iter().any(|word| word.ends_with("SERIAL"));
    let adds_column = words.windows(2).any(|pair| pair[0] == "ADD" && pair[1] != "GENERATED");
    let unique = ["UNIQUE", "PRIMARY", "EXCLUDE"].iter().any(|word| has(word));
    let promises = [
        (PerShard::Unique, unique, lists_name_key(words, sharded)),
        (PerShard::ForeignKey, has("REFERENCES"), names_key),
        // The rows that are there would be numbered by each shard.
        (PerShard::Sequence, counts && adds_column, false),
    ];
    let only_drops = has("DROP") && !has("ADD");
    for (what, promised, kept) in promises {
        if promised && !kept && !only_drops && !sharded.accept.contains(&what) {
            return Err((
                format!("it promises for all rows of {} what each shard can only keep for its own", sharded.name),
                format!(
                    "put {} into it, or set `sharding.tables.{}.accept: [{}]`",
                    sharded.key,
                    sharded.name,
                    what.word()
                ),
            ));
        }
    }
    Ok(())
}

/// ANALYZE, VACUUM and TRUNCATE do on every shard what they do on one server. A local table's go to its shard.
pub(super) fn maintenance(context: &Context<'_>) -> Option<TemplatePlan> {
    let is_maintenance = context.facts.kind == StatementKind::Truncate
        || matches!(context.facts.command.split(' ').next(), Some("ANALYZE" | "VACUUM"));
    if !is_maintenance {
        return None;
    }
    if let Some(refused) = super::admission::unlisted_table(context) {
        return Some(refused);
    }
    local(context, "maintenance").or_else(|| Some(context.fixed("maintenance", Route::All)))
}

/// VACUUM, ANALYZE and REINDEX in a form that the parser does not know: to every shard, where each word that could be a table
/// is one that lies on all of them, or no table at all. So is LOCK, which every shard must hold before rows are safe.
pub(super) fn unread_maintenance(context: &Context<'_>) -> Option<TemplatePlan> {
    let command = context.facts.command.split(' ').next();
    let is_maintenance = matches!(command, Some("ANALYZE" | "VACUUM" | "REINDEX")) && !context.reading.is_parsed;
    let locks = command == Some("LOCK");
    if !(is_maintenance || locks) {
        return None;
    }
    let topology = context.topology;
    let is_everywhere = |name: &str| {
        let mut tables = topology.catalog.tables().filter(|(_, table)| table.name.name == name);
        tables.all(|(_, table)| {
            matches!(topology.tables.get(&table.name), Some(TableUse::Sharded(_) | TableUse::Reference))
        })
    };
    let names = tables_mentioned(context.around.sql)?;
    if locks && let Some(decided) = super::admission::unlisted_table(context).or_else(|| local(context, "maintenance"))
    {
        return Some(decided);
    }
    names.iter().all(|mentioned| is_everywhere(&mentioned.name)).then(|| context.fixed("maintenance", Route::All))
}

/// A statement that names local tables only goes to their one shard; beside others they are refused.
fn local(context: &Context<'_>, rule: &'static str) -> Option<TemplatePlan> {
    let is_local = |used: &Use| matches!(used, Use::Local(_));
    let (_, first, used) = context.relations().find(|(_, _, used)| is_local(used))?;
    let Use::Local(shard) = used else { return None };
    if context.relations().all(|(_, _, used)| matches!(used, Use::Local(other) if other == shard)) {
        return Some(context.fixed(rule, Route::Single(*shard)));
    }
    let hint = "name the local table in a statement of its own";
    Some(context.refuse(rule, Some(first.span), "it names a local table among others", hint))
}
