//! The cgroups of a world: how its processes are found again, measured, and killed to the last.
//!
//! Every box has a group `towline/WORLD/BOX` in every hierarchy of the machine, and a cgroup namespace in which that group is
//! the root: what a kubelet or containerd makes inside lies below it and goes with the world. The box's own processes are in
//! its child `box`, since a version 2 group with children may hold none; each daemon is in a child of its own, to be measured. Version 1 (each controller a hierarchy of its own),
//! version 2 and the mixture of both are served.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::folder::WorldName;
use crate::process::ProcessIdentity;

/// Where hierarchies are mounted, on the machine and in boxes.
pub(crate) const MOUNTS: &str = "/sys/fs/cgroup";

/// The group of a box's own processes, below the root that the box sees.
pub(crate) const BOX_GROUP: &str = "box";

/// A cgroup hierarchy of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Type of the mount: `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// What tells a hierarchy of version 1 from the others: its controllers or its name.
    pub(crate) controllers: Vec<String>,
}

impl Hierarchy {
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }

    pub(crate) fn is_version_2(&self) -> bool {
        self.kind == "cgroup2"
    }

    /// Options that mount the same hierarchy once more.
    pub(crate) fn mount_options(&self) -> String {
        match self.controllers.iter().any(|controller| controller.starts_with("name=")) {
            true => format!("none,{}", self.controllers.join(",")),
            false => self.controllers.join(","),
        }
    }
}

/// Name of the group of a box, relative to every hierarchy.
pub(crate) fn group_of(world: &WorldName, name: &str) -> String {
    format!("towline/{world}/{name}")
}

/// Makes a group in every hierarchy of the machine, fit to take processes; returns the hierarchies.
pub(crate) fn create(group: &str) -> Result<Vec<Hierarchy>> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no cgroup hierarchy is mounted below {MOUNTS}");
    }
    for hierarchy in &hierarchies {
        let folder = hierarchy.mount.join(group);
        if hierarchy.is_version_2() {
            enable_above(&hierarchy.mount, group)?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making the cgroup {}", folder.display()))?;
        if hierarchy.has("cpuset") {
            inherit_cpuset(&hierarchy.mount, group)?;
        }
    }
    Ok(hierarchies)
}

/// Moves this process to the box's own group, once the box sees its hierarchies at [`MOUNTS`] of `root`.
pub(crate) fn settle(root: &Path, hierarchies: &[Hierarchy]) -> Result<()> {
    for hierarchy in hierarchies {
        let top = root.join(hierarchy.mount.strip_prefix("/").unwrap_or(&hierarchy.mount));
        let own = top.join(BOX_GROUP);
        fs::create_dir_all(&own).with_context(|| format!("making the cgroup {}", own.display()))?;
        join(&own)?;
        if hierarchy.is_version_2() {
            enable(&top)?;
        }
    }
    Ok(())
}

/// Moves this process to a group.
pub(crate) fn join(folder: &Path) -> Result<()> {
    let procs = folder.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("joining {}", procs.display()))
}

/// All processes in a group and those below it.
pub(crate) fn processes_in(group: &str) -> Vec<ProcessIdentity> {
    let mut pids = BTreeSet::new();
    for folder in folders(group) {
        visit(&folder, &mut |group| {
            let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // Number 0 stands for a process that this PID namespace cannot see.
            pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        });
    }
    pids.into_iter().filter_map(|pid| ProcessIdentity::of(pid).ok()).collect()
}

/// Kills whatever is left in the groups of a world and removes the groups.
///
/// # Errors
/// When something survives `limit`, with the group and the processes in it.
pub(crate) fn remove_world(world: &WorldName, limit: Duration) -> Result<()> {
    remove(&format!("towline/{world}"), limit)?;
    for hierarchy in hierarchies()? {
        // Fails while another world is there, which is right.
        let _ = fs::remove_dir(hierarchy.mount.join("towline"));
    }
    Ok(())
}

/// Kills whatever is left in a group and those below it, and removes them.
///
/// # Errors
/// When something survives `limit`, with the group and the processes in it.
pub(crate) fn remove(group: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        for process in processes_in(group) {
            if let Some(open) = process.open() {
                open.signal(Signal::KILL).with_context(|| format!("killing process {}", process.pid))?;
                open.wait(deadline.saturating_duration_since(Instant::now()));
            }
        }
        let mut failure = None;
        for folder in folders(group) {
            visit(&folder, &mut |group| match fs::remove_dir(group) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failure = Some((group.to_owned(), error)),
                _ => {}
            });
        }
        match failure {
            None => return Ok(()),
            Some((folder, error)) if Instant::now() >= deadline => {
                bail!("the cgroup {} does not go away: {error}; in it: {:?}", folder.display(), processes_in(group));
            }
            // A group is busy until the kernel has let go of the last dead process in it; it says so to nobody.
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Every folder of the world's groups, one a hierarchy.
pub(crate) fn folders_of(world: &WorldName) -> Vec<PathBuf> {
    folders(&format!("towline/{world}"))
}

fn folders(group: &str) -> Vec<PathBuf> {
    let hierarchies = hierarchies().unwrap_or_default();
    hierarchies.iter().map(|hierarchy| hierarchy.mount.join(group)).filter(|folder| folder.is_dir()).collect()
}

/// Calls `each` for every group from the leaves to the root.
pub(crate) fn visit(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), each);
        }
    }
    each(folder);
}

/// In version 2 a group has the controllers that every group above it hands down.
fn enable_above(mount: &Path, group: &str) -> Result<()> {
    let mut parent = mount.to_owned();
    for part in Path::new(group).components() {
        enable(&parent)?;
        parent.push(part);
        fs::create_dir_all(&parent).with_context(|| format!("making the cgroup {}", parent.display()))?;
    }
    Ok(())
}

/// Hands all controllers of a version 2 group down to its children.
fn enable(folder: &Path) -> Result<()> {
    let offered = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let wanted: Vec<String> = offered.split_whitespace().map(|controller| format!("+{controller}")).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let control = folder.join("cgroup.subtree_control");
    fs::write(&control, wanted.join(" ")).with_context(|| format!("writing {}", control.display()))
}

/// In version 1 a new `cpuset` group has no processor and no memory until it is told; groups below it take after it.
fn inherit_cpuset(mount: &Path, group: &str) -> Result<()> {
    let mut parent = mount.to_owned();
    for part in Path::new(group).components() {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let value = fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file}"))?;
            fs::write(child.join(file), value.trim()).with_context(|| format!("writing {file} of {group}"))?;
        }
        parent = child;
    }
    let clone = parent.join("cgroup.clone_children");
    fs::write(&clone, "1").with_context(|| format!("writing {}", clone.display()))
}

/// The hierarchies that the machine has mounted.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse_mounts(&fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?))
}

fn parse_mounts(mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(mount), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if !mount.starts_with(MOUNTS) || !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let hierarchy = Hierarchy {
            mount: PathBuf::from(mount),
            kind: kind.to_owned(),
            controllers: match kind {
                "cgroup" => options.split(',').filter(|option| tells_apart(option)).map(str::to_owned).collect(),
                _ => Vec::new(),
            },
        };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// Whether a mount option of version 1 is a controller or a name, and not one that any mount can have.
fn tells_apart(option: &str) -> bool {
    let common =
        ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children", "noprefix"];
    !common.contains(&option) && !option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_and_other_mounts_are_not() {
        let found = parse_mounts(
            "proc /proc proc rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/lib/x,name=systemd 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
             cgroup /run/box/sys/fs/cgroup/pids cgroup rw,pids 0 0\n",
        );
        let options: Vec<String> = found.iter().map(Hierarchy::mount_options).collect();
        assert_eq!(options, ["cpu,cpuacct", "none,name=systemd", ""]);
        assert!(found[2].is_version_2() && !found[0].is_version_2());
    }
}
