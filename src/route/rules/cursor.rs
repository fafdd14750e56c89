//! Cursors of a transaction.

use crate::route::collect::Collect;
use crate::route::context::{Context, Use};
use crate::route::infer::is_placed;
use crate::route::plan::{Action, Route, TemplatePlan};
use crate::route::rules::collect::rows_of_all;
use crate::route::rules::key::by_key;
use crate::route::words::Words;
use crate::sql::lexer::TokenKind;

/// FETCH, MOVE and CLOSE go where the cursor is.
pub(super) fn of_cursor(context: &Context<'_>) -> Option<TemplatePlan> {
    let words = Words::of(context.around.sql);
    let first = words.word(0)?;
    let is_all = first == "close" && words.word(1).is_some_and(|word| word == "all");
    if is_all {
        let hint = "CLOSE each cursor by its name, or end the transaction";
        return Some(context.refuse("cursor", None, "CLOSE ALL is not available in a sharded database", hint));
    }
    matches!(first.as_str(), "fetch" | "move" | "close").then(|| reads_only(context.fixed("cursor", Route::Cursor)))
}

/// A cursor reads its query on one server: the shard that can answer it alone, or the first one, from rows of all. It lives as long as its
/// transaction, in which that shard takes part.
pub(super) fn declare(context: &Context<'_>) -> Option<TemplatePlan> {
    if context.facts.command != "DECLARE" {
        return None;
    }
    let words = Words::of(context.around.sql);
    let refuse = |reason: &str, hint: &str| Some(context.refuse("cursor", None, reason.to_owned(), hint));
    // In front of the query only: a column may be called so.
    let query =
        (0..words.tokens.len()).find(|at| words.word(*at).is_some_and(|word| word == "for")).unwrap_or_default();
    let holds = (0..query).any(|at| {
        words.kind(at) == Some(TokenKind::Ident)
            && words.word(at).is_some_and(|word| word == "with")
            && words.word(at + 1).is_some_and(|word| word == "hold")
    });
    if holds {
        return refuse("a cursor WITH HOLD would outlive its transaction", "fetch its rows inside the transaction");
    }
    if context.facts.scopes.iter().any(|scope| scope.locking.is_some()) || context.facts.writes_in_cte {
        return refuse("a cursor that locks or writes rows", "lock or write them by statements of their own");
    }
    if !context.relations().any(|(_, _, used)| is_placed(used)) {
        let known = context.relations().all(|(_, _, used)| matches!(used, Use::Reference | Use::Nothing));
        return known.then(|| reads_only(context.fixed("cursor", Route::Any)));
    }
    match rows_of_all(context, &[]) {
        Some((occurrences, parts)) => {
            let collect = Collect { occurrences, parts, ..Collect::default() };
            Some(reads_only(context.plan("cursor", Action::Collect(Box::new(collect)))))
        }
        None => by_key(context).map(reads_only),
    }
}

fn reads_only(plan: TemplatePlan) -> TemplatePlan {
    TemplatePlan { writes: false, ..plan }
}
