//! What runs where in a world.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::Result;
use serde::Serialize;

use super::World;
use crate::lab_box::LabBox;

/// What runs where in a world; shown as a table.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the world.
    pub world: String,
    /// Its boxes, in the drawing's order.
    pub boxes: Vec<BoxStatus>,
}

/// One box.
#[derive(Clone, Debug, Serialize)]
pub struct BoxStatus {
    /// Name of the box.
    pub name: String,
    /// Addresses of its interfaces.
    pub addresses: Vec<Ipv4Addr>,
    /// Its first process as the machine numbers it; none when the box does not run.
    pub pid: Option<i32>,
    /// Its daemons, sorted by name.
    pub daemons: Vec<DaemonStatus>,
}

/// One daemon.
#[derive(Clone, Debug, Serialize)]
pub struct DaemonStatus {
    /// Name of the daemon.
    pub name: String,
    /// Its main process as the machine numbers it.
    pub pid: i32,
    /// Resident memory of that process in bytes.
    pub resident_bytes: u64,
    /// What is wrong with it; none when it is ready.
    pub problem: Option<String>,
}

impl Status {
    /// Whether every box runs and every daemon is ready.
    pub fn is_well(&self) -> bool {
        self.boxes
            .iter()
            .all(|found| found.pid.is_some() && found.daemons.iter().all(|daemon| daemon.problem.is_none()))
    }
}

pub(super) fn look(world: &World) -> Result<Status> {
    let boxes = crate::parallel::collect(&world.plan.boxes, |plan| {
        let found = LabBox::find(&world.folder, &plan.name)?;
        let daemons = found.as_ref().map(|(lab_box, _)| daemons(lab_box)).transpose()?;
        Ok(BoxStatus {
            name: plan.name.clone(),
            addresses: plan.links.iter().map(|link| link.address).collect(),
            pid: found.map(|(lab_box, _)| lab_box.init().pid),
            daemons: daemons.unwrap_or_default(),
        })
    })?;
    Ok(Status { world: world.name().to_string(), boxes })
}

fn daemons(lab_box: &LabBox) -> Result<Vec<DaemonStatus>> {
    let found = lab_box.daemons()?.into_iter().map(|daemon| DaemonStatus {
        name: daemon.name().to_owned(),
        pid: daemon.process().pid,
        resident_bytes: daemon.process().resident_bytes(),
        problem: daemon.check().err().map(|error| format!("{error:#}").lines().next().unwrap_or_default().to_owned()),
    });
    Ok(found.collect())
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<30} {:<24} {:>8} {:>8}  STATE", "BOX", "ADDRESS", "RUNS", "PID", "MB")?;
        for found in &self.boxes {
            let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
            let mut place = format!("{:<12} {:<30}", found.name, addresses.join(" "));
            if found.daemons.is_empty() {
                let (pid, state) = match found.pid {
                    Some(pid) => (pid.to_string(), "ready"),
                    None => ("-".to_owned(), "does not run"),
                };
                writeln!(f, "{place} {:<24} {pid:>8} {:>8}  {state}", "-", "-")?;
            }
            for daemon in &found.daemons {
                let megabytes = daemon.resident_bytes / 1_000_000;
                let state = daemon.problem.as_deref().unwrap_or("ready");
                writeln!(f, "{place} {:<24} {:>8} {megabytes:>8}  {state}", daemon.name, daemon.pid)?;
                place = " ".repeat(43);
            }
        }
        Ok(())
    }
}
