//! The checkout that a task works on: its files, its crates, and Cargo run on it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cache::Cache;
use serde_json::Value;

use crate::interrupt;
use crate::progress::Step;

/// A checkout of this project.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Finds the checkout: by the variable that `cargo run` sets, else from the working folder upwards. The path is not
    /// compiled in, as checkouts may share what was compiled.
    pub(crate) fn find() -> Result<Self> {
        let by_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = match by_cargo {
            Some(folder) => folder,
            None => env::current_dir().context("finding the working folder")?,
        };
        let is_root = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file() && folder.join("Cargo.toml").is_file();
        match start.ancestors().find(is_root) {
            Some(root) => Ok(Self { root: root.to_owned() }),
            None => bail!("{} is not inside a checkout of this project", start.display()),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, within: &str) -> PathBuf {
        self.root.join(within)
    }

    /// What `cargo metadata` says of the workspace's own crates.
    pub(crate) fn metadata(&self) -> Result<Value> {
        let mut command = self.bare_cargo();
        command.args(["metadata", "--format-version=1", "--no-deps"]);
        let output = command.output().context("starting cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")
    }

    /// The names of the workspace's own crates.
    pub(crate) fn members(&self) -> Result<Vec<String>> {
        let metadata = self.metadata()?;
        let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
        Ok(packages.iter().filter_map(|package| package["name"].as_str().map(str::to_owned)).collect())
    }

    /// Files that git tracks or would track, sorted, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let mut command = Command::new("git");
        command.current_dir(&self.root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = command.output().context("starting git")?;
        if !output.status.success() {
            bail!("git ls-files failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let listed = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
        let mut files: Vec<String> = listed.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        files.sort();
        files.dedup();
        // Listed but removed in the working folder.
        files.retain(|file| self.root.join(file).is_file());
        Ok(files)
    }

    /// Cargo on this checkout, with a target folder of its own in the cache.
    pub(crate) fn cargo(&self, cache: &Cache, step: &Step<'_>) -> Result<Command> {
        let target = cache.cargo_target(&self.root, &self.members()?, &mut |holder| step.waiting(holder))?;
        let mut command = self.bare_cargo();
        command.env("CARGO_TARGET_DIR", target);
        interrupt::mark(&mut command);
        Ok(command)
    }

    /// Cargo without what the Cargo around this process told it about `xtask` itself.
    fn bare_cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" || name == "CARGO_MANIFEST_PATH" {
                command.env_remove(name);
            }
        }
        command
    }
}
