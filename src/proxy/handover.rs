//! One process takes over from another: what they say to each other, and what is handed over.
//!
//! ```text
//! new -> old   TAKEOVER
//! old -> new   an offer: where it listens, with the sockets themselves (SCM_RIGHTS)
//! new -> old   READY: what it has taken; everything that can fail is behind it
//! old -> new   YOURS: it accepts nobody any more
//! new -> old   OPEN: it accepts
//! ```
//!
//! Nobody is turned away on the way: a socket that neither accepts at has its callers wait in the kernel's queue. Whenever the new
//! process ends before OPEN, the old one goes on as if nothing had been; from then on it only serves the clients
//! it has. The line stays open for as long as both live, see [`kin`](crate::proxy::kin).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::net::channel::Channel;

/// What the new process says first. The number changes when the rest of the talk does.
const TAKEOVER: &[u8] = b"pgweir takeover 1";
const YOURS: &[u8] = b"yours";
const OPEN: &[u8] = b"open";
/// How long the other process is waited for where it has nothing to do.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long a new process may take until it is ready.
const UNTIL_READY: Duration = Duration::from_secs(120);

/// Where a process listens, in the order of the descriptors that come with it.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    process: u32,
    keys: Vec<String>,
}

/// What the new process has taken.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    taken: Vec<String>,
}

/// The line to a process that is ready, and the keys of what it has taken.
pub type Successor = (Channel, Vec<String>);

/// Tells a place where a process listens apart from others.
pub fn key(said: &str, path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("unix {}", path.display()),
        None => format!("tcp {said}"),
    }
}

/// The key of the address for health and metrics.
pub fn admin_key(said: &str) -> String {
    format!("admin {said}")
}

/// The key of the socket where a new process asks.
pub fn control_key(path: &str) -> String {
    format!("control {path}")
}

/// What was taken over from the process before, until that is told.
#[derive(Debug)]
pub struct Heritage {
    /// The line to it.
    pub channel: Channel,
    /// Its process id.
    pub process: u32,
    sockets: BTreeMap<String, OwnedFd>,
    taken: Vec<String>,
}

impl Heritage {
    /// The sockets of the process that listens at `path`; `None` when there is none.
    ///
    /// # Errors
    /// Whoever listens there is another user's, speaks otherwise, or does not answer.
    pub fn ask(path: &Path) -> Result<Option<Self>> {
        let failed = |what: &str| {
            Error::server(format!("the running process does not hand over: {what}"))
                .at(path.display().to_string())
                .hint("stop it with SIGTERM and start without --takeover; nothing has changed so far")
        };
        let channel = match Channel::connect(path) {
            Ok(channel) => channel,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(&error.to_string())),
        };
        if !is_trusted(&channel) {
            return Err(failed("it runs as another user"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Error::internal(format!("an event loop could not be started: {error}")))?;
        let offered = runtime.block_on(async {
            channel.send(TAKEOVER, &[]).await?;
            tokio::time::timeout(AT_ONCE, channel.receive()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
        });
        let Some((message, descriptors)) = offered.map_err(|error| failed(&error.to_string()))? else {
            return Err(failed("another process is taking over from it already"));
        };
        let offer: Offer = serde_json::from_slice(&message).map_err(|_| failed("it is of another version"))?;
        if offer.keys.len() != descriptors.len() {
            return Err(failed("its sockets did not all come"));
        }
        let sockets = offer.keys.into_iter().zip(descriptors).collect();
        Ok(Some(Self { channel, process: offer.process, sockets, taken: Vec::new() }))
    }

    /// The socket of this key, which is then this process's.
    pub fn take(&mut self, key: &str) -> Option<OwnedFd> {
        let socket = self.sockets.remove(key)?;
        self.taken.push(key.to_owned());
        Some(socket)
    }

    /// Says that everything is ready, and waits until the old process accepts nobody any more. Gives the line to it, if it still
    /// lives.
    ///
    /// # Errors
    /// It does not let go of the sockets, and so goes on.
    pub async fn finish(self) -> Result<Option<Channel>> {
        let ready = serde_json::to_vec(&Ready { taken: self.taken })
            .map_err(|error| Error::internal(format!("a message could not be written: {error}")))?;
        // Sockets that this process does not want are closed here, so that they end with the old one.
        drop(self.sockets);
        let told = async {
            self.channel.send(&ready, &[]).await?;
            self.channel.receive().await
        };
        match tokio::time::timeout(AT_ONCE, told).await {
            Ok(Ok(Some((message, _)))) if message == YOURS => Ok(Some(self.channel)),
            // It has died in the meantime: what it listened at is this process's in any case.
            Ok(Ok(None) | Err(_)) => Ok(None),
            _ => Err(Error::server("the running process did not let go of its sockets")
                .at(format!("process {}", self.process))
                .hint("it goes on as before; see its log")),
        }
    }
}

/// What the old process offers.
#[derive(Debug, Default)]
pub struct Sockets {
    keys: Vec<String>,
    descriptors: Vec<OwnedFd>,
}

impl Sockets {
    /// Adds one.
    ///
    /// # Errors
    /// The system has no descriptor left, most likely.
    pub fn add(&mut self, key: String, socket: &impl AsFd) -> io::Result<()> {
        self.descriptors.push(socket.as_fd().try_clone_to_owned()?);
        self.keys.push(key);
        Ok(())
    }

    /// Offers them to whoever has connected. Gives who takes over when that process is ready; `None`
    /// when nothing comes of it.
    pub async fn offer(self, channel: Channel) -> Option<Successor> {
        if !is_trusted(&channel) {
            tracing::warn!("another user's process wanted to take over and was turned away");
            return None;
        }
        let asked = tokio::time::timeout(AT_ONCE, channel.receive()).await;
        if !matches!(&asked, Ok(Ok(Some((message, _)))) if message == TAKEOVER) {
            tracing::warn!("a process that wanted to take over speaks otherwise: is it of another version?");
            return None;
        }
        let offer = Offer { process: std::process::id(), keys: self.keys };
        let sockets: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let sent = channel.send(&serde_json::to_vec(&offer).ok()?, &sockets).await;
        if let Err(error) = sent {
            tracing::warn!(%error, "the sockets could not be handed over");
            return None;
        }
        let ready = tokio::time::timeout(UNTIL_READY, channel.receive()).await;
        let Ok(Ok(Some((message, _)))) = ready else {
            tracing::warn!("a process that wanted to take over ended, or was not ready in time: this one goes on");
            return None;
        };
        let ready: Ready = serde_json::from_slice(&message).ok()?;
        Some((channel, ready.taken))
    }
}

/// Tells the new process that nobody accepts at the sockets any more. True when it does then; otherwise it has ended.
pub async fn let_go(channel: &Channel) -> bool {
    if let Err(error) = channel.try_send(YOURS, &[]) {
        tracing::warn!(%error, "the process that takes over could not be told so");
        return false;
    }
    matches!(channel.receive().await, Ok(Some((message, _))) if message == OPEN)
}

/// Tells the old process that this one accepts.
pub fn open(channel: &Channel) {
    if let Err(error) = channel.try_send(OPEN, &[]) {
        tracing::debug!(%error, "the process before has ended already");
    }
}

/// Where the descriptors of the running process are asked for; the path must be set.
///
/// # Errors
/// It is not.
pub fn socket_of(config: &crate::config::Config) -> Result<PathBuf> {
    config.takeover.socket.as_ref().map(PathBuf::from).ok_or_else(|| {
        Error::input("`--takeover` needs `takeover.socket` in the configuration, of both processes")
            .hint("set it to the path of a unix socket, such as /run/pgweir/takeover")
    })
}

fn is_trusted(channel: &Channel) -> bool {
    let own = rustix::process::geteuid().as_raw();
    channel.peer_user().is_ok_and(|user| user == own || user == 0)
}
