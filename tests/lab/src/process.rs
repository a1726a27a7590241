//! One process, told apart from a later one that was given the same number.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process as the root PID namespace numbers it, with the tick at which it started.
///
/// Numbers are used again, the pair is not: what was written down before a crash is compared with what runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Number in the root PID namespace.
    pub pid: i32,
    /// Clock ticks between boot and start: field 22 of `/proc/PID/stat`.
    pub started: u64,
}

impl ProcessIdentity {
    /// Reads the identity of a process that runs now.
    ///
    /// # Errors
    /// `NotFound` when there is none, or when it has ended and only waits to be reaped.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        if stat.state == 'Z' || stat.state == 'X' {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has ended")));
        }
        Ok(Self { pid, started: stat.started })
    }

    /// The processes that run now and have this one for their parent.
    pub(crate) fn children(&self) -> impl Iterator<Item = Self> {
        let parent = self.pid;
        let is_child = move |pid: &i32| Stat::of(*pid).is_ok_and(|stat| stat.parent == parent);
        process_numbers().filter(is_child).filter_map(|pid| Self::of(pid).ok())
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    /// Opens the process, so that later signals and waits can meet no other; `None` when it has ended.
    pub fn open(&self) -> Option<Process> {
        let descriptor = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: were the number given away in between, the start would differ.
        self.is_alive().then_some(Process { descriptor })
    }

    /// Resident memory in bytes, 0 when the process has ended.
    pub fn resident_bytes(&self) -> u64 {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.pid))
            .ok()
            .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }
}

/// An open process: signals reach this one or none.
#[derive(Debug)]
pub struct Process {
    descriptor: OwnedFd,
}

impl Process {
    pub(crate) fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Sends a signal; a process that has ended already takes none, and that is no error.
    ///
    /// # Errors
    /// Only when the kernel refuses the signal for another reason.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended; `false` when it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        wait_readable(self.descriptor.as_fd(), limit)
    }

    /// Number in the root PID namespace, as the kernel states it for the open descriptor.
    pub(crate) fn pid(&self) -> io::Result<i32> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fdinfo/{}", self.descriptor.as_raw_fd());
        let text = fs::read_to_string(&path)?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("{path} names no process: {text:?}")))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Waits until `descriptor` can be read (or is closed on the far side); `false` when `limit` passed first.
pub(crate) fn wait_readable(descriptor: BorrowedFd<'_>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().min(1 << 30) as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// The numbers of the processes that `/proc` shows.
pub fn process_numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    /// Clock ticks between boot and start.
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text:?}")))
    }

    /// Reads fields 3, 4 and 22; the second may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = rest.next()?.chars().next()?;
        let parent = rest.next()?.parse().ok()?;
        let started = rest.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a b) c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8642 1 2 3";
        assert_eq!(Stat::parse(stat), Some(Stat { state: 'S', parent: 1, started: 8642 }));
    }

    #[test]
    fn a_process_that_was_given_the_number_later_is_not_taken_for_the_first() {
        let me = ProcessIdentity::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessIdentity { started: me.started + 1, ..me }.is_alive());
    }

    #[test]
    fn an_ended_process_is_reported_as_ended_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::from_descriptor(pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap());
        assert!(process.wait(Duration::from_secs(10)));
        assert!(ProcessIdentity::of(child.id() as i32).is_err());
        child.wait().unwrap();
    }
}
