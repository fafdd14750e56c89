//! One client's conversation with its server connection, without I/O.
//!
//! Bytes of the client go in and bytes for the server come out ([`Conversation::client_bytes`], in
//! `from_client.rs`), and the other way round ([`Conversation::server_bytes`], in `from_server.rs`). Whoever drives it
//! attaches a server connection when [`Next::NeedServer`] is said, and takes it away when
//! [`Conversation::is_releasable`]. Frames are passed on as they are; only names of prepared
//! statements are rewritten.
//!
//! **Pipelines.** Where the meaning of a client's message depends on whether an earlier one, in an earlier
//! pipeline segment, succeeded (a name that an unconfirmed Parse gives), the message waits for the answers
//! ([`Next::Stall`]). Within one segment nothing has to wait: if the earlier one fails, the server skips the later one too.

use std::sync::Arc;

use crate::pool::Interned;
use crate::pool::server::{MANY, ServerState};
use crate::pool::settings::{Reported, Settings, difference};
use crate::proxy::care::Care;
use crate::proxy::commands::Change;
use crate::proxy::definitions::Definitions;
use crate::proxy::expect::{Expect, Expects, Named, Subject};
use crate::proxy::guard::Guard;
use crate::proxy::heal::Kept;
use crate::proxy::keeping::Doubts;
use crate::proxy::meter::tally::Tally;
use crate::proxy::meter::templates::Place;
use crate::proxy::pins::Pins;
use crate::proxy::shapes::Bound;
use crate::proxy::statements::Statements;
use crate::wire::message::{self, Failure};

/// Why the client's bytes are not taken further for now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The next frame is not whole yet.
    NeedMore,
    /// The next frame needs a server connection.
    NeedServer,
    /// The next frame must wait for answers.
    Stall,
    /// The client said good-bye.
    Terminate,
    /// The conversation cannot go on; the client is told why.
    Fail(Failure),
}

/// One client's conversation.
#[derive(Debug)]
pub struct Conversation {
    /// The client's number, unique in this process.
    pub id: u64,
    /// What the server owes.
    pub expects: Expects,
    /// What was answered and is not accounted for yet.
    pub tally: Tally,
    /// Where the unnamed statement and the last portal are counted.
    pub(super) unnamed_place: Place,
    pub(super) bound: Place,
    /// The rules that its statements are held against before they run.
    pub guard: Option<Arc<Guard>>,
    /// The client has heard of the message that is about to be taken.
    pub(super) commented: bool,
    /// What the client prepared.
    pub statements: Statements,
    /// Transaction status of the last ReadyForQuery.
    pub status: u8,
    /// What has to be seen to before the attached server connection may serve another client.
    pub care: Care,
    /// Why the client keeps the server connection between transactions.
    pub pins: Pins,
    /// It keeps it until it leaves, whatever it does.
    pub keeps: bool,
    /// Its statements have its own names on the server.
    pub(super) plain: bool,
    /// Settings to ask for, and what else is rarely there.
    pub(super) doubts: Option<Box<Doubts>>,
    /// What it has defined.
    pub(super) definitions: Definitions,
    /// Who it was when it drew from a sequence last; 0 when it never did.
    pub(super) drew: u64,
    /// The pool takes the server connection back after each statement.
    pub single: bool,
    /// The longest message taken from the client.
    pub max_message: usize,
    pub(super) interned: Arc<Interned>,
    /// What the client asked for at startup, and what it has now.
    pub(super) startup: Arc<Settings>,
    pub(super) want: Arc<Settings>,
    /// What the client was told of the server's parameters.
    pub(super) told: Arc<Reported>,
    /// `standard_conforming_strings`, as the client was told.
    pub(super) conforming: bool,
    /// Syncs and Queries sent.
    pub(super) segment: u64,
    pub(super) unnamed_segment: u64,
    pub(super) change_segment: u64,
    /// Extended messages were sent and no Sync after them.
    pub(super) unsynced: bool,
    /// After an error, until the client's Sync.
    pub(super) skipping: bool,
    /// The server takes COPY data and its end was not sent.
    pub(super) copy_in: bool,
    /// So many Syncs were taken for part of a COPY.
    pub(super) copy_took_syncs: usize,
    /// The simple Query at the head has failed.
    pub(super) failed: bool,
    /// What Execute of the statement changes that Bind has just looked up.
    pub(super) change: Option<Box<Change>>,
    /// The segment under way, as long as it can be done again.
    pub(super) kept: Kept,
    /// What was bound last, where it is not known yet what it returns.
    pub(super) bound_to: Option<Bound>,
    /// Portals whose Execute changes names.
    pub(super) portals: Vec<(Box<[u8]>, Change)>,
    /// Why a statement that the client's next message needs could not be prepared: the server's words.
    pub(super) ahead_failed: Option<Box<[u8]>>,
    /// The simple Query at the head, or a message of our own, has been answered at least in part.
    pub(super) answered: bool,
    /// An error was passed on since the last ReadyForQuery.
    pub(super) errored: bool,
    /// The server said that it may not be written to.
    pub(super) refused_write: bool,
    /// How many answers will come is not certain: close the connection once it is idle.
    pub(super) suspect: bool,
    /// What is said in place of the server's word that a statement was cancelled: it was for this.
    pub cancelled: Option<Box<Failure>>,
    /// Answers so far: the server's ReadyForQuery messages.
    pub rounds: u32,
    /// Bytes of a client's frame that go on to the server as they come, or are dropped.
    pub(super) passing: Passing,
    /// Bytes of a server's frame that go on to the client as they come, or are dropped.
    pub(super) answering: Passing,
}

/// The rest of a frame that is not held until it is whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passing {
    /// Bytes to come.
    pub left: usize,
    /// They are dropped.
    pub dropped: bool,
}

impl Conversation {
    /// A conversation of a client that was just told it is ready.
    pub fn new(
        id: u64,
        startup: Arc<Settings>,
        told: Arc<Reported>,
        interned: Arc<Interned>,
        max_message: usize,
    ) -> Self {
        Self {
            id,
            expects: Expects::default(),
            tally: Tally::default(),
            unnamed_place: Place::default(),
            bound: Place::default(),
            guard: None,
            commented: false,
            statements: Statements::default(),
            status: b'I',
            care: Care::CLEAN,
            pins: Pins::default(),
            keeps: false,
            plain: false,
            doubts: None,
            definitions: Definitions::default(),
            drew: 0,
            single: false,
            max_message,
            interned,
            want: startup.clone(),
            startup,
            conforming: is_conforming(&told),
            told,
            segment: 0,
            unnamed_segment: 0,
            change_segment: 0,
            unsynced: false,
            skipping: false,
            copy_in: false,
            copy_took_syncs: 0,
            failed: false,
            change: None,
            kept: Kept::default(),
            bound_to: None,
            portals: Vec::new(),
            ahead_failed: None,
            answered: false,
            errored: false,
            refused_write: false,
            suspect: false,
            cancelled: None,
            rounds: 0,
            passing: Passing::default(),
            answering: Passing::default(),
        }
    }

    /// Starts using a server connection: makes its settings those of the client, in front of the first message.
    pub fn attach(&mut self, state: &mut ServerState, to_server: &mut Vec<u8>, to_client: &mut Vec<u8>) {
        if !Arc::ptr_eq(&state.settings, &self.want) {
            let sql = difference(&state.settings, &self.want);
            state.settings = self.want.clone();
            if !sql.is_empty() {
                message::query(to_server, sql.as_bytes());
                state.forget_unnamed();
                self.expects.push(Expect::Injected);
                return;
            }
        }
        self.tell_parameters(state, to_client);
    }

    /// Tells the client of parameters that are not as it was told last.
    pub(super) fn tell_parameters(&mut self, state: &ServerState, to_client: &mut Vec<u8>) {
        if Arc::ptr_eq(&self.told, &state.reported) {
            return;
        }
        for pair in state.reported.iter().filter(|pair| !self.told.contains(pair)) {
            message::parameter_status(to_client, &pair.0, &pair.1);
        }
        self.note_told(state);
    }

    /// Notes that the client knows the server's parameters as they are.
    pub(super) fn note_told(&mut self, state: &ServerState) {
        self.told = state.reported.clone();
        self.conforming = is_conforming(&self.told);
    }

    /// Whether a backslash is an ordinary character in this session's string constants.
    pub fn has_conforming_strings(&self) -> bool {
        self.conforming
    }

    /// True when the server owes nothing, is outside a transaction and reads on, and nothing of the client is half sent.
    pub fn is_idle(&self) -> bool {
        self.expects.is_empty()
            && self.status == b'I'
            && !self.unsynced
            && !self.skipping
            && !self.has_again()
            && !self.copy_in
            && self.passing.left == 0
            && self.answering.left == 0
    }

    /// Asks for answers that are waited for, where no Sync does.
    pub fn hasten(&self, to_server: &mut Vec<u8>) {
        if self.unsynced && !self.copy_in {
            to_server.extend_from_slice(b"H\0\0\0\x04");
        }
    }

    /// Whether the server waits for COPY data of this client.
    pub fn awaits_copy_data(&self) -> bool {
        self.copy_in
    }

    /// Whether the client has got the beginning of a frame and not its end.
    pub fn is_inside_a_frame(&self) -> bool {
        self.answering.left > 0 && !self.answering.dropped
    }

    /// Whether the server has said an error since it was last ready.
    pub fn has_errored(&self) -> bool {
        self.errored
    }

    /// Takes back what a message would have changed that the server skipped or refused.
    pub(super) fn undo(&mut self, skipped: Expect, state: &mut ServerState) {
        match skipped {
            Expect::ExecuteCommand(undo) => self.take_back(*undo, state),
            Expect::HiddenParse(Some(key)) | Expect::HiddenPrepare(key) => state.prepared.undo(key),
            Expect::HiddenParse(None) => state.forget_unnamed(),
            // It is there, and nobody has seen what it is.
            Expect::Check(Subject::Shared(statement)) if state.prepared.has(&statement) => {
                state.prepared.restore(statement);
            }
            Expect::Check(Subject::Unnamed(_)) => state.forget_unnamed(),
            Expect::HiddenForget => state.drawn = MANY,
            Expect::HiddenClose(statement) => state.prepared.restore(statement),
            // A newer one, behind a Sync, is not touched by this.
            Expect::ParseUnnamed(count) if count == self.statements.unnamed_count => {
                self.statements.drop_unnamed();
                state.forget_unnamed();
            }
            Expect::ParseNamed(named) | Expect::Local(_, Some(named)) => {
                let Named { name, previous, key } = *named;
                if let Some(key) = key {
                    state.prepared.undo(key);
                }
                self.statements.set(&name, previous);
            }
            _ => {}
        }
    }
}

fn is_conforming(reported: &Reported) -> bool {
    !reported.iter().any(|(name, value)| name == "standard_conforming_strings" && value == "off")
}
