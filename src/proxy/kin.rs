//! The processes before and after this one, where one has taken over from another.
//!
//! A cancel request comes to whoever listens, and the client it is for may be with a process that does not any more. Each
//! process has a line to its neighbours, and passes on what is none of its own: from the younger to the older, or the
//! other way, and never back.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::channel::Channel;
use crate::proxy::clients::{Clients, deliver};

/// Begins a message that passes a cancel request on: the process id, big-endian, and the secret follow.
const CANCEL: u8 = b'C';

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
    before: Mutex<Option<Arc<Channel>>>,
    after: Mutex<Option<Arc<Channel>>>,
}

impl Kin {
    fn line(&self, origin: Origin) -> Option<&Mutex<Option<Arc<Channel>>>> {
        match origin {
            Origin::Client => None,
            Origin::Before => Some(&self.before),
            Origin::After => Some(&self.after),
        }
    }

    fn set(&self, origin: Origin, channel: Option<Arc<Channel>>) {
        if let Some(line) = self.line(origin) {
            *line.lock().unwrap_or_else(PoisonError::into_inner) = channel;
        }
    }

    /// Passes a cancel request on to those it did not come from.
    pub fn pass_on(&self, pid: u32, secret: &[u8], origin: Origin) {
        let message = [&[CANCEL][..], &pid.to_be_bytes(), secret].concat();
        for other in [Origin::Before, Origin::After] {
            let Some(line) = self.line(other).filter(|_| other != origin) else { continue };
            let channel = line.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(channel) = channel
                && let Err(error) = channel.try_send(&message, &[] as &[BorrowedFd<'_>])
            {
                tracing::debug!(%error, "a cancel request could not be passed on");
            }
        }
    }
}

impl Clients {
    /// Cancels what the holder of this key is doing, in this process or another one.
    pub async fn cancel(&self, pid: u32, secret: &[u8], origin: Origin) {
        let Some(client) = self.holder(pid, secret) else { return self.kin.pass_on(pid, secret, origin) };
        if client.activity.cancel_waiting() {
            client.wake();
        }
        deliver(client.announced()).await;
    }

    /// Keeps the line to a neighbour, and delivers the cancel requests that come over it, until the other process ends.
    pub async fn keep_line(self: Arc<Self>, channel: Arc<Channel>, origin: Origin) {
        self.kin.set(origin, Some(channel.clone()));
        while let Ok(Some((message, _))) = channel.receive().await {
            let Some((pid, secret)) = request(&message) else { continue };
            let (clients, secret) = (self.clone(), secret.to_vec());
            tokio::spawn(async move { clients.cancel(pid, &secret, origin).await });
        }
        self.kin.set(origin, None);
    }
}

fn request(message: &[u8]) -> Option<(u32, &[u8])> {
    let (&kind, rest) = message.split_first()?;
    let (pid, secret) = rest.split_first_chunk::<4>()?;
    (kind == CANCEL).then_some((u32::from_be_bytes(*pid), secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cancel_requests_are_taken() {
        assert_eq!(request(b"C\0\0\0\x07key"), Some((7, b"key".as_slice())));
        for other in [b"".as_slice(), b"C\0\0", b"D\0\0\0\x07key"] {
            assert_eq!(request(other), None);
        }
    }
}
