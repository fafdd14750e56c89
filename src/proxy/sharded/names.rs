//! What a client of a sharded database has prepared and bound.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::pool::statements::Statement;
use crate::proxy::sharded::execute::Prepared;
use crate::proxy::sharded::planned::Planned;
use crate::route::Shards;
use crate::sql::lexer::{LexOptions, Lexer, TokenKind, decode_identifier};
use crate::sql::template::{Binding, TemplateKey};

/// Most named statements of one client.
pub(super) const MAX_STATEMENTS: usize = 10_000;

/// One prepared statement of a client.
#[derive(Debug)]
pub(super) struct Named {
    /// As servers know it.
    pub statement: Arc<Statement>,
    /// Its text.
    pub sql: Box<str>,
    /// Types of its parameters as Parse declared them; 0 or missing: not declared.
    pub types: Vec<u32>,
    /// Its template, where `sql` is the client's own text.
    pub key: Option<TemplateKey>,
    /// The constants in its text.
    pub bindings: Vec<Binding>,
    /// What the router made of it, on the snapshot of this number.
    pub planned: Arc<Planned>,
    /// See `planned`.
    pub generation: u64,
    /// It is about the session or the transaction: the proxy answers it.
    pub own: bool,
    /// It is SHOW, which any server of the session answers.
    pub shows: bool,
    /// The client knows it without a name.
    pub unnamed: bool,
    /// Its text as the client sent it, where views were replaced in `sql`.
    pub with_views: Option<Box<str>>,
    /// Tells one unnamed statement of this client from the next.
    pub count: u64,
}

/// Where the messages of a group go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// One shard.
    Shard(usize),
    /// Each of these shards, for its part of the rows; and how many rows are wanted.
    Several(Shards, Option<u64>),
    /// Each of these shards, for its part of an order: so many rows, after so many others.
    Merge(Shards, Option<u64>, u64),
    /// The first shard, for what it makes of the rows of these.
    Collect(Shards),
    /// Each of the first, which write their own rows, with rows that the second send.
    Spread(Shards, Shards),
    /// Every shard, for a COPY.
    Copy,
    /// Every shard.
    All,
    /// Nowhere: the proxy answers itself.
    Own,
}

/// A bound statement.
#[derive(Debug, Clone)]
pub(super) struct Portal {
    /// What was bound.
    pub named: Arc<Named>,
    /// Where.
    pub target: Target,
}

/// Everything that has a name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Statements; the unnamed one has the empty name.
    pub statements: HashMap<Box<[u8]>, Arc<Named>>,
    /// Portals; the unnamed one has the empty name.
    pub portals: HashMap<Box<[u8]>, Portal>,
    /// Counts unnamed statements.
    pub count: u64,
    /// Statements that PREPARE has named, as a statement.
    pub prepared: HashMap<String, Arc<Prepared>>,
    /// Cursors that the transaction has declared: the shard of each, and whether its values may hold numbers of types in binary form.
    pub cursors: HashMap<String, (usize, bool)>,
}

/// The cursor that DECLARE makes, or that FETCH, MOVE or CLOSE is about: its name as PostgreSQL reads it.
pub(super) fn cursor_of(sql: &str) -> Option<String> {
    let tokens = Lexer::new(sql.as_bytes(), LexOptions::default());
    let mut names = tokens.filter(|token| matches!(token.kind, TokenKind::Ident | TokenKind::QuotedIdent));
    let first = names.next()?;
    let name = if first.bytes(sql.as_bytes()).eq_ignore_ascii_case(b"declare") { names.next() } else { names.last() };
    decode_identifier(name?.bytes(sql.as_bytes())).ok()
}

impl Names {
    /// A simple Query destroys the unnamed statement and portal.
    pub fn drop_unnamed(&mut self) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
    }
}
