//! The pause program: the one piece of C of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use cache::{Entry, Key};

use crate::checkout::Checkout;
use crate::progress::Step;

const FLAGS: &[&str] = &["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"];

pub(crate) fn entry(checkout: &Checkout) -> Result<Entry> {
    let key = Key::of("gcc").texts("flag", FLAGS.iter().copied()).file(&source(checkout))?;
    Ok(Entry::new("bin/pause", key.finish()))
}

pub(super) fn make(checkout: &Checkout, step: &Step<'_>, draft: &Path) -> Result<()> {
    step.run(Command::new("gcc").args(FLAGS).arg("-o").arg(draft).arg(source(checkout)))
}

fn source(checkout: &Checkout) -> PathBuf {
    checkout.path("tools/pause/pause.c")
}
