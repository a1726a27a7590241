//! What process 1 of a box does all day: start what it is asked to, and reap what has ended.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen as start, socket_with,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

use super::{ENTER, ITSELF};
use crate::request::{Ended, Reply, Request, receive, send};

/// Commands that run, by their number inside the box.
#[derive(Default)]
struct Commands {
    running: Mutex<BTreeMap<i32, Running>>,
    begun: Condvar,
}

struct Running {
    name: String,
    keep: bool,
    asker: Arc<OwnedFd>,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Running>> {
        // A panic of another thread leaves the map whole: each change is one call.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the socket at which commands are asked for.
pub(super) fn listen(path: &Path) -> Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    start(&socket, 64)?;
    Ok(socket)
}

/// Serves commands for as long as the box lives.
pub(super) fn serve(listener: OwnedFd) -> Result<()> {
    let commands = Arc::new(Commands::default());
    let reaper = Arc::clone(&commands);
    thread::Builder::new().name("reaper".to_owned()).spawn(move || reap(&reaper)).context("starting the reaper")?;
    loop {
        match accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(asker) => {
                let commands = Arc::clone(&commands);
                let served = thread::Builder::new().spawn(move || answer(&commands, Arc::new(asker)));
                if let Err(error) = served {
                    eprintln!("no thread for a command: {error}");
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            Err(error) => return Err(error).context("waiting for commands"),
        }
    }
}

/// Starts what one asker wants, and kills it when the asker goes away before it has ended.
fn answer(commands: &Commands, asker: Arc<OwnedFd>) {
    let request = match receive::<Request>(asker.as_fd()) {
        Ok(Some((request, descriptors))) => (request, descriptors),
        Ok(None) => return,
        Err(error) => return refuse(&asker, &format!("a request that cannot be read: {error}")),
    };
    let keep = request.0.keep;
    match begin(commands, request, &asker) {
        Ok(pid) if !keep => {
            // The asker says nothing more: what ends this is its hanging up.
            let _ = receive::<Request>(asker.as_fd());
            // Under the lock nothing is reaped, so the number still means this command.
            let running = commands.lock();
            if running.contains_key(&pid.as_raw_nonzero().get()) {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
        }
        Ok(_) => {}
        Err(error) => refuse(&asker, &format!("{error:#}")),
    }
}

fn refuse(asker: &OwnedFd, why: &str) {
    // An asker that is gone needs no answer.
    let _ = send(asker.as_fd(), &Reply::Refused(why.to_owned()), &[]);
}

fn begin(commands: &Commands, request: (Request, Vec<OwnedFd>), asker: &Arc<OwnedFd>) -> Result<Pid> {
    let (request, descriptors) = request;
    let [input, output, errors]: [OwnedFd; 3] =
        descriptors.try_into().ok().context("a request comes with three descriptors")?;
    let (program, arguments) = request.arguments.split_first().context("no program")?;
    let mut command = match &request.group {
        None => Command::new(program),
        Some(group) => {
            // This program once more, so that what becomes of it is in its group from its first page of memory on.
            let mut enter = Command::new(ITSELF);
            enter.args([ENTER, group, program]);
            enter
        }
    };
    command
        .args(arguments)
        .env_clear()
        .envs(request.environment)
        .current_dir(&request.directory)
        .process_group(0)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors));
    // The reaper waits for this lock, so that the child cannot be gone before it is on the list.
    let mut running = commands.lock();
    let child = command.spawn().with_context(|| format!("starting {program}"))?;
    let pid = Pid::from_child(&child);
    let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("opening the new process")?;
    running.insert(
        pid.as_raw_nonzero().get(),
        Running { name: program.clone(), keep: request.keep, asker: Arc::clone(asker) },
    );
    // Under the lock too, so that word of the beginning comes before word of the end.
    let told = send(asker.as_fd(), &Reply::Started, &[descriptor.as_fd()]);
    if told.is_err() && request.keep {
        // Nobody will ever know of it. Where it is not to be kept, `answer` notices next that the asker is gone.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    commands.begun.notify_one();
    Ok(pid)
}

/// Reaps children and the orphans that the box's processes leave behind.
fn reap(commands: &Commands) {
    loop {
        // Looks without reaping: the number stays taken until the lock is held.
        let ready = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let mut running = commands.lock();
        if ready.is_err() {
            // No child at all. Orphans descend from commands, so the next to wait for begins with one.
            while running.is_empty() {
                running = commands.begun.wait(running).unwrap_or_else(PoisonError::into_inner);
            }
            continue;
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(command) = running.remove(&pid.as_raw_nonzero().get()) {
                report(&command, ended(status));
            }
        }
    }
}

fn report(command: &Running, ended: Ended) {
    if command.keep {
        eprintln!("{} ended by {ended}", command.name);
    }
    // An asker that is gone needs no answer.
    let _ = send(command.asker.as_fd(), &Reply::Ended(ended), &[]);
}

fn ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}
