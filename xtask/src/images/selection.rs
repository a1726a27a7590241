//! A part of the Debian tree: some packages, what they need to run, and the files that their scripts made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::LayerBuilder;

/// Needed by installation scripts only.
const FOR_SCRIPTS: &[&str] = &[
    "adduser",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "lsb-base",
    "passwd",
    "perl",
    "perl-base",
    "sensible-utils",
    "ucf",
];

/// What scripts and not packages made, and programs need: users, certificates, the loader's cache, and the links that
/// make /bin and /usr/bin one.
const MADE_BY_SCRIPTS: &[&str] = &[
    "bin",
    "etc/group",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/ssl/certs",
    "lib",
    "lib64",
    "sbin",
];

/// Left out of every selection.
const NEVER: &[&str] =
    &["usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/bug"];

/// Paths of a Debian tree.
pub(crate) struct Selection {
    tree: PathBuf,
    paths: BTreeSet<PathBuf>,
}

/// What dpkg's database says of one installed package.
struct Package {
    /// Each one a choice.
    needs: Vec<Vec<String>>,
    provides: Vec<String>,
}

impl Selection {
    /// Selects packages, by the database of the tree's own dpkg.
    ///
    /// # Errors
    /// When the tree lacks one of them, or something that one of them needs.
    pub(crate) fn of(tree: &Path, packages: &[&str]) -> Result<Self> {
        let status = tree.join("var/lib/dpkg/status");
        let text = fs::read_to_string(&status).with_context(|| format!("reading {}", status.display()))?;
        let installed = parse_status(&text);
        let mut selection = Self { tree: tree.to_owned(), paths: BTreeSet::new() };
        for package in closure(&installed, packages)? {
            selection.add_package(&package)?;
        }
        for path in MADE_BY_SCRIPTS {
            selection.add_all(Path::new(path))?;
        }
        selection.add_alternatives()?;
        Ok(selection)
    }

    /// The paths as a layer.
    pub(crate) fn layer(&self) -> Result<LayerBuilder> {
        let mut layer = LayerBuilder::new();
        for path in &self.paths {
            layer = layer.path_of(&self.tree, path)?;
        }
        Ok(layer)
    }

    fn add_package(&mut self, package: &str) -> Result<()> {
        let database = self.tree.join("var/lib/dpkg/info");
        let lists = [format!("{package}.list"), format!("{package}:amd64.list")];
        let list = lists.iter().find_map(|name| fs::read_to_string(database.join(name)).ok());
        let list = list.with_context(|| format!("{} has no list of the files of {package}", database.display()))?;
        for line in list.lines() {
            let path = merged(Path::new(line));
            // The tree itself leaves out manuals and the like, which the list still names.
            if !path.as_os_str().is_empty() && fs::symlink_metadata(self.tree.join(&path)).is_ok() {
                self.add(path);
            }
        }
        Ok(())
    }

    fn add_all(&mut self, path: &Path) -> Result<()> {
        let from = self.tree.join(path);
        let Ok(found) = fs::symlink_metadata(&from) else { return Ok(()) };
        self.add(path.to_owned());
        if found.is_dir() {
            for entry in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
                self.add_all(&path.join(entry?.file_name()))?;
            }
        }
        Ok(())
    }

    /// Adds `/usr/bin/nc -> /etc/alternatives/nc -> /bin/nc.openbsd` and its like, where the last is selected.
    fn add_alternatives(&mut self) -> Result<()> {
        let alternatives = Path::new("etc/alternatives");
        for folder in ["usr/bin", "usr/sbin"] {
            let from = self.tree.join(folder);
            for entry in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
                let path = Path::new(folder).join(entry?.file_name());
                let Ok(to) = fs::read_link(self.tree.join(&path)) else { continue };
                let Some(name) = to.strip_prefix("/etc/alternatives").ok().map(Path::to_owned) else { continue };
                let chosen = fs::read_link(self.tree.join(alternatives).join(&name)).unwrap_or_default();
                if self.paths.contains(&merged(&chosen)) {
                    self.add(alternatives.join(&name));
                    self.add(path);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) {
        if !NEVER.iter().any(|never| path.starts_with(never)) {
            self.paths.insert(path);
        }
    }
}

/// The path as the tree has it, where /bin and its like are links into /usr; without a leading slash.
fn merged(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let linked = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    let first = path.components().next().map(|part| part.as_os_str().to_owned());
    match first {
        Some(first) if linked.iter().any(|name| first == *name) && path.components().count() > 1 => {
            Path::new("usr").join(path)
        }
        _ => path,
    }
}

/// The packages and what they need, all that they need, without what only installation scripts need.
fn closure(installed: &BTreeMap<String, Package>, wanted: &[&str]) -> Result<BTreeSet<String>> {
    let mut selected = BTreeSet::new();
    let mut open: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    while let Some(name) = open.pop() {
        if FOR_SCRIPTS.contains(&name.as_str()) || !selected.insert(name.clone()) {
            continue;
        }
        let Some(package) = installed.get(&name) else { bail!("the Debian tree has no package {name}") };
        for choice in &package.needs {
            if choice.iter().any(|need| FOR_SCRIPTS.contains(&need.as_str())) {
                continue;
            }
            match choice.iter().find_map(|need| provider(installed, need)) {
                Some(provider) => open.push(provider),
                None => bail!("{name} needs {}, which the Debian tree lacks", choice.join(" or ")),
            }
        }
    }
    Ok(selected)
}

fn provider(installed: &BTreeMap<String, Package>, need: &str) -> Option<String> {
    if installed.contains_key(need) {
        return Some(need.to_owned());
    }
    let provides = |package: &Package| package.provides.iter().any(|provided| provided == need);
    installed.iter().find(|(_, package)| provides(package)).map(|(name, _)| name.clone())
}

/// Reads dpkg's `status` file; only what is installed.
fn parse_status(text: &str) -> BTreeMap<String, Package> {
    let mut installed = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
        };
        let name = field("Package");
        if name.is_empty() || !field("Status").ends_with(" installed") {
            continue;
        }
        let mut needs = choices(field("Depends"));
        needs.extend(choices(field("Pre-Depends")));
        let provides = choices(field("Provides")).concat();
        installed.insert(name.to_owned(), Package { needs, provides });
    }
    installed
}

/// Reads `a (>= 1) | b, c:any` as a list of choices, without versions and architectures.
fn choices(field: &str) -> Vec<Vec<String>> {
    let bare = |need: &str| need.split([' ', '(', ':']).find(|word| !word.is_empty()).unwrap_or_default().to_owned();
    field
        .split(',')
        .filter(|choice| !choice.trim().is_empty())
        .map(|choice| choice.split('|').map(|need| bare(need.trim())).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: shell\nStatus: install ok installed\nPre-Depends: libc (>= 2)\nDepends: base | other\n\n\
        Package: libc\nStatus: install ok installed\nProvides: libc-api (= 2)\n\n\
        Package: base\nStatus: install ok installed\nDepends: libc-api, debconf | debconf-2.0\n\n\
        Package: gone\nStatus: deinstall ok config-files\n";

    #[test]
    fn a_selection_holds_what_its_packages_need_and_nothing_for_scripts() {
        let selected = closure(&parse_status(STATUS), &["shell"]).unwrap();
        assert_eq!(selected.into_iter().collect::<Vec<_>>(), ["base", "libc", "shell"]);
    }

    #[test]
    fn a_package_that_the_tree_lacks_is_named() {
        let message = closure(&parse_status(STATUS), &["gone"]).unwrap_err().to_string();
        assert!(message.contains("gone"), "{message}");
    }

    #[test]
    fn choices_lose_versions_and_architectures() {
        assert_eq!(choices("a (>= 1.0), b:any | c, d"), [vec!["a"], vec!["b", "c"], vec!["d"]]);
    }

    #[test]
    fn paths_below_linked_folders_are_where_the_links_lead() {
        assert_eq!(merged(Path::new("/bin/bash")), Path::new("usr/bin/bash"));
        assert_eq!(merged(Path::new("/bin")), Path::new("bin"));
        assert_eq!(merged(Path::new("/etc/bash.bashrc")), Path::new("etc/bash.bashrc"));
    }
}
