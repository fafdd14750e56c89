//! A statement's plan with what else the session must know of it.

use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::Care;
use crate::route::{Bindings, Parameter, Refusal, Route, TemplatePlan};
use crate::sql::facts::StatementKind;
use crate::sql::parse;
use crate::sql::template::Binding;
use crate::wire::message::Failure;

/// A template that was planned.
#[derive(Debug)]
pub(super) struct Planned {
    /// Where it goes.
    pub plan: TemplatePlan,
    /// What it does.
    pub kind: StatementKind,
    /// It may change rows or definitions.
    pub writes: bool,
    /// What its server connection needs afterwards.
    pub care: Care,
    /// It declares a cursor.
    pub declares: bool,
    /// It is LOCK.
    pub locks: bool,
    /// It reads views, which have to be [replaced](crate::route::expand) first.
    pub reads_views: bool,
}

impl Planned {
    /// A plan with what the session must know besides.
    ///
    /// # Errors
    /// The statement leaves state that cannot be kept.
    pub fn new(sql: &str, plan: TemplatePlan, analyzer: &mut Analyzer) -> Result<Self, Failure> {
        let kind = parse::classify(sql).0;
        // SHOW is a statement about the session, and changes nothing.
        let command = parse::classify(sql).1;
        let (declares, locks) = (command == "DECLARE", command.starts_with("LOCK"));
        let writes = plan.writes && kind != StatementKind::Session && !locks;
        Ok(Self { plan, kind, writes, care: Self::care_of(sql, analyzer)?, declares, locks, reads_views: false })
    }

    /// What a statement does to its session, refused where that cannot be kept over several servers. What functions and
    /// triggers of users leave is not refused: it ends with the transaction, as the connection is cleaned.
    fn care_of(sql: &str, analyzer: &mut Analyzer) -> Result<Care, Failure> {
        let unseen = analyzer.read_again(sql.as_bytes()).care;
        analyzer.forget_functions();
        let verdict = analyzer.read_again(sql.as_bytes());
        let care = verdict.care;
        // What may do anything is answered, and its connection is cleaned; what is known to leave something is refused.
        let seen = care.has(Care::SETTINGS) != care.has(Care::STATE);
        if verdict.effect.is_none() && (seen || care.has(Care::NAMED | Care::STAYS | Care::FORGETS)) {
            return Err(Failure::error(
                "0A000",
                "this leaves state in its session, which a sharded database cannot keep over several servers",
            )
            .hint(
                "Connect to the shard itself, or use a form that ends with the transaction (SET LOCAL, \
                   pg_advisory_xact_lock, ON COMMIT DROP in an unsharded database).",
            ));
        }
        Ok(care | unseen)
    }

    /// The route for these constants.
    pub fn route(&self, values: &Values<'_>) -> Result<Route, Failure> {
        self.plan.bind(values).map_err(refused)
    }

    /// It changes definitions, so that plans must be made anew once it is committed.
    pub fn changes_definitions(&self) -> bool {
        self.kind == StatementKind::Ddl
    }
}

/// A refusal as the client is told of it.
pub(super) fn refused(refusal: Refusal) -> Failure {
    Failure::error("0A000", format!("refused: {}", refusal.reason))
        .detail(format!("Rule: {}.", refusal.rule))
        .hint(refusal.hint)
}

/// A statement's constants: those in its text and those of Bind.
#[derive(Debug)]
pub(super) struct Values<'a> {
    /// The statement's text.
    pub sql: &'a str,
    /// Its constants and parameters, in the text's order.
    pub bindings: &'a [Binding],
    /// Values of `$1`, `$2`, ...
    pub parameters: &'a [Parameter<'a>],
}

impl Bindings for Values<'_> {
    fn constant(&self, index: usize) -> Option<&str> {
        let binding = self.bindings.get(index)?;
        self.sql.get(binding.start as usize..binding.end as usize)
    }

    fn parameter(&self, number: u32) -> Option<Parameter<'_>> {
        self.parameters.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }
}
