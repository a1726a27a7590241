//! Processes of a pod, seen from the machine.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::cgroup;
use crate::lab_box::LabBox;
use crate::process::ProcessIdentity;
use crate::usage::POD_GROUPS;

/// How long a killed process may take to end.
const LIMIT: Duration = Duration::from_secs(10);

impl LabBox {
    /// Kills the processes of a pod on this node as the kernel does when memory is short (`SIGKILL`), and waits for their end.
    /// The pod stays: the one that holds its namespaces is left alone, and the kubelet starts the containers again.
    ///
    /// # Errors
    /// When no pod with this `metadata.uid` runs anything on the node, or something survives.
    pub fn kill_pod_processes(&self, uid: &str) -> Result<()> {
        let own = cgroup::group_of(self.folder().name(), self.name());
        let groups = POD_GROUPS.iter().map(|class| format!("{own}/{class}/pod{uid}"));
        let processes: Vec<ProcessIdentity> =
            groups.flat_map(|group| cgroup::processes_in(&group)).filter(|process| !is_pause(process)).collect();
        ensure!(!processes.is_empty(), "box {}: no pod with uid {uid} runs anything here", self.name());
        for process in processes {
            let Some(open) = process.open() else { continue };
            open.signal(Signal::KILL)?;
            ensure!(open.wait(LIMIT), "box {}: process {} does not die", self.name(), process.pid);
        }
        Ok(())
    }
}

/// Whether it is the program that does nothing but hold a pod's namespaces.
fn is_pause(process: &ProcessIdentity) -> bool {
    fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|program| program.ends_with("pause"))
}
