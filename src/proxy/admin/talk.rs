//! The console's protocol without I/O: a client's messages in, commands to run and frames out.
//!
//! Both protocols are spoken, the simple one (psql, PgBouncer's tools) and the extended one (drivers that know
//! no other). A message is done with before the next is looked at, so there is never more than one [`Next::Run`] open.

use std::collections::{HashMap, VecDeque};

use crate::proxy::admin::command::{Command, parse};
use crate::proxy::admin::table::{Table, Value};
use crate::wire::body::{Malformed, Reader};
use crate::wire::message::{self, Failure};

/// Most statements and portals that one session may keep.
const MAX_NAMES: usize = 200;

/// What a message asks for.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Nothing more.
    Done,
    /// Run this, and give its answer to [`Talk::answer`].
    Run(Command),
    /// Say what columns this has, as an answer without running it.
    Describe(Command),
    /// The client leaves.
    Leave,
    /// The session cannot go on.
    Fail(Failure),
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Rows.
    Table(Table),
    /// Done: the command's tag.
    Tag(&'static str),
    /// Words for people, and the command's tag.
    Notice(String, &'static str),
}

/// What waits for an answer.
#[derive(Debug)]
enum Waiting {
    Nothing,
    /// A simple query: the commands behind it.
    Simple(VecDeque<Command>),
    /// Describe: the formats, if it is a portal's.
    Describe(Vec<u16>),
    /// Execute of this portal, up to so many rows.
    Execute(String, usize),
}

#[derive(Debug)]
struct Portal {
    command: Option<Command>,
    formats: Vec<u16>,
    /// Rows that were not sent yet, once it runs.
    rows: Option<VecDeque<Vec<Value>>>,
}

/// One client's conversation with the console.
#[derive(Debug)]
pub struct Talk {
    statements: HashMap<String, Option<Command>>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
    status: u8,
    waiting: Waiting,
}

impl Default for Talk {
    fn default() -> Self {
        let (statements, portals) = (HashMap::new(), HashMap::new());
        Self { statements, portals, skipping: false, status: b'I', waiting: Waiting::Nothing }
    }
}

impl From<Malformed> for Next {
    fn from(_: Malformed) -> Self {
        Self::Fail(Failure::fatal("08P01", "malformed message"))
    }
}

impl From<Failure> for Next {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Talk {
    /// Takes one message; what it answers at once is appended to `out`.
    pub fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Next {
        let done = match tag {
            b'X' => return Next::Leave,
            b'S' => {
                self.skipping = false;
                message::ready(out, self.status);
                Ok(Next::Done)
            }
            b'Q' => self.query(body, out),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' if self.skipping => Ok(Next::Done),
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'E' => self.execute(body, out),
            b'C' => self.close(body, out),
            b'H' | b'd' | b'c' | b'f' => Ok(Next::Done),
            b'F' => Err(Failure::fatal("0A000", "the console has no functions").into()),
            tag => Err(Failure::fatal("08P01", format!("invalid frontend message type {tag}")).into()),
        };
        match done {
            Ok(next) => next,
            // An error of one message: the others are skipped up to Sync.
            Err(Next::Fail(failure)) if !failure.fatal => {
                self.failed(&failure, out);
                Next::Done
            }
            Err(next) => next,
        }
    }

    /// Takes the answer of what [`Next::Run`] or [`Next::Describe`] asked for; there may be more to run.
    pub fn answer(&mut self, answer: Result<Answer, Failure>, out: &mut Vec<u8>) -> Next {
        let waiting = std::mem::replace(&mut self.waiting, Waiting::Nothing);
        let answer = match (answer, &waiting) {
            (Ok(answer), _) => answer,
            (Err(failure), Waiting::Simple(_)) => {
                self.failed(&failure, out);
                self.skipping = false;
                message::ready(out, self.status);
                return Next::Done;
            }
            (Err(failure), _) => {
                self.failed(&failure, out);
                return Next::Done;
            }
        };
        match waiting {
            Waiting::Nothing => Next::Done,
            Waiting::Simple(rest) => {
                simple(answer, out);
                self.next_simple(rest, out)
            }
            Waiting::Describe(formats) => {
                match answer {
                    Answer::Table(table) => Table::describe(&table.columns, &formats, out),
                    _ => message::empty(out, b'n'),
                }
                Next::Done
            }
            Waiting::Execute(name, limit) => {
                match answer {
                    Answer::Table(table) => {
                        if let Some(portal) = self.portals.get_mut(&name) {
                            portal.rows = Some(table.rows.into());
                        }
                        self.send_rows(&name, limit, out);
                    }
                    other => simple(other, out),
                }
                Next::Done
            }
        }
    }

    fn failed(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        failure.write(out);
        self.skipping = true;
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    fn query(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let sql = text(Reader::new(body).cstr()?);
        self.skipping = false;
        match parse(&sql) {
            Ok(commands) if commands.is_empty() => {
                message::empty(out, b'I');
                message::ready(out, self.status);
                Ok(Next::Done)
            }
            Ok(commands) => Ok(self.next_simple(commands.into(), out)),
            Err(failure) => {
                self.waiting = Waiting::Simple(VecDeque::new());
                Ok(self.answer(Err(failure), out))
            }
        }
    }

    fn next_simple(&mut self, mut commands: VecDeque<Command>, out: &mut Vec<u8>) -> Next {
        let Some(command) = commands.pop_front() else {
            message::ready(out, self.status);
            return Next::Done;
        };
        self.waiting = Waiting::Simple(commands);
        self.run(command, out)
    }

    /// Runs a command, or answers it here when it is about the session alone.
    fn run(&mut self, command: Command, out: &mut Vec<u8>) -> Next {
        match command {
            Command::Block(tag, status) => {
                let tag = if tag == "COMMIT" && self.status == b'E' { "ROLLBACK" } else { tag };
                self.status = status;
                self.answer(Ok(Answer::Tag(tag)), out)
            }
            _ if self.status == b'E' => {
                let message = "current transaction is aborted, commands ignored until end of transaction block";
                self.answer(Err(Failure::error("25P02", message)), out)
            }
            Command::ClientSetting => self.answer(Ok(Answer::Tag("SET")), out),
            command => Next::Run(command),
        }
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let mut reader = Reader::new(body);
        let (name, sql) = (text(reader.cstr()?), text(reader.cstr()?));
        let mut commands = parse(&sql)?;
        if commands.len() > 1 {
            return Err(Failure::error("42601", "cannot insert multiple commands into a prepared statement").into());
        }
        if self.statements.len() >= MAX_NAMES {
            return Err(Failure::error("54000", "too many prepared statements in the console").into());
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Failure::error("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        self.statements.insert(name, commands.pop());
        message::empty(out, b'1');
        Ok(Next::Done)
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let mut reader = Reader::new(body);
        let (portal, statement) = (text(reader.cstr()?), text(reader.cstr()?));
        let formats = reader.u16()?;
        reader.bytes(usize::from(formats) * 2)?;
        if reader.u16()? > 0 {
            return Err(Failure::error("08P01", "the console's commands have no parameters").into());
        }
        let count = reader.u16()?;
        let formats = (0..count).map(|_| reader.u16()).collect::<Result<Vec<_>, _>>()?;
        if formats.iter().any(|format| *format > 1) {
            return Err(Failure::error("22023", "unsupported format code").into());
        }
        let command = self.statement(&statement)?.clone();
        if self.portals.len() >= MAX_NAMES {
            return Err(Failure::error("54000", "too many portals in the console").into());
        }
        self.portals.insert(portal, Portal { command, formats, rows: None });
        message::empty(out, b'2');
        Ok(Next::Done)
    }

    fn statement(&self, name: &str) -> Result<&Option<Command>, Next> {
        let missing = || Failure::error("26000", format!("prepared statement \"{name}\" does not exist")).into();
        self.statements.get(name).ok_or_else(missing)
    }

    fn portal(&self, name: &str) -> Result<&Portal, Next> {
        let missing = || Failure::error("34000", format!("portal \"{name}\" does not exist")).into();
        self.portals.get(name).ok_or_else(missing)
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let mut reader = Reader::new(body);
        let (kind, name) = (reader.u8()?, text(reader.cstr()?));
        let (command, formats) = if kind == b'S' {
            let command = self.statement(&name)?.clone();
            // ParameterDescription: none.
            message::frame(out, b't', |out| out.extend_from_slice(&[0, 0]));
            (command, Vec::new())
        } else {
            let portal = self.portal(&name)?;
            (portal.command.clone(), portal.formats.clone())
        };
        self.waiting = Waiting::Describe(formats);
        match command {
            Some(command @ Command::Show(_)) => Ok(Next::Describe(command)),
            _ => Ok(self.answer(Ok(Answer::Tag("")), out)),
        }
    }

    fn execute(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let mut reader = Reader::new(body);
        let (name, limit) = (text(reader.cstr()?), reader.u32()? as usize);
        let portal = self.portal(&name)?;
        let limit = if limit == 0 { usize::MAX } else { limit };
        if portal.rows.is_some() {
            self.send_rows(&name, limit, out);
            return Ok(Next::Done);
        }
        let Some(command) = portal.command.clone() else {
            message::empty(out, b'I');
            return Ok(Next::Done);
        };
        self.waiting = Waiting::Execute(name, limit);
        Ok(self.run(command, out))
    }

    fn send_rows(&mut self, name: &str, limit: usize, out: &mut Vec<u8>) {
        let Some(portal) = self.portals.get_mut(name) else { return };
        let rows = portal.rows.get_or_insert_default();
        let count = rows.len().min(limit);
        for row in rows.drain(..count) {
            Table::data(&row, &portal.formats, out);
        }
        if rows.is_empty() {
            message::command_complete(out, format!("SHOW {count}").as_bytes());
        } else {
            message::empty(out, b's');
        }
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Next> {
        let mut reader = Reader::new(body);
        let (kind, name) = (reader.u8()?, text(reader.cstr()?));
        if kind == b'S' {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        message::empty(out, b'3');
        Ok(Next::Done)
    }
}

/// An answer in the simple protocol.
fn simple(answer: Answer, out: &mut Vec<u8>) {
    match answer {
        Answer::Table(table) => {
            Table::describe(&table.columns, &[], out);
            for row in &table.rows {
                Table::data(row, &[], out);
            }
            message::command_complete(out, b"SHOW");
        }
        Answer::Tag(tag) => message::command_complete(out, tag.as_bytes()),
        Answer::Notice(words, tag) => {
            message::notice(out, "Console usage", &words);
            message::command_complete(out, tag.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::admin::command::Show;
    use crate::wire::frame;

    /// Runs messages with a table of two rows for every SHOW; gives the tags of what came back.
    fn tags(messages: &[(u8, &[u8])]) -> String {
        let (mut talk, mut out) = (Talk::default(), Vec::new());
        for (tag, body) in messages {
            let mut next = talk.message(*tag, body, &mut out);
            loop {
                let mut table = Table::new(&["#n"]);
                next = match next {
                    Next::Run(Command::Show(Show::Version)) => {
                        table.row([Value::Number(1)]);
                        table.row([Value::Number(2)]);
                        talk.answer(Ok(Answer::Table(table)), &mut out)
                    }
                    Next::Describe(_) => talk.answer(Ok(Answer::Table(table)), &mut out),
                    Next::Run(Command::Reload) => talk.answer(Err(Failure::error("F0000", "broken")), &mut out),
                    Next::Run(_) => talk.answer(Ok(Answer::Tag("DONE")), &mut out),
                    Next::Done => break,
                    Next::Leave => return shown(&out) + " left",
                    Next::Fail(failure) => return format!("{} failed {}", shown(&out), failure.code),
                }
            }
        }
        shown(&out)
    }

    fn shown(mut out: &[u8]) -> String {
        let mut tags = String::new();
        while let Some((header, body)) = frame::whole(out, 10_000).unwrap() {
            tags.push(header.tag as char);
            if header.tag == b'Z' {
                tags.push(body[0] as char);
            }
            out = &out[header.total()..];
        }
        tags
    }

    const BIND: &[u8] = b"\0\0\0\0\0\0\0\0";
    const EXECUTE: &[u8] = b"\0\0\0\0\0";

    #[test]
    fn simple_queries() {
        assert_eq!(tags(&[(b'Q', b"show version\0")]), "TDDCZI");
        assert_eq!(tags(&[(b'Q', b"show version; pause; -- x\0")]), "TDDCCZI");
        assert_eq!(tags(&[(b'Q', b";\0")]), "IZI");
        // An error ends the string, and is known before any of it has run.
        assert_eq!(tags(&[(b'Q', b"show version; nonsense\0"), (b'Q', b"pause\0")]), "EZICZI");
        assert_eq!(tags(&[(b'Q', b"reload; show version\0"), (b'S', b"")]), "EZIZI");
        assert_eq!(tags(&[(b'X', b"")]), " left");
    }

    #[test]
    fn extended_queries() {
        let parse = (b'P', &b"\0show version\0\0\0"[..]);
        let all = [parse, (b'B', BIND), (b'D', b"P\0"), (b'E', EXECUTE), (b'S', b"")];
        assert_eq!(tags(&all), "12TDDCZI");
        assert_eq!(tags(&[parse, (b'D', b"S\0"), (b'S', b"")]), "1tTZI");
        // A limit suspends the portal; the next Execute goes on.
        let limited = (b'E', &b"\0\0\0\0\x01"[..]);
        assert_eq!(tags(&[parse, (b'B', BIND), limited, limited, (b'S', b"")]), "12DsDCZI");
        // What follows an error is skipped up to Sync.
        assert_eq!(tags(&[(b'P', b"\0nonsense\0\0\0"), (b'B', BIND), (b'S', b""), parse, (b'S', b"")]), "EZI1ZI");
        assert_eq!(tags(&[(b'B', BIND), (b'S', b"")]), "EZI");
        assert_eq!(tags(&[(b'P', b"\0pause\0\0\0"), (b'B', BIND), (b'D', b"P\0"), (b'E', EXECUTE)]), "12nC");
        assert_eq!(tags(&[(b'P', b"a\0\0\0\0"), (b'P', b"a\0\0\0\0"), (b'S', b""), (b'C', b"Sa\0")]), "1EZI3");
    }

    #[test]
    fn blocks_are_kept_as_drivers_expect() {
        let (begin, bad, show, end) = (b"begin\0", b"bad\0", b"show version\0", b"commit\0");
        assert_eq!(tags(&[(b'Q', begin), (b'Q', show), (b'Q', end)]), "CZTTDDCZTCZI");
        assert_eq!(tags(&[(b'Q', begin), (b'Q', bad), (b'Q', show), (b'Q', end)]), "CZTEZEEZECZI");
    }

    #[test]
    fn what_is_malformed_ends_the_session() {
        for (tag, body) in [(b'Q', &b"show"[..]), (b'P', b"a"), (b'B', b"\0\0\0\x09"), (b'E', b"\0"), (b'p', b"")] {
            assert_eq!(tags(&[(tag, body)]), " failed 08P01", "{}", tag as char);
        }
        assert_eq!(tags(&[(b'F', b"")]), " failed 0A000");
    }
}
