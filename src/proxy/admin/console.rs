//! The socket of one client of the console.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use crate::net::dialogue::Dialogue;
use crate::proxy::admin::command::Command;
use crate::proxy::admin::talk::{Answer, Next, Talk};
use crate::proxy::admin::{Rights, act, show};
use crate::proxy::clients::Seat;
use crate::proxy::login::{House, Registered};
use crate::wire::frame;
use crate::wire::message::Failure;

/// The longest message taken.
const MAX_MESSAGE: usize = 64 * 1024;

/// A client that has logged in to the console.
pub struct Guest {
    /// Its connection.
    pub dialogue: Dialogue,
    /// What it may do.
    pub rights: Rights,
    /// Its place among the clients.
    pub guard: Registered,
    /// Its counted connection.
    pub seat: Seat,
}

/// One session of the console.
pub struct Console {
    house: Arc<House>,
    guest: Guest,
    talk: Talk,
    out: Vec<u8>,
}

impl Console {
    /// A session of a client that was told it is ready.
    pub fn new(house: Arc<House>, guest: Guest) -> Self {
        Self { house, guest, talk: Talk::default(), out: Vec::new() }
    }

    /// Serves the client until it leaves.
    pub async fn run(mut self) {
        if let Some(failure) = self.serve().await.unwrap_or(None) {
            failure.write(&mut self.out);
            // Whoever is gone cannot be told.
            let _ = self.send().await;
        }
    }

    async fn serve(&mut self) -> io::Result<Option<Failure>> {
        loop {
            let (header, body) = match frame::whole(&self.guest.dialogue.pending, MAX_MESSAGE) {
                Ok(Some((header, body))) => (header, body.to_vec()),
                Ok(None) => {
                    self.send().await?;
                    match self.fill().await? {
                        Some(failure) => return Ok(Some(failure)),
                        None => continue,
                    }
                }
                Err(error) => return Ok(Some(Failure::fatal("08P01", error.to_string()))),
            };
            self.guest.dialogue.pending.drain(..header.total());
            let mut next = self.talk.message(header.tag, &body, &mut self.out);
            loop {
                let answer = match next {
                    Next::Done => break,
                    Next::Leave => return Ok(None),
                    Next::Fail(failure) => return Ok(Some(failure)),
                    Next::Describe(command) | Next::Run(command @ Command::Show(_)) => self.show(&command),
                    Next::Run(command) => self.act(command).await,
                };
                next = self.talk.answer(answer, &mut self.out);
            }
        }
    }

    fn show(&self, command: &Command) -> Result<Answer, Failure> {
        let Command::Show(what) = command else { return Ok(Answer::Tag("")) };
        Ok(show::show(&self.house.current(), *what))
    }

    /// Runs a command that changes something; leaving or being killed ends the wait for it.
    async fn act(&mut self, command: Command) -> Result<Answer, Failure> {
        if self.guest.rights != Rights::Admin {
            return Err(Failure::error("42501", "admin access needed")
                .hint("users named in `stats_users` may use SHOW; add this one to `admin_users` for more"));
        }
        tracing::info!(user = &*self.guest.guard.client.about.user, ?command, "console");
        let house = self.house.current();
        let mut act = std::pin::pin!(act::act(&house, command));
        let Guest { dialogue, guard, .. } = &mut self.guest;
        let left = Failure::fatal("57P01", "terminated by the administrator");
        poll_fn(|cx| {
            guard.client.wake_by(cx.waker());
            if let Poll::Ready(answer) = act.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            // What comes meanwhile is read later; that nothing can come any more is noticed now.
            let mut gone = guard.client.activity.is_killed();
            while !gone && dialogue.pending.len() < MAX_MESSAGE {
                match dialogue.poll_fill(cx) {
                    Poll::Pending => break,
                    Poll::Ready(read) => gone = read.is_err(),
                }
            }
            if gone {
                return Poll::Ready(Err(left.clone()));
            }
            Poll::Pending
        })
        .await
    }

    async fn send(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.guest.dialogue.send(&out).await
    }

    /// Waits for bytes, or for a reason to end.
    async fn fill(&mut self) -> io::Result<Option<Failure>> {
        let Guest { dialogue, guard, .. } = &mut self.guest;
        poll_fn(|cx| {
            guard.client.wake_by(cx.waker());
            if guard.clients().is_stopping() {
                return Poll::Ready(Ok(Some(Failure::fatal("57P01", "the proxy is shutting down"))));
            }
            if guard.client.activity.is_killed() {
                return Poll::Ready(Ok(Some(Failure::fatal("57P01", "terminated by the administrator"))));
            }
            dialogue.poll_fill(cx).map_ok(|_| None)
        })
        .await
    }
}
