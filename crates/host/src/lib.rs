//! The machine's network as Towline changes it: TUN, routes, policy rules, firewall, kernel settings, resolv.conf.
//!
//! What it does not do: decide what should be (the node does), move packets, or keep state of its own. It runs no other
//! program: everything goes by system call, netlink or file, so that an image with nothing but the binary will do.
//! Linux only.
//!
//! Each part takes a value that says what is wanted, asks the machine what there is, and makes the difference; the
//! difference can be had without making it, to log or show it first.
//!
//! | part | wanted | difference | change | read back | take back |
//! |---|---|---|---|---|---|
//! | [`Tun`] | [`TunConfig`] | | [`Tun::open`] | [`links`] | drop, [`Tun::remove`] |
//! | [`Router`] | [`RouterConfig`] | [`Router::plan`] | [`Router::apply`] | [`Router::state`] | [`Router::cleanup`] |
//! | [`Firewall`] | [`FirewallConfig`] | [`FirewallConfig::ruleset`] | [`Firewall::install`] | [`Firewall::installed`] | [`Firewall::cleanup`] |
//! | [`Forwarding`] | | | [`Forwarding::forward_ipv4`] | [`Forwarding::ipv4`] | [`Forwarding::restore`] |
//! | [`SystemDns`] | [`DnsConfig`] | [`SystemDns::plan`] | [`SystemDns::apply`] | [`SystemDns::base`] | [`SystemDns::restore`] |
//!
//! [`Monitor`] tells when the machine's networks change; [`socket`] has the options of sockets that need rights.
//!
//! # Invariants
//!
//! * What an earlier process left is found and taken back without a file that says so: routes and rules by
//!   [`ROUTE_PROTOCOL`], the firewall by its table's name, resolv.conf by its first line.
//! * Nothing that Towline did not make is changed, but for kernel settings, whose values before are returned.
//! * With routes of an exit node, no family leaves the machine beside the tunnel: what can't go in is dropped.
//! * An error names what was to be done, the system's reason and the next step.

mod dns;
mod events;
mod failure;
mod firewall;
mod forwarding;
mod link;
mod monitor;
mod netlink;
mod routes;
pub mod socket;
mod tun;

pub use dns::{Contest, ContestVerdict, DnsConfig, DnsOwner, DnsRestored, DnsWatch, ResolvConf, SystemDns};
pub use failure::HostError;
pub use firewall::{
    Chain, Expression, FIREWALL_TABLE, Firewall, FirewallConfig, FirewallConfigError, ForeignDrop, Hook,
    InstalledChain, InstalledTable, ProxyRule, Rule, Ruleset,
};
pub use forwarding::{Forwarding, SettingChange, SettingsApplied};
pub use link::{Link, addresses, links};
pub use monitor::{DefaultRoute, Monitor, NetworkInterface, NetworkState};
pub use routes::{
    BYPASS_MARK, Family, InstalledRoute, Ipv6, MARK_MASK, PolicyRule, ROUTE_PROTOCOL, RouteChange, RouteKind, Router,
    RouterConfig, RouterState, RoutesApplied, RuleAction, SUBNET_MARK, TABLE,
};
pub use tun::{
    Checksum, INTERFACE_NAME_BYTES, Offloads, SUPER_PACKET_BYTES, Segmentation, Tun, TunConfig, UnknownSegmentation,
    VNET_HEADER_BYTES, VnetHeader,
};
