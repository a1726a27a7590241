//! Tells when the machine's networks change, and what they are.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink_bindings::rt_route;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::events;
use crate::failure::{Area, HostError};
use crate::link;
use crate::netlink::Netlink;

/// How long it must be quiet before a change is told, and the longest that a restless network delays it.
const QUIET: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);
const MAIN_TABLE: u32 = 254;
const UNICAST: u8 = 1;
/// `RTMGRP_LINK`, `…_IPV4_IFADDR`, `…_IPV4_ROUTE`, `…_IPV6_IFADDR`, `…_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The machine's networks, the tunnel's own interface left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// Its interfaces by name.
    pub interfaces: BTreeMap<String, NetworkInterface>,
    /// The way out in IPv4.
    pub default_v4: Option<DefaultRoute>,
    /// The way out in IPv6.
    pub default_v6: Option<DefaultRoute>,
}

/// An interface as far as paths to peers depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    /// The kernel's number for it.
    pub index: u32,
    /// The longest packet that it takes, in bytes.
    pub mtu: u32,
    /// Whether it is on and can carry packets.
    pub running: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it is a tunnel or has one other end for another reason.
    pub point_to_point: bool,
    /// Its addresses with the networks that they are in.
    pub addresses: Vec<IpNet>,
}

/// A default route of the machine's main table, by an interface that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The interface that it leads out by.
    pub interface: String,
    /// The router, where it names one.
    pub gateway: Option<IpAddr>,
}

/// Watches the machine's networks. It must be made, and waited for, within a tokio runtime.
pub struct Monitor {
    events: AsyncFd<OwnedFd>,
    netlink: Netlink,
    own: String,
    last: NetworkState,
}

impl NetworkState {
    /// Reads the machine's networks, the interface `own` left out.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn read(own: &str) -> Result<Self, HostError> {
        read(&mut link::open()?, own)
    }

    /// Addresses at which peers may reach this machine: those of running interfaces, without loopback, link-local and
    /// multicast ones.
    pub fn local_addresses(&self) -> Vec<IpAddr> {
        let running = self.interfaces.values().filter(|interface| interface.running && !interface.loopback);
        let addresses = running.flat_map(|interface| interface.addresses.iter().map(IpNet::addr));
        let mut addresses: Vec<_> = addresses.filter(is_reachable).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// The networks that this machine is in: what stays reachable beside an exit node where that is wanted.
    pub fn local_networks(&self) -> Vec<IpNet> {
        let local = self.interfaces.values().filter(|i| i.running && !i.loopback && !i.point_to_point);
        let networks = local.flat_map(|interface| interface.addresses.iter().map(IpNet::trunc));
        let mut networks: Vec<_> = networks.filter(|n| n.prefix_len() < n.max_prefix_len()).collect();
        networks.sort();
        networks.dedup();
        networks
    }
}

impl Monitor {
    /// Starts to watch; changes of the interface `own` are not told.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn new(own: impl Into<String>) -> Result<Self, HostError> {
        let own = own.into();
        let failure = |error: io::Error| HostError::new(Area::Network, "watch the network", error);
        let events = subscribe().map_err(|errno| failure(errno.into()))?;
        let events = events::register(events).map_err(failure)?;
        let mut netlink = link::open()?;
        let last = read(&mut netlink, &own)?;
        Ok(Self { events, netlink, own, last })
    }

    /// The networks as they were last told.
    pub fn current(&self) -> &NetworkState {
        &self.last
    }

    /// Waits until the networks are others than the last told, and a quarter of a second quiet (two seconds at most).
    /// May be dropped and called again at any time; no change is missed.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn changed(&mut self) -> Result<&NetworkState, HostError> {
        loop {
            self.event().await?;
            let latest = Instant::now() + PATIENCE;
            loop {
                let quiet = (Instant::now() + QUIET).min(latest);
                match timeout_at(quiet, self.event()).await {
                    Ok(event) => event?,
                    Err(_quiet) => break,
                }
            }
            let state = read(&mut self.netlink, &self.own)?;
            if state != self.last {
                self.last = state;
                return Ok(&self.last);
            }
        }
    }

    async fn event(&self) -> Result<(), HostError> {
        let failure = |error| HostError::new(Area::Network, "watch the network", error);
        loop {
            let mut ready = self.events.readable().await.map_err(failure)?;
            match ready.try_io(|events| drain(events.get_ref())) {
                Ok(drained) => return drained.map_err(failure),
                Err(_would_block) => {}
            }
        }
    }
}

fn subscribe() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    net::bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// Takes all notices: what they say is read from the kernel afterwards, so that an overflow loses nothing.
fn drain(events: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 8192];
    let mut some = false;
    loop {
        match net::recv(events, &mut buffer[..], RecvFlags::empty()) {
            Ok(_) | Err(Errno::NOBUFS) => some = true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if some => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn read(netlink: &mut Netlink, own: &str) -> Result<NetworkState, HostError> {
    let links = link::list_links(netlink)?;
    let names: BTreeMap<u32, String> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    // A route by an interface without a carrier stays in the table and leads nowhere.
    let ways_out = links.iter().filter(|link| link.up && link.running && link.name != own);
    let ways_out: BTreeMap<u32, String> = ways_out.map(|link| (link.index, link.name.clone())).collect();
    let mut interfaces = BTreeMap::new();
    for link in links.into_iter().filter(|link| link.name != own) {
        let interface = NetworkInterface {
            index: link.index,
            mtu: link.mtu,
            running: link.up && link.running,
            loopback: link.loopback,
            point_to_point: link.point_to_point,
            addresses: Vec::new(),
        };
        interfaces.insert(link.name, interface);
    }
    for (index, address) in link::list_addresses(netlink, None)? {
        if let Some(interface) = names.get(&index).and_then(|name| interfaces.get_mut(name)) {
            interface.addresses.push(address);
        }
    }
    for interface in interfaces.values_mut() {
        interface.addresses.sort();
    }
    let default_v4 = default_route(netlink, libc::AF_INET as u8, &ways_out)?;
    let default_v6 = default_route(netlink, libc::AF_INET6 as u8, &ways_out)?;
    Ok(NetworkState { interfaces, default_v4, default_v6 })
}

fn default_route(
    netlink: &mut Netlink,
    family: u8,
    ways_out: &BTreeMap<u32, String>,
) -> Result<Option<DefaultRoute>, HostError> {
    let mut header = rt_route::Rtmsg::new();
    header.rtm_family = family;
    let mut request = rt_route::Request::new().op_getroute_dump(&header);
    request.encode().push_table(MAIN_TABLE);
    let listed = netlink.list(&request, |(header, attributes)| {
        let table = attributes.get_table().unwrap_or(u32::from(header.rtm_table));
        if table != MAIN_TABLE || header.rtm_dst_len != 0 || header.rtm_type != UNICAST || header.rtm_family != family {
            return None;
        }
        let interface = ways_out.get(&attributes.get_oif().ok()?)?;
        let route = DefaultRoute { interface: interface.clone(), gateway: attributes.get_gateway().ok() };
        Some((attributes.get_priority().unwrap_or(0), route))
    });
    match listed {
        Ok(routes) => Ok(routes.into_iter().min_by_key(|(metric, _)| *metric).map(|(_, route)| route)),
        Err(reason) if matches!(reason.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(None),
        Err(reason) => Err(HostError::new(Area::Network, "list the routes of the main table", reason)),
    }
}

fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !(address.is_link_local() || address.is_loopback() || address.is_multicast()),
        IpAddr::V6(address) => !(address.is_unicast_link_local() || address.is_loopback() || address.is_multicast()),
    }
}
