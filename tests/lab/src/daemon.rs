//! A program that stays: started in a box with a log and a sign of readiness, and found again by its record.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::command::{self, tail, usual_environment};
use crate::folder::{read_record, write_record};
use crate::lab_box::LabBox;
use crate::plan::is_label;
use crate::process::ProcessIdentity;
use crate::readiness::{self, Ready};
use crate::request::Request;

/// How long a daemon may take to become ready, and to end, when nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon about to be started: [`LabBox::daemon`] makes one.
#[derive(Debug)]
#[must_use = "a daemon starts when `start` is called"]
pub struct DaemonStart<'a> {
    lab_box: &'a LabBox,
    spec: DaemonSpec,
}

/// What makes a daemon this one and no other: another spec means a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DaemonSpec {
    name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: String,
    ready: Ready,
    /// How long that may take.
    patience: Duration,
    /// Changes when the files change that the daemon reads at its start.
    configuration: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DaemonRecord {
    spec: DaemonSpec,
    process: ProcessIdentity,
    /// Where in the log this run begins.
    log_offset: u64,
}

/// A daemon of a box, by its record: it may run or have ended.
///
/// A value of this type is a name tag; dropping it leaves the daemon as it is.
#[derive(Clone, Debug)]
pub struct Daemon {
    lab_box: LabBox,
    record: DaemonRecord,
}

impl LabBox {
    /// Begins a daemon called `name`: program (found by the box's `PATH`) and arguments.
    pub fn daemon<S: Into<String>>(&self, name: &str, arguments: impl IntoIterator<Item = S>) -> DaemonStart<'_> {
        let spec = DaemonSpec {
            name: name.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: usual_environment(),
            directory: "/root".to_owned(),
            ready: Ready::AtOnce,
            patience: PATIENCE,
            configuration: String::new(),
        };
        DaemonStart { lab_box: self, spec }
    }

    /// All daemons that were started in the box and not stopped, sorted by name.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn daemons(&self) -> Result<Vec<Daemon>> {
        let folder = self.folder().of_box(self.name()).join("daemons");
        let mut names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
            .collect();
        names.sort();
        names.iter().filter_map(|name| self.find_daemon(name).transpose()).collect()
    }

    /// The daemon called `name`, were it started and not stopped.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn find_daemon(&self, name: &str) -> Result<Option<Daemon>> {
        let record = read_record(&record_path(self, name))?;
        Ok(record.map(|record| Daemon { lab_box: self.clone(), record }))
    }
}

impl DaemonStart<'_> {
    /// Sets one variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.spec.environment.retain(|(known, _)| known != name);
        self.spec.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the folder it starts in; else `/root`.
    pub fn directory(mut self, path: &str) -> Self {
        path.clone_into(&mut self.spec.directory);
        self
    }

    /// Sets what must be seen before it counts as ready; else it is ready at once.
    pub fn ready(mut self, ready: Ready) -> Self {
        self.spec.ready = ready;
        self
    }

    /// Sets how long that may take; else half a minute.
    pub fn within(mut self, limit: Duration) -> Self {
        self.spec.patience = limit;
        self
    }

    /// Writes a file that it reads at its start: a daemon that runs with another content is started anew.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn config(mut self, path: &str, content: &str) -> Result<Self> {
        use std::fmt::Write;
        self.lab_box.write(path, content, 0o600)?;
        // Written into a string, which cannot fail.
        let _ = write!(self.spec.configuration, "{path}\n{content}\n");
        Ok(self)
    }

    /// Starts it, unless just this daemon runs already, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time (it is killed then), with the end of its log.
    pub fn start(self) -> Result<Daemon> {
        ensure!(is_label(&self.spec.name, 40), "daemon name {:?}: at most 40 of a-z, 0-9 and -", self.spec.name);
        if let Some(daemon) = self.lab_box.find_daemon(&self.spec.name)? {
            if daemon.is_running() && daemon.record.spec == self.spec {
                // Whoever started it may have been cut off before it was ready.
                daemon.wait_ready()?;
                return Ok(daemon);
            }
            daemon.stop()?;
        }
        launch(self.lab_box, self.spec)
    }
}

impl Daemon {
    /// Name of the daemon.
    pub fn name(&self) -> &str {
        &self.record.spec.name
    }

    /// Its main process.
    pub fn process(&self) -> ProcessIdentity {
        self.record.process
    }

    /// The computer that it runs on.
    pub fn lab_box(&self) -> &LabBox {
        &self.lab_box
    }

    /// The command it was started by.
    pub fn arguments(&self) -> &[String] {
        &self.record.spec.arguments
    }

    /// Its log on the machine, standard output and error of all its runs.
    pub fn log_path(&self) -> PathBuf {
        self.lab_box.folder().log(self.lab_box.name(), self.name())
    }

    /// What this run has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let path = self.log_path();
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let offset = usize::try_from(self.record.log_offset).unwrap_or(0).min(text.len());
        Ok(String::from_utf8_lossy(&text[offset..]).into_owned())
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.record.process.is_alive()
    }

    /// Whether it runs a program that another file has replaced since.
    pub(crate) fn is_outdated(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.record.process.pid));
        self.is_running() && program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
    }

    /// Looks once whether it is ready.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn check(&self) -> Result<()> {
        ensure!(self.is_running(), "it has ended");
        readiness::check(&self.lab_box, &self.record.spec.ready, &self.log_path(), self.record.log_offset)
    }

    /// Waits until it is ready, as long as its start said.
    ///
    /// # Errors
    /// When it ends before, or is not ready in time; with the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        let spec = &self.record.spec;
        self.wait(&spec.ready, spec.patience)
    }

    /// Waits until this run's log holds `text`.
    ///
    /// # Errors
    /// When it ends before, or does not say so within `limit`.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        self.wait(&Ready::Log(text.to_owned()), limit)
    }

    /// Sends it a signal; one that has ended takes none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.record.process.open() {
            Some(process) => process.signal(signal).with_context(|| format!("signalling {}", self.name())),
            None => Ok(()),
        }
    }

    /// Kills it without a word before, and leaves its record: [`Daemon::restart`] brings it back.
    ///
    /// # Errors
    /// When it survives.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Asks it to end (`SIGTERM`), kills it when it does not, and forgets it.
    ///
    /// # Errors
    /// When it survives.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)?;
        let path = record_path(&self.lab_box, self.name());
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Stops it where it runs and starts it as before.
    ///
    /// # Errors
    /// As [`Daemon::stop`] and [`DaemonStart::start`].
    pub fn restart(&self) -> Result<Self> {
        self.end(Signal::TERM)?;
        launch(&self.lab_box, self.record.spec.clone())
    }

    fn wait(&self, ready: &Ready, limit: Duration) -> Result<()> {
        let waited = match self.record.process.open() {
            Some(process) => {
                readiness::wait(&self.lab_box, ready, &process, &self.log_path(), self.record.log_offset, limit)
            }
            None => Err(anyhow!("it has ended")),
        };
        waited.with_context(|| {
            let said = tail(&self.log().unwrap_or_default(), 20);
            format!("box {}: daemon {}; the end of its log:\n{said}", self.lab_box.name(), self.name())
        })
    }

    fn end(&self, first: Signal) -> Result<()> {
        let Some(process) = self.record.process.open() else { return Ok(()) };
        process.signal(first)?;
        if process.wait(PATIENCE / 3) {
            return Ok(());
        }
        process.signal(Signal::KILL)?;
        ensure!(process.wait(PATIENCE / 3), "box {}: {} does not die", self.lab_box.name(), self.name());
        Ok(())
    }
}

fn record_path(lab_box: &LabBox, name: &str) -> PathBuf {
    lab_box.folder().of_box(lab_box.name()).join("daemons").join(format!("{name}.json"))
}

fn launch(lab_box: &LabBox, spec: DaemonSpec) -> Result<Daemon> {
    use std::os::fd::AsFd;
    let what = || format!("box {}: daemon {}", lab_box.name(), spec.name);
    kill_strays(lab_box, &spec).with_context(what)?;
    let log_path = lab_box.folder().log(lab_box.name(), &spec.name);
    let log = crate::lab_box::open_log(&log_path)?;
    let log_offset = log.metadata().context("looking at the log")?.len();
    let request = Request {
        arguments: spec.arguments.clone(),
        environment: spec.environment.clone(),
        directory: spec.directory.clone(),
        keep: true,
        group: Some(group_of(&spec.name)),
    };
    let process = command::start(lab_box, &request, Some(log.as_fd())).with_context(what)?.process;
    let ended_at_once = || {
        let said = fs::read_to_string(&log_path).unwrap_or_default();
        format!("it ended at once; its log:\n{}", tail(&said, 20))
    };
    let pid = process.pid().with_context(what)?;
    let identity = ProcessIdentity::of(pid).with_context(ended_at_once).with_context(what)?;
    let record = DaemonRecord { spec: spec.clone(), process: identity, log_offset };
    write_record(&record_path(lab_box, &spec.name), &record)?;
    let daemon = Daemon { lab_box: lab_box.clone(), record };
    if let Err(error) = daemon.wait_ready() {
        daemon.stop().with_context(what)?;
        return Err(error);
    }
    Ok(daemon)
}

/// The cgroup of a daemon, below the root that its box sees.
pub(crate) fn group_of(name: &str) -> String {
    format!("daemon-{name}")
}

/// Kills what runs this very command in the box without a record: the rest of a start that was cut off.
fn kill_strays(lab_box: &LabBox, spec: &DaemonSpec) -> Result<()> {
    let group = cgroup::group_of(lab_box.folder().name(), lab_box.name());
    for process in cgroup::processes_in(&group) {
        let command_line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        if let (true, Some(open)) = (is_start_of(&command_line, spec), process.open()) {
            open.signal(Signal::KILL)?;
            open.wait(PATIENCE / 3);
        }
    }
    Ok(())
}

/// Whether this is a daemon's command, or the one by which the box's first process starts it, which becomes it.
fn is_start_of(command_line: &[u8], spec: &DaemonSpec) -> bool {
    let line = |words: &[&str]| words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>();
    let daemon = line(&spec.arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let entering = line(&[crate::init::ITSELF, crate::init::ENTER, &group_of(&spec.name)]);
    command_line == daemon || command_line.strip_prefix(entering.as_slice()) == Some(&daemon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_was_cut_off_is_known_before_and_after_it_became_the_daemon() {
        let spec = DaemonSpec {
            name: "web".to_owned(),
            arguments: ["lab-init", "web", "hello"].map(str::to_owned).into(),
            environment: Vec::new(),
            directory: "/".to_owned(),
            ready: Ready::AtOnce,
            patience: PATIENCE,
            configuration: String::new(),
        };
        assert!(is_start_of(b"lab-init\0web\0hello\0", &spec));
        assert!(is_start_of(b"/proc/self/exe\0enter\0daemon-web\0lab-init\0web\0hello\0", &spec));
        for other in [
            &b"lab-init\0web\0hello, you\0"[..],
            b"/proc/self/exe\0enter\0daemon-other\0lab-init\0web\0hello\0",
            b"grep\0lab-init\0web\0hello\0",
            b"",
        ] {
            assert!(!is_start_of(other, &spec), "{}", String::from_utf8_lossy(other));
        }
    }
}
