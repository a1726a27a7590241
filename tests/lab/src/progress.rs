//! What a world tells while it is being made.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// One thing that happened while a world was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the step, unique within one `up`: `boxes`, `names`, `etcd`, …
    pub step: String,
    /// What became of it.
    pub state: StepState,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It has begun.
    Begun,
    /// It is done, after this time.
    Done(Duration),
    /// It failed, after this time; the error follows as the result of `up`.
    Failed(Duration),
}

/// Who listens to events, from several threads at once.
pub type Listener<'a> = &'a (dyn Fn(Event) + Sync);

/// A listener for callers who want to hear nothing.
pub fn silent(_: Event) {}

/// Does one step, telling the listener when it begins and how it ends.
///
/// # Errors
/// What `work` fails with, after the name of the step.
pub fn step<T>(listener: Listener<'_>, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let tell = |state| listener(Event { step: name.to_owned(), state });
    let begun = Instant::now();
    tell(StepState::Begun);
    let result = work();
    let took = begun.elapsed();
    tell(if result.is_ok() { StepState::Done(took) } else { StepState::Failed(took) });
    result.with_context(|| format!("step {name}"))
}
