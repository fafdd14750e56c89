//! Functions: what is not known to be harmless is not called.

use crate::route::context::{Context, Use};
use crate::route::functions::Steadiness;
use crate::route::plan::TemplatePlan;
use crate::sql::facts::FunctionCall;

/// Functions that name a user.
const USERS: &[&str] = &["current_role", "current_user", "session_user", "user"];

/// `nextval` and `setval`: the first shard's sequences count for all (see [`super::generated`]).
pub(super) fn counts(context: &Context<'_>, call: &FunctionCall) -> bool {
    matches!(call.name.as_str(), "nextval" | "setval") && context.is_built_in(call)
}

/// A function that is not built in can read other tables, keep state or change settings unseen. So can some
/// that are built in (see [`crate::route::functions`]). One that answers from the server's own state may only be called
/// where no user table is read: its answer would be one shard's.
pub(super) fn unknown_function(context: &Context<'_>) -> Option<TemplatePlan> {
    let has_rows =
        context.relations().any(|(_, _, used)| matches!(used, Use::Sharded(_) | Use::Reference | Use::Local(_)));
    context.facts.functions.iter().find_map(|call| {
        let known = context.steadiness(call);
        let reason = match known {
            Some(_) if USERS.contains(&call.name.as_str()) && has_rows && !context.topology.is_one_user => {
                format!("{} has another answer on each shard, as their URLs name several users", call.name)
            }
            None if !has_rows && counts(context, call) => return None,
            None => format!("the function {} is not known to read its arguments only", call.name),
            Some(Steadiness::Server) if has_rows => {
                format!("{} answers for one server, next to tables that lie on several", call.name)
            }
            Some(_) => return None,
        };
        let hint = match call.name.as_str() {
            "nextval" | "currval" | "lastval" | "setval" => {
                "the first shard counts for all: SELECT nextval(..) in a statement of its own, or leave the column out of INSERT"
            }
            name if name.contains("advisory") => "an advisory lock is held on one shard only: lock a row instead",
            "set_config" => "write SET instead",
            _ => "compute it in the application, or send the statement to a shard directly",
        };
        Some(context.refuse("unknown-function", Some(call.span), reason, hint))
    })
}
