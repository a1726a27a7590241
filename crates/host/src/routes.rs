//! Addresses, routes and policy rules: a desired state, what the kernel has, and the changes between them.

mod kernel;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use crate::failure::{Area, HostError};
use crate::link;
use crate::netlink::Netlink;

/// The routing table that holds the tunnel's routes.
pub const TABLE: u32 = 52;
/// The mark of the node's own packets, which go past the tunnel.
pub const BYPASS_MARK: u32 = 0x80000;
/// The mark of packets that came out of the tunnel to be forwarded.
pub const SUBNET_MARK: u32 = 0x40000;
/// The bits of a mark that are Towline's.
pub const MARK_MASK: u32 = 0xff_0000;
/// What routes and rules name as their maker, so that those of an earlier process are known (`proto 52` in listings).
pub const ROUTE_PROTOCOL: u8 = 52;

const RULES_BASE: u32 = 5200;

/// The routing that is wanted. An empty one wants nothing of Towline's to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterConfig {
    /// The tunnel's interface.
    pub interface: String,
    /// The interface's addresses: /32 and /128.
    pub addresses: BTreeSet<IpNet>,
    /// What goes into the tunnel: peers, accepted subnets, the resolver, `0.0.0.0/0` and `::/0` for an exit node.
    pub routes: BTreeSet<IpNet>,
    /// What is dropped: `::/0` when the exit node has no IPv6.
    pub blackholes: BTreeSet<IpNet>,
    /// What is left to the machine's other tables in spite of a shorter route here: the local network beside an exit
    /// node.
    pub throws: BTreeSet<IpNet>,
}

/// Where the tunnel's table sends a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Into the tunnel.
    Tunnel,
    /// Nowhere, without a word.
    Blackhole,
    /// On to the machine's next policy rule.
    Throw,
}

/// A policy rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// The address family.
    pub family: Family,
    /// Its place among all rules: lower ones come first.
    pub priority: u32,
    /// Whether it holds only for packets with [`BYPASS_MARK`].
    pub marked: bool,
    /// What it does.
    pub action: RuleAction,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a policy rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Asks a routing table.
    Table(u32),
    /// Refuses the packet.
    Unreachable,
}

/// A route of ours as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledRoute {
    /// Where it sends packets.
    pub kind: RouteKind,
    /// The interface that a tunnel route names.
    pub interface: Option<u32>,
    pub(crate) metric: u32,
}

/// What the kernel has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterState {
    /// The interface's number, while it exists.
    pub interface: Option<u32>,
    /// The interface's addresses, the kernel's link-local ones left out.
    pub addresses: BTreeSet<IpNet>,
    /// Routes in table 52 that Towline made.
    pub routes: BTreeMap<IpNet, InstalledRoute>,
    /// Policy rules that Towline made.
    pub rules: BTreeSet<PolicyRule>,
    /// What this machine has of IPv6.
    pub ipv6: Ipv6,
}

/// What a machine, and the tunnel's interface on it, has of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6 {
    /// All of it.
    #[default]
    Usable,
    /// It is switched off on the tunnel's interface, but not on the machine: what should go into the tunnel is dropped,
    /// or it would leave in the clear.
    OffOnInterface,
    /// The machine has none, so nothing can leak.
    Absent,
}

/// One change of the machine's routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Gives the interface an address.
    AddAddress(IpNet),
    /// Takes an address from the interface.
    RemoveAddress(IpNet),
    /// Adds a route, or replaces the one for the same prefix.
    SetRoute(IpNet, RouteKind),
    /// Removes a route.
    RemoveRoute(IpNet, InstalledRoute),
    /// Adds a policy rule.
    AddRule(PolicyRule),
    /// Removes a policy rule.
    RemoveRule(PolicyRule),
}

/// What came of applying a configuration.
#[derive(Debug, Default)]
#[must_use = "some of the changes may have failed"]
pub struct RoutesApplied {
    /// The changes that were made.
    pub changes: Vec<RouteChange>,
    /// What of the configuration could not be had, and why; the rest is in force.
    pub failures: Vec<HostError>,
}

/// Reads and changes the machine's routing.
pub struct Router {
    netlink: Netlink,
}

impl Router {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn new() -> Result<Self, HostError> {
        Ok(Self { netlink: link::open()? })
    }

    /// Reads back what the kernel has of ours: this process's, and what an earlier one left.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn state(&mut self, interface: &str) -> Result<RouterState, HostError> {
        kernel::observe(&mut self.netlink, interface)
    }

    /// The changes that [`apply`](Self::apply) would make now.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn plan(&mut self, config: &RouterConfig) -> Result<Vec<RouteChange>, HostError> {
        Ok(plan::changes(config, &self.state(&config.interface)?))
    }

    /// Makes the kernel's state the desired one. Asks the kernel what there is first, so that it may be called again at
    /// any time, and corrects what others changed.
    ///
    /// # Errors
    /// When the kernel does not answer. A change that is refused keeps no other from being made.
    pub fn apply(&mut self, config: &RouterConfig) -> Result<RoutesApplied, HostError> {
        let state = self.state(&config.interface)?;
        let mut applied = RoutesApplied::default();
        if state.interface.is_none() && !(config.routes.is_empty() && config.addresses.is_empty()) {
            applied.failures.push(HostError::with_advice(
                format!("route into {}", config.interface),
                std::io::Error::from_raw_os_error(libc::ENODEV),
                "the interface is gone: start the node again",
            ));
        }
        for change in plan::changes(config, &state) {
            match kernel::make(&mut self.netlink, &state, change) {
                Ok(()) => applied.changes.push(change),
                Err(reason) => {
                    applied.failures.push(HostError::new(Area::Network, change.describe(&config.interface), reason));
                }
            }
        }
        Ok(applied)
    }

    /// Removes every route and rule of ours, this process's or an earlier one's. Addresses go with the interface.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn cleanup(&mut self) -> Result<RoutesApplied, HostError> {
        self.apply(&RouterConfig::default())
    }
}

impl RouteChange {
    /// The change in words, as an infinitive.
    fn describe(&self, interface: &str) -> String {
        match self {
            Self::AddAddress(address) => format!("add the address {address} to {interface}"),
            Self::RemoveAddress(address) => format!("remove the address {address} from {interface}"),
            Self::SetRoute(prefix, RouteKind::Tunnel) => format!("route {prefix} into {interface}"),
            Self::SetRoute(prefix, kind) => format!("add the {kind} route {prefix} to table {TABLE}"),
            Self::RemoveRoute(prefix, route) => format!("remove the {} route {prefix} from table {TABLE}", route.kind),
            Self::AddRule(rule) => format!("add the policy rule {rule}"),
            Self::RemoveRule(rule) => format!("remove the policy rule {rule}"),
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe("the tunnel"))
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel => "tunnel",
            Self::Blackhole => "blackhole",
            Self::Throw => "throw",
        })
    }
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        write!(f, "{} ({family}:", self.priority)?;
        if self.marked {
            write!(f, " fwmark {BYPASS_MARK:#x}/{MARK_MASK:#x}")?;
        }
        match self.action {
            RuleAction::Table(table) => write!(f, " lookup {table})"),
            RuleAction::Unreachable => write!(f, " unreachable)"),
        }
    }
}

impl Family {
    pub(crate) fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}
