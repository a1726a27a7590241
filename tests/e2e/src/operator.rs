//! An operator for Kubernetes: its chart, and how to install it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::{Cluster, World};
use serde_json::{Value, json};

use crate::installation::{CONTROL_URL, Installation};
use crate::{PATIENCE, Parts};
use release::Release;

mod chart;
mod release;
mod stock;
mod towline;

/// The namespace that the guide installs an operator in.
pub(crate) const NAMESPACE: &str = "tailscale";
/// Where our chart puts the API server's proxy.
pub(crate) const PROXY_NAMESPACE: &str = "tailscale-apiserver-proxy";
/// The mesh node of an operator.
pub(crate) const NODE: &str = "tailscale-operator";

const RELEASE: &str = "tailscale-operator";
const CHARTS: &str = "/root/charts";

/// An operator, ready to be installed.
#[derive(Debug)]
pub struct Operator {
    /// What people call it.
    pub name: &'static str,
    /// The name of its Deployment.
    pub deployment: &'static str,
    /// In what operators differ that users see.
    pub habits: Habits,
    /// Version of chart and images, without a `v`.
    version: String,
    /// The chart's files, by their path within it.
    chart: BTreeMap<String, String>,
    /// Values of the chart besides the credentials and the coordination server.
    values: Value,
}

/// In what operators differ that users see.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Its conditions say that traffic flows; else, that objects were written.
    pub ready_is_ready: bool,
    /// The definitions of its resources outlive it, and its device does not; else, the other way round.
    pub leaves_in_order: bool,
    /// It serves the cluster's API server to the tailnet, with a certificate of the tailnet's own authority.
    pub proxies_the_api_server: bool,
    /// It knows the resource Tailnet, for credentials besides its own.
    pub takes_tailnets: bool,
    /// Its proxies tell what flows through them.
    pub tells_flows: bool,
    /// The cluster holds whoever has its token to the shape of its proxies' pods.
    pub is_held_to_its_proxies: bool,
    /// It runs as two replicas, of which one leads and the other stands by.
    pub stands_by: bool,
    /// Its proxies run without a capability where a Service names its ports, or a class says so.
    pub forwards_in_user_space: bool,
    /// Its proxies let what is open go on to its end when their pods have to go.
    pub lets_flows_end: bool,
}

impl Habits {
    /// Those of the stock operator.
    pub const STOCK: Self = stock::HABITS;
    /// Those of ours.
    pub const TOWLINE: Self = towline::HABITS;
}

impl Operator {
    /// The stock operator, with its stock proxies; pushes their images.
    pub fn stock(world: &World, parts: &Parts) -> Result<Self> {
        stock::operator(world, parts)
    }

    /// Our operator, with our proxies, by the chart of this checkout; pushes their image.
    pub fn towline(world: &World, parts: &Parts) -> Result<Self> {
        towline::operator(world, parts)
    }

    /// Installs it by Helm, as the guide says: with an OAuth client of its own, into the article's namespace. Where just this
    /// is installed already, it stays.
    pub fn install(&self, cluster: &Cluster, installation: &Installation) -> Result<()> {
        cluster.apply(include_str!("../../../examples/namespace.yaml"))?;
        let [node, _] = cluster.nodes();
        let values = self.values(installation)?;
        let description = release::description_of(&(&self.version, &self.chart, values.to_string()));
        match Release::find(node)? {
            Some(release) if release.is(&description) => return Ok(()),
            Some(release) if release.is_cut_off() => release.clear(node)?,
            _ => {}
        }
        let folder = format!("{CHARTS}/{RELEASE}");
        for (path, content) in &self.chart {
            node.write(&format!("{folder}/{path}"), content, 0o644)?;
        }
        let (version, app) = (format!("--version={}", self.version), format!("--app-version=v{}", self.version));
        node.run(["helm", "package", &folder, "--destination", CHARTS, &version, &app])?;
        node.write(&format!("{CHARTS}/values.json"), values.to_string(), 0o600)?;
        let packed = format!("{CHARTS}/{}-{}.tgz", self.chart_name()?, self.version);
        let install =
            ["helm", "upgrade", "--install", RELEASE, &packed, "--namespace", NAMESPACE, "--description", &description];
        let options = ["--values", "/root/charts/values.json", "--wait", "--timeout=120s"];
        node.command(install.into_iter().chain(options)).within(4 * PATIENCE).run()?;
        Ok(())
    }

    /// Uninstalls it by Helm, which waits for what the chart does before: at most as long as our drain gives itself.
    pub fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        let [node, _] = cluster.nodes();
        let uninstall = ["helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=300s"];
        node.command(uninstall).within(11 * PATIENCE).run()?;
        Ok(())
    }

    fn chart_name(&self) -> Result<&str> {
        let chart = self.chart.get("Chart.yaml").context("the chart has no Chart.yaml")?;
        chart.lines().find_map(|line| line.strip_prefix("name: ")).context("the chart has no name")
    }

    fn values(&self, installation: &Installation) -> Result<Value> {
        let client =
            installation.oauth_client_of(RELEASE, &["devices:core", "auth_keys", "services"], &["tag:k8s-operator"])?;
        let mut values = self.values.clone();
        let own = values.as_object_mut().context("values are no object")?;
        own.insert("loginServer".to_owned(), CONTROL_URL.into());
        own.insert("oauth".to_owned(), json!({"clientId": client.id, "clientSecret": client.secret}));
        Ok(values)
    }
}
