//! What a task shows while it works: on a terminal one live line with the time and the log's last line, elsewhere plain
//! lines. What the programs of a step print goes to a log of its own, named when the step fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use cache::Cache;
use lab::Deadline;

use crate::{interrupt, print};

/// How often the live line is drawn.
const LIVE: Duration = Duration::from_millis(500);
/// How often a long step says, without a terminal, what it is at.
const STILL_WORKING: Duration = Duration::from_secs(15);
/// How much of a log's last line is shown without a terminal.
const LONGEST_WORD: usize = 100;
/// How many of a log's last lines an error quotes.
const QUOTED_LINES: usize = 25;
/// How long a program may take: longer than all that do end.
const LONGEST: Duration = Duration::from_secs(8 * 3600);
/// Logs of finished tasks are kept this long.
const LOGS_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// The progress of one task.
pub(crate) struct Progress {
    logs: PathBuf,
    terminal: bool,
    steps: AtomicUsize,
}

/// One step of a task while it runs.
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    title: String,
    log: PathBuf,
}

impl Progress {
    /// Starts the progress of `task`, with a folder of logs in the cache.
    pub(crate) fn start(cache: &Cache, task: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let logs = cache.logs().join(format!("{now}-{}-{task}", std::process::id()));
        remove_old_logs(&cache.logs());
        Ok(Self { logs, terminal: io::stderr().is_terminal(), steps: AtomicUsize::new(1) })
    }

    /// The folder of the task's logs.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Runs `work` as a step called `title`, and says how long it took.
    ///
    /// # Errors
    /// What `work` fails with, after the path and the last lines of the step's log.
    pub(crate) fn step<T>(&self, title: &str, work: impl FnOnce(&Step<'_>) -> Result<T>) -> Result<T> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let name: String =
            title.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        let step =
            Step { progress: self, title: title.to_owned(), log: self.logs.join(format!("{number:02}-{name}.log")) };
        fs::create_dir_all(&self.logs).with_context(|| format!("making {}", self.logs.display()))?;
        let started = Instant::now();
        if !self.terminal {
            print::note(format_args!("{title} …\n"));
        }
        let ended = Ended::default();
        let result = thread::scope(|scope| {
            scope.spawn(|| step.show_until(&ended, started));
            let _end = EndOnDrop(&ended);
            work(&step)
        });
        let took = duration(started.elapsed());
        if result.is_err() {
            interrupt::settle();
        }
        match &result {
            Ok(_) => self.line(&format!("{title}: done in {took}")),
            Err(_) => self.line(&format!("{title}: failed after {took}")),
        }
        result.with_context(|| step.failure())
    }

    /// Whether there is a terminal, with a live line of what is being done.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    /// Shows on a terminal, until the next line, what is being done.
    pub(crate) fn now(&self, text: &str) {
        if self.terminal && !interrupt::is_ending() {
            let line: String = text.chars().take(terminal_width()).collect();
            print::note(format_args!("\r\x1b[2K{line}"));
        }
    }

    /// Prints a line of its own, above the live one.
    pub(crate) fn line(&self, text: &str) {
        if interrupt::is_ending() {
            return;
        }
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        print::note(format_args!("{clear}{text}\n"));
    }
}

impl Step<'_> {
    /// The file that keeps what the step's programs print.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Says that another process holds what this step needs.
    pub(crate) fn waiting(&self, holder: &str) {
        self.progress.line(&format!("{}: waiting for {holder}, which is making it", self.title));
    }

    /// Prints a line about the step.
    pub(crate) fn say(&self, text: &str) {
        self.progress.line(&format!("{}: {text}", self.title));
    }

    /// Runs a program to its end; what it prints goes to the log.
    ///
    /// # Errors
    /// When it cannot be started or ends with anything but success.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let status = self.status(command)?;
        if !status.success() {
            bail!("{} ended with {status}", name_of(command));
        }
        Ok(())
    }

    /// Runs a program to its end and returns how it ended; what it prints goes to the log.
    pub(crate) fn status(&self, command: &mut Command) -> Result<ExitStatus> {
        let log = self.open_log(command)?;
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let mut child = command.spawn().with_context(|| format!("starting {}", name_of(command)))?;
        let deadline = Deadline::of(&child, LONGEST);
        let status = child.wait();
        deadline.kept().with_context(|| name_of(command))?;
        Ok(settled(status.with_context(|| format!("waiting for {}", name_of(command)))?))
    }

    /// Runs a program to its end and returns what it printed; its errors go to the log.
    ///
    /// # Errors
    /// When it cannot be started, ends with anything but success, or prints something else than text.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        let log = self.open_log(command)?;
        command.stdin(Stdio::null()).stderr(log).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("starting {}", name_of(command)))?;
        let deadline = Deadline::of(&child, LONGEST);
        let output = child.wait_with_output();
        deadline.kept().with_context(|| name_of(command))?;
        let output = output.with_context(|| format!("waiting for {}", name_of(command)))?;
        if !output.status.success() {
            bail!("{} ended with {}", name_of(command), output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", name_of(command)))
    }

    /// Runs a program to its end and hands over each line as soon as it is printed; its errors go to the log, and the lines too.
    pub(crate) fn lines(&self, command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
        let mut log = self.open_log(command)?;
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", name_of(command)))?;
        let deadline = Deadline::of(&child, LONGEST);
        for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
            let line = line.with_context(|| format!("reading what {} prints", name_of(command)))?;
            writeln!(log, "{line}").with_context(|| format!("writing {}", self.log.display()))?;
            each(&line);
        }
        let status = child.wait();
        deadline.kept().with_context(|| name_of(command))?;
        Ok(settled(status.with_context(|| format!("waiting for {}", name_of(command)))?))
    }

    /// Like [`Step::run`], and again, `attempts` times in all, when the log reads as if the network failed.
    pub(crate) fn run_over_network(&self, attempts: usize, mut command: impl FnMut() -> Command) -> Result<()> {
        for attempt in 1..attempts {
            let start = fs::metadata(&self.log).map_or(0, |log| log.len());
            if self.status(&mut command())?.success() {
                return Ok(());
            }
            if !reads_like_a_network_failure(&read_from(&self.log, start)) {
                bail!("{} failed", name_of(&command()));
            }
            self.say(&format!("the network failed, attempt {} of {attempts}", attempt + 1));
        }
        self.run(&mut command())
    }

    fn open_log(&self, command: &Command) -> Result<File> {
        let problem = || format!("opening the log {}", self.log.display());
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log).with_context(problem)?;
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        writeln!(log, "$ {} {}", name_of(command), arguments.join(" ")).with_context(problem)?;
        Ok(log)
    }

    fn failure(&self) -> String {
        let text = read_from(&self.log, 0);
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return self.title.clone();
        }
        let last = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n  | ");
        format!("{}; its log {} ends\n  | {last}\n", self.title, self.log.display())
    }

    fn show_until(&self, ended: &Ended, started: Instant) {
        let pause = if self.progress.terminal { LIVE } else { STILL_WORKING };
        while !ended.wait(pause) && !interrupt::is_ending() {
            let elapsed = duration(started.elapsed());
            if self.progress.terminal {
                let text = format!("{}  {elapsed}  {}", self.title, last_line(&self.log));
                let line: String = text.chars().take(terminal_width()).collect();
                print::note(format_args!("\r\x1b[2K{line}"));
            } else {
                print::note(format_args!("{}\n", still_working(&self.title, &elapsed, &last_line(&self.log))));
            }
        }
    }
}

/// What a long step says without a terminal: how long it takes, and what its log said last.
fn still_working(title: &str, elapsed: &str, last: &str) -> String {
    let last: String = last.chars().take(LONGEST_WORD).collect();
    let end = if last.is_empty() { "" } else { ": " };
    format!("{title}: still at it after {elapsed}{end}{last}")
}

/// How a program ended; one that was interrupted with this process is not heard of any more.
fn settled(status: ExitStatus) -> ExitStatus {
    if !status.success() {
        interrupt::settle();
    }
    status
}

/// Tells the thread that draws the live line that the step has ended.
#[derive(Default)]
struct Ended {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    /// Waits for the end, at most `pause`; whether it has come.
    fn wait(&self, pause: Duration) -> bool {
        let flag = self.flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (flag, _) =
            self.changed.wait_timeout_while(flag, pause, |ended| !*ended).unwrap_or_else(PoisonError::into_inner);
        *flag
    }
}

struct EndOnDrop<'a>(&'a Ended);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

fn name_of(command: &Command) -> String {
    let path = Path::new(command.get_program());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A duration as people say it: `0.4s`, `12s`, `3m05s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", time.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        _ => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

/// What programs that download say when the network, or the far end, and not the request is at fault.
fn reads_like_a_network_failure(text: &str) -> bool {
    const SIGNS: &[&str] = &[
        "connection refused",
        "connection reset",
        "Connection timed out",
        "Could not resolve",
        "Couldn't download",
        "dial tcp",
        "i/o timeout",
        "INTERNAL_ERROR; received from peer",
        "no such host",
        "Temporary failure",
        "TLS handshake timeout",
        "unexpected EOF",
        "429 Too Many",
        "500 Internal",
        "502 Bad",
        "503 Service",
        "504 Gateway",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The log from `start` on, at most its last 64 KiB.
fn read_from(log: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let start = start.max(file.metadata()?.len().saturating_sub(64 * 1024));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(64 * 1024).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last line that a program left in the log, without control characters.
fn last_line(log: &Path) -> String {
    let text = read_from(log, 0);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().filter(|letter| !letter.is_control()).collect()
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col).max(20)) - 1
}

/// Old logs help nobody; that one cannot be removed is no reason not to work.
fn remove_old_logs(folder: &Path) {
    let Ok(logs) = fs::read_dir(folder) else { return };
    for log in logs.flatten() {
        let age = log.metadata().and_then(|found| found.modified()).map(|modified| modified.elapsed());
        if age.is_ok_and(|age| age.is_ok_and(|age| age > LOGS_KEPT)) {
            let _ = fs::remove_dir_all(log.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> (tempfile::TempDir, Progress) {
        let folder = tempfile::tempdir().unwrap();
        let progress = Progress::start(&Cache::at(folder.path()).unwrap(), "probe").unwrap();
        (folder, progress)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_step_names_its_log_and_quotes_its_end() {
        let (_folder, progress) = progress();
        let mut log = PathBuf::new();
        let result = progress.step("probe", |step| {
            log = step.log().to_owned();
            step.run(&mut shell("echo the reason >&2; exit 3"))
        });
        let message = format!("{:#}", result.unwrap_err());
        assert!(message.contains("the reason") && message.contains(&log.display().to_string()), "{message}");
        assert!(message.contains("exit status: 3"), "{message}");
    }

    #[test]
    fn a_network_failure_is_tried_again_a_bounded_number_of_times() {
        let (folder, progress) = progress();
        let count = folder.path().join("count");
        let script = format!("echo x >>{}; echo 'dial tcp: i/o timeout'; exit 1", count.display());
        let result = progress.step("probe", |step| step.run_over_network(3, || shell(&script)));
        assert!(result.is_err());
        assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 3);
    }

    #[test]
    fn another_failure_is_not_tried_again() {
        let (folder, progress) = progress();
        let count = folder.path().join("count");
        let script = format!("echo x >>{}; echo 'does not compile'; exit 1", count.display());
        let result = progress.step("probe", |step| step.run_over_network(3, || shell(&script)));
        assert!(result.is_err());
        assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 1);
    }

    #[test]
    fn lines_are_handed_over_and_kept() {
        let (_folder, progress) = progress();
        let mut heard = Vec::new();
        let log = progress.step("probe", |step| {
            let status = step.lines(&mut shell("echo one; echo two; exit 3"), |line| heard.push(line.to_owned()))?;
            assert_eq!(status.code(), Some(3));
            Ok(fs::read_to_string(step.log())?)
        });
        assert_eq!(heard, ["one", "two"]);
        assert!(log.unwrap().ends_with("one\ntwo\n"));
    }

    #[test]
    fn without_a_terminal_a_long_step_says_what_it_is_at() {
        let said = still_working("towline", "15s", "   Compiling control v0.1.0".trim());
        assert_eq!(said, "towline: still at it after 15s: Compiling control v0.1.0");
        assert_eq!(still_working("tree", "30s", ""), "tree: still at it after 30s");
    }

    #[test]
    fn durations_are_printed_as_people_say_them() {
        assert_eq!(duration(Duration::from_millis(420)), "0.4s");
        assert_eq!(duration(Duration::from_secs(42)), "42s");
        assert_eq!(duration(Duration::from_secs(185)), "3m05s");
    }
}
