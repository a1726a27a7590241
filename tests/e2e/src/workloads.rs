use std::net::Ipv4Addr;

use anyhow::Result;
use lab::Cluster;

use crate::PATIENCE;

/// What lives in the cluster before the walkthrough begins: a web server on one node, a shell on the other.
pub(crate) const WORKLOADS: &str = include_str!("../manifests/workloads.yaml");
/// What the web server answers.
pub const WEB_PAGE: &str = "web: hello from the cluster";
/// What the home's load balancer gives the web server.
pub(crate) const BALANCED: Ipv4Addr = Ipv4Addr::new(10, 69, 0, 7);

/// Waits until the workloads run.
pub(crate) fn workloads_run(cluster: &Cluster) -> Result<()> {
    for pod in ["pod/web", "pod/shell"] {
        cluster.wait("home", pod, "condition=Ready", 4 * PATIENCE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_web_server_is_told_to_answer_what_tests_wait_for() {
        assert!(WORKLOADS.contains(&format!("command: [/web, web, {WEB_PAGE:?}]")));
    }
}
