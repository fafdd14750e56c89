//! Conversations of several clients over fewer server connections, in memory: whatever is sent, in whatever pieces,
//! each client hears what it would have heard from a server of its own.
//!
//! Stands by itself, so that `fuzz/fuzz_targets/conversation.rs` uses it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir::pool::Interned;
use pgweir::pool::server::ServerState;
use pgweir::pool::statements::Prepared;
use pgweir::proxy::analyzer::Analyzer;
use pgweir::proxy::conversation::{Conversation, Next};
use pgweir::proxy::from_client::Ways;
use pgweir::proxy::keeping::Parting;

/// Where decisions come from: bytes, and zeros when they are used up.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % limit
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// The first frame, taken out.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize + 1;
    let whole: Vec<u8> = (bytes.len() >= length).then(|| bytes.drain(..length).collect())?;
    Some((whole[0], whole[5..].to_vec()))
}

fn words(body: &[u8]) -> Vec<Vec<u8>> {
    body.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// A server, as far as conversations go.
#[derive(Default)]
struct Server {
    inbox: Vec<u8>,
    statements: BTreeMap<Vec<u8>, Vec<u8>>,
    portals: BTreeMap<Vec<u8>, Vec<u8>>,
    status: u8,
    skipping: bool,
    /// Answers that were not flushed.
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        Self { status: b'I', ..Self::default() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.inbox.extend(bytes);
        let mut inbox = std::mem::take(&mut self.inbox);
        while let Some((tag, body)) = take_frame(&mut inbox) {
            self.message(tag, &body);
        }
        self.inbox = inbox;
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.skipping && tag != b'S' {
            return;
        }
        let done = match tag {
            b'Q' => {
                let sql = words(body)[0].clone();
                self.statements.remove(&Vec::new());
                self.portals.remove(&Vec::new());
                if let Err(code) = self.run(&sql, true) {
                    self.fail(code);
                }
                return self.ready();
            }
            b'S' => {
                self.skipping = false;
                return self.ready();
            }
            b'H' => {
                self.flush();
                Ok(())
            }
            _ => self.extended(tag, body),
        };
        if let Err(code) = done {
            self.fail(code);
            self.skipping = true;
        }
    }

    fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), &'static str> {
        let word = words(body);
        let name = word[0].clone();
        match tag {
            b'P' => {
                if !name.is_empty() && self.statements.contains_key(&name) {
                    return Err("42P05");
                }
                self.statements.insert(name, word[1].clone());
                self.say(b'1', b"");
            }
            b'B' => {
                let sql = self.statements.get(&word[1]).ok_or("26000")?.clone();
                self.check(&sql)?;
                self.portals.insert(name, sql);
                self.say(b'2', b"");
            }
            b'D' if body[0] == b'S' => {
                self.statements.get(&name[1..]).ok_or("26000")?;
                self.say(b't', b"\0\0");
                self.say(b'n', b"");
            }
            b'D' => {
                self.portals.get(&name[1..]).ok_or("34000")?;
                self.say(b'n', b"");
            }
            b'C' if body[0] == b'S' => {
                self.statements.remove(&name[1..]);
                self.say(b'3', b"");
            }
            b'C' => {
                self.portals.remove(&name[1..]);
                self.say(b'3', b"");
            }
            b'E' => {
                let sql = self.portals.get(&name).ok_or("34000")?.clone();
                self.run(&sql, false)?;
            }
            other => panic!("a server was sent {other}"),
        }
        Ok(())
    }

    /// In a transaction that has failed, only its end is run.
    fn check(&self, sql: &[u8]) -> Result<(), &'static str> {
        if self.status == b'E' && sql != b"rollback" && sql != b"commit" { Err("25P02") } else { Ok(()) }
    }

    fn run(&mut self, sql: &[u8], simple: bool) -> Result<(), &'static str> {
        self.check(sql)?;
        match sql {
            b"begin" => self.status = b'T',
            b"commit" | b"rollback" => self.status = b'I',
            b"select 1/0" => return Err("22012"),
            b"" => {
                self.say(b'I', b"");
                return Ok(());
            }
            _ if sql.starts_with(b"select '") => {
                if simple {
                    self.say(b'T', b"\0\0");
                }
                let row = [b"\0\x01\0\0\0\x01", sql].concat();
                self.say(b'D', &row);
            }
            _ => {}
        }
        self.say(b'C', b"DONE\0");
        Ok(())
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        self.held.extend(frame(tag, body));
    }

    fn fail(&mut self, code: &str) {
        if self.status == b'T' {
            self.status = b'E';
        }
        self.portals.clear();
        self.say(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes());
        self.flush();
    }

    fn ready(&mut self) {
        if self.status == b'I' {
            self.portals.clear();
        }
        let status = self.status;
        self.say(b'Z', &[status]);
        self.flush();
    }

    fn flush(&mut self) {
        self.out.append(&mut self.held);
    }
}

/// A server connection and what the proxy knows of it.
struct Conn {
    server: Server,
    state: ServerState,
    /// Bytes of the server that were read and not understood yet.
    stash: Vec<u8>,
}

struct Client {
    number: usize,
    talk: Conversation,
    /// What it will still send.
    script: Vec<u8>,
    /// What the proxy has read of it and not taken.
    stash: Vec<u8>,
    heard: Vec<u8>,
    /// A server of its own, which hears the same.
    oracle: Server,
    conn: Option<usize>,
}

/// The whole stage.
struct World {
    clients: Vec<Client>,
    conns: Vec<Option<Conn>>,
    interned: Arc<Interned>,
    analyzer: Analyzer,
    next: u64,
}

impl World {
    fn new(clients: usize, conns: usize) -> Self {
        let interned = Arc::new(Interned::default());
        let mut world =
            Self { clients: Vec::new(), conns: Vec::new(), interned, analyzer: Analyzer::default(), next: 0 };
        world.conns = (0..conns).map(|_| Some(world.connect())).collect();
        world.clients = (0..clients).map(|number| world.enter(number)).collect();
        world
    }

    fn connect(&self) -> Conn {
        let state = ServerState {
            user: "app".into(),
            reported: self.interned.reported.intern(Vec::new()),
            settings: self.interned.settings.intern(Vec::new()),
            prepared: Prepared::new(3),
            unnamed: (0, 0),
            drawn: 0,
            hold: false,
            roll: Arc::default(),
        };
        Conn { server: Server::new(), state, stash: Vec::new() }
    }

    fn enter(&mut self, number: usize) -> Client {
        self.next += 1;
        let settings = self.interned.settings.intern(Vec::new());
        let told = self.interned.reported.intern(Vec::new());
        let talk = Conversation::new(self.next, settings, told, self.interned.clone(), 1 << 20);
        Client {
            number,
            talk,
            script: Vec::new(),
            stash: Vec::new(),
            heard: Vec::new(),
            oracle: Server::new(),
            conn: None,
        }
    }

    /// The proxy takes what it can of a client.
    fn pump(&mut self, at: usize) {
        loop {
            let client = &mut self.clients[at];
            let conn = client.conn.and_then(|conn| self.conns[conn].as_mut());
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let (mut state, mut server) = (None, None);
            if let Some(conn) = conn {
                state = Some(&mut conn.state);
                server = Some(&mut conn.server);
            }
            let mut ways =
                Ways { state, to_server: &mut to_server, to_client: &mut to_client, analyzer: &mut self.analyzer };
            let (taken, next) = client.talk.client_bytes(&client.stash, &mut ways);
            client.stash.drain(..taken);
            if next == Next::Stall {
                client.talk.hasten(&mut to_server);
            }
            client.heard.extend(&to_client);
            match server {
                Some(server) => server.hear(&to_server),
                None => assert!(to_server.is_empty(), "words for a server that is not there"),
            }
            match next {
                Next::NeedServer => {
                    let free = |conn: &usize| !self.clients.iter().any(|client| client.conn == Some(*conn));
                    let Some(free) = (0..self.conns.len()).find(free) else { return };
                    self.attach(at, free);
                }
                Next::NeedMore | Next::Stall => return self.settle(at),
                other => panic!("an honest client was told {other:?}"),
            }
        }
    }

    fn attach(&mut self, at: usize, free: usize) {
        let client = &mut self.clients[at];
        client.conn = Some(free);
        let Some(conn) = &mut self.conns[free] else { return };
        let mut to_server = Vec::new();
        client.talk.attach(&mut conn.state, &mut to_server, &mut client.heard);
        conn.server.hear(&to_server);
    }

    /// The proxy hears `count` bytes of a client's server.
    fn deliver(&mut self, at: usize, count: usize) {
        let client = &mut self.clients[at];
        let Some(conn) = client.conn.and_then(|conn| self.conns[conn].as_mut()) else { return };
        let count = count.min(conn.server.out.len());
        conn.stash.extend(conn.server.out.drain(..count));
        let before = format!("{:?}", client.talk.expects);
        let taken = client.talk.server_bytes(&conn.stash, &mut conn.state, &mut client.heard);
        let taken = taken.unwrap_or_else(|failure| {
            let said = shown(conn.stash.clone()).join(" ");
            panic!("an honest server was not believed: {failure:?}\nit said {said}\nwhere {before} was expected")
        });
        conn.stash.drain(..taken);
        self.settle(at);
    }

    fn settle(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(number) = client.conn.filter(|_| client.talk.is_releasable()) else { return };
        let Some(conn) = self.conns[number].as_ref().filter(|conn| conn.stash.is_empty()) else { return };
        assert!(conn.server.out.is_empty() && conn.server.held.is_empty(), "released with answers under way");
        assert!(conn.server.status == b'I' && conn.server.inbox.is_empty(), "released in the middle of something");
        let suspect = client.talk.is_suspect();
        client.talk.detach();
        client.conn = None;
        if suspect {
            self.conns[number] = Some(self.connect());
        }
    }

    /// A client disappears, and another one comes.
    fn replace(&mut self, at: usize) {
        self.compare(at, false);
        let number = self.clients[at].number + 100;
        let fresh = self.enter(number);
        let gone = std::mem::replace(&mut self.clients[at], fresh);
        let Some(number) = gone.conn else { return };
        let Some(conn) = self.conns[number].as_mut() else { return };
        let clean = gone.talk.is_idle() && conn.stash.is_empty();
        if !clean || gone.talk.part(&mut conn.state) != Parting::Clean {
            self.conns[number] = Some(self.connect());
        }
    }

    /// What a client heard is what a server of its own says; all of it, when `whole`.
    fn compare(&self, at: usize, whole: bool) {
        let client = &self.clients[at];
        let expected = shown([&client.oracle.out[..], &client.oracle.held].concat());
        let heard = shown(client.heard.clone());
        let right = if whole { heard == expected } else { expected.starts_with(&heard) };
        assert!(right, "client {}\n   heard {}\nexpected {}", client.number, heard.join(" "), expected.join(" "));
    }
}

/// Frames as text: what the proxy says in its own words counts by its SQLSTATE.
fn shown(mut bytes: Vec<u8>) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some((tag, body)) = take_frame(&mut bytes) {
        let detail = match tag {
            b'E' => {
                let code = words(&body).into_iter().find(|field| field.first() == Some(&b'C'));
                String::from_utf8_lossy(&code.unwrap_or_default()).into_owned()
            }
            _ => String::from_utf8_lossy(&body).into_owned(),
        };
        parts.push(format!("{}{detail}", tag as char));
    }
    parts
}

/// The next message of a client.
fn message(choices: &mut Choices<'_>, client: usize) -> Vec<u8> {
    let text = |choices: &mut Choices<'_>| match choices.below(9) {
        0..=2 => format!("select 'of {client}'"),
        3 => format!("select 'also of {client}'"),
        4 => "select 'of all'".to_owned(),
        5 => "select 1/0".to_owned(),
        6 => "begin".to_owned(),
        7 => "commit".to_owned(),
        _ => "rollback".to_owned(),
    };
    let name = |choices: &mut Choices<'_>| *["", "a", "b", "c", "a"].get(choices.below(5)).unwrap_or(&"");
    let portal = |choices: &mut Choices<'_>| *["", "", "p"].get(choices.below(3)).unwrap_or(&"");
    // Which unnamed statement is left by a segment that fails is not promised: each is used by who parsed it.
    let fresh = |choices: &mut Choices<'_>, name: &str, used: Vec<u8>| match name {
        "" => [frame(b'P', format!("\0{}\0\0\0", text(choices)).as_bytes()), used].concat(),
        _ => used,
    };
    match choices.below(16) {
        0 | 1 => frame(b'Q', format!("{}\0", text(choices)).as_bytes()),
        2..=4 => frame(b'P', format!("{}\0{}\0\0\0", name(choices), text(choices)).as_bytes()),
        5 | 6 => {
            let (portal, name) = (portal(choices), name(choices));
            fresh(choices, name, frame(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes()))
        }
        7 | 8 => frame(b'E', format!("{}\0\0\0\0\0", portal(choices)).as_bytes()),
        9 => {
            let name = name(choices);
            fresh(choices, name, frame(b'D', format!("S{name}\0").as_bytes()))
        }
        10 => frame(b'D', format!("P{}\0", portal(choices)).as_bytes()),
        11 => frame(b'C', format!("S{}\0", name(choices)).as_bytes()),
        12 => frame(b'C', format!("P{}\0", portal(choices)).as_bytes()),
        13 => frame(b'H', b""),
        _ => frame(b'S', b""),
    }
}

/// Plays what the choices say.
pub fn run(mut choices: Choices<'_>) {
    let mut world = World::new(3, 2);
    while !choices.is_empty() {
        let at = choices.below(3);
        match choices.below(8) {
            0..=2 => {
                let message = message(&mut choices, world.clients[at].number);
                world.clients[at].script.extend(message);
            }
            3 | 4 => {
                let client = &mut world.clients[at];
                let count = (choices.below(60) + 1).min(client.script.len());
                let piece: Vec<u8> = client.script.drain(..count).collect();
                client.oracle.hear(&piece);
                client.stash.extend(piece);
                world.pump(at);
            }
            5 | 6 => {
                let count = choices.below(40) + 1;
                world.deliver(at, count);
                world.pump(at);
            }
            _ if choices.below(12) == 0 => world.replace(at),
            _ => {}
        }
    }
    finish(&mut world);
}

/// Everything is sent, ended and answered.
fn finish(world: &mut World) {
    for at in 0..world.clients.len() {
        let mut rest = std::mem::take(&mut world.clients[at].script);
        rest.extend([frame(b'S', b""), frame(b'Q', b"rollback\0")].concat());
        world.clients[at].oracle.hear(&rest);
        world.clients[at].stash.extend(rest);
    }
    for _ in 0..1000 {
        for at in 0..world.clients.len() {
            world.pump(at);
            world.deliver(at, usize::MAX);
        }
        if world.clients.iter().all(|client| client.stash.is_empty() && client.talk.is_idle()) {
            break;
        }
    }
    for at in 0..world.clients.len() {
        assert!(world.clients[at].stash.is_empty(), "client {at} waits for ever");
        world.compare(at, true);
    }
}

#[cfg(test)]
mod tests {
    use super::{Choices, run};

    /// Choices that look random and are the same in each run.
    fn choices(seed: u64, count: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn m_conversations_are_as_with_a_server_of_ones_own() {
        let count = std::env::var("PGWEIR_CONVERSATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
        for seed in 1..=count {
            let bytes = choices(seed, 600);
            let played = std::panic::catch_unwind(|| run(Choices(&bytes)));
            assert!(played.is_ok(), "seed {seed}");
        }
    }
}
