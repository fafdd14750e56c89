//! Parse and Bind: a client's statements, their plans and the shards of their values.

use std::sync::Arc;

use crate::exec::transaction::Status;
use crate::pool::statements::Statement;
use crate::proxy::definitions::meaning;
use crate::proxy::given::Given;
use crate::proxy::sharded::collect::COMPUTES;
use crate::proxy::sharded::execute::is_prepare;
use crate::proxy::sharded::extended::{Ahead, Step};
use crate::proxy::sharded::names::{MAX_STATEMENTS, Named, Portal, Target, cursor_of};
use crate::proxy::sharded::planned::{Planned, Values, refused};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::proxy::sharded::settings::is_setting;
use crate::proxy::sharded::simple::is_control;
use crate::route::{Parameter, Route, Shards};
use crate::sql::facts::StatementKind;
use crate::sql::template::Keyword;
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::Failure;

/// What a Bind says.
pub(super) struct Bound<'a> {
    portal: &'a [u8],
    named: Arc<Named>,
    planned: Arc<Planned>,
    /// Everything behind the two names.
    rest: &'a [u8],
    pub target: Target,
}

/// What was found out of a Bind that has not had its turn.
#[derive(Debug)]
pub(super) struct Foreseen {
    /// Where its body lies, in the batch that is being run.
    body: usize,
    named: Arc<Named>,
    planned: Arc<Planned>,
    target: Target,
}

impl Foreseen {
    fn is_of(&self, body: &[u8], named: &Arc<Named>) -> bool {
        self.body == body.as_ptr() as usize && Arc::ptr_eq(&self.named, named)
    }
}

fn other_numbers() -> Failure {
    let what = "refused: values of a table's own types (arrays, rows or ranges of types of users) have other numbers inside on this shard";
    Failure::error("0A000", what).hint("Ask for them in text form, or cast them to text.")
}

impl ShardedSession {
    /// Gives a name to a statement.
    pub(super) fn prepare(&mut self, body: &[u8]) -> Result<Arc<Named>, Trouble> {
        let mut reader = Reader::new(body);
        let name = reader.cstr().map_err(malformed)?;
        let statement_and_types = reader.rest();
        let text = reader.cstr().map_err(malformed)?;
        let count = reader.u16().map_err(malformed)?;
        let types: Result<Vec<u32>, Malformed> = (0..count).map(|_| reader.u32()).collect();
        let types = types.map_err(malformed)?;
        if name.is_empty() {
            self.names.statements.remove(name);
        }
        self.check_name(name)?;
        let sql = std::str::from_utf8(text).map_err(|_| {
            Failure::error("22021", "the statement is not valid UTF-8").hint("Sharded databases take UTF-8 only.")
        })?;
        let snapshot = self.shared.current().ok_or_else(|| Failure::error("08006", "the catalog has not been read"))?;
        let session = self.session_facts();
        let scan = self.scanner.scan(text);
        let leading = scan.leading;
        let shows = leading[0] == Keyword::Show;
        if leading[0] == Keyword::Execute && scan.statements == 1 {
            self.transaction.check_open()?;
            let sql = self.text_to_execute(sql)?;
            let types = statement_and_types.get(text.len()..).unwrap_or_default();
            return self.prepare(&[name, b"\0", sql.as_bytes(), types].concat());
        }
        let own = is_control(leading) || is_prepare(leading) || is_setting(leading) && !shows || scan.statements == 0;
        if !own {
            self.transaction.check_open()?;
        }
        let session = session?;
        if scan.statements > 1 {
            let what = "cannot insert multiple commands into a prepared statement";
            return Err(Trouble::Reply(Failure::error("42601", what)));
        }
        let planned = snapshot.plan(sql, &scan, session)?;
        if planned.reads_views
            && let Some(expanded) = snapshot.expand(sql)
        {
            return self.prepare_expanded(name, sql, &expanded, statement_and_types);
        }
        let (bindings, key) = (scan.bindings.to_vec(), Some(scan.key));
        if let Some(refusal) = planned.plan.refusal().filter(|_| !own) {
            return Err(refused(refusal.clone()).into());
        }
        if matches!(planned.kind, StatementKind::CopyFrom | StatementKind::CopyTo) {
            let what = "COPY in the extended protocol is not supported in a sharded database";
            return Err(Trouble::Reply(Failure::error("0A000", what).hint("Send it as a simple query.")));
        }
        self.names.count += 1;
        let context = meaning(&self.want, snapshot.generation, None);
        let named = Arc::new(Named {
            statement: Arc::new(match name {
                [] => Statement::unnamed(statement_and_types, context),
                _ => Statement::new(statement_and_types, context),
            }),
            sql: sql.into(),
            types,
            key,
            bindings,
            planned,
            generation: snapshot.generation,
            own,
            shows,
            unnamed: name.is_empty(),
            count: self.names.count,
            with_views: None,
        });
        self.names.statements.insert(name.into(), named.clone());
        Ok(named)
    }

    /// Gives a name to a statement whose views were replaced.
    fn prepare_expanded(
        &mut self,
        name: &[u8],
        sql: &str,
        expanded: &str,
        statement_and_types: &[u8],
    ) -> Result<Arc<Named>, Trouble> {
        let types = statement_and_types.get(sql.len()..).unwrap_or_default();
        let named = self.prepare(&[name, b"\0", expanded.as_bytes(), types].concat())?;
        self.names.statements.remove(name);
        let named =
            Arc::try_unwrap(named).map_err(|_| Failure::error("XX000", "a statement is in use before it is known"))?;
        let named = Arc::new(Named { with_views: Some(sql.into()), key: None, ..named });
        self.names.statements.insert(name.into(), named.clone());
        Ok(named)
    }

    pub(super) fn check_name(&self, name: &[u8]) -> Result<(), Trouble> {
        let prepared = std::str::from_utf8(name).is_ok_and(|name| self.names.prepared.contains_key(name));
        if prepared || self.names.statements.contains_key(name) {
            let what = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
            return Err(Trouble::Reply(Failure::error("42P05", what)));
        }
        if self.names.statements.len() + self.names.prepared.len() >= MAX_STATEMENTS {
            let what = format!("a client may have {MAX_STATEMENTS} prepared statements");
            return Err(Trouble::Reply(Failure::error("53400", what).hint("Close those that are not needed.")));
        }
        Ok(())
    }

    pub(super) fn statement_named(&self, name: &[u8]) -> Result<Arc<Named>, Trouble> {
        self.names.statements.get(name).cloned().ok_or_else(|| {
            let what = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
            };
            Trouble::Reply(Failure::error("26000", what))
        })
    }

    /// The plan of a statement on the newest reading of the catalog.
    fn planned_now(&mut self, named: &Named) -> Result<Arc<Planned>, Trouble> {
        let snapshot = self.shared.current().filter(|snapshot| snapshot.generation != named.generation);
        let Some(snapshot) = snapshot else { return Ok(named.planned.clone()) };
        if let Some(text) = &named.with_views
            && snapshot.expand(text).as_deref() != Some(&*named.sql)
        {
            let what = "a view that this prepared statement reads was defined anew";
            return Err(Trouble::Reply(Failure::error("0A000", what).hint("Prepare the statement again.")));
        }
        let session = self.session_facts()?;
        let scan = self.scanner.scan(named.sql.as_bytes());
        Ok(snapshot.plan(&named.sql, &scan, session)?)
    }

    /// Which statement a Bind binds, and where its values lie.
    pub(super) fn bound<'a>(&mut self, body: &'a [u8]) -> Result<Bound<'a>, Trouble> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr().map_err(malformed)?;
        let named = self.statement_named(reader.cstr().map_err(malformed)?)?;
        let rest = reader.rest();
        if named.own {
            return Ok(Bound { portal, planned: named.planned.clone(), named, rest, target: Target::Own });
        }
        if let Some(foreseen) = self.foreseen.take().filter(|foreseen| foreseen.is_of(body, &named)) {
            return Ok(Bound { portal, planned: foreseen.planned, named, rest, target: foreseen.target });
        }
        let given = Given::read(&mut reader).map_err(malformed)?;
        let parameters: Vec<Parameter<'_>> = given
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| Parameter {
                type_oid: named.types.get(index).copied().unwrap_or(0),
                binary: given.format(index) == 1,
                value: *value,
            })
            .collect();
        let planned = self.planned_now(&named)?;
        let values = Values { sql: &named.sql, bindings: &named.bindings, parameters: &parameters };
        let target = match planned.route(&values)? {
            // Values of users' types have other numbers in them on each shard: the first one's are the client's.
            Route::Several(shards, _) if given.asks_binary() && planned.plan.collect().is_some() => {
                Target::Collect(shards)
            }
            Route::Single(shard) if shard.0 != COMPUTES && planned.plan.holds_numbers && given.asks_binary() => {
                if planned.plan.collect().is_none() {
                    return Err(other_numbers().into());
                }
                Target::Collect(Shards::of(shard))
            }
            Route::Cursor if given.asks_binary() && self.cursor_holds_numbers(&named.sql) => {
                return Err(other_numbers().into());
            }
            Route::Control if named.shows => Target::Shard(self.transaction.shards().next().unwrap_or(0)),
            route => self.target_of(route, &planned, &named.sql)?,
        };
        // The Parse in front of it asks first; the Bind itself comes next.
        self.foreseen =
            Some(Foreseen { body: body.as_ptr() as usize, named: named.clone(), planned: planned.clone(), target });
        Ok(Bound { portal, planned, named, rest, target })
    }

    fn cursor_holds_numbers(&self, sql: &str) -> bool {
        let cursor = self.names.cursors.get(&cursor_of(sql).unwrap_or_default());
        cursor.is_some_and(|(shard, holds)| *shard != COMPUTES && *holds)
    }

    pub(super) fn bind(&mut self, body: &[u8], ahead: &Ahead<'_>) -> Result<(Target, Option<Step>), Trouble> {
        let Bound { portal, planned, named, rest, target } = self.bound(body)?;
        if !portal.is_empty() && self.names.portals.contains_key(portal) {
            let what = format!("cursor \"{}\" already exists", String::from_utf8_lossy(portal));
            return Err(Trouble::Reply(Failure::error("42P03", what)));
        }
        if target != Target::Own {
            self.transaction.check_open()?;
            self.check_definitions(&planned)?;
            // A block is needed when the pipeline may do more than this, or does it in more than one place.
            let alone = ahead.synced && !ahead.rest.iter().any(|(tag, _)| *tag == b'B');
            if self.transaction.status() == Status::Idle
                && (matches!(target, Target::All | Target::Spread(..)) || !alone)
            {
                self.begin_implicit();
            }
        }
        self.names.portals.insert(portal.into(), Portal { named: named.clone(), target });
        let step = Step::Bind { named, planned, portal: portal.into(), rest: rest.to_vec() };
        Ok((target, (target != Target::Own).then_some(step)))
    }
}

/// A message that does not hold what its type promises.
pub(super) fn malformed(_: Malformed) -> Trouble {
    Trouble::Reply(Failure::error("08P01", "malformed message of the extended protocol"))
}
