//! `cargo xtask up`, `down`, `shell`, `status`: the walkthrough's world, to try things in by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use cache::Cache;
use clap::Parser;
use lab::{Event, Options, StepState, World, WorldName};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::fetch;
use crate::progress::{Progress, duration};
use crate::{Task, build};

/// The world that people work in, when they name none.
const DEMO: &str = "demo";

/// Make the walkthrough's world and leave it running
///
/// Fetches and builds what is missing, then starts the boxes, their networks and names, and Kubernetes on two of them.
/// Run again it completes what is missing and changes nothing else. `cargo xtask down` removes it.
#[derive(Parser)]
#[command(name = "up")]
pub(crate) struct Up {
    /// Only the boxes and their networks, without Kubernetes
    #[arg(long)]
    no_cluster: bool,

    /// The world's name; several may run side by side
    #[arg(long, default_value = DEMO)]
    world: String,
}

/// Remove a world: its processes, namespaces, mounts and files, whole or half made
#[derive(Parser)]
#[command(name = "down")]
pub(crate) struct Down {
    /// The world's name
    #[arg(long, default_value = DEMO)]
    world: String,
}

/// Open a prompt in a box of a world: laptop, robbinsdale, control, relay2, node1, node2, …
#[derive(Parser)]
#[command(name = "shell")]
pub(crate) struct Shell {
    /// The box
    name: String,

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

impl Task for Up {
    fn run(self) -> Result<ExitCode> {
        let name = WorldName::parse(&self.world)?;
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "up")?;
        fetch::everything(&cache, &checkout, &progress)?;
        let built = build::build(&cache, &checkout, &progress, false)?;
        let mut options = Options::started_by(init(&cache, &checkout, &progress)?)?;
        options.cluster = !self.no_cluster;
        let world = World::up(&name, &options, &|event| tell(&progress, &event))?;
        world.install(&built.binary)?;
        print!("{}", world.status()?);
        print!("{}", next_steps(&world, &self.world));
        Ok(ExitCode::SUCCESS)
    }
}

impl Task for Down {
    fn run(self) -> Result<ExitCode> {
        World::down(&WorldName::parse(&self.world)?)?;
        println!("The world {} is gone.", self.world);
        Ok(ExitCode::SUCCESS)
    }
}

impl Task for Shell {
    fn run(self) -> Result<ExitCode> {
        World::attach(&WorldName::parse(&self.world)?)?.lab_box(&self.name)?.interactive_shell()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Task for Status {
    fn run(self) -> Result<ExitCode> {
        let status = World::attach(&WorldName::parse(&self.world)?)?.status()?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&status)?);
        } else {
            print!("{status}");
        }
        Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        StepState::Begun => {}
        StepState::Done(took) => progress.line(&format!("{}: done in {}", event.step, duration(took))),
        StepState::Failed(took) => progress.line(&format!("{}: failed after {}", event.step, duration(took))),
    }
}

fn next_steps(world: &World, name: &str) -> String {
    let option = if name == DEMO { String::new() } else { format!(" --world {name}") };
    let mut text = format!(
        "\nNext:\n  cargo xtask shell laptop{option}       a prompt on the laptop; other boxes by their names\n  \
         cargo xtask status{option}             what runs where\n"
    );
    if world.cluster().is_ok() {
        text.push_str(&format!(
            "  cargo xtask shell node1{option}        kubectl get pods -A, as the cluster's administrator\n"
        ));
    }
    text.push_str(&format!("  cargo xtask down{option}               remove all of it\n"));
    text
}
