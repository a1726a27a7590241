//! `cargo xtask down`, `shell`, `status`, `sign-in`: what to do with a world that `cargo xtask up` made.

mod name;
pub(crate) mod status;

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use cache::Cache;
use clap::Parser;
use e2e::{ADMIN, Browser, CONTROL_URL, Installation, MEMBER};
use lab::{Event, StepState, World, WorldName};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::progress::{Progress, duration};
use crate::{Task, print};
pub(crate) use name::{DEMO, attach, option};
pub(crate) use status::Status;

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
/// Ends as the prompt or the command does.
#[derive(Parser)]
#[command(
    name = "shell",
    after_long_help = "Examples:\n  cargo xtask shell laptop\n  cargo xtask shell laptop -- towline status"
)]
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

/// Open the URL that a login shows, sign in, and let the device in: a person with a browser
///
/// The boxes have no screen, and a browser outside of them does not reach the coordination server.
#[derive(Parser)]
#[command(name = "sign-in")]
pub(crate) struct SignIn {
    /// The URL
    url: String,

    /// Who signs in: admin@example.com, member@example.com, or a user made since
    #[arg(long, value_name = "NAME")]
    user: String,

    /// The password of a user made since
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,

    /// The box where the browser is
    #[arg(long = "box", value_name = "NAME", default_value = "laptop")]
    place: String,

    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

impl Task for Down {
    fn run(self) -> Result<ExitCode> {
        let name = WorldName::parse(&self.world)?;
        if World::has_traces(&name) {
            World::down(&name)?;
            print::line(format_args!("The world {name} is gone."))?;
            return Ok(ExitCode::SUCCESS);
        }
        let there = name::those(&World::all());
        // Who names no world wants everything to be as before, and it is.
        ensure!(self.world == DEMO, "there is no world {name}{there}");
        print::line(format_args!("There is no world {name}, and nothing to remove{there}."))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Task for Shell {
    fn run(self) -> Result<ExitCode> {
        let place = attach(&self.world)?.lab_box(&self.name)?;
        let status = place.interactive(&self.command)?;
        // As a shell tells it: 128 and the signal's number, where a signal ended it.
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

impl Task for SignIn {
    fn run(self) -> Result<ExitCode> {
        check_url(&self.url)?;
        let is_known = [ADMIN, MEMBER].contains(&self.user.as_str());
        let password = self.password.or_else(|| is_known.then(|| Installation::password(&self.user)));
        let password = password.with_context(|| {
            format!(
                "the password of {} is not known here: add --password, or sign in as {ADMIN} or {MEMBER}",
                self.user
            )
        })?;
        let place = attach(&self.world)?.lab_box(&self.place)?;
        let browser = Browser::open(&place, "sign-in")?;
        let page = browser.sign_in_with(&self.url, &self.user, &password)?;
        browser.let_in(&page)?;
        print::line(format_args!("{} let the device in.", self.user))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether it is a URL that a login shows.
fn check_url(url: &str) -> Result<()> {
    let path = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
    let login = path.and_then(|path| path.strip_prefix("a/")).unwrap_or_default();
    ensure!(!login.is_empty(), "{url:?} is no URL that a login shows: those begin with {CONTROL_URL}/a/");
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_url_that_a_login_shows_is_opened() {
        check_url("https://control.towline.test/a/0123abc").unwrap();
        for wrong in ["xyz", "https://control.towline.test", "https://control.towline.test/a/", "/a/x", "--user"] {
            let message = check_url(wrong).unwrap_err().to_string();
            assert!(message.contains("no URL that a login shows") && message.contains("/a/"), "{message}");
        }
    }

    #[test]
    fn a_world_that_is_not_there_cannot_be_taken_down() {
        let down = |world: &str| Down { world: world.to_owned() }.run();
        let message = down("never-made").unwrap_err().to_string();
        assert!(message.starts_with("there is no world never-made"), "{message}");
    }
}
