//! The packet filter and address translation of a node, in one nf_tables table of its own.
//!
//! The table `inet towline` is replaced whole by one transaction; nobody else's tables are read for a decision or
//! written. What that cannot do: an `accept` here ends the judgement of this table only, and another table that drops
//! the same packet still drops it. [`Firewall::foreign_drops`] names the tables that would.

mod encode;
mod flows;
mod foreign;
mod kernel;
mod ruleset;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use foreign::ForeignDrop;
pub use kernel::{InstalledChain, InstalledTable};
pub use ruleset::{Chain, Expression, Hook, Rule, Ruleset};

use crate::failure::{Area, HostError};
use crate::netlink::Netlink;

/// The table's name.
pub const FIREWALL_TABLE: &str = "towline";

/// The firewall that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallConfig {
    /// The tunnel's interface.
    pub interface: String,
    /// The node's own tailnet addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The UDP port of WireGuard, disco and STUN, which packets from anywhere may reach.
    pub udp_port: Option<u16>,
    /// Whether packets that claim a tailnet address but came by another interface are dropped. To be switched off where
    /// 100.64.0.0/10 is in use on the local network too, as with some cloud providers' pods.
    pub drop_spoofed: bool,
    /// Whether packets between the tunnel and other interfaces are forwarded: subnet routers, exit nodes, proxies.
    pub forward: bool,
    /// Whether forwarded packets leave with this machine's address, so that the way back needs no route.
    pub masquerade: bool,
    /// Whether only answers are forwarded into the tunnel.
    pub stateful: bool,
    /// Whether TCP connections that are forwarded agree on segments that fit the tunnel.
    pub clamp_segments: bool,
    /// Whether packets that arrive for the node's own marked sockets are recognised as such, so that strict reverse
    /// path filters accept them beside an exit node (with the setting `src_valid_mark`).
    pub mark_replies: bool,
    /// Addresses that stand for others.
    pub proxies: Vec<ProxyRule>,
    /// Whether what is forwarded already goes on, and nothing new begins: whoever tries is left to try again.
    pub draining: bool,
}

/// A translation of addresses for a proxy in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyRule {
    /// Everything that reaches this machine by another interface than the tunnel goes to `target` in the tailnet, with
    /// the source `own`. The node's own UDP port is exempt.
    Egress {
        /// A tailnet address or one behind a subnet router.
        target: IpAddr,
        /// The node's own tailnet address of the same family.
        own: IpAddr,
    },
    /// Everything for the node's own tailnet address goes to `destination` in the cluster.
    Ingress {
        /// The node's own tailnet address.
        own: IpAddr,
        /// An address of the same family.
        destination: IpAddr,
    },
}

/// A configuration that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirewallConfigError {
    /// An address can't be translated to one of the other family.
    #[error(
        "{from} can't stand for {to}: one is IPv4 and the other IPv6; name a target of the same family, or proxy in user space"
    )]
    Families {
        /// The address that packets are for.
        from: IpAddr,
        /// Where they were to go.
        to: IpAddr,
    },
    /// Two rules want the same packets.
    #[error("only one target can have all packets of a family, but {first} and {second} are both named")]
    TwoTargets {
        /// One of them.
        first: IpAddr,
        /// The other.
        second: IpAddr,
    },
    /// The name is no interface's.
    #[error("{0:?} is no interface's name: 1 to 15 printable characters without slash or space")]
    Interface(String),
}

/// Changes the machine's nf_tables.
pub struct Firewall {
    netlink: Netlink,
}

impl FirewallConfig {
    /// A node that forwards nothing.
    pub fn node(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            addresses: BTreeSet::new(),
            udp_port: None,
            drop_spoofed: true,
            forward: false,
            masquerade: false,
            stateful: false,
            clamp_segments: false,
            mark_replies: false,
            proxies: Vec::new(),
            draining: false,
        }
    }

    /// The rules that bring this about: a value to print, compare and install.
    ///
    /// # Errors
    /// When the proxies' addresses don't fit each other.
    pub fn ruleset(&self) -> Result<Ruleset, FirewallConfigError> {
        ruleset::build(self)
    }
}

impl Firewall {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// When the kernel has no netfilter.
    pub fn new() -> Result<Self, HostError> {
        let opened = Netlink::netfilter();
        Ok(Self {
            netlink: opened
                .map_err(|reason| HostError::new(Area::Firewall, "open a netlink socket for the firewall", reason))?,
        })
    }

    /// Replaces our table by these rules in one step: packets see the old rules or the new ones.
    ///
    /// # Errors
    /// When the kernel refuses; the old rules are then still in force.
    pub fn install(&mut self, ruleset: &Ruleset) -> Result<(), HostError> {
        self.netlink
            .transact(encode::replace(ruleset))
            .map_err(|reason| HostError::new(Area::Firewall, "install the firewall's rules", reason))
    }

    /// Reads back our table, an earlier process's included. Nothing when there is none.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn installed(&mut self) -> Result<Option<InstalledTable>, HostError> {
        kernel::installed(&mut self.netlink)
            .map_err(|reason| HostError::new(Area::Firewall, "read the firewall's rules", reason))
    }

    /// Whether the kernel has these rules: another program may have flushed them, or added or removed some.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn has(&mut self, ruleset: &Ruleset) -> Result<bool, HostError> {
        Ok(self.installed()?.is_some_and(|table| kernel::matches(&table, ruleset)))
    }

    /// The chains of other tables that drop what they do not know, on the way that the tunnel's packets take.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn foreign_drops(&mut self) -> Result<Vec<ForeignDrop>, HostError> {
        foreign::drops(&mut self.netlink)
            .map_err(|reason| HostError::new(Area::Firewall, "read the other firewalls' chains", reason))
    }

    /// Has the kernel forget streams of datagrams and pings that the configuration's proxies would translate otherwise if
    /// they began now: to be called after [`install`](Self::install) when the proxies changed, or packets of such a
    /// stream go to the old target for as long as it lasts. Returns how many were forgotten.
    ///
    /// # Errors
    /// When the kernel can't list connections (its module is nf_conntrack_netlink), or refuses.
    pub fn forget_flows(&mut self, config: &FirewallConfig) -> Result<usize, HostError> {
        flows::forget(&mut self.netlink, config)
            .map_err(|reason| HostError::new(Area::Firewall, "forget the connections to a proxy's old target", reason))
    }

    /// Removes our table, this process's or an earlier one's. Without one it does nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cleanup(&mut self) -> Result<(), HostError> {
        match self.netlink.transact(encode::remove()) {
            Err(reason) if reason.errno() == Some(libc::ENOENT) => Ok(()),
            removed => removed.map_err(|reason| HostError::new(Area::Firewall, "remove the firewall's rules", reason)),
        }
    }
}
