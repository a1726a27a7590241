use std::net::SocketAddr;

use crate::control::RestSettings;
use crate::settings::Settings;

/// What the operator runs with, as resolved from [`crate::Arguments`].
#[derive(Clone)]
pub struct Config {
    /// What holds for every proxy.
    pub settings: Settings,
    /// How the cluster's API server is reached.
    pub cluster: kube::Config,
    /// How the coordination server is reached.
    pub control: RestSettings,
    /// The name of the lease.
    pub lease: String,
    /// Who holds it: different for every process.
    pub identity: String,
    /// Where probes and metrics are answered.
    pub admin_listen: SocketAddr,
    /// Deployments that `drain` stops before it begins.
    pub drained: Vec<String>,
    /// The API server's proxy, which `drain` takes back too.
    pub api_server_proxy: Option<ApiServerProxy>,
}

/// The workload that proxies the API server: the chart's, in a namespace where only a drain has rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServerProxy {
    /// Its namespace.
    pub namespace: String,
    /// The tags that its device was let in with.
    pub tags: Vec<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("settings", &self.settings)
            .field("cluster", &self.cluster.cluster_url)
            .field("control", &self.control.url)
            .field("lease", &self.lease)
            .field("identity", &self.identity)
            .field("admin_listen", &self.admin_listen)
            .finish_non_exhaustive()
    }
}
