//! Rules as values: from a configuration to chains of expressions, printable in the language of `nft`.

mod text;

use std::net::IpAddr;

use ipnet::IpNet;

use super::{FirewallConfig, FirewallConfigError, ProxyRule};
use crate::routes::{BYPASS_MARK, Family, SUBNET_MARK};
use crate::tun::INTERFACE_NAME_BYTES;

/// Everything in our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// One chain: rules that a packet meets at one place on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name within our table.
    pub name: &'static str,
    /// Whether it translates addresses (`nat`) or judges packets (`filter`).
    pub translates: bool,
    /// Where packets meet it.
    pub hook: Hook,
    /// Its place among the chains of all tables at that hook: lower ones come first.
    pub priority: i32,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A place on a packet's way through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not yet routed.
    Prerouting,
    /// For this machine.
    Input,
    /// For another machine.
    Forward,
    /// From this machine.
    Output,
    /// About to leave.
    Postrouting,
}

/// One rule: expressions from left to right until one does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it matches and does.
    pub expressions: Vec<Expression>,
    /// Why it is there, as listings show it.
    pub comment: &'static str,
}

/// A condition, or something done to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// It came by an interface of this name, or by any other.
    InputInterface(String, bool),
    /// It leaves by an interface of this name.
    OutputInterface(String),
    /// It is of this family.
    Family(Family),
    /// Its source is in this network.
    Source(IpNet),
    /// Its destination is in this network.
    Destination(IpNet),
    /// It is UDP for this port.
    UdpPort(u16),
    /// It opens a TCP connection, or agrees to one.
    TcpSyn,
    /// These bits of its mark are these.
    Mark(u32),
    /// These bits of its connection's mark are these.
    ConnectionMark(u32),
    /// Its connection is known, or is not.
    Established(bool),
    /// Sets our bits of its mark.
    SetMark(u32),
    /// Sets our bits of its connection's mark.
    SetConnectionMark(u32),
    /// Lowers the segment size that it announces to what fits the way ahead and the way back.
    ClampSegments,
    /// Gives it the address of the interface that it leaves by.
    Masquerade,
    /// Gives it another source.
    SourceNat(IpAddr),
    /// Gives it another destination.
    DestinationNat(IpAddr),
    /// Ends this table's judgement in its favour.
    Accept,
    /// Drops it.
    Drop,
    /// Ends this chain.
    Return,
}

/// Priorities of the kernel's usual chains (`nft`: mangle, dstnat, filter, srcnat). Ours come just before.
const BEFORE_MANGLE: i32 = -160;
const BEFORE_DESTINATION_NAT: i32 = -110;
const BEFORE_FILTER: i32 = -10;
const BEFORE_SOURCE_NAT: i32 = 90;

const TAILNET_V4: &str = "100.64.0.0/10";
/// A part of the range that ChromeOS uses inside one machine.
const CHROMEOS: &str = "100.115.92.0/23";
const TAILNET_V6: &str = "fd7a:115c:a1e0::/48";

/// The rules for a configuration.
pub(super) fn build(config: &FirewallConfig) -> Result<Ruleset, FirewallConfigError> {
    let usable = (1..=INTERFACE_NAME_BYTES).contains(&config.interface.len())
        && config.interface.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\"".contains(&byte));
    if !usable {
        return Err(FirewallConfigError::Interface(config.interface.clone()));
    }
    check_proxies(&config.proxies)?;
    let chains = [
        chain("mark-replies", false, Hook::Prerouting, BEFORE_MANGLE, recognise_replies(config)),
        chain("mark-own", false, Hook::Output, BEFORE_MANGLE, remember_own(config)),
        chain("clamp", false, Hook::Forward, BEFORE_MANGLE, clamp(config)),
        chain("prerouting", true, Hook::Prerouting, BEFORE_DESTINATION_NAT, prerouting(config)),
        chain("input", false, Hook::Input, BEFORE_FILTER, input(config)),
        chain("forward", false, Hook::Forward, BEFORE_FILTER, forward(config)),
        chain("postrouting", true, Hook::Postrouting, BEFORE_SOURCE_NAT, postrouting(config)),
    ];
    Ok(Ruleset { chains: chains.into_iter().filter(|chain| !chain.rules.is_empty()).collect() })
}

fn chain(name: &'static str, translates: bool, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, translates, hook, priority, rules }
}

fn rule(comment: &'static str, expressions: impl IntoIterator<Item = Expression>) -> Rule {
    Rule { expressions: expressions.into_iter().collect(), comment }
}

fn check_proxies(proxies: &[ProxyRule]) -> Result<(), FirewallConfigError> {
    let mut all: [Option<IpAddr>; 2] = [None, None];
    for proxy in proxies {
        let (from, to) = match *proxy {
            ProxyRule::Egress { target, own } => (own, target),
            ProxyRule::Ingress { own, destination } => (own, destination),
        };
        if from.is_ipv4() != to.is_ipv4() {
            return Err(FirewallConfigError::Families { from, to });
        }
        if let ProxyRule::Egress { target, .. } = *proxy
            && let Some(first) = all[usize::from(target.is_ipv6())].replace(target)
        {
            return Err(FirewallConfigError::TwoTargets { first, second: target });
        }
    }
    Ok(())
}

fn input(config: &FirewallConfig) -> Vec<Rule> {
    let tun = || config.interface.clone();
    let mut rules = Vec::new();
    for address in &config.addresses {
        rules.push(rule(
            "the machine talks to itself",
            [
                Expression::InputInterface("lo".to_owned(), true),
                Expression::Family(family(*address)),
                Expression::Source((*address).into()),
                Expression::Accept,
            ],
        ));
    }
    if config.drop_spoofed {
        rules.extend(from_elsewhere(tun(), CHROMEOS, "ChromeOS within one machine", Expression::Return));
        rules.extend(from_elsewhere(tun(), TAILNET_V4, "a tailnet address from elsewhere", Expression::Drop));
        rules.extend(from_elsewhere(tun(), TAILNET_V6, "a tailnet address from elsewhere", Expression::Drop));
    }
    rules.push(rule("judged by the node", [Expression::InputInterface(tun(), true), Expression::Accept]));
    if let Some(port) = config.udp_port {
        rules.push(rule("WireGuard", [Expression::UdpPort(port), Expression::Accept]));
    }
    rules
}

fn from_elsewhere(tun: String, network: &str, comment: &'static str, verdict: Expression) -> Option<Rule> {
    let network: IpNet = network.parse().ok()?;
    let family = Expression::Family(Family::of(&network));
    Some(rule(comment, [Expression::InputInterface(tun, false), family, Expression::Source(network), verdict]))
}

fn forward(config: &FirewallConfig) -> Vec<Rule> {
    if !config.forward {
        return Vec::new();
    }
    let tun = || config.interface.clone();
    let mut rules = Vec::new();
    if config.draining {
        for direction in [Expression::InputInterface(tun(), true), Expression::OutputInterface(tun())] {
            rules.push(rule("nothing new at the end", [direction, Expression::Established(false), Expression::Drop]));
        }
    }
    rules.extend([
        rule("out of the tunnel", [Expression::InputInterface(tun(), true), Expression::SetMark(SUBNET_MARK)]),
        rule("judged by the node", [Expression::Mark(SUBNET_MARK), Expression::Accept]),
    ]);
    if config.drop_spoofed {
        for network in [TAILNET_V4, TAILNET_V6] {
            let Ok(network) = network.parse::<IpNet>() else { continue };
            rules.push(rule(
                "a tailnet address from elsewhere",
                [
                    Expression::OutputInterface(tun()),
                    Expression::Family(Family::of(&network)),
                    Expression::Source(network),
                    Expression::Drop,
                ],
            ));
        }
    }
    if config.stateful {
        rules.push(rule(
            "only answers into the tunnel",
            [Expression::OutputInterface(tun()), Expression::Established(false), Expression::Drop],
        ));
    }
    rules.push(rule("into the tunnel", [Expression::OutputInterface(tun()), Expression::Accept]));
    rules
}

fn clamp(config: &FirewallConfig) -> Vec<Rule> {
    if !config.clamp_segments {
        return Vec::new();
    }
    let tun = || config.interface.clone();
    let clamp =
        |direction| rule("segments that fit the tunnel", [direction, Expression::TcpSyn, Expression::ClampSegments]);
    vec![clamp(Expression::InputInterface(tun(), true)), clamp(Expression::OutputInterface(tun()))]
}

fn prerouting(config: &FirewallConfig) -> Vec<Rule> {
    let mut rules = Vec::new();
    let elsewhere = || Expression::InputInterface(config.interface.clone(), false);
    let egress = |proxy: &ProxyRule| matches!(proxy, ProxyRule::Egress { .. });
    if let Some(port) = config.udp_port.filter(|_| config.proxies.iter().any(egress)) {
        rules.push(rule("WireGuard is the node's own", [elsewhere(), Expression::UdpPort(port), Expression::Return]));
    }
    for proxy in &config.proxies {
        rules.push(match *proxy {
            ProxyRule::Egress { target, .. } => {
                rule("egress", [elsewhere(), Expression::Family(family(target)), Expression::DestinationNat(target)])
            }
            ProxyRule::Ingress { own, destination } => rule(
                "ingress",
                [
                    Expression::Family(family(own)),
                    Expression::Destination(own.into()),
                    Expression::DestinationNat(destination),
                ],
            ),
        });
    }
    rules
}

fn postrouting(config: &FirewallConfig) -> Vec<Rule> {
    let mut rules = Vec::new();
    for proxy in &config.proxies {
        if let ProxyRule::Egress { target, own } = *proxy {
            rules.push(rule(
                "egress",
                [
                    Expression::OutputInterface(config.interface.clone()),
                    Expression::Family(family(target)),
                    Expression::Destination(target.into()),
                    Expression::SourceNat(own),
                ],
            ));
        }
    }
    if config.forward && config.masquerade {
        rules.push(rule("out of the tunnel", [Expression::Mark(SUBNET_MARK), Expression::Masquerade]));
    }
    rules
}

fn remember_own(config: &FirewallConfig) -> Vec<Rule> {
    let own = [Expression::Mark(BYPASS_MARK), Expression::SetConnectionMark(BYPASS_MARK)];
    if config.mark_replies { vec![rule("the node's own", own)] } else { Vec::new() }
}

fn recognise_replies(config: &FirewallConfig) -> Vec<Rule> {
    let replies =
        [Expression::Established(true), Expression::ConnectionMark(BYPASS_MARK), Expression::SetMark(BYPASS_MARK)];
    if config.mark_replies { vec![rule("answers to the node's own", replies)] } else { Vec::new() }
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

impl Ruleset {
    /// The table's comment: a fingerprint of everything in it, by which [`Firewall::has`](super::Firewall::has) knows
    /// these rules from others of the same shape.
    pub(super) fn fingerprint(&self) -> String {
        // FNV-1a. It tells our own rulesets apart; nobody gains by a collision.
        let text: String = self.chains.iter().map(Chain::to_string).collect();
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("rules {hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_egress_proxy_of_another_family_is_refused_with_a_next_step() {
        let mut config = FirewallConfig::node("tailscale0");
        config.proxies = vec![ProxyRule::Egress {
            target: "fd7a:115c:a1e0::9".parse().unwrap(),
            own: "100.64.0.1".parse().unwrap(),
        }];
        let message = config.ruleset().unwrap_err().to_string();
        assert!(message.contains("name a target of the same family"), "{message}");
    }

    #[test]
    fn two_targets_of_one_family_are_refused() {
        let own = "100.64.0.1".parse().unwrap();
        let egress = |target: &str| ProxyRule::Egress { target: target.parse().unwrap(), own };
        let mut config = FirewallConfig::node("tailscale0");
        config.proxies = vec![egress("100.64.0.8"), egress("100.64.0.9")];
        assert!(matches!(config.ruleset(), Err(FirewallConfigError::TwoTargets { .. })));
    }

    #[test]
    fn a_name_that_could_end_a_string_is_no_interface() {
        let config = FirewallConfig::node("tun\"; drop");
        assert!(matches!(config.ruleset(), Err(FirewallConfigError::Interface(_))));
    }

    #[test]
    fn a_plain_node_has_an_input_chain_only() {
        let ruleset = FirewallConfig::node("tailscale0").ruleset().unwrap();
        assert_eq!(ruleset.chains.iter().map(|chain| chain.name).collect::<Vec<_>>(), ["input"]);
    }
}
