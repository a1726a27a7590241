//! `cargo xtask up`: the walkthrough's world with all that its user sets up, left running.

use std::process::ExitCode;

use anyhow::Result;
use cache::Cache;
use clap::Parser;
use e2e::{Overview, Parts, Program, Stage, Tailnet};
use lab::{Options, World, WorldName};

use crate::checkout::Checkout;
use crate::progress::Progress;
use crate::world::{DEMO, init, option, status, tell};
use crate::{Task, build, fetch, interrupt, print};
use course::Turn;
use roles::{Roles, Wishes};

pub(crate) use course::Course;

mod course;
mod next_steps;
mod roles;

/// Set the whole walkthrough up and leave it running
///
/// Fetches and builds what is missing, then starts the boxes, their networks and names, and Kubernetes on two of them;
/// installs the coordination server with two relays, its users and its policy; lets the laptop and robbinsdale in; installs
/// the operator by Helm, and applies the article's manifests. It ends when all of it is ready, with a table of what runs
/// where, and what to type next.
///
/// Run again it completes what is missing and changes nothing else, except that what runs an older build of this checkout is
/// started again. `cargo xtask down` removes it all.
#[derive(Parser)]
#[command(name = "up")]
pub(crate) struct Up {
    /// Without Kubernetes: boxes, networks, server, relays and the two devices
    #[arg(long)]
    no_cluster: bool,

    /// The world's name; several may run side by side
    #[arg(long, default_value = DEMO)]
    world: String,

    /// Whose operator and proxies run: stock or towline; ours, unless the world has another already
    #[arg(long, value_enum, hide_possible_values = true)]
    operator: Option<Program>,

    /// Whose client runs on the laptop; ours, unless it has another already
    #[arg(long, value_enum)]
    laptop: Option<Program>,

    /// Whose client runs on robbinsdale; ours, unless it has another already
    #[arg(long, value_enum)]
    robbinsdale: Option<Program>,
}

impl Task for Up {
    fn run(self) -> Result<ExitCode> {
        let name = WorldName::parse(&self.world)?;
        World::check_name(&name)?;
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let wishes = Wishes { operator: self.operator, laptop: self.laptop, robbinsdale: self.robbinsdale };
        let roles = Roles::settle(&name, &wishes, checkout.root())?;
        let cast = roles.cast()?;
        let progress = Progress::start(&cache, "up")?;
        let left = name.clone();
        interrupt::watch(move || interrupt::say(&farewell(&left)))?;
        fetch::everything(&cache, &checkout, &progress)?;
        let parts = parts(&cache, &checkout, &progress, &roles)?;
        let mut options = Options::started_by(init(&cache, &checkout, &progress)?)?;
        options.cluster = !self.no_cluster;
        let listener = |event| tell(&progress, &event);
        let world = World::up(&name, &options, &listener)?;
        let turn = Turn::begin(&world, &progress)?;
        roles.keep(&world)?;
        world.install(&parts.binary)?;
        for (place, daemon) in world.restart_outdated()? {
            progress.line(&format!("{place}: {daemon} runs the program built now"));
        }
        if self.no_cluster {
            Tailnet::set_up(&world, &cast, &parts.binary, &listener)?;
        } else {
            Stage::on(&world, &cast, &parts, &listener)?.furnish(&listener)?;
        }
        turn.end()?;
        let overview = Overview::of(&world)?;
        let problems = status::list(&status::of_overview(&overview));
        print::answer(format_args!("{overview}{problems}\n{}", next_steps::text(&overview, &roles)))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What is said to whoever interrupts: what is left, and the ways on and back.
fn farewell(name: &WorldName) -> String {
    let option = option(name.as_str());
    if !World::has_traces(name) {
        return format!(
            "Interrupted before there was anything of the world {name}. What was fetched and built stays: `cargo xtask up{option}` \
             goes on from there."
        );
    }
    format!(
        "Interrupted. The world {name} stays as far as it is made:\n  cargo xtask up{option}     goes on from there\n  cargo xtask \
         down{option}   removes it\n"
    )
}

fn parts(cache: &Cache, checkout: &Checkout, progress: &Progress, roles: &Roles) -> Result<Parts> {
    let built = build::build(cache, checkout, progress, false)?;
    let stock_sources = match roles.operator {
        Program::Stock => Some(fetch::stock_sources(cache, checkout, progress)?),
        Program::Towline | Program::Mixed => None,
    };
    Ok(Parts { binary: built.binary, image: built.image, stock_sources })
}
