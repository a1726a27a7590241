//! `cargo xtask build`: our one static binary and its image.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cache::{Cache, Key};
use clap::Parser;
use serde_json::Value;

use crate::checkout::Checkout;
use crate::elf::expect_static;
use crate::images;
use crate::progress::{Progress, Step};
use crate::{Task, print};

/// Build the one static binary and its image
///
/// Both are kept in the cache under the digest of the binary, so that builds of other checkouts never stand in for
/// this one's; their paths are printed.
#[derive(Parser)]
#[command(name = "build")]
pub(crate) struct Build {
    /// Optimised, as it is shipped; without it faster to build
    #[arg(long)]
    release: bool,
}

/// A binary with its image, never to change.
pub(crate) struct Built {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// The layout of the image that holds it.
    pub(crate) image: PathBuf,
}

impl Task for Build {
    fn run(self) -> Result<ExitCode> {
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "build")?;
        let built = build(&cache, &checkout, &progress, self.release)?;
        print::line(format_args!("binary  {}\nimage   {}", built.binary.display(), built.image.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Builds the binary of this checkout and packs its image.
pub(crate) fn build(cache: &Cache, checkout: &Checkout, progress: &Progress, release: bool) -> Result<Built> {
    if !checkout.path("crates/towline/Cargo.toml").is_file() {
        bail!("there is no crates/towline in {}: nothing to build yet", checkout.root().display());
    }
    progress.step("towline", |step| {
        let binary = compile(cache, checkout, step, release)?;
        expect_static(step, &binary)?;
        keep(cache, checkout, step, &binary)
    })
}

fn compile(cache: &Cache, checkout: &Checkout, step: &Step<'_>, release: bool) -> Result<PathBuf> {
    let mut cargo = checkout.cargo(cache, step)?;
    cargo.args(["build", "--package=towline", "--bin=towline", "--message-format=json-render-diagnostics"]);
    if release {
        cargo.arg("--release");
    }
    let messages = step.output(&mut cargo)?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "towline";
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo build names no executable called towline")
}

/// Copies the binary to where its digest names it, beside its image.
fn keep(cache: &Cache, checkout: &Checkout, step: &Step<'_>, binary: &Path) -> Result<Built> {
    let version = version(checkout)?;
    let digest = Key::of("towline, image 1").text("version", &version).file(binary)?.finish();
    let waiting = &mut |holder: &str| step.waiting(holder);
    let folder = cache.store(&format!("towline/{digest}"), waiting, |draft| {
        fs::create_dir_all(draft).with_context(|| format!("making {}", draft.display()))?;
        let copy = draft.join("towline");
        fs::copy(binary, &copy).with_context(|| format!("copying {}", binary.display()))?;
        File::open(&copy).and_then(|file| file.sync_all())?;
        images::pack_towline(&copy, &draft.join("image"), &version)
    })?;
    cache.publish("images/towline", &folder.join("image"), waiting)?;
    Ok(Built { binary: folder.join("towline"), image: folder.join("image") })
}

fn version(checkout: &Checkout) -> Result<String> {
    let metadata = checkout.metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == "towline");
    let version = package.and_then(|package| package["version"].as_str());
    version.map(str::to_owned).ok_or_else(|| io::Error::other("cargo metadata gives towline no version").into())
}
