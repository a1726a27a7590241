use std::fmt::Write;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use lab::{Event, StepState};

/// Named scenarios, run one after the other: what one leaves behind, the next begins with.
///
/// What is printed of one, a line each as soon as it is so: `begin  NAME`; `now    STEP` and `done   STEP (TIME)` for each
/// step of its own; and `ok     NAME (TIMES)` or `FAILED NAME (TIMES)`.
#[derive(Debug, Default)]
pub struct Checks {
    failed: u32,
}

/// When in the course of a scenario what was reached.
#[derive(Debug)]
pub struct Marks {
    started: Instant,
    /// A listener to the making of a world notes from several threads.
    reached: Mutex<Vec<String>>,
}

impl Checks {
    /// Runs a test program's scenarios and makes its exit code; `run` fails when there is no stage to run them on.
    pub fn main(run: impl FnOnce(&mut Self) -> Result<()>) -> ExitCode {
        let mut checks = Self::default();
        if let Err(error) = run(&mut checks) {
            println!("FAILED to set the stage\n{error:#}");
            checks.failed += 1;
        }
        if checks.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// How many scenarios have failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Runs a scenario and says how it ended; later ones run all the same.
    pub fn check(&mut self, name: &str, scenario: impl FnOnce() -> Result<()>) {
        self.timed(name, |_| scenario());
    }

    /// As [`Checks::check`], for a scenario that notes when it reached what, counted from its begin; returns what it made.
    pub fn timed<T>(&mut self, name: &str, scenario: impl FnOnce(&mut Marks) -> Result<T>) -> Option<T> {
        println!("begin  {name}");
        let mut marks = Marks::start();
        let ended = scenario(&mut marks);
        let times = marks.end();
        match ended {
            Ok(made) => {
                println!("ok     {name} ({times})");
                Some(made)
            }
            Err(error) => {
                println!("FAILED {name} ({times})\n{error:#}");
                self.failed += 1;
                None
            }
        }
    }
}

impl Marks {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), reached: Mutex::default() }
    }

    /// Notes that something is reached now.
    pub fn reached(&self, what: impl Into<String>) {
        self.tell(format!("{} {:.1} s", what.into(), self.started.elapsed().as_secs_f32()));
    }

    /// Notes something to be said beside the scenario's end.
    pub fn tell(&self, what: impl Into<String>) {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// Shows steps as they begin and end, and notes their ends.
    pub fn listen(&self, event: &Event) {
        Self::show(event);
        if matches!(event.state, StepState::Done(_)) {
            self.reached(format!("{} after", event.step));
        }
    }

    /// Shows steps as they begin and end, without a note of them.
    pub fn show(event: &Event) {
        let step = &event.step;
        match event.state {
            StepState::Begun => println!("now    {step}"),
            StepState::Done(took) => println!("done   {step} ({:.1} s)", took.as_secs_f32()),
            StepState::Failed(took) => println!("done   {step}, which failed ({:.1} s)", took.as_secs_f32()),
        }
    }

    fn end(self) -> String {
        let whole = self.started.elapsed().as_secs_f32();
        let mut times = String::new();
        for what in self.reached.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a string cannot fail.
            let _ = write!(times, "{what}, ");
        }
        let _ = write!(times, "{whole:.1} s");
        times
    }
}
