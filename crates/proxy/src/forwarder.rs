use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use kubeapi::{MissingTarget, NodeConfig, OfferedRoutes};
use node::{Destination as Listening, Node, Snapshot};
use telemetry::Condition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;
use crate::config::{Config, Purpose};
use crate::egress::{Egress, Way};
use crate::membership::Duty;
use crate::offer::{self, Forwards};
use crate::relay::Relay;
use crate::rules::{self, Rules, Translation};
use crate::target::{self, Nowhere};

/// How long flows that are open may go on after the proxy was told to end.
const DRAIN: Duration = Duration::from_secs(20);
/// How long no packet passes where the kernel's flows count as over.
const QUIET: Duration = Duration::from_secs(2);

/// What a proxy does with its node: leads traffic in, out, or into the networks that it connects.
pub(crate) struct Forwarder {
    config: Config,
    relay: Relay,
    backends: Backends,
    /// The routes that a connector offers now.
    routes: watch::Sender<Vec<IpNet>>,
    /// Whether rules or listeners are in place.
    ready: Condition,
    /// Why the target of an egress is not there, when that is known.
    missing: Option<MissingTarget>,
    /// What becomes of the routes of a connector, when that is known.
    offered: Option<OfferedRoutes>,
    way: watch::Sender<Way>,
    rules: Option<Rules>,
    ends: CancellationToken,
    complaint: String,
}

/// What a forwarder works with.
pub(crate) struct Equipment {
    pub(crate) relay: Relay,
    pub(crate) backends: Backends,
    pub(crate) routes: watch::Sender<Vec<IpNet>>,
    pub(crate) ready: Condition,
}

impl Forwarder {
    pub(crate) fn new(config: Config, equipment: Equipment) -> Self {
        let Equipment { relay, backends, routes, ready } = equipment;
        let (way, ends, complaint) = (watch::Sender::default(), CancellationToken::new(), String::new());
        Self { config, relay, backends, routes, ready, missing: None, offered: None, way, rules: None, ends, complaint }
    }

    /// Makes rules and ways what they should be now.
    fn settle(&mut self, snapshot: &Snapshot) {
        let own = snapshot.addresses();
        if own.is_empty() {
            self.ready.unmet("the node has no address yet");
            return;
        }
        let done = match self.config.purpose.clone() {
            Purpose::Egress { target, .. } => {
                let records =
                    |name: &str| snapshot.names.addresses_of(name).map(<[IpAddr]>::to_vec).unwrap_or_default();
                let found = target::locate(&target, &snapshot.mesh, records);
                self.missing = missing(&found);
                match found {
                    Ok(targets) => self.lead(Way { targets, own: own.clone() }),
                    Err(nowhere) => Err(nowhere.to_string()),
                }
            }
            Purpose::Ingress(_) => self.translate_ingress(&own),
            Purpose::Connector => self.look_at_routes(snapshot),
        };
        match done {
            Ok(()) => {
                self.complaint.clear();
                self.ready.met();
            }
            Err(reason) => {
                if reason != self.complaint {
                    tracing::warn!("traffic can't flow; the probe (`towline proxy health`) says why");
                    tracing::debug!(%reason, "traffic can't flow");
                    self.complaint.clone_from(&reason);
                }
                self.ready.unmet(reason);
            }
        }
    }

    /// Leads an egress to where its target is now.
    fn lead(&mut self, way: Way) -> Result<(), String> {
        if let Some(rules) = &mut self.rules {
            rules.apply(&Translation::egress(&way, &self.config.pod.addresses))?;
        }
        self.way.send_if_modified(|current| {
            let changed = *current != way;
            if changed {
                tracing::info!(addresses = way.targets.len(), "the target was found");
                *current = way;
            }
            changed
        });
        Ok(())
    }

    /// Sees what becomes of the routes that a connector offers.
    fn look_at_routes(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let forwards = if self.config.user_space { Forwards::ALL } else { Forwards::of_kernel() };
        self.offered = offer::look(&snapshot.mesh, forwards);
        self.offered.as_ref().map_or(Ok(()), offer::hindrance)
    }

    fn translate_ingress(&mut self, own: &[IpAddr]) -> Result<(), String> {
        let Some(rules) = &mut self.rules else { return Ok(()) };
        let destination = |own: IpAddr| {
            let candidates = self.backends.candidates(own);
            candidates.into_iter().find(|found| found.is_ipv4() == own.is_ipv4())
        };
        rules.apply(&Translation::ingress(own, destination, &self.config.pod.addresses))
    }
}

impl Duty for Forwarder {
    async fn begin(&mut self, node: &Node, settings: &NodeConfig) -> Result<(), String> {
        self.way = watch::Sender::default();
        self.ends = CancellationToken::new();
        self.complaint.clear();
        self.offered = None;
        self.configured(settings);
        let purpose = self.config.purpose.clone();
        let (relay, backends) = (self.relay.clone(), self.backends.clone());
        match (node.user_space(), &purpose) {
            (Some(user_space), Purpose::Ingress(_)) => {
                crate::ingress::start(user_space, Listening::Own, backends, relay, self.ends.clone())
                    .map_err(|error| format!("nothing can be taken from the tailnet: {error}"))?;
            }
            (Some(user_space), Purpose::Connector) => {
                crate::ingress::start(user_space, Listening::Any, backends, relay, self.ends.clone())
                    .map_err(|error| format!("nothing can be taken from the tailnet: {error}"))?;
            }
            (Some(user_space), Purpose::Egress { ports, .. }) => {
                let egress = Egress::new(user_space.clone(), self.way.subscribe(), relay, self.ends.clone());
                let pod = &self.config.pod.addresses;
                egress.listen(pod, ports).await.map_err(|error| error.to_string())?;
            }
            // The node does all that a connector needs of the kernel.
            (None, Purpose::Connector) => {}
            (None, _) => self.rules = Some(Rules::new(self.config.udp_port())?),
        }
        Ok(())
    }

    fn configured(&mut self, settings: &NodeConfig) {
        self.routes.send_replace(settings.advertise_routes.clone().unwrap_or_default());
    }

    fn hindered(&mut self, reason: &str) {
        self.ready.unmet(reason);
    }

    fn stands(&mut self, snapshot: &Snapshot) {
        self.settle(snapshot);
    }

    fn missing_target(&self) -> Option<&MissingTarget> {
        self.missing.as_ref()
    }

    fn offered_routes(&self) -> Option<&OfferedRoutes> {
        self.offered.as_ref()
    }

    async fn end(&mut self, drains: bool) {
        if drains {
            match &mut self.rules {
                Some(rules) => {
                    rules.drain();
                    until_quiet(packets_passed).await;
                }
                None => self.relay.drain(DRAIN).await,
            }
        }
        self.ends.cancel();
        if let Some(mut rules) = self.rules.take() {
            rules.remove();
        }
    }
}

/// What the operator is told of where a target is.
fn missing(found: &Result<Vec<IpAddr>, Nowhere>) -> Option<MissingTarget> {
    match found {
        Err(Nowhere::Missing(target, problem)) => Some(MissingTarget { target: target.to_string(), problem: *problem }),
        Ok(_) | Err(Nowhere::NotKnown(_)) => None,
    }
}

/// How many packets have passed the interface; nothing where it is gone.
fn packets_passed() -> Option<u64> {
    let of = |direction: &str| {
        let path = format!("/sys/class/net/{}/statistics/{direction}_packets", rules::INTERFACE);
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    Some(of("rx")? + of("tx")?)
}

/// Waits until no packet passes for a while: the kernel knows the flows, and does not tell of them.
async fn until_quiet(mut packets: impl FnMut() -> Option<u64>) {
    let deadline = tokio::time::Instant::now() + DRAIN;
    let mut before = packets();
    while before.is_some() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(QUIET).await;
        let now = packets();
        if now == before {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests;
