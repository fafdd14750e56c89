//! Statements that do not get through.

use super::define::{Reader, choices, settings};
use super::tree::Node;

choices! {
    /// What becomes of a statement in which a rule finds something.
    pub enum GuardAction {
        /// It is refused with SQLSTATE 42000, before anything of it reaches a server.
        Deny = "deny",
        /// It runs, and the client gets a NOTICE.
        Notice = "notice",
    }
}

settings! {
    /// Rules that statements are held against before they run. It is a guard against mistakes, not against people: what is
    /// inside of functions, DO blocks and views is not looked at, nor is what pgweir cannot parse.
    pub struct Guard {
        /// The rules' names; those that find something in a statement's text alone (evidence `syntax` in `docs/rules.md`).
        rules: Vec<String> = required,
        /// What becomes of such a statement.
        action: GuardAction = "deny",
        /// Whose statements; everybody's unless given.
        users: Vec<String> = absent,
    }
    check check_guard;
}

fn check_guard(guard: &Guard, node: &Node, reader: &mut Reader) -> bool {
    if !guard.rules.is_empty() {
        return true;
    }
    let path = reader.path();
    let hint = "write `rules: [delete-without-where, update-without-where]`";
    reader.problem(node.at, format!("`{path}.rules` names no rule"), hint).unwrap_or(false)
}
