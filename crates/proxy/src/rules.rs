use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use host::{Firewall, FirewallConfig, Forwarding, ProxyRule, Ruleset};

use crate::egress::Way;

/// The interface of a proxy in kernel mode.
pub(crate) const INTERFACE: &str = "tailscale0";
/// The ports of WireGuard in kernel mode: above those that the system gives to whoever asks for any.
const UDP_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// The port of WireGuard in kernel mode: known beforehand, because an egress forwards every other one, and the pod's own.
/// Pods leave their node through one address, and its NAT keeps ports where it can: with one port for all of them two
/// proxies would be told the same public endpoint by turns, and a peer would find the other one there.
pub(crate) fn udp_port(pod_uid: &str) -> u16 {
    // A container that starts again in its pod has the port that peers know.
    let count = u64::from(UDP_PORTS.end() - UDP_PORTS.start()) + 1;
    UDP_PORTS.start() + u16::try_from(kubeapi::name::fingerprint(pod_uid.as_bytes()) % count).unwrap_or_default()
}

/// What the kernel translates for a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The node's own addresses.
    pub(crate) own: Vec<IpAddr>,
    /// The rules, at most one a family.
    pub(crate) rules: Vec<ProxyRule>,
    /// Whether the pod's own network uses addresses that are the tailnet's elsewhere.
    pub(crate) shared_range: bool,
}

/// The rules of a proxy in the kernel: kept as they should be, whoever changes them.
///
/// The node itself is told to leave the firewall alone: this is the one table of the pod.
pub(crate) struct Rules {
    /// The port of WireGuard, which is not translated.
    port: u16,
    firewall: Firewall,
    forwarding: Forwarding,
    installed: Option<Ruleset>,
    /// What they were made from.
    current: Option<FirewallConfig>,
}

impl Translation {
    /// Everything for the pod goes to the target of an egress.
    pub(crate) fn egress(way: &Way, pod: &[IpAddr]) -> Self {
        let mut rules: Vec<ProxyRule> = Vec::new();
        for (target, own) in way.pairs() {
            let first = |rule: &ProxyRule| matches!(rule, ProxyRule::Egress { target: other, .. } if other.is_ipv4() == target.is_ipv4());
            let in_pod = pod.iter().any(|address| address.is_ipv4() == target.is_ipv4());
            if in_pod && !rules.iter().any(first) {
                rules.push(ProxyRule::Egress { target, own });
            }
        }
        Self { own: way.own.clone(), rules, shared_range: shares_range(pod) }
    }

    /// Everything for the node's own addresses goes to the destination of an ingress.
    pub(crate) fn ingress(own: &[IpAddr], destination: impl Fn(IpAddr) -> Option<IpAddr>, pod: &[IpAddr]) -> Self {
        let to = |own: &IpAddr| destination(*own).filter(|found| found.is_ipv4() == own.is_ipv4());
        let rules = own.iter().filter_map(|own| Some(ProxyRule::Ingress { own: *own, destination: to(own)? }));
        Self { own: own.to_vec(), rules: rules.collect(), shared_range: shares_range(pod) }
    }

    fn config(&self, port: u16) -> FirewallConfig {
        FirewallConfig {
            addresses: self.own.iter().copied().collect::<BTreeSet<_>>(),
            udp_port: Some(port),
            drop_spoofed: !self.shared_range,
            forward: true,
            masquerade: true,
            clamp_segments: true,
            proxies: self.rules.clone(),
            ..FirewallConfig::node(INTERFACE)
        }
    }

    fn has(&self, ipv4: bool) -> bool {
        self.rules.iter().any(|rule| match rule {
            ProxyRule::Egress { own, .. } | ProxyRule::Ingress { own, .. } => own.is_ipv4() == ipv4,
        })
    }
}

impl Rules {
    pub(crate) fn new(port: u16) -> Result<Self, String> {
        let text = |error: host::HostError| error.to_string();
        Ok(Self {
            port,
            firewall: Firewall::new().map_err(text)?,
            forwarding: Forwarding::new().map_err(text)?,
            installed: None,
            current: None,
        })
    }

    /// Has the kernel follow connections from now on: to be called before the first one is opened.
    ///
    /// Answers on a connection that the kernel did not see begin look to it like somebody's first packet, and would be sent
    /// to the target: those of the API server, the coordination server and the relay.
    pub(crate) fn follow_connections(port: u16) -> Result<(), String> {
        let mut rules = Self::new(port)?;
        let ruleset = Translation::default().config(port).ruleset().map_err(|error| error.to_string())?;
        rules.firewall.install(&ruleset).map_err(|error| error.to_string())
    }

    /// Makes the kernel's rules what they should be; without any change when they are.
    ///
    /// # Errors
    /// What could not be had; it is to be called again.
    pub(crate) fn apply(&mut self, wanted: &Translation) -> Result<(), String> {
        if wanted.rules.is_empty() {
            return Err("there is nothing to send to in the pod's address families".to_owned());
        }
        self.forward(wanted)?;
        let config = wanted.config(self.port);
        let ruleset = config.ruleset().map_err(|error| error.to_string())?;
        if self.firewall.has(&ruleset).map_err(|error| error.to_string())? && self.installed.as_ref() == Some(&ruleset)
        {
            return Ok(());
        }
        self.firewall.install(&ruleset).map_err(|error| error.to_string())?;
        // Connections of TCP go on with the address that they began with; datagrams would, too, and for ever.
        match self.firewall.forget_flows(&config) {
            Ok(forgotten) => tracing::debug!(forgotten, "streams of datagrams begin anew"),
            Err(error) => tracing::debug!(%error, "streams of datagrams go on as they began"),
        }
        if self.installed.as_ref() != Some(&ruleset) {
            for drop in self.firewall.foreign_drops().unwrap_or_default() {
                tracing::warn!(%drop, "another firewall's rules may drop what is forwarded");
            }
            tracing::info!(rules = wanted.rules.len(), "the rules are in place");
        }
        (self.installed, self.current) = (Some(ruleset), Some(config));
        Ok(())
    }

    /// Lets what is open go on, and nothing new begin.
    pub(crate) fn drain(&mut self) {
        let Some(config) = self.current.take() else { return };
        let ruleset = FirewallConfig { draining: true, ..config }.ruleset();
        let drained = ruleset.map_err(|error| error.to_string());
        let drained = drained.and_then(|ruleset| self.firewall.install(&ruleset).map_err(|error| error.to_string()));
        if let Err(reason) = drained {
            tracing::warn!(%reason, "new connections may still begin while the proxy ends");
        }
    }

    /// Takes all rules away.
    pub(crate) fn remove(&mut self) {
        if let Err(error) = self.firewall.cleanup() {
            tracing::warn!(%error, "the rules could not be removed");
        }
        self.installed = None;
    }

    fn forward(&mut self, wanted: &Translation) -> Result<(), String> {
        let mut failures = Vec::new();
        if wanted.has(true) {
            failures.extend(self.forwarding.forward_ipv4().map_err(|error| error.to_string())?.failures);
        }
        if wanted.has(false) {
            let failed = self.forwarding.forward_ipv6().failures;
            // Without IPv6 an address family is missing; without both nothing works.
            if wanted.has(true) {
                for error in failed {
                    tracing::debug!(%error, "IPv6 is not forwarded");
                }
            } else {
                failures.extend(failed);
            }
        }
        failures.first().map_or(Ok(()), |error| Err(error.to_string()))
    }
}

fn shares_range(pod: &[IpAddr]) -> bool {
    let shared: Option<ipnet::IpNet> = "100.64.0.0/10".parse().ok();
    pod.iter().any(|address| shared.is_some_and(|range| range.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 61_234;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn way() -> Way {
        Way {
            targets: vec![ip("100.64.0.9"), ip("100.64.0.10"), ip("fd7a:115c:a1e0::9")],
            own: vec![ip("100.64.0.7"), ip("fd7a:115c:a1e0::7")],
        }
    }

    #[test]
    fn pods_of_one_node_hardly_ever_share_a_port() {
        let uid = |number: u32| format!("{:08x}-4f1e-4c1b-9d3a-{:012x}", number.wrapping_mul(0x9e37_79b9), number);
        let ports: BTreeSet<u16> = (0..30).map(|number| udp_port(&uid(number))).collect();
        assert!(ports.len() >= 29, "{ports:?}");
        assert!(ports.iter().all(|port| UDP_PORTS.contains(port)), "{ports:?}");
        assert_eq!(udp_port(&uid(7)), udp_port(&uid(7)));
    }

    #[test]
    fn an_egress_has_one_rule_for_each_family_of_the_pod() {
        let translation = Translation::egress(&way(), &[ip("10.0.0.7")]);
        assert_eq!(translation.rules, [ProxyRule::Egress { target: ip("100.64.0.9"), own: ip("100.64.0.7") }]);
        let translation = Translation::egress(&way(), &[ip("10.0.0.7"), ip("fd00::7")]);
        assert_eq!(translation.rules.len(), 2);
        assert!(translation.config(PORT).ruleset().is_ok());
    }

    #[test]
    fn the_rules_of_an_egress_spare_wireguard_and_fit_segments_to_the_tunnel() {
        let text = Translation::egress(&way(), &[ip("10.0.0.7")]).config(PORT).ruleset().unwrap().to_string();
        for part in
            ["udp dport 61234 return", "dnat ip to 100.64.0.9", "snat ip to 100.64.0.7", "maxseg size set rt mtu"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("maxseg").count(), 2);
    }

    #[test]
    fn an_ingress_translates_each_own_address_that_has_a_destination() {
        let only_v4 = |own: IpAddr| own.is_ipv4().then(|| ip("10.1.0.10"));
        let translation = Translation::ingress(&way().own, only_v4, &[ip("10.0.0.7")]);
        assert_eq!(translation.rules, [ProxyRule::Ingress { own: ip("100.64.0.7"), destination: ip("10.1.0.10") }]);
    }

    #[test]
    fn connections_are_followed_without_any_rule_that_sends_them_elsewhere() {
        let text = Translation::default().config(PORT).ruleset().unwrap().to_string();
        // A chain that translates is what makes the kernel follow connections.
        assert!(text.contains("type nat hook postrouting") && !text.contains("dnat"), "{text}");
    }

    #[test]
    fn pods_in_the_tailnets_range_are_not_taken_for_spoofers() {
        let dropped = |pod: &str| Translation::egress(&way(), &[ip(pod)]).config(PORT).drop_spoofed;
        assert!(dropped("10.0.0.7"));
        assert!(!dropped("100.65.0.7"));
    }
}
