//! `cargo xtask down`, `shell`, `status`, `sign-in`: what to do with a world that `cargo xtask up` made.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use cache::Cache;
use clap::Parser;
use e2e::{Browser, Overview};
use lab::{Event, StepState, World, WorldName};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::progress::{Progress, duration};
use crate::{Task, print};

/// The world that people work in, when they name none.
pub(crate) const DEMO: &str = "demo";

/// Remove a world: its processes, namespaces, mounts and files, whole or half made
#[derive(Parser)]
#[command(name = "down")]
pub(crate) struct Down {
    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

/// Open a prompt in a box of a world, or run a command there: laptop, robbinsdale, control, relay2, node1, node2, …
///
/// Ends as the prompt or the command does, for example
///     cargo xtask shell laptop
///     cargo xtask shell laptop -- towline status
#[derive(Parser)]
#[command(name = "shell", verbatim_doc_comment)]
pub(crate) struct Shell {
    /// The box
    name: String,

    /// The command and its arguments; none opens a prompt
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

/// Show what runs where in a world; exits with 1 when something is not as it should be
#[derive(Parser)]
#[command(name = "status")]
pub(crate) struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

/// Open the URL that a login shows, sign in, and let the device in: a person with a browser
///
/// The boxes have no screen, and a browser outside of them does not reach the coordination server.
#[derive(Parser)]
#[command(name = "sign-in")]
pub(crate) struct SignIn {
    /// The URL
    url: String,

    /// Who signs in: admin@example.com or member@example.com
    #[arg(long)]
    user: String,

    /// The box where the browser is
    #[arg(long = "box", value_name = "NAME", default_value = "laptop")]
    place: String,

    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

impl Task for Down {
    fn run(self) -> Result<ExitCode> {
        World::down(&WorldName::parse(&self.world)?)?;
        print::line(format_args!("The world {} is gone.", self.world))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Task for Shell {
    fn run(self) -> Result<ExitCode> {
        let place = World::attach(&WorldName::parse(&self.world)?)?.lab_box(&self.name)?;
        let status = place.interactive(&self.command)?;
        // As a shell tells it: 128 and the signal's number, where a signal ended it.
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

impl Task for Status {
    fn run(self) -> Result<ExitCode> {
        let overview = Overview::of(&World::attach(&WorldName::parse(&self.world)?)?)?;
        if self.json {
            print::line(serde_json::to_string_pretty(&overview)?)?;
        } else {
            print::answer(&overview)?;
        }
        Ok(if overview.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Task for SignIn {
    fn run(self) -> Result<ExitCode> {
        let place = World::attach(&WorldName::parse(&self.world)?)?.lab_box(&self.place)?;
        let browser = Browser::open(&place, "sign-in")?;
        let page = browser.sign_in(&self.url, &self.user)?;
        browser.let_in(&page)?;
        print::line(format_args!("{} let the device in.", self.user))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Builds the laboratory's first process and keeps it under its digest, for worlds to outlive the checkout.
pub(crate) fn init(cache: &Cache, checkout: &Checkout, progress: &Progress) -> Result<PathBuf> {
    progress.step("lab-init", |step| {
        let mut cargo = checkout.cargo(cache, step)?;
        cargo.args(["build", "--package=lab", "--bin=lab-init", "--message-format=json-render-diagnostics"]);
        let messages = step.output(&mut cargo)?;
        let executable = messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_ours = message["target"]["name"] == "lab-init";
            is_ours.then(|| message["executable"].as_str().map(PathBuf::from))?
        });
        let executable = executable.context("cargo build names no executable called lab-init")?;
        keep(cache, &executable, &mut |holder| step.waiting(holder))
    })
}

fn keep(cache: &Cache, executable: &Path, waiting: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let digest = cache::Key::of("lab-init, 1").file(executable)?.finish();
    let folder = cache.store(&format!("lab-init/{digest}"), waiting, |draft| {
        fs::create_dir_all(draft).with_context(|| format!("making {}", draft.display()))?;
        let copy = draft.join("lab-init");
        fs::copy(executable, &copy).with_context(|| format!("copying {}", executable.display())).map(drop)
    })?;
    Ok(folder.join("lab-init"))
}

pub(crate) fn tell(progress: &Progress, event: &Event) {
    match event.state {
        StepState::Begun => progress.now(&format!("{} …", event.step)),
        StepState::Done(took) => progress.line(&format!("{}: done in {}", event.step, duration(took))),
        StepState::Failed(took) => progress.line(&format!("{}: failed after {}", event.step, duration(took))),
    }
}
