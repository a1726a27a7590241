//! Ctrl-C, and `SIGTERM`: a task that is told to end says what it leaves, and how that goes on or goes.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{ProcessIdentity, ScratchWorld, process_numbers};
use rustix::process::Signal;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::print;

/// The variable by which the programs that a task starts are known as its own: the task's process number.
const MARK: &str = "TOWLINE_TASK";
/// How long a signal may take longer to this process than to those that it started.
const GRACE: Duration = Duration::from_millis(300);
/// How long a program may take to end that was told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long programs that were just started may take until their environment can be read.
const BEGINNING: Duration = Duration::from_millis(500);

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// From here on, runs `farewell` when this process is told to end, and then ends it as shells tell it: 128 and the signal's
/// number. Told a second time, it ends at once.
///
/// # Errors
/// When signals can't be listened to.
pub(crate) fn watch(farewell: impl FnOnce() + Send + 'static) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("listening to signals")?;
    let listening = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    drop(listening);
    IS_WATCHED.store(true, Ordering::SeqCst);
    let listen = move || {
        let code = runtime.block_on(async {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            IS_ENDING.store(true, Ordering::SeqCst);
            let said = tokio::task::spawn_blocking(farewell);
            tokio::select! {
                _ = said => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            code
        });
        std::process::exit(code);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listen).context("listening to signals")?;
    Ok(())
}

/// Whether this process was told to end: nothing else is to be said then.
pub(crate) fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}

/// Waits for the end, where this process was told to end. What fails then fails by that: the programs that it started were told
/// the same, and the end of one may be seen before the signal is.
pub(crate) fn settle() {
    if IS_WATCHED.load(Ordering::SeqCst) && !is_ending() {
        thread::sleep(GRACE);
    }
    while is_ending() {
        thread::park();
    }
}

/// Marks a program as one of this task's.
pub(crate) fn mark(command: &mut Command) {
    command.env(MARK, std::process::id().to_string());
}

/// Ends the programs of an interrupted test or benchmark and takes down the worlds that they made for themselves.
pub(crate) fn sweep() {
    say("Interrupted. What the tests run on is taken down …");
    if std::env::var_os("LAB_KEEP").is_some() {
        let kept: Vec<String> = ScratchWorld::all().iter().map(|scratch| removal(scratch.name.as_str())).collect();
        return say(&format!("LAB_KEEP is set, so the worlds stay:\n{}", kept.concat()));
    }
    end_programs();
    await_leaving();
    match ScratchWorld::sweep() {
        Ok(gone) if gone.is_empty() => say("There was no world yet, and nothing is left."),
        Ok(gone) => gone.iter().for_each(|name| say(&format!("World {name} is gone, and nothing is left."))),
        Err(error) => {
            let left: Vec<String> = ScratchWorld::all().iter().map(|scratch| removal(scratch.name.as_str())).collect();
            say(&format!("error: {error:#}\nWhat is left goes by\n{}", left.concat()));
        }
    }
}

fn removal(name: &str) -> String {
    format!("  cargo xtask down --world {name}\n")
}

/// Says something in place of the live line.
pub(crate) fn say(text: &str) {
    let clear = if std::io::IsTerminal::is_terminal(&std::io::stderr()) { "\r\x1b[2K" } else { "" };
    print::note(format_args!("{clear}{}\n", text.trim_end()));
}

/// Tells the programs that bear this task's mark to end. Who does not is killed: their worlds hold nothing of value.
fn end_programs() {
    let programs: Vec<_> = marked().iter().filter_map(ProcessIdentity::open).collect();
    for signal in [Signal::TERM, Signal::KILL] {
        for program in &programs {
            // One that has ended takes none, and of the others nobody may refuse root.
            let _ = program.signal(signal);
        }
        if programs.iter().all(|program| program.wait(PATIENCE)) {
            return;
        }
    }
}

/// Waits for the owners of worlds that are on their way out, as after a Ctrl-C of their own: until they are, their worlds are
/// no orphans, and they bear no mark any more.
fn await_leaving() {
    let owners = ScratchWorld::all().into_iter().filter_map(|scratch| scratch.owner);
    for owner in
        owners.filter(|owner| fs::read(format!("/proc/{}/environ", owner.pid)).is_ok_and(|text| text.is_empty()))
    {
        if let Some(process) = owner.open() {
            process.wait(PATIENCE);
        }
    }
}

/// The processes that bear this task's mark; those in boxes go with their boxes.
fn marked() -> Vec<ProcessIdentity> {
    let mark = format!("{MARK}={}", std::process::id());
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let deadline = Instant::now() + BEGINNING;
    let bears = |pid: &i32| {
        let environment = environment(*pid, deadline);
        let outside = fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own;
        outside && environment.split(|byte| *byte == 0).any(|setting| setting == mark.as_bytes())
    };
    process_numbers().filter(bears).filter_map(|pid| ProcessIdentity::of(pid).ok()).collect()
}

/// The environment of a process. The kernel tells who started a program that it runs a moment before it shows the program's
/// environment: until the deadline, one without any is asked again.
fn environment(pid: i32, deadline: Instant) -> Vec<u8> {
    loop {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        // What has ended, and the kernel's own, has no program.
        let may_begin = environment.is_empty() && fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        if !may_begin || Instant::now() >= deadline {
            return environment;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_bear_the_mark_are_told_to_end() {
        let mut sleep = Command::new("sleep");
        mark(sleep.arg("60"));
        let (mut ours, mut other) = (sleep.spawn().unwrap(), Command::new("sleep").arg("60").spawn().unwrap());
        end_programs();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "another program was told to end");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
