//! The one error type that reaches a user: what happened, where, and what to do.
//!
//! Every room returns [`Error`]; its [`ErrorKind`] says who is at fault and decides the exit code
//! (`cli/`) and the SQLSTATE (`proxy/`). Errors that a PostgreSQL server raised are never turned
//! into this type on the data path: they reach the client byte for byte.

use std::fmt;

/// Who is at fault, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line is wrong (exit 2).
    Usage,
    /// A configuration or rule file is wrong (exit 2).
    Config,
    /// A file could not be read or understood (exit 3).
    Input,
    /// A server could not be reached or answered with an error (exit 3).
    Server,
    /// A defect of pgweir itself (exit 3).
    Internal,
}

/// What happened, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Who is at fault.
    pub kind: ErrorKind,
    /// What happened, in one sentence without a full stop.
    pub what: String,
    /// Where: a file with line and column, a setting, a server.
    pub place: Option<String>,
    /// What the reader can do.
    pub hint: Option<String>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `what`.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), place: None, hint: None }
    }

    /// The command line is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A configuration file is wrong.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, what)
    }

    /// A file could not be read or understood.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, what)
    }

    /// A server could not be reached, or refused.
    pub fn server(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Server, what)
    }

    /// Something that only a defect of pgweir can cause.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// Adds where it happened.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds what the reader can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The process's exit code for this error (contract: 2 usage or configuration, 3 unreadable).
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage | ErrorKind::Config => 2,
            ErrorKind::Input | ErrorKind::Server | ErrorKind::Internal => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(place) = &self.place {
            write!(f, "\n  at: {place}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_and_what_to_do() {
        let error = Error::config("unknown setting").at("pgweir.yaml:3:5").hint("remove it");
        assert_eq!(error.to_string(), "unknown setting\n  at: pgweir.yaml:3:5\n  hint: remove it");
        assert_eq!(error.exit_code(), 2);
    }
}
