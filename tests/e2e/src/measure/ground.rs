use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Options, ScratchWorld};
use serde_json::Value;

use super::kubernetes::{self, Exposed};
use super::{Extent, Figures, nodes};
use crate::operator::{NAMESPACE, PROXY_NAMESPACE};
use crate::stage::POLICY;
use crate::workloads::{WORKLOADS, workloads_run};
use crate::{ADMIN, Cast, Client, Installation, Operator, PATIENCE, Parts, binary, eventually};

/// Whom a system's programs are measured as.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// What people call it.
    pub name: &'static str,
    /// Its programs.
    pub cast: Cast,
}

/// The systems that can be compared; the first is what the other is compared with.
pub const SYSTEMS: [System; 2] = [
    System {
        name: "stock",
        cast: Cast { operator: Operator::stock, laptop: Client::stock, robbinsdale: Client::stock },
    },
    System {
        name: "towline",
        cast: Cast { operator: Operator::towline, laptop: Client::towline, robbinsdale: Client::towline },
    },
];

/// Where clients and servers keep what they are, in a box.
const STATE: &str = "/var/lib/tailscale /var/lib/towline /root/.config/towline";
/// Programs that systems run in boxes.
const PROGRAMS: [&str; 4] =
    ["/opt/towline/own/towline", "/opt/towline/bin/tailscaled", "/opt/towline/bin/tailscale", "/usr/bin/iperf3"];

/// The world in which systems take turns: one coordination server, one cluster, nobody's nodes.
#[derive(Debug)]
pub struct Ground {
    /// The boxes.
    pub world: ScratchWorld,
    /// The coordination server and its relays.
    pub installation: Installation,
    /// Kubernetes.
    pub cluster: Cluster,
}

/// The nodes of the system whose turn it is.
pub(super) struct Nodes {
    pub(super) laptop: Client,
    pub(super) robbinsdale: Client,
}

impl Ground {
    /// Makes the world, with a web server in the cluster to be exposed.
    pub fn set_up() -> Result<Self> {
        let world = ScratchWorld::up(Options::whole()?)?;
        let installation = Installation::set_up(&world, &binary()?)?;
        installation.begin_with(POLICY)?;
        world.push_workloads()?;
        let cluster = world.cluster()?;
        cluster.apply(WORKLOADS)?;
        workloads_run(&cluster)?;
        let ground = Self { world, installation, cluster };
        ground.warm()?;
        Ok(ground)
    }

    /// Gives a system its turn: it enters, is measured, and leaves nothing behind.
    ///
    /// # Errors
    /// When something stays: what comes after would be measured wrong.
    pub fn measure(&self, system: &System, extent: &Extent, figures: &mut Figures) -> Result<()> {
        let entered = self.enter(system);
        let nodes = match entered {
            Ok(nodes) => nodes,
            Err(error) => {
                nodes::failed(system.name, &error, figures);
                kubernetes::failed(system.name, &error, figures);
                return self.clear(None);
            }
        };
        let before = nodes::idle(self, &nodes, system.name, extent, figures);
        if extent.nodes {
            nodes::busy(&nodes, system.name, extent, figures);
        }
        if extent.kubernetes {
            let operator = Parts::of_the_test().and_then(|parts| (system.cast.operator)(&self.world, &parts));
            let measured = operator.and_then(|operator| {
                let exposed = Exposed { ground: self, nodes: &nodes, operator: &operator, system: system.name };
                let measured = exposed.measure(extent, &before?, figures);
                println!("{}: uninstalling", system.name);
                let left = exposed.uninstall();
                measured.and(left)
            });
            if let Err(error) = measured {
                kubernetes::failed(system.name, &error, figures);
            }
        }
        self.clear(Some(&nodes))
    }

    fn enter(&self, system: &System) -> Result<Nodes> {
        println!("{}: its nodes join", system.name);
        let laptop = (system.cast.laptop)(self.world.lab_box("laptop")?)?;
        let robbinsdale = (system.cast.robbinsdale)(self.world.lab_box("robbinsdale")?)?;
        laptop.log_in(ADMIN, &lab::CAFE_ROUTER.to_string())?;
        robbinsdale.join(&self.installation.key(&["tag:server"])?)?;
        laptop.sees("robbinsdale", PATIENCE)?;
        Ok(Nodes { laptop, robbinsdale })
    }

    /// Has the programs' files in memory before anybody is measured, so that nobody is charged for what all share.
    fn warm(&self) -> Result<()> {
        let laptop = self.world.lab_box("laptop")?;
        PROGRAMS.iter().try_for_each(|program| laptop.read(program).map(drop))
    }

    /// Removes what a system has left: definitions, namespace, devices and the nodes' state.
    fn clear(&self, nodes: Option<&Nodes>) -> Result<()> {
        self.clear_cluster().context("clearing the cluster for the next system")?;
        for client in nodes.into_iter().flat_map(|nodes| [&nodes.laptop, &nodes.robbinsdale]) {
            // One that cannot log out is stopped all the same, and its device deleted below.
            let _ = client.cli(["logout"]).finish();
            client.stop()?;
        }
        for name in ["laptop", "robbinsdale"] {
            let lab_box = self.world.lab_box(name)?;
            for daemon in lab_box.daemons()?.iter().filter(|daemon| ["node", "tailscaled"].contains(&daemon.name())) {
                daemon.stop()?;
            }
            lab_box.shell(&format!("rm -rf {STATE}"))?;
        }
        eventually("no device left", 2 * PATIENCE, || {
            let devices = self.installation.ask(["devices", "list"])?;
            let devices = devices.as_array().context("no list of devices")?;
            for id in devices.iter().filter_map(|device| device["nodeId"].as_str()) {
                self.installation.towline(["devices", "delete", id, "--yes"]).run()?;
            }
            ensure!(devices.is_empty(), "there were {} devices", devices.len());
            Ok(())
        })
    }

    fn clear_cluster(&self) -> Result<()> {
        let definitions = self.cluster.list("default", "customresourcedefinitions", "")?;
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let ours = definitions.iter().map(name).filter(|name| name.ends_with(".tailscale.com"));
        let definitions: Vec<String> = ours.map(|name| format!("customresourcedefinition/{name}")).collect();
        let namespaces = [NAMESPACE, PROXY_NAMESPACE].map(|name| format!("namespace/{name}"));
        let delete = ["delete", "--ignore-not-found", "--timeout=90s"].map(str::to_owned).into_iter().chain(namespaces);
        self.cluster.kubectl(delete.chain(definitions)).within(Duration::from_secs(100)).run()?;
        let [node, _] = self.cluster.nodes();
        node.shell("rm -rf /root/charts")?;
        Ok(())
    }
}
