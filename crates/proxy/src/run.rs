use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use dial::Resolve;
use telemetry::{Health, Metrics, Shutdown};
use tokio::sync::watch;

use crate::arguments::health_socket;
use crate::backends::{self, Backends};
use crate::config::{Config, Destination, Purpose};
use crate::forwarder::{Equipment, Forwarder};
use crate::health;
use crate::membership::{Membership, Surroundings};
use crate::relay::Relay;
use crate::rules::Rules;
use crate::traffic::Traffic;

/// Runs a proxy until it is told to end.
///
/// That the API server, the state Secret, the configuration or the coordination server is not there yet is waited for
/// and told of by the probe; it ends nothing.
///
/// # Errors
/// A process that is in no cluster, certificates that can't be read, or a port for metrics that is taken.
pub async fn run(
    config: Config,
    run_folder: PathBuf,
    resolver: Arc<dyn Resolve>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let surroundings = Surroundings { run_folder, resolver, health: Health::new(), shutdown };
    run_with(config, surroundings, Membership::open).await
}

async fn run_with<F>(
    config: Config,
    surroundings: Surroundings,
    open: impl FnOnce(crate::Member, Surroundings) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Option<Membership>>>,
{
    let Surroundings { run_folder, resolver, health, shutdown } = surroundings.clone();
    if !config.user_space && !matches!(config.purpose, Purpose::Connector) {
        Rules::follow_connections(config.udp_port()).map_err(|reason| anyhow!("preparing the kernel: {reason}"))?;
    }
    let metrics = Metrics::new();
    let ready = health.condition("traffic");
    let relay = Relay::new(Traffic::register(&metrics));
    let socket = health_socket(&run_folder);
    let listener = health::bind(&socket).with_context(|| format!("opening {} for probes", socket.display()))?;
    tokio::spawn(health::serve(listener, health.clone(), shutdown.clone()));
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listening at {address} for metrics"))?;
        tokio::spawn(telemetry::serve_admin(listener, metrics, health.clone(), shutdown.clone()));
    }
    let (routes, offered) = watch::channel(Vec::new());
    let backends = backends(&config, &resolver, &health, &shutdown, offered);
    tracing::info!(pod = config.pod.name, app = config.app, user_space = config.user_space, "the proxy starts");
    if let Some(membership) = open(config.member(), surroundings).await? {
        membership.keep(Forwarder::new(config, Equipment { relay, backends, routes, ready })).await;
    }
    tracing::info!("the proxy has ended");
    Ok(())
}

fn backends(
    config: &Config,
    resolver: &Arc<dyn Resolve>,
    health: &Health,
    shutdown: &Shutdown,
    offered: watch::Receiver<Vec<ipnet::IpNet>>,
) -> Backends {
    match &config.purpose {
        Purpose::Ingress(Destination::Name(name)) => {
            let condition = health.condition("destination");
            let api_server = config.api_server.clone();
            Backends::Named(backends::follow(name.clone(), api_server, resolver.clone(), condition, shutdown.token()))
        }
        Purpose::Ingress(destination) => Backends::fixed(destination),
        // An egress takes nothing from the tailnet.
        Purpose::Egress { .. } | Purpose::Connector => Backends::Asked(offered),
    }
}

#[cfg(test)]
mod tests;
