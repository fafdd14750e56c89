//! What a statement does to the session it runs in, decided once per template.

use crate::pool::settings::Value;

/// What a server connection needs because of a statement, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Care {
    /// Nothing: it leaves no trace in the session.
    #[default]
    Clean,
    /// It may leave traces that nobody can see from outside: reset before another client comes.
    Taint,
    /// It leaves state that the client relies on and that cannot be replayed elsewhere: the client
    /// keeps this server connection.
    Pin,
    /// It may take away what the proxy prepared on the connection: the connection is closed at the next
    /// chance, and the client's names are forgotten.
    Forget,
}

/// A statement's effect on what the proxy itself keeps for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `SET name = value`, outside of functions: replayed on later server connections.
    Set(String, Option<Value>),
    /// `RESET ALL`: back to what the client asked for at startup.
    ResetAll,
    /// `DEALLOCATE name`.
    Deallocate(Vec<u8>),
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DISCARD ALL`.
    DiscardAll,
}

/// What the analysis of a statement's text says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What its server connection needs afterwards.
    pub care: Care,
    /// What the proxy must note when it succeeds; only for a statement that stands alone.
    pub effect: Option<Box<Effect>>,
}

impl Verdict {
    /// What a Bind of the statement means; its success is not followed up, so the safe side is taken.
    pub fn extended_care(&self) -> Care {
        match self.effect.as_deref() {
            None | Some(Effect::Deallocate(_)) => self.care,
            Some(Effect::Set(..) | Effect::ResetAll) => self.care.max(Care::Pin),
            Some(Effect::DeallocateAll | Effect::DiscardAll) => Care::Forget,
        }
    }
}
