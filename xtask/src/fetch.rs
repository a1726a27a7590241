//! `cargo xtask fetch`: everything that tests and the demo stand on and that is not this project's own code.

mod machine;
mod module;
mod pause;
mod peer;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cache::{Cache, Entry, Outcome};
use clap::Parser;

use crate::checkout::Checkout;
use crate::images;
use crate::progress::Progress;
use crate::{Task, print};

pub(crate) use pause::entry as pause_entry;
pub(crate) use peer::{Peer, peers};
pub(crate) use tree::{entry as tree_entry, path as tree_path};

/// Fetch and build what tests and the demo stand on
///
/// Installs the few Debian packages that this machine lacks, makes the Debian tree that the laboratory's boxes run on,
/// builds the pinned Go programs of tools/ and packs the OCI images. What is there already is left alone, so a second
/// run takes a moment. The first one takes about twenty minutes on two cores.
#[derive(Parser)]
#[command(name = "fetch")]
pub(crate) struct Fetch {
    /// Only these parts, such as tree, bin/kubelet or images/userland (default: all)
    parts: Vec<String>,

    /// List the parts and whether they are there
    #[arg(long)]
    list: bool,
}

impl Task for Fetch {
    fn run(self) -> Result<ExitCode> {
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let parts = parts(&checkout)?;
        if self.list {
            for part in &parts {
                let state = if cache.is_current(&part.entry) { "there" } else { "missing" };
                print::line(format_args!("{:28} {state}", part.entry.name()))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(unknown) = self.parts.iter().find(|name| parts.iter().all(|part| part.entry.name() != *name)) {
            bail!("there is no part called {unknown}: `cargo xtask fetch --list` names them");
        }
        let progress = Progress::start(&cache, "fetch")?;
        if self.parts.is_empty() {
            everything(&cache, &checkout, &progress)?;
        } else {
            let wanted = |part: &Part| self.parts.iter().any(|name| name == part.entry.name());
            make(&cache, &checkout, &progress, parts.into_iter().filter(wanted).collect())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One part of the cache and how it is made.
struct Part {
    entry: Entry,
    recipe: Recipe,
}

enum Recipe {
    Tree,
    Pause,
    Peer(&'static Peer),
    Image(&'static images::Recipe),
}

/// Makes everything that is missing.
pub(crate) fn everything(cache: &Cache, checkout: &Checkout, progress: &Progress) -> Result<()> {
    make(cache, checkout, progress, parts(checkout)?)
}

/// The sources of the stock operator, of the version that this checkout pins: its chart is among them.
pub(crate) fn stock_sources(cache: &Cache, checkout: &Checkout, progress: &Progress) -> Result<PathBuf> {
    let operator = peers().iter().find(|peer| peer.name == "k8s-operator").context("no stock operator is pinned")?;
    let found = progress.step("stock chart", |step| operator.sources(cache, checkout, step))?;
    found.context("the stock operator's sources are not copied")
}

/// All parts, what is needed first at the front.
fn parts(checkout: &Checkout) -> Result<Vec<Part>> {
    let mut parts = vec![
        Part { entry: tree::entry(checkout)?, recipe: Recipe::Tree },
        Part { entry: pause::entry(checkout)?, recipe: Recipe::Pause },
    ];
    for peer in peers() {
        parts.push(Part { entry: peer.entry(checkout)?, recipe: Recipe::Peer(peer) });
    }
    for recipe in images::RECIPES {
        parts.push(Part { entry: recipe.entry(checkout)?, recipe: Recipe::Image(recipe) });
    }
    Ok(parts)
}

fn make(cache: &Cache, checkout: &Checkout, progress: &Progress, parts: Vec<Part>) -> Result<()> {
    let (current, missing): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| cache.is_current(&part.entry));
    for part in &current {
        cache.mark_used(&part.entry);
    }
    if !missing.is_empty() {
        machine::install_missing(cache, progress)?;
    }
    for part in &missing {
        progress.step(part.entry.name(), |step| {
            let outcome =
                cache.ensure(&part.entry, &mut |holder| step.waiting(holder), |draft| match &part.recipe {
                    Recipe::Tree => tree::make(checkout, step, draft),
                    Recipe::Pause => pause::make(checkout, step, draft),
                    Recipe::Peer(peer) => peer.make(cache, checkout, step, draft),
                    Recipe::Image(recipe) => recipe.make(cache, checkout, draft),
                })?;
            if outcome != Outcome::Made {
                step.say("nothing to make, it was there");
            }
            Ok(())
        })?;
    }
    if missing.is_empty() {
        progress.line(&format!("all {} parts are in {}", current.len(), cache.root().display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_name_of_its_own() {
        let mut names: Vec<String> =
            parts(&Checkout::find().unwrap()).unwrap().iter().map(|part| part.entry.name().to_owned()).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn an_image_comes_after_the_programs_in_it() {
        let parts = parts(&Checkout::find().unwrap()).unwrap();
        let position = |name: &str| parts.iter().position(|part| part.entry.name() == name);
        for recipe in images::RECIPES {
            let image = position(&format!("images/{}", recipe.name));
            assert!(position("tree") < image);
            for program in recipe.programs {
                let made = position(&format!("bin/{}", program.program));
                assert!(made.is_some() && made < image, "{} in {}", program.program, recipe.name);
            }
        }
    }
}
