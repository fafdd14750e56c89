//! An honest client that notices everything that is not its own.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::proxy::raw::{Frame, Raw, bind, execute, field, parse, query, shown, sync};

/// The longest that it waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// The client, on a thread of its own.
pub struct Sentinel {
    name: String,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    complaint: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

/// SQLSTATEs after which it connects again instead of complaining; an end without a word is one of them, too.
pub type Tolerated = &'static [&'static str];

/// What it looks at each time: its own settings, and that nothing of anybody else's is there.
const STATE: &str = "current_setting('application_name'), current_setting('search_path'), current_user, session_user, \
    current_setting('role'), current_setting('default_transaction_read_only'), \
    current_setting('standard_conforming_strings'), coalesce(current_setting('my.tenant', true), ''), \
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), \
    (select count(*) from pg_listening_channels()), \
    (select count(*) from pg_class where relnamespace = pg_my_temp_schema()), (select count(*) from pg_cursors), \
    (select count(*) from pg_prepared_statements where name not like '\\_pgweir\\_%')";

impl Sentinel {
    /// A client of the database `app` that complains of every error.
    pub fn start(port: u16, number: usize) -> Self {
        Self::tolerant(port, number, &[])
    }

    /// One that takes these errors for what they are, and connects again.
    pub fn tolerant(port: u16, number: usize, tolerated: Tolerated) -> Self {
        Self::spawn(number, "app", move |me| me.keep_asking(port, tolerated, |round| round.plain()))
    }

    /// A client of the sharded database `shop`.
    pub fn sharded(port: u16, number: usize) -> Self {
        Self::spawn(number, "shop", move |me| me.keep_asking(port, &[], |round| round.sharded()))
    }

    fn spawn(
        number: usize,
        database: &'static str,
        work: impl FnOnce(&Watcher) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let name = format!("sentinel-{number}");
        let watcher = Watcher { name: name.clone(), number, database, stop: stop.clone(), rounds: rounds.clone() };
        let complaint = Arc::new(Mutex::new(String::new()));
        let complains = complaint.clone();
        let thread = std::thread::spawn(move || {
            if let Err(what) = work(&watcher) {
                *complains.lock().unwrap() = what;
            }
        });
        Self { name, stop, rounds, complaint, thread: Some(thread) }
    }

    /// How many rounds were right so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Waits until it was served once more.
    pub fn served_again(&self) {
        let (before, since) = (self.rounds(), Instant::now());
        // The round that is under way may have begun before.
        while self.rounds() < before + 2 {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            let complaint = self.complaint.lock().unwrap().clone();
            let late = since.elapsed() > 2 * PATIENCE;
            assert!(!ended && !late, "{} is not served any more: {complaint}", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; fails when anything was wrong, or it was never served.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let complaint = self.complaint.lock().unwrap();
        assert!(complaint.is_empty(), "{}: {complaint}", self.name);
        assert!(self.rounds() > 0, "{} was never served", self.name);
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Watcher {
    name: String,
    number: usize,
    database: &'static str,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
}

/// Why a round was not right.
enum Trouble {
    /// The connection ended, perhaps with an error of this SQLSTATE.
    Ended(String),
    /// Something that must never happen.
    Foul(String),
}

impl Watcher {
    fn keep_asking(
        &self,
        port: u16,
        tolerated: Tolerated,
        ask: fn(&mut Round<'_>) -> Result<(), Trouble>,
    ) -> Result<(), String> {
        let mut raw = None;
        while !self.stop.load(Ordering::SeqCst) {
            let count = self.rounds.load(Ordering::SeqCst);
            let asked = match &mut raw {
                Some(raw) => ask(&mut Round { raw, name: &self.name, count, asked: Instant::now() }),
                None => self.login(port).map(|fresh| raw = Some(fresh)),
            };
            match asked {
                Ok(()) => {
                    self.rounds.fetch_add(1, Ordering::SeqCst);
                    // All the while, but not at the cost of what is tested.
                    std::thread::sleep(Duration::from_millis(3));
                }
                Err(Trouble::Ended(code)) if tolerated.contains(&code.as_str()) => {
                    raw = None;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(Trouble::Ended(code)) => return Err(format!("round {count}: an error, or the end: {code:?}")),
                Err(Trouble::Foul(what)) => return Err(format!("round {count}: {what}")),
            }
        }
        Ok(())
    }

    fn login(&self, port: u16) -> Result<Raw, Trouble> {
        let settings = [("application_name", self.name.as_str())];
        let settings = if self.number.is_multiple_of(2) { &settings[..] } else { &[] };
        let since = Instant::now();
        let raw = Raw::connect_to(port).ok_or_else(|| Trouble::Ended(String::new()))?;
        let mut raw = raw.log_in("app", "secret", self.database, settings).map_err(|body| {
            // A login that just ends says nothing.
            Trouble::Ended(field(&body, b'C'))
        })?;
        if since.elapsed() > PATIENCE {
            return Err(Trouble::Foul(format!("the login took {:?}", since.elapsed())));
        }
        let mut round = Round { raw: &mut raw, name: &self.name, count: 0, asked: since };
        if settings.is_empty() {
            round.expect(&[query(&format!("set application_name = '{}'", self.name))], 1, "C:SET Z:I")?;
        }
        let prepared = parse("p", &format!("select $1::text, '{}'", self.name));
        if self.database == "app" {
            round.expect(&[prepared, sync()], 1, "1 Z:I")?;
        }
        Ok(raw)
    }
}

/// One round of questions.
struct Round<'a> {
    raw: &'a mut Raw,
    name: &'a str,
    count: u64,
    asked: Instant,
}

impl Round<'_> {
    fn plain(&mut self) -> Result<(), Trouble> {
        let (name, tag) = (self.name, format!("{}.{}", self.name, self.count));
        let none = "D:TAG,NAME,\"$user\", public,postgres,postgres,none,off,on,,0,0,0,0,0";
        let state = none.replace("TAG", &tag).replace("NAME", name);
        self.expect(&[query(&format!("select '{tag}', {STATE}"))], 1, &format!("T {state} C:SELECT_1 Z:I"))?;
        let unnamed = [parse("", "select $1::text"), bind("", &[&tag]), execute(), sync()];
        self.expect(&unnamed, 1, &format!("1 2 D:{tag} C:SELECT_1 Z:I"))?;
        let named = [bind("p", &[&tag]), execute(), sync()];
        self.expect(&named, 1, &format!("2 D:{tag},{name} C:SELECT_1 Z:I"))?;
        let pipelined = [query(&format!("select '{tag}/1'")), query(&format!("select '{tag}/2'"))];
        self.expect(&pipelined, 2, &format!("T D:{tag}/1 C:SELECT_1 Z:I T D:{tag}/2 C:SELECT_1 Z:I"))?;
        let transaction = [
            query("begin"),
            query(&format!("set local my.tenant = '{tag}'")),
            query("select current_setting('my.tenant')"),
            query(if self.count.is_multiple_of(2) { "commit" } else { "rollback" }),
        ];
        let end = if self.count.is_multiple_of(2) { "COMMIT" } else { "ROLLBACK" };
        let answer = format!("C:BEGIN Z:T C:SET Z:T T D:{tag} C:SELECT_1 Z:T C:{end} Z:I");
        self.expect(&transaction, 4, &answer)
    }

    fn sharded(&mut self) -> Result<(), Trouble> {
        let (tag, id) = (format!("{}.{}", self.name, self.count), self.count % 8 + 1);
        let sql = format!("select '{tag}', name from customers where id = {id}");
        self.expect(&[query(&sql)], 1, &format!("T D:{tag},c{id} C:SELECT_1 Z:I"))?;
        let settings = format!("T D:{} C:SHOW Z:I", self.name);
        self.expect(&[query("show application_name")], 1, &settings)?;
        let sql = "select $1::text, name from customers where id = $2";
        let unnamed = [parse("", sql), bind("", &[&tag, &id.to_string()]), execute(), sync()];
        self.expect(&unnamed, 1, &format!("1 2 D:{tag},c{id} C:SELECT_1 Z:I"))
    }

    /// Sends, and takes nothing but this answer.
    fn expect(&mut self, messages: &[Vec<u8>], count: usize, answer: &str) -> Result<(), Trouble> {
        self.asked = Instant::now();
        let sent = self.raw.stream.write_all(&messages.concat());
        let (mut frames, mut ready) = (Vec::new(), 0);
        while ready < count {
            let Some(frame) = self.raw.try_read().filter(|_| sent.is_ok()) else { return Err(self.ended(&frames)) };
            self.check(&frame)?;
            ready += usize::from(frame.0 == b'Z');
            frames.push(frame);
        }
        if self.asked.elapsed() > PATIENCE {
            return Err(Trouble::Foul(format!("an answer took {:?}", self.asked.elapsed())));
        }
        let heard = shown(&frames);
        if heard == answer {
            return Ok(());
        }
        // An error of a statement leaves the connection; whoever tolerates the error connects again.
        let errors = frames.iter().filter(|(tag, _)| *tag == b'E');
        if let Some(code) = errors.map(|(_, body)| field(body, b'C')).find(|code| !code.starts_with("25")) {
            return Err(Trouble::Ended(code));
        }
        Err(Trouble::Foul(format!("expected {answer}\n     heard {heard}\n       of {}", self.name)))
    }

    /// No notice, notification or setting of another.
    fn check(&self, (tag, body): &Frame) -> Result<(), Trouble> {
        let text = String::from_utf8_lossy(body);
        let foreign = match tag {
            // A server that ends a connection may say so in a warning.
            b'N' => !field(body, b'C').starts_with("57P"),
            b'A' => true,
            b'S' => {
                text.strip_prefix("application_name\0").is_some_and(|name| name.trim_end_matches('\0') != self.name)
            }
            _ => false,
        };
        if foreign { Err(Trouble::Foul(format!("a foreign message: {}{text:?}", *tag as char))) } else { Ok(()) }
    }

    fn ended(&self, frames: &[Frame]) -> Trouble {
        if self.asked.elapsed() > PATIENCE {
            return Trouble::Foul(format!("no answer within {PATIENCE:?} after {}", shown(frames)));
        }
        let error = frames.iter().rev().find(|(tag, _)| *tag == b'E');
        Trouble::Ended(error.map_or(String::new(), |(_, body)| field(body, b'C')))
    }
}
