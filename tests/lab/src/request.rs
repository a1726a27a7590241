//! What is said between a box's first process and who wants something run in the box.
//!
//! One connection a command, over a `SOCK_SEQPACKET` socket in the world's folder. The asker sends a [`Request`] with
//! three descriptors (standard input, output, error); the init answers [`Reply::Started`] with an open process descriptor,
//! or [`Reply::Refused`]; then [`Reply::Ended`] when the command has. When the asker goes away first, the command dies.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message; far below what a Unix socket carries in one piece.
const LONGEST: usize = 128 * 1024;

/// Most descriptors that go with one message.
const MOST_DESCRIPTORS: usize = 3;

/// A command to run in a box.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Program, found by the box's `PATH` when it has no slash, and arguments.
    pub(crate) arguments: Vec<String>,
    /// Whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Folder to start in.
    pub(crate) directory: String,
    /// Keep it running when the asker goes away: a daemon.
    pub(crate) keep: bool,
    /// The cgroup that it is counted in, below the root that the box sees; none: that of the box's own processes.
    pub(crate) group: Option<String>,
}

/// What the init answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The command runs; an open process descriptor comes along.
    Started,
    /// The command could not be started.
    Refused(String),
    /// The command has ended.
    Ended(Ended),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// By itself, with this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// Whether the exit status is 0.
    pub fn is_success(self) -> bool {
        self == Self::Exit(0)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Sends one message with the descriptors that belong to it.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST {
        return Err(io::Error::other(format!("a command of {} bytes: the longest is {LONGEST}", text.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other(format!("{} descriptors in one message", fds.len())));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message and its descriptors; `None` when the far side has hung up.
pub(crate) fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (near, far) = pair();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        send(near.as_fd(), &Reply::Started, &[writer.as_fd()]).unwrap();
        writer.write_all(b"first ").unwrap();
        drop(writer);
        let (reply, mut descriptors) = receive::<Reply>(far.as_fd()).unwrap().unwrap();
        assert!(matches!(reply, Reply::Started));
        let mut other = std::fs::File::from(descriptors.pop().unwrap());
        other.write_all(b"second").unwrap();
        drop(other);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second");
    }

    #[test]
    fn a_closed_far_side_is_no_message() {
        let (near, far) = pair();
        drop(near);
        assert!(receive::<Reply>(far.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_command_too_long_for_one_message_is_refused_before_it_is_sent() {
        let (near, _far) = pair();
        let message = send(near.as_fd(), &Reply::Refused("x".repeat(LONGEST)), &[]).unwrap_err().to_string();
        assert!(message.contains("longest"), "{message}");
    }
}
