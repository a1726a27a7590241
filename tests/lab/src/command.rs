//! A command run in a box, and what came of it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::lab_box::LabBox;
use crate::process::{Process, timespec};
use crate::request::{Ended, Reply, Request, receive, send};

/// Most bytes kept of each output stream of one command.
const MOST_OUTPUT: usize = 64 << 20;

/// How long a command may take when its caller says nothing.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A command about to be run in a box: [`LabBox::command`] makes one.
#[derive(Debug)]
#[must_use = "a command runs when `run`, `finish` or `spawn` is called"]
pub struct Command<'a> {
    lab_box: &'a LabBox,
    request: Request,
    input: Vec<u8>,
    more_input: bool,
    timeout: Duration,
}

/// What a command that has ended left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Standard output; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error; bytes that are no UTF-8 are replaced.
    pub stderr: String,
}

/// Why a command brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It ended, but not well.
    #[error("box {name}: `{command}` ended by {ended}\n{tail}", ended = output.ended, tail = tail_of(output))]
    Failed {
        /// Box in which it ran.
        name: String,
        /// The command, as a shell would show it.
        command: String,
        /// All that it said.
        output: Output,
    },
    /// It had not ended in time and was killed.
    #[error("box {name}: `{command}` had not ended after {} s and was killed\n{tail}", after.as_secs_f32(), tail = tail_of(output))]
    TimedOut {
        /// Box in which it ran.
        name: String,
        /// The command, as a shell would show it.
        command: String,
        /// How long it was given.
        after: Duration,
        /// What it had said until then.
        output: Output,
    },
    /// It could not be started.
    #[error("box {name}: `{command}` could not be started: {why}")]
    NotStarted {
        /// Box in which it was to run.
        name: String,
        /// The command, as a shell would show it.
        command: String,
        /// What the box said.
        why: String,
    },
    /// The box went away while it ran, or was not there.
    #[error("box {name} is gone ({source}); `{command}` has no result. `World::up` makes the box again")]
    BoxGone {
        /// Box in which it was to run.
        name: String,
        /// The command, as a shell would show it.
        command: String,
        /// What was seen of it.
        source: io::Error,
    },
}

impl<'a> Command<'a> {
    pub(crate) fn new(lab_box: &'a LabBox, arguments: Vec<String>) -> Self {
        let request = Request {
            arguments,
            environment: usual_environment(),
            directory: "/root".to_owned(),
            keep: false,
            group: None,
        };
        Self { lab_box, request, input: Vec::new(), more_input: false, timeout: USUAL_TIMEOUT }
    }

    /// Sets one variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.request.environment.retain(|(known, _)| known != name);
        self.request.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the folder it starts in; else `/root`.
    pub fn directory(mut self, path: &str) -> Self {
        path.clone_into(&mut self.request.directory);
        self
    }

    /// Feeds `bytes` to its standard input; else that is empty.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Leaves its standard input open for [`Running::say`].
    pub fn with_more_input(mut self) -> Self {
        self.more_input = true;
        self
    }

    /// Kills it when it has not ended after `limit`; else after a minute.
    pub fn within(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Runs it to its end, which must be exit status 0.
    ///
    /// # Errors
    /// [`CommandError`], whose message names box, command, how it ended and its last words.
    pub fn run(self) -> Result<Output, CommandError> {
        let name = self.lab_box.name().to_owned();
        let command = shown(&self.request.arguments);
        let output = self.finish()?;
        if output.ended.is_success() { Ok(output) } else { Err(CommandError::Failed { name, command, output }) }
    }

    /// Runs it to its end, whichever that is.
    ///
    /// # Errors
    /// When it could not be started, did not end in time, or the box is gone; a bad exit status is none.
    pub fn finish(self) -> Result<Output, CommandError> {
        let timeout = self.timeout;
        self.spawn()?.finish(timeout)
    }

    /// Starts it and lets it run beside the caller; it is killed when the returned value is dropped.
    ///
    /// # Errors
    /// When it could not be started, or the box is gone.
    pub fn spawn(self) -> Result<Running, CommandError> {
        let started = start(self.lab_box, &self.request, None)?;
        let input = (self.more_input || !self.input.is_empty()).then_some(started.input);
        Ok(Running {
            name: self.lab_box.name().to_owned(),
            command: shown(&self.request.arguments),
            asked: started.asked,
            process: started.process,
            input,
            unsent: self.input,
            more_input: self.more_input,
            stdout: Stream { source: started.stdout, bytes: Vec::new() },
            stderr: Stream { source: started.stderr, bytes: Vec::new() },
            ended: None,
        })
    }
}

/// Variables that every command has.
pub(crate) fn usual_environment() -> Vec<(String, String)> {
    let path = "/opt/towline/own:/opt/towline/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [("PATH", path), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("USER", "root")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// What the box's first process handed back.
pub(crate) struct Started {
    pub(crate) process: Process,
    asked: OwnedFd,
    input: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Asks a box to start something; both outputs go to `log` where there is one, else into pipes.
pub(crate) fn start(lab_box: &LabBox, request: &Request, log: Option<BorrowedFd<'_>>) -> Result<Started, CommandError> {
    let name = || lab_box.name().to_owned();
    let command = || shown(&request.arguments);
    let gone = |source: io::Error| CommandError::BoxGone { name: name(), command: command(), source };
    let asked = lab_box.connect().map_err(gone)?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| gone(error.into()));
    let (theirs_in, input) = pipe()?;
    let (stdout, stderr) = match log {
        Some(log) => {
            send(asked.as_fd(), request, &[theirs_in.as_fd(), log, log]).map_err(gone)?;
            (None, None)
        }
        None => {
            let ((stdout, theirs_out), (stderr, theirs_err)) = (pipe()?, pipe()?);
            send(asked.as_fd(), request, &[theirs_in.as_fd(), theirs_out.as_fd(), theirs_err.as_fd()]).map_err(gone)?;
            (Some(stdout), Some(stderr))
        }
    };
    drop(theirs_in);
    let not_started = |why: String| CommandError::NotStarted { name: name(), command: command(), why };
    match receive::<Reply>(asked.as_fd()).map_err(gone)? {
        Some((Reply::Started, mut descriptors)) => match descriptors.pop() {
            Some(descriptor) => {
                for end in [Some(&input), stdout.as_ref(), stderr.as_ref()].into_iter().flatten() {
                    rustix::io::ioctl_fionbio(end, true).map_err(|error| gone(error.into()))?;
                }
                Ok(Started { process: Process::from_descriptor(descriptor), asked, input, stdout, stderr })
            }
            None => Err(not_started("the box sent no process descriptor".to_owned())),
        },
        Some((Reply::Refused(why), _)) => Err(not_started(why)),
        Some((Reply::Ended(ended), _)) => Err(not_started(format!("it ended by {ended} before it began"))),
        None => Err(gone(io::Error::other("its first process hung up"))),
    }
}

/// A command that runs in a box; dropped, it is killed with its whole process group.
#[derive(Debug)]
pub struct Running {
    name: String,
    command: String,
    asked: OwnedFd,
    process: Process,
    input: Option<OwnedFd>,
    unsent: Vec<u8>,
    more_input: bool,
    stdout: Stream,
    stderr: Stream,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Stream {
    source: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Running {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it has not after `limit` (it is killed then), or the box went away.
    pub fn finish(mut self, limit: Duration) -> Result<Output, CommandError> {
        if self.pump(limit, |running| running.ended.is_some())? {
            return Ok(self.output());
        }
        let output = self.output();
        let (name, command) = (mem::take(&mut self.name), mem::take(&mut self.command));
        Err(CommandError::TimedOut { name, command, after: limit, output })
    }

    /// Waits until it has said `text`, on either output, or has ended.
    ///
    /// # Errors
    /// When neither happened within `limit`, when it ended without having said so, or the box went away.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<(), CommandError> {
        let holds = |stream: &Stream| String::from_utf8_lossy(&stream.bytes).contains(text);
        let said = |running: &Self| holds(&running.stdout) || holds(&running.stderr);
        let happened = self.pump(limit, |running| running.ended.is_some() || said(running))?;
        if said(self) {
            return Ok(());
        }
        let (name, command, output) = (self.name.clone(), self.command.clone(), self.output());
        Err(match happened {
            true => CommandError::Failed { name, command, output },
            false => CommandError::TimedOut { name, command, after: limit, output },
        })
    }

    /// Feeds bytes to its standard input, as far as it takes them within `limit`.
    ///
    /// # Errors
    /// When the box went away.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>, limit: Duration) -> Result<(), CommandError> {
        self.unsent.extend_from_slice(bytes.as_ref());
        self.pump(limit, |running| running.unsent.is_empty() || running.ended.is_some()).map(drop)
    }

    /// What it has said until now, or by its end.
    pub fn output(&self) -> Output {
        Output {
            ended: self.ended.unwrap_or(Ended::Signal(Signal::KILL.as_raw())),
            stdout: String::from_utf8_lossy(&self.stdout.bytes).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr.bytes).into_owned(),
        }
    }

    /// Whether it still runs, as far as has been heard.
    ///
    /// # Errors
    /// When the box went away.
    pub fn is_running(&mut self) -> Result<bool, CommandError> {
        self.pump(Duration::ZERO, |running| running.ended.is_some())?;
        Ok(self.ended.is_none())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the box is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), CommandError> {
        self.process.signal(signal).map_err(|source| self.gone(source))
    }

    /// Moves bytes until `done`; `false` when `limit` passed first.
    fn pump(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, CommandError> {
        let deadline = Instant::now() + limit;
        loop {
            if done(self) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.wait(left).map_err(|source| self.gone(source))?;
            self.feed();
            self.stdout.fill().and_then(|()| self.stderr.fill()).map_err(|source| self.gone(source))?;
            if heard {
                self.hear()?;
            }
            if left.is_zero() && !done(self) {
                return Ok(false);
            }
        }
    }

    /// Waits for anything to happen; whether the box has sent word.
    fn wait(&self, limit: Duration) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.asked, PollFlags::IN)];
        if self.ended.is_none() {
            let readable = [&self.stdout.source, &self.stderr.source];
            fds.extend(readable.into_iter().flatten().map(|source| PollFd::new(source, PollFlags::IN)));
            let waiting = self.input.as_ref().filter(|_| !self.unsent.is_empty());
            fds.extend(waiting.map(|input| PollFd::new(input, PollFlags::OUT)));
        }
        match poll(&mut fds, Some(&timespec(limit))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    fn hear(&mut self) -> Result<(), CommandError> {
        match receive::<Reply>(self.asked.as_fd()).map_err(|source| self.gone(source))? {
            Some((Reply::Ended(ended), _)) => {
                // It wrote all it had to before it ended; what is in the pipes now is the rest.
                self.stdout.fill().and_then(|()| self.stderr.fill()).map_err(|source| self.gone(source))?;
                self.ended = Some(ended);
                Ok(())
            }
            Some(_) => Ok(()),
            None if self.ended.is_some() => Ok(()),
            None => Err(self.gone(io::Error::other("its first process hung up"))),
        }
    }

    fn feed(&mut self) {
        let Some(input) = &self.input else {
            self.unsent.clear();
            return;
        };
        match rustix::io::write(input, &self.unsent) {
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // It has closed its input: whether that was wrong is for its exit status to say.
            Err(_) => self.unsent.clear(),
        }
        if self.unsent.is_empty() && !self.more_input {
            self.input = None;
        }
    }

    fn gone(&self, source: io::Error) -> CommandError {
        CommandError::BoxGone { name: self.name.clone(), command: self.command.clone(), source }
    }
}

impl Stream {
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16384];
        while let Some(source) = &self.source {
            match rustix::io::read(source, &mut chunk) {
                Ok(0) => self.source = None,
                Ok(read) if self.bytes.len() + read > MOST_OUTPUT => {
                    return Err(io::Error::other(format!("it said more than {MOST_OUTPUT} bytes")));
                }
                Ok(read) => self.bytes.extend_from_slice(&chunk[..read]),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A command as a shell would take it.
pub(crate) fn shown(arguments: &[String]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&byte);
    let word = |argument: &String| match !argument.is_empty() && argument.bytes().all(plain) {
        true => argument.clone(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    };
    arguments.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The last lines of standard error, or of standard output where that is empty.
fn tail_of(output: &Output) -> String {
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    tail(text, 15)
}

/// The last `count` lines of `text`, indented.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let kept = &lines[lines.len().saturating_sub(count)..];
    kept.iter().map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let words = ["sh", "-c", "echo it's", ""].map(str::to_owned);
        assert_eq!(shown(&words), r"sh -c 'echo it'\''s' ''");
    }

    #[test]
    fn a_failure_names_box_command_status_and_last_words() {
        let output = Output { ended: Ended::Exit(3), stdout: String::new(), stderr: "one\ntwo\n".to_owned() };
        let error = CommandError::Failed { name: "laptop".to_owned(), command: "false".to_owned(), output };
        assert_eq!(error.to_string(), "box laptop: `false` ended by exit status 3\n  | one\n  | two\n");
    }

    #[test]
    fn only_the_last_lines_are_quoted() {
        assert_eq!(tail("a\nb\nc\n", 2), "  | b\n  | c\n");
    }
}
