//! Rules about crates: names, dependencies, lints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::tidy::Violation;
use crate::tidy::table::{FILE, Table};

/// Names that say nothing about what a crate knows.
const EMPTY_NAMES: &[&str] = &["common", "core", "error", "errors", "helpers", "types", "util", "utils"];

/// Libraries that do I/O, read clocks or make threads: not for pure crates.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "hyper",
    "hyper-util",
    "libc",
    "mio",
    "nix",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// The workspace's own crates, as `cargo metadata` and their manifests have them.
pub(super) struct Crates {
    crates: Vec<Crate>,
}

struct Crate {
    name: String,
    /// The manifest, relative to the root of the checkout.
    manifest: String,
    text: String,
    /// Names of the packages that it depends on, in whatever way.
    dependencies: Vec<String>,
}

impl Crates {
    pub(super) fn read(checkout: &Checkout) -> Result<Self> {
        let metadata = checkout.metadata()?;
        let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
        let crates = packages.iter().map(|package| Crate::read(checkout.root(), package)).collect::<Result<_>>()?;
        Ok(Self { crates })
    }

    pub(super) fn check(&self, table: &Table) -> Vec<Violation> {
        let own: BTreeSet<&str> = self.crates.iter().map(|found| found.name.as_str()).collect();
        self.crates.iter().flat_map(|found| found.check(table, &own)).collect()
    }
}

impl Crate {
    fn read(root: &Path, package: &Value) -> Result<Self> {
        let text_of =
            |key: &str| package[key].as_str().with_context(|| format!("cargo metadata gives a package no {key}"));
        let path = Path::new(text_of("manifest_path")?);
        let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            name: text_of("name")?.to_owned(),
            manifest: path.strip_prefix(root).unwrap_or(path).display().to_string(),
            text: fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
            dependencies: dependencies.iter().filter_map(|found| found["name"].as_str().map(str::to_owned)).collect(),
        })
    }

    fn check(&self, table: &Table, own: &BTreeSet<&str>) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut broken = |line, message| violations.push(Violation::new(&self.manifest, line, message));
        if EMPTY_NAMES.contains(&self.name.as_str()) {
            broken(self.line_of("name"), format!("no crate is called {}: name it after what it knows", self.name));
        }
        if !takes_the_workspaces_lints(&self.text) {
            broken(1, "it does not take the workspace's lints: add [lints] with workspace = true".to_owned());
        }
        let Some(allowed) = table.allowed(&self.name) else {
            broken(1, format!("{} has no line in the block edges of {FILE}: a new crate needs a rule", self.name));
            return violations;
        };
        for name in &self.dependencies {
            let line = self.line_of(name);
            if own.contains(name.as_str()) && !allowed.contains(name) && *name != self.name {
                broken(line, format!("{} may not depend on {name}: {FILE} does not list it in its line", self.name));
            }
            if table.is_pure(&self.name) && IMPURE.contains(&name.as_str()) {
                broken(line, format!("{} is pure and may not depend on {name}, which does I/O", self.name));
            }
            if let Some(only) = table.only(name)
                && !only.contains(&self.name)
            {
                let only: Vec<&str> = only.iter().map(String::as_str).collect();
                broken(line, format!("{} may not name {name}: {FILE} keeps it to {}", self.name, only.join(", ")));
            }
        }
        violations
    }

    /// The line of the manifest that sets `key`, else the first.
    fn line_of(&self, key: &str) -> usize {
        let sets =
            |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '=', '.']));
        self.text.lines().position(sets).map_or(1, |index| index + 1)
    }
}

fn takes_the_workspaces_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()).is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "```edges\n*crypto:\n*packet: crypto\nhost: packet\nutils:\n```\n```only\nsqlx: host\n```\n";

    fn check(name: &str, dependencies: &[&str], lints: &str) -> String {
        let found = Crate {
            name: name.to_owned(),
            manifest: "crates/x/Cargo.toml".to_owned(),
            text: format!(
                "[package]\nname = \"{name}\"\n\n[dependencies]\n{}\n{lints}",
                dependencies.iter().map(|name| format!("{name}.workspace = true\n")).collect::<String>()
            ),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
        };
        let own = ["crypto", "packet", "host"].into();
        found.check(&Table::parse(TABLE).0, &own).iter().map(|violation| format!("{violation}\n")).collect()
    }

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn an_edge_that_the_table_lists_is_fine() {
        assert_eq!(check("host", &["packet", "sqlx", "tokio"], LINTS), "");
    }

    #[test]
    fn an_edge_that_the_table_does_not_list_is_named_with_its_line() {
        let expected =
            "crates/x/Cargo.toml:6: host may not depend on crypto: ARCHITECTURE.md does not list it in its line\n";
        assert_eq!(check("host", &["packet", "crypto"], LINTS), expected);
    }

    #[test]
    fn a_library_is_kept_to_its_crates() {
        assert!(
            check("packet", &["sqlx"], LINTS).contains("packet may not name sqlx: ARCHITECTURE.md keeps it to host")
        );
    }

    #[test]
    fn a_pure_crate_may_not_depend_on_a_library_that_does_io() {
        assert!(check("packet", &["tokio"], LINTS).contains("packet is pure and may not depend on tokio"));
    }

    #[test]
    fn a_crate_without_a_line_or_with_an_empty_name_is_named() {
        assert!(check("new", &[], LINTS).contains("a new crate needs a rule"));
        assert!(check("utils", &[], LINTS).contains("crates/x/Cargo.toml:2: no crate is called utils"));
    }

    #[test]
    fn lints_of_its_own_are_not_the_workspaces() {
        assert!(check("host", &[], "[lints.rust]\nunused = \"allow\"\n").contains("[lints]"));
    }
}
