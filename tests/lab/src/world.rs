//! A world: boxes, their network and what runs in them, under one name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use image::{Digest, Image, Reference};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::folder::{WorldFolder, WorldLock, WorldName, read_record, write_record};
use crate::lab_box::LabBox;
use crate::names;
use crate::network;
use crate::plan::{FABRIC, Forwarding, Plan};
use crate::process::ProcessIdentity;
use crate::progress::Listener;
use crate::registry;
use crate::ssh::{self, SshKey};
use crate::traffic::{self, Udp};

mod building;
mod options;
mod scratch;
mod status;
mod teardown;

pub use options::{Options, locate_init};
pub use scratch::{Scratch, ScratchWorld};
pub use status::{BoxStatus, DaemonStatus, Status};

/// Changes when records or the talk with `lab-init` change: worlds of another version can only be taken down.
const RECORD_VERSION: u32 = 3;

/// How long `up` and `down` wait for another process that changes the same world.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// What is on record of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct WorldRecord {
    version: u32,
    plan: Plan,
    cluster: bool,
    udp: Udp,
    zone: BTreeMap<String, Ipv4Addr>,
    /// The process whose end makes a scratch world an orphan.
    owner: Option<ProcessIdentity>,
}

/// A world that is up.
///
/// A value of this type is a name tag: dropping it leaves the world as it is, [`World::attach`] finds it again.
#[derive(Clone, Debug)]
pub struct World {
    folder: WorldFolder,
    plan: Plan,
    cluster: bool,
}

impl World {
    /// Makes the world called `name` as `options` want it; where it is so already, changes nothing.
    ///
    /// Boxes and daemons that have died are made anew, the others are left alone.
    ///
    /// # Errors
    /// When not root, when a part is missing from the cache, or when a step fails; names the step, the box and what was said.
    /// What has been made until then stays, for a look at it, until `up` is called again or [`World::down`].
    pub fn up(name: &WorldName, options: &Options, listener: Listener<'_>) -> Result<Self> {
        require_root()?;
        Self::check_name(name)?;
        let folder = WorldFolder::new(name.clone());
        let lock = folder.lock(LOCK_PATIENCE)?;
        building::build(folder, options, listener, &lock).with_context(|| format!("world {name}"))
    }

    /// Whether a world of this name can be made, and stays until it is taken down.
    ///
    /// # Errors
    /// When a test would take it for one that another test has left behind, or there is one of an earlier build.
    pub fn check_name(name: &WorldName) -> Result<()> {
        scratch::check_name(name)?;
        refuse_earlier(name)
    }

    /// Finds the world called `name`.
    ///
    /// # Errors
    /// When there is none, or it was made by another version of this crate.
    pub fn attach(name: &WorldName) -> Result<Self> {
        refuse_earlier(name)?;
        let folder = WorldFolder::new(name.clone());
        let record = record_of(&folder)?
            .with_context(|| format!("no world {name} is up: `cargo xtask up --world {name}` makes it"))?;
        Ok(Self { folder, plan: record.plan, cluster: record.cluster })
    }

    /// Takes the world called `name` down: no process, namespace, mount, cgroup or file of it stays.
    ///
    /// Works from whatever is there, also after a crash in the middle of `up`; a world that does not exist is down.
    ///
    /// # Errors
    /// When not root, or something cannot be removed; says what.
    pub fn down(name: &WorldName) -> Result<()> {
        require_root()?;
        for folder in folders_of(name).into_iter().filter(is_somewhere) {
            let lock = folder.lock(LOCK_PATIENCE)?;
            teardown::tear_down(&folder, lock).with_context(|| format!("taking world {name} down"))?;
        }
        Ok(())
    }

    /// Whether anything of a world of this name is on the machine: a file, a process, a cgroup.
    pub fn has_traces(name: &WorldName) -> bool {
        folders_of(name).iter().any(is_somewhere)
    }

    /// Names of all worlds on this machine, half-made ones too.
    pub fn all() -> Vec<WorldName> {
        let mut names: Vec<WorldName> = WorldFolder::all().iter().map(|folder| folder.name().clone()).collect();
        names.dedup();
        names
    }

    /// Name of the world.
    pub fn name(&self) -> &WorldName {
        self.folder.name()
    }

    /// Whether a test made it for itself, and takes it down.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn is_scratch(&self) -> Result<bool> {
        Ok(record_of(&self.folder)?.is_some_and(|record| record.owner.is_some()))
    }

    /// The drawing that was made real.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The Kubernetes cluster.
    ///
    /// # Errors
    /// When the world was made without one.
    pub fn cluster(&self) -> Result<Cluster> {
        ensure!(self.cluster, "world {} has no cluster: make it with `Options::whole`", self.name());
        Cluster::of(self)
    }

    /// Pushes an image into the registry, from which the nodes pull it as `docker.io/NAME` and as `registry.towline.test/NAME`.
    ///
    /// # Errors
    /// When the world has no registry, or it does not take the image.
    pub fn push(&self, image: &Image, reference: &Reference) -> Result<Digest> {
        registry::push(&self.lab_box("registry")?, image, reference)
    }

    /// Folder on the machine with the world's keys, certificates and kubeconfig; gone after `down`.
    pub fn records(&self) -> std::path::PathBuf {
        self.folder.records()
    }

    /// Folder on the machine with the world's logs, one folder a box and one file a daemon; gone after `down`.
    pub fn logs(&self) -> std::path::PathBuf {
        self.folder.disk().join("log")
    }

    /// The box called `name`.
    ///
    /// # Errors
    /// When the drawing has no such box (the message lists those it has), or it does not run.
    pub fn lab_box(&self, name: &str) -> Result<LabBox> {
        let known = || self.plan.boxes.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join(", ");
        ensure!(self.plan.find(name).is_some(), "world {} has no box {name}; it has {}", self.name(), known());
        let found = LabBox::find(&self.folder, name)?;
        let (lab_box, _) = found.with_context(|| format!("box {name} of world {} does not run", self.name()))?;
        Ok(lab_box)
    }

    /// All boxes that run, in the drawing's order.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn boxes(&self) -> Result<Vec<LabBox>> {
        let found = self.plan.boxes.iter().map(|plan| LabBox::find(&self.folder, &plan.name));
        found.filter_map(|found| found.map(|found| found.map(|(lab_box, _)| lab_box)).transpose()).collect()
    }

    /// The authority that stands for the public web's: every box trusts it.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn public_authority(&self) -> Result<Authority> {
        building::public_authority(&self.folder)
    }

    /// The SSH key that logs in to robbinsdale as root; the laptop has it.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn ssh_key(&self) -> Result<SshKey> {
        ssh::user_key(&self.folder, &self.lab_box("robbinsdale")?)
    }

    /// Gives a public name to an address, at once and for every box.
    ///
    /// # Errors
    /// When the name is not a DNS name in lower case, or the name server does not take it.
    pub fn add_name(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let names_box = self.lab_box("names")?;
        self.change(|record| {
            record.zone.insert(name.to_owned(), address);
            names::replace(&names_box, &record.zone)
        })
    }

    /// Sets which UDP passes between the boxes on the internet, and makes routers and nodes forget tracked UDP flows.
    ///
    /// # Errors
    /// When the fabric does not take the rules.
    pub fn set_udp(&self, udp: Udp) -> Result<()> {
        let forwarders: Vec<LabBox> =
            self.boxes()?.into_iter().filter(|found| found.plan().forwarding != Forwarding::None).collect();
        let fabric = self.fabric()?;
        self.change(|record| {
            traffic::apply(&fabric, &self.plan, &forwarders, udp)?;
            record.udp = udp;
            Ok(())
        })
    }

    /// Pulls the cable of an interface; the box sees its carrier go.
    ///
    /// # Errors
    /// When the box has no such interface.
    pub fn unplug(&self, lab_box: &LabBox, interface: &str) -> Result<()> {
        network::set_plugged(&self.fabric()?, lab_box.plan(), interface, false)
    }

    /// Plugs a pulled cable in again.
    ///
    /// # Errors
    /// When the box has no such interface.
    pub fn plug(&self, lab_box: &LabBox, interface: &str) -> Result<()> {
        network::set_plugged(&self.fabric()?, lab_box.plan(), interface, true)
    }

    /// Puts a program where every box finds it first: `/opt/towline/own/NAME`. What runs already keeps running as it was.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn install(&self, program: &std::path::Path) -> Result<()> {
        building::install(&self.folder, program)
    }

    /// Starts the daemons again whose program was replaced since they started; returns where and which.
    ///
    /// # Errors
    /// When one does not start; with the end of its log.
    pub fn restart_outdated(&self) -> Result<Vec<(String, String)>> {
        let mut restarted = Vec::new();
        for lab_box in self.boxes()? {
            for daemon in lab_box.daemons()?.into_iter().filter(Daemon::is_outdated) {
                daemon.restart()?;
                restarted.push((lab_box.name().to_owned(), daemon.name().to_owned()));
            }
        }
        Ok(restarted)
    }

    /// The program `lab-init` that this world runs on.
    pub(crate) fn init(&self) -> std::path::PathBuf {
        self.folder.own_programs().join("lab-init")
    }

    /// What runs where.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn status(&self) -> Result<Status> {
        status::look(self)
    }

    fn fabric(&self) -> Result<LabBox> {
        let found = LabBox::find(&self.folder, FABRIC)?;
        Ok(found.with_context(|| format!("the bridges of world {} are gone; `World::up` makes them", self.name()))?.0)
    }

    /// Changes the record under the world's lock.
    fn change(&self, work: impl FnOnce(&mut WorldRecord) -> Result<()>) -> Result<()> {
        let _lock: WorldLock = self.folder.lock(LOCK_PATIENCE)?;
        let mut record = record_of(&self.folder)?.with_context(|| format!("world {} is down", self.name()))?;
        work(&mut record)?;
        write_record(&record_path(&self.folder), &record)
    }
}

/// Where a world of this name may lie. Those of earlier builds come first: their cgroups are called alike.
fn folders_of(name: &WorldName) -> Vec<WorldFolder> {
    WorldFolder::earlier(name).into_iter().chain([WorldFolder::new(name.clone())]).collect()
}

fn is_somewhere(folder: &WorldFolder) -> bool {
    folder.exists() || teardown::has_traces(folder)
}

fn refuse_earlier(name: &WorldName) -> Result<()> {
    ensure!(WorldFolder::earlier(name).is_none(), made_by_another_version(name));
    Ok(())
}

fn made_by_another_version(name: &WorldName) -> String {
    format!(
        "world {name} was made by another version of the laboratory; take it down first: `cargo xtask down --world {name}`"
    )
}

fn record_path(folder: &WorldFolder) -> std::path::PathBuf {
    folder.records().join("world.json")
}

fn record_of(folder: &WorldFolder) -> Result<Option<WorldRecord>> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let path = record_path(folder);
    if let Some(Version { version }) = read_record(&path)? {
        ensure!(version == RECORD_VERSION, made_by_another_version(folder.name()));
    }
    read_record(&path)
}

fn require_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the laboratory needs root: it makes namespaces, mounts and cgroups (try again with sudo)"
    );
    Ok(())
}
