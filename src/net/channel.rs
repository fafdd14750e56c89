//! A line between two processes of this machine: whole messages, and open descriptors along with them.
//!
//! A unix socket that keeps messages apart (`SOCK_SEQPACKET`), so that several processes may write to one end. Every
//! call registers with the event loop it runs on, and only while it waits: an end may be used from different ones in turn.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recv, recvmsg, sendmsg, sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most descriptors in one message; the kernel's own limit.
pub const MAX_DESCRIPTORS: usize = 253;
/// Longest message, below what a socket's buffer holds at once.
const MAX_MESSAGE: usize = 128 * 1024;

/// What comes in one message.
pub type Delivery = (Vec<u8>, Vec<OwnedFd>);

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Connects to the process that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or this process may not connect.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None)?;
        socket.connect(&socket2::SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket.into()))
    }

    /// The user that the process at the other end ran as when it connected or began to listen.
    ///
    /// # Errors
    /// The system does not say.
    pub fn peer_user(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Whether the other end is closed.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0u8; 1];
        let looked = recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(looked, Ok((1.., _)) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// Sends a message, unless that would have to wait.
    ///
    /// # Errors
    /// Nobody is there, or `WouldBlock`.
    pub fn try_send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let too_much = message.len() > MAX_MESSAGE;
        if too_much || !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Nobody is there.
    pub async fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.watched()?.async_io(Interest::WRITABLE, || self.try_send(message, descriptors)).await
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// The other end was reset, or has sent more than fits.
    pub async fn receive(&self) -> io::Result<Option<Delivery>> {
        self.watched()?.async_io(Interest::READABLE, || self.try_receive()).await
    }

    /// The same socket as the event loop of the calling thread watches it. Only its readiness is of use, as it is no stream.
    fn watched(&self) -> io::Result<UnixStream> {
        UnixStream::from_std(self.0.try_clone()?.into())
    }

    fn try_receive(&self) -> io::Result<Option<Delivery>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any should be"));
        }
        bytes.truncate(got.bytes);
        Ok((got.bytes > 0).then_some((bytes, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Pair;

    use crate::net::listener::{Caller, Listener};

    use super::*;

    #[tokio::test]
    async fn messages_and_descriptors_arrive_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("line");
        let listener = Listener::control(&path).unwrap();
        assert_eq!(Listener::control(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let there = Channel::connect(&path).unwrap();
        let acceptor = listener.acceptor().unwrap();
        // Whoever found the address in use has connected, too.
        acceptor.accept().await.unwrap();
        let Caller::Unix(here) = acceptor.accept().await.unwrap() else { panic!() };
        let here = Channel::from(OwnedFd::from(here));
        assert_eq!(here.peer_user().unwrap(), rustix::process::geteuid().as_raw());
        assert_eq!(there.peer_user().unwrap(), rustix::process::geteuid().as_raw());

        let (mut mine, theirs) = Pair::pair().unwrap();
        there.send(b"one", &[theirs.as_fd()]).await.unwrap();
        there.send(b"two", &[]).await.unwrap();
        drop(theirs);
        let (message, mut descriptors) = here.receive().await.unwrap().unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (b"one".as_slice(), 1));
        let mut passed = Pair::from(descriptors.remove(0));
        passed.write_all(b"x").unwrap();
        drop(passed);
        let mut said = String::new();
        mine.read_to_string(&mut said).unwrap();
        assert_eq!(said, "x");
        assert_eq!(here.receive().await.unwrap().unwrap().0, b"two");
        assert!(!here.is_closed() && there.try_send(&[0; MAX_MESSAGE + 1], &[]).is_err());
        drop(there);
        assert!(here.is_closed() && here.receive().await.unwrap().is_none());
    }
}
