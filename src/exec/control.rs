//! Transaction control as clients say it.

use crate::sql::ast::{Ident, Statement};
use crate::sql::parse::Parsed;
use crate::wire::message::Failure;

/// One statement of transaction control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// BEGIN or START TRANSACTION, with its text, to be repeated on each shard that joins.
    Begin {
        /// The statement as the client wrote it.
        text: String,
        /// The command tag PostgreSQL answers with: `BEGIN` or `START TRANSACTION`.
        tag: &'static str,
    },
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
    /// SAVEPOINT, with the name as PostgreSQL stores it.
    Savepoint(String),
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo(String),
    /// RELEASE SAVEPOINT.
    Release(String),
}

impl Control {
    /// What a statement says of transactions; `None` when it says nothing of them.
    ///
    /// # Errors
    /// It is transaction control that a transaction over shards cannot keep: AND CHAIN.
    pub fn of(parsed: &Parsed) -> Result<Option<Self>, Failure> {
        let control = match &parsed.ast {
            Statement::StartTransaction { begin, statements, modifier: None, .. } if statements.is_empty() => {
                Self::Begin { text: parsed.text.to_string(), tag: if *begin { "BEGIN" } else { "START TRANSACTION" } }
            }
            Statement::Commit { chain: true, .. } | Statement::Rollback { chain: true, .. } => {
                return Err(Failure::error("0A000", "AND CHAIN is not supported in a sharded database")
                    .hint("End the transaction, then send BEGIN."));
            }
            Statement::Commit { modifier: None, .. } => Self::Commit,
            Statement::Rollback { savepoint: None, .. } => Self::Rollback,
            Statement::Rollback { savepoint: Some(name), .. } => Self::RollbackTo(folded(name)),
            Statement::Savepoint { name } => Self::Savepoint(folded(name)),
            Statement::ReleaseSavepoint { name } => Self::Release(folded(name)),
            _ => return Ok(None),
        };
        Ok(Some(control))
    }
}

/// A name as PostgreSQL stores it.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// A name as SQL, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse::parse;

    fn control(sql: &str) -> Option<Control> {
        Control::of(&parse(sql).unwrap()).unwrap()
    }

    #[test]
    fn reads_transaction_control() {
        let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE";
        assert_eq!(control(begin), Some(Control::Begin { text: begin.into(), tag: "BEGIN" }));
        assert!(matches!(
            control("start transaction read only"),
            Some(Control::Begin { tag: "START TRANSACTION", .. })
        ));
        for sql in ["COMMIT", "end", "commit work"] {
            assert_eq!(control(sql), Some(Control::Commit), "{sql}");
        }
        for sql in ["ROLLBACK", "rollback transaction"] {
            assert_eq!(control(sql), Some(Control::Rollback), "{sql}");
        }
        assert_eq!(control("savepoint A"), Some(Control::Savepoint("a".into())));
        assert_eq!(control("rollback to savepoint \"A\""), Some(Control::RollbackTo("A".into())));
        assert_eq!(control("release a"), Some(Control::Release("a".into())));
        assert_eq!(control("select 1"), None);
        assert!(Control::of(&parse("COMMIT AND CHAIN").unwrap()).is_err());
    }
}
