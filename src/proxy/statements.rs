//! A client's own names of prepared statements.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pool::shape::Shape;
use crate::pool::statements::{Kind, Statement};
use crate::proxy::analyzer::Analyzer;
use crate::proxy::care::Care;
use crate::proxy::commands::Command;

/// Most named statements of one client.
pub const MAX_STATEMENTS: usize = 10_000;
/// Bytes of a name that count (PostgreSQL's `NAMEDATALEN - 1`).
const MAX_NAME: usize = 63;

/// What one name means.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The statement.
    pub statement: Arc<Statement>,
    /// What it needs when it runs, as was thought with the functions of the time.
    pub care: Care,
    /// The number of those functions.
    pub read: u64,
    /// The client's text, where this speaks of another statement.
    pub command: Option<Arc<Command>>,
}

/// All names of a client; no map at all for the many clients that have none.
pub type Names = Option<Box<Named>>;

/// Names and what they mean.
pub type Named = HashMap<Box<[u8]>, Entry>;

/// A name as PostgreSQL looks it up: by its first bytes.
pub fn looked_up(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

/// Tells a client's names for one statement apart (FNV-1a).
pub fn hash_of(name: &[u8]) -> u32 {
    looked_up(name).iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What a client has prepared.
#[derive(Debug, Default)]
pub struct Statements {
    named: Names,
    /// The unnamed one: text, terminator and types; empty when there is none.
    unnamed: Vec<u8>,
    /// The client's text, where the unnamed one speaks of another statement.
    unnamed_command: Option<Arc<Command>>,
    /// What the unnamed one needs when it runs, as was thought with the functions of the time.
    pub unnamed_care: Care,
    /// What the client was told of the unnamed one.
    pub unnamed_shape: Shape,
    /// It is not that any more, where it was prepared again.
    pub unnamed_changed: bool,
    /// The number of those functions.
    pub unnamed_read: u64,
    /// Counts unnamed statements, so that a server connection's can be told from a later one.
    pub unnamed_count: u64,
}

impl Statements {
    /// The statement of that name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.named.as_ref()?.get(looked_up(name))
    }

    /// Thinks again of what a statement leaves, where functions are not what they were.
    pub fn renew_care(&mut self, name: &[u8], analyzer: &Analyzer) {
        let known = analyzer.functions_id();
        let more = |text: &[u8]| {
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            analyzer.read_again(text).extended_care()
        };
        if name.is_empty() {
            if self.unnamed_read != known {
                self.unnamed_care = more(&self.unnamed);
                self.unnamed_read = known;
            }
        } else if let Some(entry) = self.named.as_mut().and_then(|named| named.get_mut(looked_up(name)))
            && entry.read != known
        {
            let care = more(&entry.statement.rest);
            // The text that PREPARE keeps is not all of the statement.
            let kept = if entry.statement.kind == Kind::Sql { entry.care.without(Care::STRANGE) } else { Care::CLEAN };
            entry.care = kept | care;
            entry.read = known;
        }
    }

    /// What a name, or the unnamed statement, needs when it runs.
    pub fn care_of(&self, name: &[u8]) -> Care {
        let own = if name.is_empty() { Some(self.unnamed_care) } else { self.get(name).map(|entry| entry.care) };
        let executed = self.command(name).and_then(|command| Some(self.get(&command.mention.name)?.care));
        own.unwrap_or_default() | executed.unwrap_or_default()
    }

    /// Forgets names of statements that are not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&Statement) -> bool) {
        if let Some(named) = &mut self.named {
            named.retain(|_, entry| keep(&entry.statement));
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.len())
    }

    /// True when no statement has a name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives a name its meaning, or takes it away; what it meant before is returned.
    pub fn set(&mut self, name: &[u8], meaning: Option<Entry>) -> Option<Entry> {
        let name = looked_up(name);
        match meaning {
            Some(meaning) => self.named.get_or_insert_default().insert(name.into(), meaning),
            None => self.named.as_mut()?.remove(name),
        }
    }

    /// A name of the statement that servers know as `server_name`; the one with this hash, if there is one.
    pub fn name_of(&self, server_name: &[u8], hash: Option<u32>) -> Option<&[u8]> {
        let named = self.named.iter().flat_map(|named| named.iter());
        let names = named.filter(|(_, entry)| *entry.statement.name == *server_name).map(|(name, _)| &**name);
        names.max_by_key(|name| hash == Some(hash_of(name)))
    }

    /// The command that a name, or the unnamed statement, stands for.
    pub fn command(&self, name: &[u8]) -> Option<Arc<Command>> {
        if name.is_empty() { self.unnamed_command.clone() } else { self.get(name)?.command.clone() }
    }

    /// Takes all names away, to be put back perhaps.
    pub fn take(&mut self) -> Names {
        self.named.take()
    }

    /// Puts them back.
    pub fn put_back(&mut self, names: Names) {
        self.named = names;
    }

    /// Forgets all names.
    pub fn clear(&mut self) {
        self.named = None;
    }

    /// Replaces the unnamed statement.
    pub fn set_unnamed(&mut self, rest: &[u8], (care, read): (Care, u64), command: Option<Arc<Command>>) {
        self.unnamed_command = command;
        self.unnamed.clear();
        self.unnamed.extend_from_slice(rest);
        self.unnamed_care = care;
        self.unnamed_read = read;
        self.unnamed_count += 1;
        self.forget_shape();
    }

    /// Forgets the unnamed statement, as a simple Query does.
    pub fn drop_unnamed(&mut self) {
        self.unnamed_command = None;
        if self.unnamed.capacity() > 4096 {
            self.unnamed = Vec::new();
        }
        self.unnamed.clear();
    }

    /// Forgets what the client was told of the unnamed statement.
    pub fn forget_shape(&mut self) {
        self.unnamed_shape.clear();
        self.unnamed_changed = false;
    }

    /// The unnamed statement: text, terminator and types.
    pub fn unnamed(&self) -> Option<&[u8]> {
        (!self.unnamed.is_empty()).then_some(self.unnamed.as_slice())
    }
}
