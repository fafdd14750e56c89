//! The processes before and after this one, where one has taken over from another.
//!
//! A cancel request comes to whoever listens, and the client it is for may be with a process that does not any more. Each
//! process has a line to its neighbours, and passes on what is none of its own: from the younger to the older, or the
//! other way, and never back. Who asked is let go when it was carried out, as PostgreSQL does: until then a client may not
//! send its next statement, which it would hit.
//!
//! A process that ends between two others leaves its line to the older one to the younger one.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::net::channel::Channel;
use crate::proxy::clients::{Clients, deliver};

/// Begins a message that passes a cancel request on: its number, the process id, both big-endian, and the secret follow.
const CANCEL: u8 = b'C';
/// Begins a message that the request of the number that follows was carried out, or is nobody's.
const DONE: u8 = b'D';
/// A message with the line to the process before the one that sends it and is about to end.
const LINE: &[u8] = b"L";
/// How long a neighbour is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where something comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client, or whoever says so.
    Client,
    /// The process that listened before.
    Before,
    /// The process that has taken over.
    After,
}

/// The lines to the neighbours.
#[derive(Debug, Default)]
pub struct Kin {
    before: Mutex<Option<Arc<Line>>>,
    after: Mutex<Option<Arc<Line>>>,
    requests: AtomicU32,
}

/// A line to a neighbour.
#[derive(Debug)]
struct Line {
    channel: Channel,
    /// Requests that went over it and are not carried out yet.
    asked: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Line {
    fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self { channel, asked: Mutex::default() })
    }

    /// Passes a request on; the answer comes when it was carried out, or nobody is there to do so.
    fn ask(&self, number: u64, pid: u32, secret: &[u8]) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        lock(&self.asked).insert(number, done);
        let message = [&[CANCEL][..], &number.to_be_bytes(), &pid.to_be_bytes(), secret].concat();
        if let Err(error) = self.channel.try_send(&message, &[]) {
            tracing::debug!(%error, "a cancel request could not be passed on");
            self.forget(number);
        }
        answer
    }

    /// Nobody waits for this request any more.
    fn forget(&self, number: u64) {
        lock(&self.asked).remove(&number);
    }
}

impl Kin {
    fn line(&self, origin: Origin) -> Option<&Mutex<Option<Arc<Line>>>> {
        match origin {
            Origin::Client => None,
            Origin::Before => Some(&self.before),
            Origin::After => Some(&self.after),
        }
    }

    fn get(&self, origin: Origin) -> Option<Arc<Line>> {
        self.line(origin).and_then(|line| lock(line).clone())
    }

    fn set(&self, origin: Origin, new: Option<Arc<Line>>) {
        if let Some(line) = self.line(origin) {
            *lock(line) = new;
        }
    }

    /// Passes a cancel request on to those it did not come from, until it was carried out.
    async fn pass_on(&self, pid: u32, secret: &[u8], origin: Origin) {
        let others = [Origin::Before, Origin::After].into_iter().filter(|other| *other != origin);
        let lines: Vec<_> = others.filter_map(|other| self.get(other)).collect();
        if lines.is_empty() {
            return;
        }
        // A line may be left to another process: answers to this one must not be taken for answers to that one.
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let number = u64::from(std::process::id()) << 32 | u64::from(count);
        let answers: Vec<_> = lines.iter().map(|line| line.ask(number, pid, secret)).collect();
        let all = async {
            for answer in answers {
                // A line that broke has nobody at its end.
                let _ = answer.await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            lines.iter().for_each(|line| line.forget(number));
        }
    }

    /// Leaves the line to the process before to the one after. Call it when this process is about to end and hears nobody any more.
    pub async fn bequeath(&self) {
        let (Some(before), Some(after)) = (self.get(Origin::Before), self.get(Origin::After)) else { return };
        let descriptors = [before.channel.as_fd()];
        if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, after.channel.send(LINE, &descriptors)).await {
            // The other end closes its end of this line when it has the new one.
            let closed = async {
                while self.get(Origin::After).is_some() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(PATIENCE, closed).await;
        }
    }
}

impl Clients {
    /// Cancels what the holder of this key is doing, in this process or another one.
    pub async fn cancel(&self, pid: u32, secret: &[u8], origin: Origin) {
        let Some(client) = self.holder(pid, secret) else { return self.kin.pass_on(pid, secret, origin).await };
        if client.activity.cancel_waiting() {
            client.wake();
        }
        deliver(client.announced()).await;
    }

    /// Keeps the line to a neighbour, and carries out what comes over it, until nobody is there any more. There is a line from this
    /// call on, not from when the future runs.
    pub fn keep_line(self: Arc<Self>, channel: Channel, origin: Origin) -> impl Future<Output = ()> + Send + 'static {
        let line = Line::new(channel);
        self.kin.set(origin, Some(line.clone()));
        self.hear(line, origin)
    }

    async fn hear(self: Arc<Self>, mut line: Arc<Line>, origin: Origin) {
        while let Ok(Some((message, descriptors))) = line.channel.receive().await {
            match word(&message) {
                Some(Word::Cancel { number, pid, secret }) => {
                    let (clients, line, secret) = (self.clone(), line.clone(), secret.to_vec());
                    tokio::spawn(async move {
                        clients.cancel(pid, &secret, origin).await;
                        // Who has ended waits for nothing.
                        let _ = line.channel.try_send(&[&[DONE][..], &number.to_be_bytes()].concat(), &[]);
                    });
                }
                Some(Word::Done(number)) => line.forget(number),
                Some(Word::Line) if origin == Origin::Before => line = self.inherit(descriptors, line),
                Some(Word::Line) | None => {}
            }
        }
        self.kin.set(origin, None);
        lock(&line.asked).clear();
    }

    /// The line that the process before leaves to this one, in place of the one to itself.
    fn inherit(&self, mut descriptors: Vec<OwnedFd>, line: Arc<Line>) -> Arc<Line> {
        let Some(descriptor) = descriptors.pop() else { return line };
        let new = Line::new(Channel::from(descriptor));
        self.kin.set(Origin::Before, Some(new.clone()));
        lock(&line.asked).clear();
        new
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What neighbours say to each other.
#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Cancel { number: u64, pid: u32, secret: &'a [u8] },
    Done(u64),
    Line,
}

fn word(message: &[u8]) -> Option<Word<'_>> {
    if message == LINE {
        return Some(Word::Line);
    }
    let (&kind, rest) = message.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    match kind {
        CANCEL => {
            let (pid, secret) = rest.split_first_chunk()?;
            Some(Word::Cancel { number, pid: u32::from_be_bytes(*pid), secret })
        }
        DONE if rest.is_empty() => Some(Word::Done(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        [&one, &other].iter().for_each(|end| end.set_nonblocking(true).unwrap());
        (Channel::from(OwnedFd::from(one)), Channel::from(OwnedFd::from(other)))
    }

    #[test]
    fn only_known_words_are_heard() {
        let cancel = Word::Cancel { number: 3, pid: 7, secret: b"key" };
        assert_eq!(word(b"C\0\0\0\0\0\0\0\x03\0\0\0\x07key"), Some(cancel));
        assert_eq!(word(b"D\0\0\0\0\0\0\0\x03"), Some(Word::Done(3)));
        assert_eq!(word(b"L"), Some(Word::Line));
        for other in [b"".as_slice(), b"C\0\0", b"C\0\0\0\0\0\0\0\x03\0", b"D\0\0", b"LL", b"X\0\0\0\0\0\0\0\x03"] {
            assert_eq!(word(other), None);
        }
    }

    #[tokio::test]
    async fn a_request_is_passed_on_until_it_is_carried_out() {
        let (young, old): (Arc<Clients>, Arc<Clients>) = Default::default();
        let (to_old, to_young) = pair();
        tokio::spawn(young.clone().keep_line(to_old, Origin::Before));
        let played = async {
            let (message, _) = to_young.receive().await.unwrap().unwrap();
            let Some(Word::Cancel { number, pid: 7, secret: b"key" }) = word(&message) else { panic!("{message:?}") };
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Somebody else's answer is none.
            for said in [number + 1, number] {
                to_young.try_send(&[&[DONE][..], &said.to_be_bytes()].concat(), &[]).unwrap();
            }
        };
        let started = std::time::Instant::now();
        tokio::join!(played, young.cancel(7, b"key", Origin::Client));
        assert!(started.elapsed() >= Duration::from_millis(50));
        // One that nobody knows comes back at once, and one that came from there is not sent back.
        tokio::spawn(old.keep_line(to_young, Origin::After));
        young.cancel(8, b"key", Origin::Client).await;
        young.cancel(8, b"key", Origin::Before).await;
        assert!(started.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_line_is_left_to_the_process_after() {
        let (young, middle): (Arc<Clients>, Arc<Clients>) = Default::default();
        let ((to_middle, to_young), (to_oldest, oldest)) = (pair(), pair());
        tokio::spawn(young.clone().keep_line(to_middle, Origin::Before));
        tokio::spawn(middle.clone().keep_line(to_young, Origin::After));
        let hearing = tokio::spawn(middle.clone().keep_line(to_oldest, Origin::Before));
        hearing.abort();
        middle.kin.bequeath().await;
        assert!(middle.kin.get(Origin::After).is_none());
        drop(middle);
        let asked = tokio::spawn(async move { young.cancel(7, b"key", Origin::Client).await });
        let (message, _) = oldest.receive().await.unwrap().unwrap();
        assert!(matches!(word(&message), Some(Word::Cancel { pid: 7, secret: b"key", .. })));
        // It has ended before it could answer.
        drop(oldest);
        tokio::time::timeout(PATIENCE / 2, asked).await.unwrap().unwrap();
    }
}
