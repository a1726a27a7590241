//! How a world goes: processes first, then their cgroups, then files.
//!
//! Nothing here trusts the records alone. What a crash has left is also found by cgroup, and by mounts that name the world's
//! folders.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::cgroup;
use crate::folder::{WorldFolder, WorldLock, read_record};
use crate::lab_box::BoxRecord;
use crate::process::{ProcessIdentity, process_numbers};

/// How long a killed process, or a cgroup without processes, may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether anything of a world without folders is left.
pub(super) fn has_traces(folder: &WorldFolder) -> bool {
    !cgroup::folders_of(folder.name()).is_empty() || !found_by_traces(folder).is_empty()
}

pub(super) fn tear_down(folder: &WorldFolder, lock: WorldLock) -> Result<()> {
    // First processes first: each takes its whole box along.
    kill(&inits(folder)).context("ending the boxes")?;
    kill(&found_by_traces(folder)).context("ending what still uses the world's folders")?;
    cgroup::remove_world(folder.name(), PATIENCE)?;
    unmount_leftovers(folder)?;
    folder.removed_from_disk().iter().try_for_each(|path| remove(path))?;
    // Stays where somebody else has something in it.
    let _ = fs::remove_dir(folder.disk());
    // The lock's own folder goes last, while the lock is held.
    remove(&folder.records())?;
    drop(lock);
    for parent in folder.parents() {
        // Stays while another world is there, which is right.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn inits(folder: &WorldFolder) -> Vec<ProcessIdentity> {
    let boxes = fs::read_dir(folder.records().join("boxes"));
    let records = boxes.into_iter().flatten().flatten().map(|entry| entry.path().join("box.json"));
    // A record that cannot be read is no reason to leave the rest: its processes are found by cgroup.
    records.filter_map(|path| read_record::<BoxRecord>(&path).ok()??.init.into()).collect()
}

/// Kills processes and waits for the end of each.
fn kill(processes: &[ProcessIdentity]) -> Result<()> {
    let open: Vec<_> = processes.iter().filter_map(|process| Some((process.pid, process.open()?))).collect();
    for (pid, process) in &open {
        process.signal(Signal::KILL).with_context(|| format!("killing process {pid}"))?;
    }
    for (pid, process) in &open {
        ensure!(process.wait(PATIENCE), "process {pid} was killed and does not die");
    }
    Ok(())
}

/// Processes that a crash can leave off the records: in another mount namespace where something of the world is mounted, or
/// on the way there, with one of the world's boxes in their command line.
fn found_by_traces(folder: &WorldFolder) -> Vec<ProcessIdentity> {
    let mine = fs::read_link("/proc/self/ns/mnt").ok();
    let marks = marks(folder);
    let boxes = folder.records().join("boxes").display().to_string() + "/";
    let is_trace = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let making = is_making(&command, &boxes);
        let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let inside = theirs.is_some() && theirs != mine && marks.iter().any(|mark| mounts.contains(mark.as_str()));
        making || inside
    };
    process_numbers().filter(is_trace).filter_map(|pid| ProcessIdentity::of(pid).ok()).collect()
}

/// Whether a command line is that of a program which makes a box: others may name a world's files too, such as a pager.
fn is_making(command: &[u8], boxes: &str) -> bool {
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().and_then(|word| word.rsplit(|byte| *byte == b'/').next()).unwrap_or_default();
    let makes_boxes = [b"lab-init".as_slice(), b"unshare"].contains(&program);
    makes_boxes && words.any(|word| word.starts_with(boxes.as_bytes()))
}

/// Nothing of a world is ever mounted in the machine's own mount namespace; were it, removing files would reach through it.
fn unmount_leftovers(folder: &WorldFolder) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let marks = marks(folder);
    let points: BTreeSet<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| marks.iter().any(|mark| format!("{point}/").starts_with(mark.as_str())))
        .collect();
    for point in points.iter().rev() {
        unmount(*point, UnmountFlags::DETACH).with_context(|| format!("unmounting {point}"))?;
    }
    Ok(())
}

fn marks(folder: &WorldFolder) -> [String; 2] {
    [folder.records(), folder.disk()].map(|path| format!("{}/", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_at_a_worlds_files_is_not_making_a_box() {
        let boxes = "/run/towline-lab/demo/boxes/";
        let is_making = |words: &[&str]| is_making(format!("{}\0", words.join("\0")).as_bytes(), boxes);
        let spec = "/run/towline-lab/demo/boxes/laptop/spec.json";
        assert!(is_making(&["/var/lib/towline-lab/demo/own/lab-init", "create", spec]));
        assert!(is_making(&["unshare", "--mount", "--", "/x/lab-init", "first", spec]));
        assert!(!is_making(&["tail", "-f", spec]) && !is_making(&[spec]) && !is_making(&[]));
        assert!(!is_making(&["unshare", "/run/towline-lab/other/boxes/laptop/spec.json"]));
    }
}
