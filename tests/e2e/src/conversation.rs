use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Daemon, Ready, Running};

use crate::{Client, PATIENCE};

/// Where one end listens.
const PORT: &str = "7007";

/// One TCP connection between two devices, which stays open: whoever breaks it is found out.
#[derive(Debug)]
pub struct Conversation {
    caller: Running,
    listener: Daemon,
    said: u32,
}

impl Conversation {
    /// Opens a connection by the name that users know.
    pub fn begin(from: &Client, to: &Client) -> Result<Self> {
        let port: u16 = PORT.parse()?;
        let echo = ["socat", &format!("TCP-LISTEN:{PORT},fork,reuseaddr"), "EXEC:cat"].map(str::to_owned);
        let ready = Ready::Tcp((std::net::Ipv4Addr::LOCALHOST, port).into());
        let listener = to.lab_box().daemon("conversation", echo).ready(ready).start()?;
        let call = ["socat", "-", &format!("TCP:{}:{PORT}", to.lab_box().name())].map(str::to_owned);
        let caller = from.lab_box().command(call).with_more_input().within(20 * PATIENCE).spawn()?;
        let mut this = Self { caller, listener, said: 0 };
        this.answers().context("opening a TCP connection")?;
        Ok(this)
    }

    /// Says something, and waits for the answer: how long that took.
    ///
    /// # Errors
    /// When the connection is lost, or nothing comes through for [`PATIENCE`].
    pub fn answers(&mut self) -> Result<Duration> {
        self.said += 1;
        let (words, began) = (format!("<{}>", self.said), Instant::now());
        self.caller.say(format!("{words}\n"), PATIENCE)?;
        self.caller.wait_for(&words, PATIENCE).context("a TCP connection was lost, or is stuck")?;
        Ok(began.elapsed())
    }

    /// Hangs up.
    pub fn end(self) -> Result<()> {
        drop(self.caller);
        self.listener.stop()
    }
}
