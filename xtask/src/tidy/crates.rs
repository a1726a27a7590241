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
    dependencies: Vec<Dependency>,
}

/// A package that a crate names in its manifest.
struct Dependency {
    name: String,
    /// Whether only the crate's tests use it.
    for_tests: bool,
}

/// Names of the workspace's own crates.
struct Own<'a> {
    all: BTreeSet<&'a str>,
    /// Those that are part of the binary; the others support tests.
    shipped: BTreeSet<&'a str>,
}

impl Crates {
    pub(super) fn read(checkout: &Checkout) -> Result<Self> {
        let metadata = checkout.metadata()?;
        let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
        let crates = packages.iter().map(|package| Crate::read(checkout.root(), package)).collect::<Result<_>>()?;
        Ok(Self { crates })
    }

    pub(super) fn check(&self, table: &Table) -> Vec<Violation> {
        let own = Own {
            all: self.crates.iter().map(|found| found.name.as_str()).collect(),
            shipped: self.crates.iter().filter(|found| found.is_shipped()).map(|found| found.name.as_str()).collect(),
        };
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
            dependencies: dependencies.iter().filter_map(Dependency::read).collect(),
        })
    }

    /// Whether it is part of the binary, and no support of tests.
    fn is_shipped(&self) -> bool {
        self.manifest.starts_with("crates/")
    }

    fn check(&self, table: &Table, own: &Own<'_>) -> Vec<Violation> {
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
        for Dependency { name, for_tests } in &self.dependencies {
            let line = self.line_of(name);
            let is_own = own.all.contains(name.as_str());
            if is_own && !allowed.contains(name) && *name != self.name {
                broken(line, format!("{} may not depend on {name}: {FILE} does not list it in its line", self.name));
            }
            if is_own && self.is_shipped() && !for_tests && !own.shipped.contains(name.as_str()) {
                let message = format!(
                    "{} is shipped and {name} supports tests: only its [dev-dependencies] may name it",
                    self.name
                );
                broken(line, message);
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

impl Dependency {
    fn read(found: &Value) -> Option<Self> {
        // Null for one that the crate itself uses.
        Some(Self { name: found["name"].as_str()?.to_owned(), for_tests: found["kind"] == "dev" })
    }
}

fn takes_the_workspaces_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()).is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "```edges\n*crypto:\n*packet: crypto\nhost: packet lab\nutils:\nlab:\n```\n```only\nsqlx: host\n```\n";

    fn check(name: &str, dependencies: &[&str], lints: &str) -> String {
        check_kind(name, dependencies, lints, false)
    }

    fn check_kind(name: &str, dependencies: &[&str], lints: &str, for_tests: bool) -> String {
        let found = Crate {
            name: name.to_owned(),
            manifest: "crates/x/Cargo.toml".to_owned(),
            text: format!(
                "[package]\nname = \"{name}\"\n\n[dependencies]\n{}\n{lints}",
                dependencies.iter().map(|name| format!("{name}.workspace = true\n")).collect::<String>()
            ),
            dependencies: dependencies.iter().map(|&name| Dependency { name: name.to_owned(), for_tests }).collect(),
        };
        let shipped = BTreeSet::from(["crypto", "packet", "host"]);
        let own = Own { all: &shipped | &BTreeSet::from(["lab"]), shipped };
        found.check(&Table::parse(TABLE).0, &own).iter().map(|violation| format!("{violation}\n")).collect()
    }

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn an_edge_that_the_table_lists_is_fine() {
        assert_eq!(check("host", &["packet", "sqlx", "tokio"], LINTS), "");
    }

    #[test]
    fn what_supports_tests_is_for_the_tests_of_what_is_shipped() {
        assert_eq!(check_kind("host", &["lab"], LINTS, true), "");
        assert!(check("host", &["lab"], LINTS).contains("host is shipped and lab supports tests"));
        let dependency = |json| Dependency::read(&json).unwrap().for_tests;
        assert!(dependency(serde_json::json!({"name": "lab", "kind": "dev"})));
        assert!(!dependency(serde_json::json!({"name": "lab", "kind": null})));
        assert!(!dependency(serde_json::json!({"name": "lab", "kind": "build"})));
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
