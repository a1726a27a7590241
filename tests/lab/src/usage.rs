//! What the processes of a box, of one daemon or of one pod, use: memory and processor time, as their cgroup counts them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::{self, BOX_GROUP, Hierarchy};
use crate::daemon::{Daemon, group_of};
use crate::lab_box::LabBox;

/// Where a kubelet has the groups of pods, named after their class of service; guaranteed ones have no folder in between.
pub(crate) const POD_GROUPS: [&str; 3] = ["kubepods", "kubepods/burstable", "kubepods/besteffort"];

/// What a group of processes uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory without the file cache that the kernel could drop at once: what Kubernetes calls the working set.
    pub working_set_bytes: u64,
    /// What the processes have in memory at this moment, each by itself: shared pages count for everyone who has them, and
    /// pages of program files for everyone who runs them, whichever group the kernel charges.
    pub resident_bytes: u64,
    /// Processor time since the group was made.
    pub processor: Duration,
}

impl LabBox {
    /// What the box's own processes use; daemons and pods are counted apart.
    ///
    /// # Errors
    /// When the box is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.usage_of(BOX_GROUP)
    }

    /// What all containers of a pod on this node use, the pause container among them.
    ///
    /// # Errors
    /// When no pod with this `metadata.uid` runs on the node.
    pub fn pod_usage(&self, uid: &str) -> Result<Usage> {
        let found = POD_GROUPS.iter().find_map(|class| self.usage_of(&format!("{class}/pod{uid}")).ok());
        found.with_context(|| format!("no pod with uid {uid} runs on {}", self.name()))
    }

    /// What each pod on this node uses, by its `metadata.uid`; one that comes or goes meanwhile may be missing.
    ///
    /// # Errors
    /// When the machine's cgroups cannot be found.
    pub fn pods_usage(&self) -> Result<BTreeMap<String, Usage>> {
        let own = cgroup::group_of(self.folder().name(), self.name());
        let hierarchies = cgroup::hierarchies()?;
        let counting = hierarchies.iter().find(|hierarchy| hierarchy.has("memory"));
        let counting = counting.or_else(|| hierarchies.iter().find(|hierarchy| hierarchy.is_version_2()));
        let top = counting.context("no cgroup hierarchy counts memory")?.mount.join(own);
        let mut pods = BTreeMap::new();
        for class in POD_GROUPS {
            for entry in fs::read_dir(top.join(class)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let uid = name.to_str().and_then(|name| name.strip_prefix("pod"));
                let usage = uid.and_then(|uid| self.usage_of(&format!("{class}/pod{uid}")).ok());
                pods.extend(uid.map(str::to_owned).zip(usage));
            }
        }
        Ok(pods)
    }

    fn usage_of(&self, below: &str) -> Result<Usage> {
        let group = format!("{}/{below}", cgroup::group_of(self.folder().name(), self.name()));
        let hierarchies = cgroup::hierarchies()?;
        let of = |controller: &str| hierarchies.iter().find(|hierarchy| hierarchy.has(controller));
        match (of("memory"), of("cpuacct")) {
            (Some(memory), Some(processor)) => version_1(&memory.mount.join(&group), &processor.mount.join(&group)),
            _ => {
                let unified = hierarchies.iter().find(|hierarchy| hierarchy.is_version_2());
                let unified: &Hierarchy = unified.context("no cgroup hierarchy counts memory")?;
                version_2(&unified.mount.join(&group))
            }
        }
    }
}

impl Daemon {
    /// What the daemon and its children use.
    ///
    /// # Errors
    /// When its box is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.lab_box().usage_of(&group_of(self.name()))
    }
}

fn version_1(memory: &Path, processor: &Path) -> Result<Usage> {
    let used = number(&memory.join("memory.usage_in_bytes"))?;
    let droppable = field(&memory.join("memory.stat"), "total_inactive_file")?;
    Ok(Usage {
        working_set_bytes: used.saturating_sub(droppable),
        resident_bytes: resident_in(memory),
        processor: Duration::from_nanos(number(&processor.join("cpuacct.usage"))?),
    })
}

fn version_2(group: &Path) -> Result<Usage> {
    let used = number(&group.join("memory.current"))?;
    let droppable = field(&group.join("memory.stat"), "inactive_file")?;
    Ok(Usage {
        working_set_bytes: used.saturating_sub(droppable),
        resident_bytes: resident_in(group),
        processor: Duration::from_micros(field(&group.join("cpu.stat"), "usage_usec")?),
    })
}

/// Processes that end meanwhile have nothing.
fn resident_in(group: &Path) -> u64 {
    let page = rustix::param::page_size() as u64;
    let mut bytes = 0;
    cgroup::visit(group, &mut |group| {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
            bytes += resident.unwrap_or(0) * page;
        }
    });
    bytes
}

fn number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds {text:?}, no number", path.display()))
}

fn field(path: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let value = text.lines().find_map(|line| line.split_once(' ').filter(|(known, _)| *known == name));
    let (_, value) = value.with_context(|| format!("{} has no line {name}", path.display()))?;
    value.parse().with_context(|| format!("{name} of {} is {value:?}, no number", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppable_file_cache_is_not_counted() {
        let folder = std::env::temp_dir().join(format!("lab-usage-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("memory.current"), "1000\n").unwrap();
        fs::write(folder.join("memory.stat"), "anon 600\ninactive_file 300\n").unwrap();
        fs::write(folder.join("cpu.stat"), "usage_usec 2500\nuser_usec 1\n").unwrap();
        fs::write(folder.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let usage = version_2(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((usage.working_set_bytes, usage.processor), (700, Duration::from_micros(2500)));
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
    }
}
