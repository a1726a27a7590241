//! No program that is waited for runs for ever.

use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::process::ProcessIdentity;

/// Kills a program that has not ended in time, and those that it has started: they may hold what its caller reads.
#[derive(Debug)]
#[must_use = "whether it was kept is known once the program has ended"]
pub struct Deadline {
    limit: Duration,
    /// Dropped when the program has ended.
    ended: Sender<()>,
    watch: JoinHandle<bool>,
}

impl Deadline {
    /// Gives a program that runs now so long; until [`Deadline::kept`], or this is dropped.
    pub fn of(program: &Child, limit: Duration) -> Self {
        let (ended, end) = channel();
        let program = i32::try_from(program.id()).ok().and_then(|pid| ProcessIdentity::of(pid).ok());
        let watch = thread::spawn(move || {
            let is_late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if is_late && let Some(program) = program {
                kill_with_descendants(program);
            }
            is_late
        });
        Self { limit, ended, watch }
    }

    /// To be asked once the program has ended.
    ///
    /// # Errors
    /// When it was killed.
    pub fn kept(self) -> Result<()> {
        drop(self.ended);
        let is_late = self.watch.join().unwrap_or_default();
        ensure!(!is_late, "it had not ended after {} s and was killed", self.limit.as_secs_f32());
        Ok(())
    }
}

fn kill_with_descendants(program: ProcessIdentity) {
    let mut doomed = vec![program];
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        // A stopped one starts no more.
        send(parent, Signal::STOP);
        doomed.extend(parent.children());
        next += 1;
    }
    doomed.into_iter().for_each(|process| send(process, Signal::KILL));
}

/// Sends a signal: one that has ended takes none, and of the others none may refuse.
fn send(process: ProcessIdentity, signal: Signal) {
    if let Some(process) = process.open() {
        let _ = process.signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_those_that_it_has_started() {
        let program = shell("sleep 600 & sleep 600");
        let deadline = Deadline::of(&program, Duration::from_millis(200));
        // Ends when nobody holds its output any more.
        let output = program.wait_with_output().unwrap();
        assert!(!output.status.success());
        assert!(deadline.kept().unwrap_err().to_string().contains("had not ended after 0.2 s"));
    }

    #[test]
    fn one_that_ends_in_time_is_left_alone() {
        let program = shell("echo done");
        let deadline = Deadline::of(&program, Duration::from_secs(600));
        assert_eq!(program.wait_with_output().unwrap().stdout, b"done\n");
        deadline.kept().unwrap();
    }
}
