use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use lab::{Command, Daemon, Ready, Running};

use crate::promise::GOES_ON;
use crate::{Client, Marks, PATIENCE, Stopwatch};

/// Where the other end listens.
pub(crate) const PORT: u16 = 7007;

/// One TCP connection, which stays open: whoever breaks it is found out.
#[derive(Debug)]
pub struct Conversation {
    caller: Running,
    /// The other end, where it was made for this conversation.
    listener: Option<Daemon>,
    said: u32,
}

impl Conversation {
    /// Opens a connection between two devices, by the name that users know.
    pub fn begin(from: &Client, to: &Client) -> Result<Self> {
        let call = call(to.lab_box().name());
        Self::with(to, from.lab_box().command(call))
    }

    /// Opens a connection to a device by a command that sends what it is fed and prints what comes back.
    pub(crate) fn with(to: &Client, caller: Command<'_>) -> Result<Self> {
        let echo = ["socat".to_owned(), format!("TCP-LISTEN:{PORT},fork,reuseaddr"), "EXEC:cat".to_owned()];
        let ready = Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        let listener = to.lab_box().daemon("conversation", echo).ready(ready).start()?;
        Self::open(caller, Some(listener))
    }

    /// Opens a connection by such a command to where somebody listens already who sends back what comes.
    pub(crate) fn by(caller: Command<'_>) -> Result<Self> {
        Self::open(caller, None)
    }

    fn open(caller: Command<'_>, listener: Option<Daemon>) -> Result<Self> {
        let caller = caller.with_more_input().within(20 * PATIENCE).spawn()?;
        let mut this = Self { caller, listener, said: 0 };
        this.answers().context("opening a TCP connection")?;
        Ok(this)
    }

    /// Says something, and waits for the answer.
    ///
    /// # Errors
    /// When the connection is lost, or nothing comes through for [`PATIENCE`].
    pub fn answers(&mut self) -> Result<()> {
        self.said += 1;
        let words = format!("<{}>", self.said);
        self.caller.say(format!("{words}\n"), PATIENCE)?;
        self.caller.wait_for(&words, PATIENCE).context("a TCP connection was lost, or is stuck")?;
        Ok(())
    }

    /// As [`Conversation::answers`], and at once: what has happened is nothing to this connection.
    pub(crate) fn goes_on(&mut self, marks: &Marks) -> Result<()> {
        let asked = Stopwatch::start();
        let answered = self.answers();
        let took = asked.stop();
        answered?;
        GOES_ON.judge(took, marks)
    }

    /// Hangs up.
    pub fn end(self) -> Result<()> {
        drop(self.caller);
        self.listener.map_or(Ok(()), |listener| listener.stop())
    }
}

/// The command that opens a connection to this name.
pub(crate) fn call(name: &str) -> [String; 3] {
    ["socat".to_owned(), "-".to_owned(), format!("TCP:{name}:{PORT}")]
}
