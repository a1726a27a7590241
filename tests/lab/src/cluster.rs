//! Kubernetes of two nodes, in boxes on the home LAN.
//!
//! The first node runs etcd and the control plane too. Pods have one /24 a node and are routed, neither bridged nor
//! tunnelled; kube-proxy works in its `nftables` mode.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cache::Cache;
use serde_json::Value;

use crate::command::{Command, Output};
use crate::folder::write_whole;
use crate::lab_box::LabBox;
use crate::parallel;
use crate::plan::{LOAD_BALANCERS, NODE1, NODE2};
use crate::progress::{Listener, step};
use crate::registry;
use crate::world::World;

mod add_ons;
mod certificates;
mod control_plane;
mod node;

pub(crate) use node::kubelet_settings;

/// Programs of the cache that a cluster needs.
pub(crate) const PROGRAMS: [&str; 10] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "coredns",
    "registry",
    "runc",
    "pause",
];

/// How long a part of the cluster may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where `kubectl` in a box looks when it is told nothing else.
const KUBECONFIG: &str = "/root/.kube/config";

/// The cluster of a world.
#[derive(Clone, Debug)]
pub struct Cluster {
    first: LabBox,
    second: LabBox,
    records: PathBuf,
}

impl Cluster {
    pub(crate) fn of(world: &World) -> Result<Self> {
        Ok(Self { first: world.lab_box("node1")?, second: world.lab_box("node2")?, records: world.records() })
    }

    /// Both nodes.
    pub fn nodes(&self) -> [&LabBox; 2] {
        [&self.first, &self.second]
    }

    /// Path on the machine of the administrator's kubeconfig. Its server is the first node's address, which boxes on the
    /// home LAN reach; `kubectl` in the nodes uses it of itself.
    pub fn kubeconfig(&self) -> PathBuf {
        self.records.join("kubeconfig")
    }

    /// Begins a `kubectl` command on the first node, as the cluster's administrator.
    pub fn kubectl<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command<'_> {
        let arguments = arguments.into_iter().map(Into::into);
        self.first.command(std::iter::once("kubectl".to_owned()).chain(arguments)).within(PATIENCE)
    }

    /// Applies manifests, YAML or JSON.
    ///
    /// # Errors
    /// When the API server refuses them; with its words.
    pub fn apply(&self, manifests: &str) -> Result<Output> {
        Ok(self.kubectl(["apply", "--server-side", "-f", "-"]).input(manifests).run()?)
    }

    /// Makes those objects of manifests that do not exist; what exists stays as it is, whatever has become of it.
    ///
    /// # Errors
    /// When the API server refuses one; with its words.
    pub fn create_missing(&self, manifests: &str) -> Result<()> {
        let output = self.kubectl(["create", "--save-config", "-f", "-"]).input(manifests).finish()?;
        let exists = |line: &str| line.contains("(AlreadyExists)");
        let all_else_exists = !output.stderr.is_empty() && output.stderr.lines().all(exists);
        ensure!(output.ended.is_success() || all_else_exists, "kubectl create: {}", output.stderr);
        Ok(())
    }

    /// One object, such as `service/web`, as the API server has it; kinds without namespaces ignore theirs.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        self.ask(["--namespace", namespace, "get", object, "--output=json"])
    }

    /// All objects of a kind with these labels.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn list(&self, namespace: &str, kind: &str, labels: &str) -> Result<Vec<Value>> {
        let found = self.ask(["--namespace", namespace, "get", kind, "--selector", labels, "--output=json"])?;
        found["items"].as_array().cloned().with_context(|| format!("no list of {kind}: {found}"))
    }

    fn ask<const N: usize>(&self, arguments: [&str; N]) -> Result<Value> {
        let output = self.kubectl(arguments).run()?.stdout;
        serde_json::from_str(&output).with_context(|| format!("reading {output:?}"))
    }

    /// Waits for a condition as `kubectl wait` knows them, of an object that may not exist yet.
    ///
    /// # Errors
    /// When it does not come within `limit`.
    pub fn wait(&self, namespace: &str, object: &str, condition: &str, limit: Duration) -> Result<()> {
        let time = format!("--timeout={}s", limit.as_secs().max(1));
        let margin = Duration::from_secs(10);
        for awaited in ["--for=create", &format!("--for={condition}")] {
            self.kubectl(["-n", namespace, "wait", object, awaited, &time]).within(limit + margin).run()?;
        }
        Ok(())
    }

    /// Gives a Service of type LoadBalancer its address, as the load balancer of a real home cluster would.
    ///
    /// # Errors
    /// When the address is outside the routed range, or the API server refuses.
    pub fn assign_load_balancer(&self, namespace: &str, service: &str, address: Ipv4Addr) -> Result<()> {
        ensure!(
            LOAD_BALANCERS.contains(&address),
            "{address} is not in {LOAD_BALANCERS}, which is routed to the nodes"
        );
        let patch = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
        let patch = ["patch", "service", service, "--subresource=status", "--type=merge", "-p", &patch];
        self.kubectl(["-n", namespace].into_iter().chain(patch)).run()?;
        Ok(())
    }
}

/// Starts the cluster and its registry, each part as soon as what it needs is there.
pub(crate) fn start(world: &World, cache: &Cache, listener: Listener<'_>) -> Result<()> {
    let cluster = Cluster::of(world)?;
    let registry_box = world.lab_box("registry")?;
    let authorities = certificates::Authorities::open(&world.records())?;
    for (node, address) in [(&cluster.first, NODE1), (&cluster.second, NODE2)] {
        authorities.equip_node(node, address)?;
    }
    authorities.equip_control_plane(&cluster.first)?;
    write_whole(&cluster.kubeconfig(), authorities.admin_kubeconfig()?.as_bytes(), 0o600)?;

    let images = || {
        step(listener, "registry", || registry::serve(&registry_box))?;
        step(listener, "cluster images", || add_ons::push_images(&registry_box, cache))
    };
    let control_plane = || {
        step(listener, "etcd", || control_plane::start_etcd(&cluster.first))?;
        step(listener, "kube-apiserver", || control_plane::start_apiserver(&cluster.first))?;
        step(listener, "controllers", || control_plane::start_controllers(&cluster.first))
    };
    let runtimes = || {
        step(listener, "containerd", || {
            parallel::for_each(&[(&cluster.first, 0), (&cluster.second, 1)], |(node, number)| {
                node::start_runtime(node, *number)
            })
        })
    };
    parallel::both(control_plane, || parallel::both(images, runtimes))?;
    step(listener, "kubelets", || {
        parallel::for_each(&[(&cluster.first, NODE1), (&cluster.second, NODE2)], |(node, address)| {
            node::start_kubelet(node, *address)
        })
    })?;
    step(listener, "cluster names", || add_ons::apply(&cluster))?;
    step(listener, "nodes ready", || nodes_ready(&cluster))
}

fn nodes_ready(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let object = format!("node/{}", node.name());
        cluster.wait("default", &object, "condition=Ready", PATIENCE).context("a node is not ready")?;
    }
    cluster
        .wait("kube-system", "deployment/coredns", "condition=Available", PATIENCE)
        .context("no names in the cluster")
}
