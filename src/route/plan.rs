//! What the router decided, as plain data: per template, and per execution once its constants are known.

use std::sync::Arc;

use super::collect::Collect;
use super::constant::Choice;
use super::copy::Copy;
use super::key::KeyType;
use super::merge::Merge;
use super::placement::{Placement, ShardId};
use super::spread::Spread;
use crate::sql::facts::Span;

/// Where one execution of a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this shard.
    Single(ShardId),
    /// To any one shard: all of them would answer alike.
    Any,
    /// To the first shard: it reads system catalogs or the server's own state.
    Catalog,
    /// To each of these shards, whose rows together are the answer: all of them, or as many as these.
    Several(Shards, Option<u64>),
    /// To each of these shards, whose rows are merged into one order: so many of them, after so many others.
    Merge(Shards, Option<u64>, u64),
    /// To the first shard, which computes it from rows that these shards send.
    Collect(Shards),
    /// To each of the first, which write their own rows, with rows that the second send.
    Spread(Shards, Shards),
    /// To the shard that has the cursor which the statement names.
    Cursor,
    /// COPY on every shard: see [`TemplatePlan::copy`].
    Copy,
    /// To every shard; the client gets the first one's answer. All must succeed, or none.
    All,
    /// Transaction control and session settings: the proxy itself executes them.
    Control,
}

/// Why a statement is not executed, with SQLSTATE 0A000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that refused.
    pub rule: &'static str,
    /// What could not be proven.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
    /// The clause, in the statement that was planned.
    pub span: Option<Span>,
}

/// A constant's place in an execution.
pub trait Bindings {
    /// The source text of the statement's n-th constant (from 0), with its quotes and without its sign.
    fn constant(&self, index: usize) -> Option<&str>;
    /// The value of `$number`, when it is bound.
    fn parameter(&self, number: u32) -> Option<Parameter<'_>>;
}

/// The value of a parameter in the extended protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The type's OID as Parse declared it, 0 when it did not.
    pub type_oid: u32,
    /// In binary format.
    pub binary: bool,
    /// Its bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// The plan of a template: everything but its constants.
#[derive(Debug, Clone)]
pub struct TemplatePlan {
    /// The rule that decided.
    pub rule: &'static str,
    /// It may change rows or definitions.
    pub writes: bool,
    /// Values of its tables may hold numbers of users' types in binary form, which are others on each shard.
    pub holds_numbers: bool,
    pub(super) action: Action,
    /// Reference tables it reads, for the printed form.
    pub(super) references: Vec<String>,
    pub(super) shards: Arc<[String]>,
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Fixed(Route),
    /// The shards of all occurrences, which must come down to one.
    ByKey(Vec<Occurrence>),
    /// Each shard on which rows can lie computes its own.
    Scatter(Scatter),
    /// One shard computes it from rows of all.
    Collect(Box<Collect>),
    /// Each shard on which rows can lie writes its own.
    Spread(Box<Spread>),
    /// COPY of a table that is on every shard.
    Copy(Box<Copy>),
    Refuse(Refusal),
}

/// A query whose rows several shards compute.
#[derive(Debug, Clone)]
pub(super) struct Scatter {
    /// Each row is made from one row of each of these, and all of these lie on the same shard.
    pub occurrences: Vec<Occurrence>,
    /// So many rows are wanted at most.
    pub limit: Option<Amount>,
    /// So many rows are left out first; only in an order.
    pub offset: Option<Amount>,
    /// They are wanted in an order.
    pub order: Option<Box<Merge>>,
    /// What is collected where they cannot be merged.
    pub instead: Option<Box<Collect>>,
}

/// A number of rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// The statement's n-th constant.
    Constant(usize),
    /// `$number`; NULL is none.
    Parameter(u32),
    /// NULL.
    None,
}

/// Some of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards(ShardSet);

impl Shards {
    /// One of them.
    pub fn of(shard: ShardId) -> Self {
        Self(1 << shard.0.min(MAX_SHARDS - 1))
    }

    /// Their numbers, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_SHARDS).filter(move |shard| self.0 >> shard & 1 == 1)
    }
}

/// One occurrence of a table whose rows lie on some shards only.
#[derive(Debug, Clone)]
pub(super) struct Occurrence {
    /// How messages call it.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// Each holds for all of its rows that matter.
    pub pins: Vec<Pin>,
}

/// A reason why an occurrence's rows lie on some shards only.
#[derive(Debug, Clone)]
pub(super) enum Pin {
    /// A local table's shard.
    Local(ShardId),
    /// The key equals one of these.
    Key {
        column: String,
        key: KeyType,
        placement: Arc<Placement>,
        choices: Vec<Choice>,
        /// The row is stored: NULL, unplaced and too long values are refused.
        stored: bool,
    },
}

/// A set of shards; there are at most 128.
type ShardSet = u128;

/// The largest number of shards.
pub const MAX_SHARDS: usize = 128;

impl TemplatePlan {
    /// Chooses the route for these constants. Costs a hash of each key and no allocation unless it refuses.
    pub fn bind(&self, bindings: &dyn Bindings) -> Result<Route, Refusal> {
        match &self.action {
            Action::Fixed(route) => Ok(*route),
            Action::Refuse(refusal) => Err(refusal.clone()),
            Action::ByKey(occurrences) => self.bind_keys(occurrences, bindings),
            Action::Scatter(scatter) => self.bind_scatter(scatter, bindings),
            Action::Collect(collect) => self.bind_collect(collect, bindings),
            Action::Spread(spread) => self.bind_spread(spread, bindings),
            Action::Copy(_) => Ok(Route::Copy),
        }
    }

    /// Which rows are to be collected, where that is the plan. The places in it are those of the very text that was planned.
    pub fn collect(&self) -> Option<&Collect> {
        match &self.action {
            Action::Collect(collect) => Some(collect),
            Action::Scatter(scatter) => scatter.instead.as_deref(),
            _ => None,
        }
    }

    /// How rows are merged, where that is the plan; for places see [`TemplatePlan::collect`].
    pub fn merge(&self) -> Option<&Merge> {
        match &self.action {
            Action::Scatter(scatter) => scatter.order.as_deref(),
            _ => None,
        }
    }

    /// How it is split over shards, where that is the plan; for places see [`TemplatePlan::collect`].
    pub fn spread(&self) -> Option<&Spread> {
        match &self.action {
            Action::Spread(spread) => Some(spread),
            _ => None,
        }
    }

    /// What a COPY on every shard is.
    pub fn copy(&self) -> Option<&Copy> {
        match &self.action {
            Action::Copy(copy) => Some(copy),
            _ => None,
        }
    }

    /// Which rows of VALUES belong on a shard.
    pub fn own_rows(&self, shard: ShardId, bindings: &dyn Bindings) -> Vec<bool> {
        let place = |occurrence: &Occurrence| {
            let set = self.shards_of(occurrence, bindings).ok()?;
            (set.count_ones() == 1).then(|| ShardId(set.trailing_zeros() as usize))
        };
        self.spread().map(|spread| spread.own(place, shard)).unwrap_or_default()
    }

    /// The refusal of every execution of this template, if it is refused whatever its constants are.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.action {
            Action::Refuse(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn bind_keys(&self, occurrences: &[Occurrence], bindings: &dyn Bindings) -> Result<Route, Refusal> {
        let mut needed: ShardSet = 0;
        for occurrence in occurrences {
            needed |= self.shards_of(occurrence, bindings)?;
        }
        match needed.count_ones() {
            // No constants allow a row: every shard answers alike.
            0 => Ok(Route::Single(ShardId(0))),
            1 => Ok(Route::Single(ShardId(needed.trailing_zeros() as usize))),
            _ => Err(self.spans_shards(occurrences, bindings, needed)),
        }
    }

    /// Rows that satisfy all pins lie on the shards that all occurrences have in common.
    fn bind_scatter(&self, scatter: &Scatter, bindings: &dyn Bindings) -> Result<Route, Refusal> {
        let mut left = ShardSet::MAX >> (MAX_SHARDS - self.shards.len().clamp(1, MAX_SHARDS));
        for occurrence in &scatter.occurrences {
            // A key that cannot be read says nothing, and every shard is asked.
            left &= self.shards_of(occurrence, bindings).unwrap_or(ShardSet::MAX);
        }
        match left.count_ones() {
            0 => return Ok(Route::Single(ShardId(0))),
            1 => return Ok(Route::Single(ShardId(left.trailing_zeros() as usize))),
            _ => {}
        }
        if says_now(bindings) {
            return Err(self.other_moments());
        }
        let span = scatter.occurrences.first().map(|occurrence| occurrence.span);
        let limit = self.amount("LIMIT", scatter.limit, span, bindings);
        let offset = self.amount("OFFSET", scatter.offset, span, bindings);
        match (&scatter.order, limit, offset) {
            (None, limit, _) => Ok(Route::Several(Shards(left), limit?)),
            (Some(_), Ok(limit), Ok(offset)) => Ok(Route::Merge(Shards(left), limit, offset.unwrap_or_default())),
            // PostgreSQL can say what the amount is.
            (Some(_), limit, offset) => match &scatter.instead {
                Some(_) => Ok(Route::Collect(Shards(left))),
                None => Err(limit.err().or(offset.err()).unwrap_or_else(|| self.other_moments())),
            },
        }
    }

    /// A number of rows; none where it is not limited.
    fn amount(
        &self,
        clause: &str,
        amount: Option<Amount>,
        span: Option<Span>,
        bindings: &dyn Bindings,
    ) -> Result<Option<u64>, Refusal> {
        let refuse = |reason: &str, hint: &str| Refusal {
            rule: self.rule,
            reason: format!("the amount of {clause} is {reason}"),
            hint: hint.to_owned(),
            span,
        };
        let text = match amount {
            None | Some(Amount::None) => return Ok(None),
            Some(Amount::Constant(index)) => bindings.constant(index).map(str::as_bytes),
            Some(Amount::Parameter(number)) => match bindings.parameter(number) {
                Some(Parameter { value: None, .. }) => return Ok(None),
                Some(Parameter { value: Some(value), binary: false, .. }) => Some(value),
                Some(Parameter { value: Some(value), .. }) => {
                    let rows = <[u8; 8]>::try_from(value).map(u64::from_be_bytes).ok().filter(|rows| rows >> 63 == 0);
                    let odd = || refuse("no row count in binary form", "send it as int8, 0 or more");
                    return rows.map(Some).ok_or_else(odd);
                }
                None => None,
            },
        };
        let rows = text.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<u64>().ok());
        let odd = || refuse("no plain number", &format!("write {clause} with a number"));
        rows.filter(|rows| rows >> 63 == 0).map(Some).ok_or_else(odd)
    }

    /// One shard that has all rows computes it alone; else all on which some can lie send them.
    fn bind_collect(&self, collect: &Collect, bindings: &dyn Bindings) -> Result<Route, Refusal> {
        let needed = collect.occurrences.iter().fold(0, |set, one| set | self.found_on(one, bindings));
        match needed.count_ones() {
            0 => Ok(Route::Single(ShardId(0))),
            1 => Ok(Route::Single(ShardId(needed.trailing_zeros() as usize))),
            _ if collect.filters() && says_now(bindings) => Err(self.other_moments()),
            _ => Ok(Route::Collect(Shards(needed))),
        }
    }

    /// Each shard that can have rows writes its own; one that has all there is, written or read, runs the statement as it is.
    fn bind_spread(&self, spread: &Spread, bindings: &dyn Bindings) -> Result<Route, Refusal> {
        let mut targets: ShardSet = 0;
        for row in spread.rows.iter().filter(|row| !row.occurrence.pins.is_empty()) {
            targets |= self.shards_of(&row.occurrence, bindings)?;
        }
        if spread.rows.is_empty() {
            targets = self.found_on(&spread.target, bindings);
        }
        if spread.query.is_some() || spread.filled().is_some_and(|(filled, _)| filled.key().is_some()) {
            // Where its rows go is known when the query has run, or the keys are made up.
            let every = self.found_on(&spread.target, bindings);
            let from = spread.collect.occurrences.iter().fold(1, |set, one| set | self.found_on(one, bindings));
            return Ok(Route::Spread(Shards(every), Shards(from)));
        }
        let from = spread.collect.occurrences.iter().fold(0, |set, one| set | self.found_on(one, bindings));
        match (targets.count_ones(), (targets | from).count_ones()) {
            (0, _) => Ok(Route::Single(ShardId(0))),
            (_, 1) if spread.moved.is_none() && spread.filled.is_none() => {
                Ok(Route::Single(ShardId(targets.trailing_zeros() as usize)))
            }
            _ if says_now(bindings) => Err(self.other_moments()),
            _ => Ok(Route::Spread(Shards(targets), Shards(from))),
        }
    }

    /// The shards on which an occurrence's rows can be; all where its pins do not say.
    fn found_on(&self, occurrence: &Occurrence, bindings: &dyn Bindings) -> ShardSet {
        let every = ShardSet::MAX >> (MAX_SHARDS - self.shards.len().clamp(1, MAX_SHARDS));
        let known = if occurrence.pins.is_empty() { None } else { self.shards_of(occurrence, bindings).ok() };
        known.unwrap_or(every)
    }

    fn other_moments(&self) -> Refusal {
        Refusal {
            rule: self.rule,
            reason: "a constant says `now` or the like, which each shard would read at another moment".to_owned(),
            hint: "compute the time in the application and send it as a constant".to_owned(),
            span: None,
        }
    }

    /// The shards on which rows that satisfy all pins can lie.
    fn shards_of(&self, occurrence: &Occurrence, bindings: &dyn Bindings) -> Result<ShardSet, Refusal> {
        let mut left = ShardSet::MAX;
        for pin in &occurrence.pins {
            left &= match pin {
                Pin::Local(shard) => 1 << shard.0.min(MAX_SHARDS - 1),
                Pin::Key { key, placement, choices, stored, .. } => {
                    let mut set: ShardSet = 0;
                    for choice in choices {
                        let value =
                            choice.value(*key, bindings).map_err(|why| self.not_proven(occurrence, pin, &why))?;
                        let shard = placement.shard_of(&value);
                        if *stored {
                            let why = match shard {
                                Some(_) if !key.stores(&value) => "the value is longer than the column",
                                Some(_) => "",
                                None => "NULL, or a value that the placement names no shard for, has no place",
                            };
                            if !why.is_empty() {
                                return Err(self.not_proven(occurrence, pin, why));
                            }
                        }
                        set |= shard.map_or(0, |shard| 1 << shard.0.min(MAX_SHARDS - 1));
                    }
                    set
                }
            };
        }
        Ok(left)
    }

    fn not_proven(&self, occurrence: &Occurrence, pin: &Pin, why: &str) -> Refusal {
        let column = match pin {
            Pin::Key { column, .. } => column.as_str(),
            Pin::Local(_) => "",
        };
        Refusal {
            rule: self.rule,
            reason: format!(
                "the value of {}.{column} does not say on which shard its rows lie: {why}",
                occurrence.name
            ),
            hint: "write the key as a plain constant of its own type".to_owned(),
            span: Some(occurrence.span),
        }
    }

    fn spans_shards(&self, occurrences: &[Occurrence], bindings: &dyn Bindings, needed: ShardSet) -> Refusal {
        let names: Vec<&str> = self
            .shards
            .iter()
            .enumerate()
            .filter(|(index, _)| needed & (1 << (*index).min(MAX_SHARDS - 1)) != 0)
            .map(|(_, name)| name.as_str())
            .collect();
        let first = occurrences.first().and_then(|first| self.shards_of(first, bindings).ok());
        let odd =
            occurrences.iter().find(|other| self.shards_of(other, bindings).ok() != first).or(occurrences.first());
        Refusal {
            rule: "several-shards",
            reason: format!("its rows lie on several shards: {}", names.join(", ")),
            hint: "send one statement for each key".to_owned(),
            span: odd.map(|occurrence| occurrence.span),
        }
    }
}

/// Whether a constant holds one of the words that PostgreSQL reads as the present, by itself.
fn says_now(bindings: &dyn Bindings) -> bool {
    let constants = (0..).map_while(|index| bindings.constant(index)).map(str::as_bytes);
    let parameters = (1..).map_while(|number| bindings.parameter(number)).filter_map(|parameter| parameter.value);
    constants.chain(parameters).any(names_the_present)
}

/// Whether one of the words is in a text that PostgreSQL reads as the present where it reads a time.
pub fn names_the_present(value: &[u8]) -> bool {
    let mut words = value.split(|byte| !byte.is_ascii_alphanumeric());
    words
        .any(|word| [&b"now"[..], b"today", b"tomorrow", b"yesterday"].iter().any(|now| word.eq_ignore_ascii_case(now)))
}
