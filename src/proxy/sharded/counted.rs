//! Counts the statements of sharded sessions by template, as the meter does those of others.

use std::cell::RefCell;
use std::sync::Arc;

use crate::exec::transaction::Status;
use crate::proxy::given::Given;
use crate::proxy::meter::seen::Seen;
use crate::proxy::meter::templates::Numbers;
use crate::proxy::meter::timing::now;
use crate::proxy::meter::{Counters, Tier};
use crate::proxy::sharded::extended::Step;
use crate::proxy::sharded::names::{Named, Target};
use crate::proxy::sharded::session::{ShardedSession, Trouble};
use crate::route::Route;
use crate::sql::lexer::LexOptions;
use crate::sql::template::TemplateKey;
use crate::wire::body::{Reader, error_fields};
use crate::wire::frame::HEADER_LEN;

thread_local! {
    /// What this worker knows of the templates' places.
    static SEEN: RefCell<Seen> = RefCell::default();
}

impl ShardedSession {
    pub(super) fn counters(&self) -> Option<&Counters> {
        self.database.meter.at(self.home)
    }

    /// A message came: the first of a query, or one more.
    pub(super) fn begin_query(&mut self, tag: u8) {
        if self.query.0.is_none() && matches!(tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S') {
            self.query = (Some(now()), Tier::Control, false);
        }
    }

    /// A query was answered, up to its ReadyForQuery.
    pub(super) fn end_query(&mut self) {
        let (Some(began), tier, failed) = std::mem::replace(&mut self.query, (None, Tier::Control, false)) else {
            return;
        };
        let is_over = self.transaction.status() == Status::Idle;
        let Some(counters) = self.counters() else { return };
        counters.answered(tier, 1, failed.into());
        counters.transactions.add(is_over.into());
        counters.client.record(now().saturating_sub(began), 1);
    }

    /// Notes where a statement goes.
    pub(super) fn goes_to(&mut self, route: Route) {
        self.query.1 = match route {
            Route::Single(_) | Route::Cursor => Tier::Single,
            Route::Any => Tier::Any,
            Route::Catalog => Tier::Catalog,
            Route::Several(..) | Route::Merge(..) | Route::Collect(_) | Route::Spread(..) => Tier::Several,
            Route::All | Route::Copy => Tier::All,
            Route::Control => Tier::Control,
        };
    }

    /// Counts an error that the client is told.
    pub(super) fn count_error(&mut self, trouble: &Trouble) {
        let (source, code) = match trouble {
            Trouble::Reply(failure) => {
                if failure.code == "0A000" {
                    self.query.1 = Tier::Refused;
                }
                ("pgweir", failure.code.as_bytes().to_vec())
            }
            Trouble::Server(frame) => {
                let fields = error_fields(frame.get(HEADER_LEN..).unwrap_or_default());
                ("server", fields.code.to_vec())
            }
            Trouble::Lost(_) => ("pgweir", b"08006".to_vec()),
            // It was counted when it was told.
            _ => return,
        };
        self.query.2 = true;
        self.database.meter.error(source, &code);
    }

    /// Counts a statement that has run since `began`.
    pub(super) fn count_statement(&mut self, sql: &str, began: u64, failed: bool) {
        let ended = now();
        let key = self.counted_as.take();
        self.count_one(sql, key, (ended.saturating_sub(began), ended), failed);
    }

    /// Runs a group of messages, and counts the statements that it executes.
    pub(super) async fn run_group(&mut self, target: Target, group: &mut Vec<Step>) -> Result<(), Trouble> {
        if group.is_empty() {
            return Ok(());
        }
        self.sample(group);
        let executed = self.executed(group);
        let began = now();
        let done = self.send_group(target, group).await;
        let ended = now();
        let each = ended.saturating_sub(began) / (executed.len() as u64).max(1);
        for named in executed {
            let sql = named.with_views.as_ref().unwrap_or(&named.sql);
            self.count_one(sql, named.key, (each, ended), done.is_err());
        }
        done
    }

    /// Keeps values that statements are bound to, where they are wanted.
    fn sample(&self, group: &[Step]) {
        let meter = &self.database.meter;
        let Some(templates) = &meter.templates else { return };
        for step in group {
            let Step::Bind { named, rest, .. } = step else { continue };
            let place = SEEN.with(|seen| {
                let mut seen = seen.try_borrow_mut().ok()?;
                seen.follow(meter);
                seen.known(named.key?)
            });
            if let Some(place) = place.filter(|place| templates.wants_sample(*place)) {
                let given = Given::read(&mut Reader::new(rest)).ok();
                templates.sample(place, given.and_then(|given| given.shown(&named.types)));
            }
        }
    }

    /// The statements that a group executes.
    fn executed(&self, group: &[Step]) -> Vec<Arc<Named>> {
        let mut bound: Vec<(&[u8], &Arc<Named>)> = Vec::new();
        let mut executed = Vec::new();
        for step in group {
            match step {
                Step::Bind { named, portal, .. } => bound.push((portal, named)),
                Step::Execute(body) => {
                    let portal = Reader::new(body).cstr().unwrap_or_default();
                    let here = bound.iter().rev().find(|(name, _)| *name == portal).map(|(_, named)| *named);
                    executed.extend(here.or_else(|| Some(&self.names.portals.get(portal)?.named)).cloned());
                }
                _ => {}
            }
        }
        executed
    }

    fn count_one(&mut self, sql: &str, key: Option<TemplateKey>, (nanos, ended): (u64, u64), failed: bool) {
        let meter = &self.database.meter;
        let Some(templates) = &meter.templates else { return };
        let scanner = &mut self.scanner;
        let place = SEEN.with(|seen| {
            // Nobody holds it for longer than this.
            let Ok(mut seen) = seen.try_borrow_mut() else { return Default::default() };
            seen.follow(meter);
            if let Some(place) = key.and_then(|key| seen.known(key)) {
                return place;
            }
            let scan = scanner.scan(sql.as_bytes());
            seen.note(&scan, sql.as_bytes(), LexOptions::default());
            seen.last
        });
        templates.record(self.home, place, Numbers { calls: 1, nanos, rows: 0, errors: failed.into() });
        self.habits.ran(place, ended, templates, self.home);
    }

    /// The client goes on; it may have stood idle in its transaction.
    pub(super) fn goes_on(&self) {
        if self.transaction.status() != Status::Idle && !self.implicit {
            self.habits.goes_on(now(), self.database.meter.templates.as_deref(), self.home);
        }
    }
}
