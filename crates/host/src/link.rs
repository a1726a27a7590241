//! Links and their addresses, as the kernel has them.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{chop_header, finalize_nested_header, push_header, push_nested_header};
use netlink_bindings::{rt_addr, rt_link};

use crate::failure::{Area, HostError, Reason};
use crate::netlink::Netlink;

const UP: u32 = libc::IFF_UP as u32;
const LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;
const RUNNING: u32 = libc::IFF_RUNNING as u32;
const POINT_TO_POINT: u32 = libc::IFF_POINTOPOINT as u32;
const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;
/// `IFLA_INET_CONF`
const INET_CONF: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE`, and the mode in which the kernel makes no address of its own.
const ADDRESS_GENERATION: u16 = 8;
const GENERATE_NONE: u8 = 1;
/// `IFA_F_NODAD` and `IFA_F_NOPREFIXROUTE`.
const NO_DUPLICATE_DETECTION: u32 = 0x02;
const NO_PREFIX_ROUTE: u32 = 0x200;

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name, such as `eth0`.
    pub name: String,
    /// The longest packet that it takes, in bytes.
    pub mtu: u32,
    /// How many packets may wait to be sent.
    pub queue_length: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it can carry packets now (a cable is plugged in, a TUN is attached).
    pub running: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether it has one other end rather than neighbours: tunnels are so.
    pub point_to_point: bool,
    /// IPv4 settings of this interface, in the order of the kernel's `IPV4_DEVCONF_…` less one.
    pub(crate) devconf: Vec<u32>,
}

/// Lists all interfaces of this network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn links() -> Result<Vec<Link>, HostError> {
    list_links(&mut open()?)
}

/// Lists the addresses of one interface, or of all of them, with the interface's index.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses(index: Option<u32>) -> Result<Vec<(u32, IpNet)>, HostError> {
    list_addresses(&mut open()?, index)
}

pub(crate) fn open() -> Result<Netlink, HostError> {
    Netlink::route().map_err(|reason| HostError::new(Area::Network, "open a netlink socket", reason))
}

pub(crate) fn list_links(netlink: &mut Netlink) -> Result<Vec<Link>, HostError> {
    let request = rt_link::Request::new().op_getlink_dump(&rt_link::Ifinfomsg::new());
    netlink
        .list(&request, |(header, attributes)| {
            Some(Link {
                index: u32::try_from(header.ifi_index).ok()?,
                name: attributes.get_ifname().ok()?.to_str().ok()?.to_owned(),
                mtu: attributes.get_mtu().unwrap_or(0),
                queue_length: attributes.get_txqlen().unwrap_or(0),
                up: header.ifi_flags & UP != 0,
                running: header.ifi_flags & RUNNING != 0,
                loopback: header.ifi_flags & LOOPBACK != 0,
                point_to_point: header.ifi_flags & POINT_TO_POINT != 0,
                devconf: inet_devconf(attributes.get_buf()),
            })
        })
        .map_err(|reason| HostError::new(Area::Network, "list the network interfaces", reason))
}

pub(crate) fn find_link(netlink: &mut Netlink, name: &str) -> Result<Link, HostError> {
    list_links(netlink)?.into_iter().find(|link| link.name == name).ok_or_else(|| {
        HostError::with_advice(
            format!("find the interface {name}"),
            std::io::Error::from_raw_os_error(libc::ENODEV),
            "see the interfaces that exist with `ip link`, or start the node that makes it",
        )
    })
}

pub(crate) fn list_addresses(netlink: &mut Netlink, index: Option<u32>) -> Result<Vec<(u32, IpNet)>, HostError> {
    let request = rt_addr::Request::new().op_getaddr_dump(&rt_addr::Ifaddrmsg::new());
    netlink
        .list(&request, |(header, attributes)| {
            // IPv4 tells the interface's own address apart from the other end's; IPv6 has only one.
            let address = attributes.get_local().or_else(|_| attributes.get_address()).ok()?;
            let network = IpNet::new(address, header.ifa_prefixlen).ok()?;
            index.is_none_or(|wanted| wanted == header.ifa_index).then_some((header.ifa_index, network))
        })
        .map_err(|reason| HostError::new(Area::Network, "list the addresses", reason))
}

pub(crate) fn add_address(netlink: &mut Netlink, index: u32, address: IpNet) -> Result<(), Reason> {
    let mut request = rt_addr::Request::new().set_change().op_newaddr_do(&address_header(index, address));
    let attributes = request.encode().push_local(address.addr()).push_address(address.addr());
    if address.addr().is_ipv6() {
        attributes.push_flags(NO_DUPLICATE_DETECTION | NO_PREFIX_ROUTE);
    } else {
        drop(attributes);
    }
    netlink.execute(&request)
}

pub(crate) fn remove_address(netlink: &mut Netlink, index: u32, address: IpNet) -> Result<(), Reason> {
    let mut request = rt_addr::Request::new().op_deladdr_do(&address_header(index, address));
    request.encode().push_local(address.addr());
    netlink.execute(&request)
}

fn address_header(index: u32, address: IpNet) -> rt_addr::Ifaddrmsg {
    rt_addr::Ifaddrmsg {
        ifa_family: family(address.addr()),
        ifa_prefixlen: address.prefix_len(),
        ifa_index: index,
        ..Default::default()
    }
}

/// Switches an interface on, with an MTU and a queue length.
pub(crate) fn bring_up(netlink: &mut Netlink, index: u32, mtu: u32, queue_length: u32) -> Result<(), Reason> {
    let mut request = rt_link::Request::new().op_newlink_do(&link_header(index, UP, UP));
    request.encode().push_mtu(mtu).push_txqlen(queue_length);
    netlink.execute(&request)
}

/// Keeps the kernel from giving the interface a link-local IPv6 address, and from asking routers for more.
pub(crate) fn generate_no_addresses(netlink: &mut Netlink, index: u32) -> Result<(), Reason> {
    let mut request = rt_link::Request::new().op_newlink_do(&link_header(index, 0, 0));
    let mut inner = Vec::new();
    push_header(&mut inner, ADDRESS_GENERATION, 1);
    inner.push(GENERATE_NONE);
    push_family(request.encode().nested_af_spec().as_vec_mut(), INET6, &inner);
    netlink.execute(&request)
}

/// Sets one of the IPv4 settings of an interface: what `/proc/sys/net/ipv4/conf/<interface>/<setting>` shows.
pub(crate) fn set_devconf(
    netlink: &mut Netlink,
    index: u32,
    setting: rt_link::Ipv4Devconf,
    value: u32,
) -> Result<(), Reason> {
    let mut request = rt_link::Request::new().op_setlink_do(&link_header(index, 0, 0));
    let mut inner = Vec::new();
    let conf = push_nested_header(&mut inner, INET_CONF);
    push_header(&mut inner, setting as u16 + 1, 4);
    inner.extend(value.to_ne_bytes());
    finalize_nested_header(&mut inner, conf);
    push_family(request.encode().nested_af_spec().as_vec_mut(), INET, &inner);
    netlink.execute(&request)
}

/// Removes an interface.
pub(crate) fn remove_link(netlink: &mut Netlink, index: u32) -> Result<(), Reason> {
    netlink.execute(&rt_link::Request::new().op_dellink_do(&link_header(index, 0, 0)))
}

pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { INET as u8 } else { INET6 as u8 }
}

fn link_header(index: u32, flags: u32, change: u32) -> rt_link::Ifinfomsg {
    let mut header = rt_link::Ifinfomsg::new();
    header.ifi_index = index as i32;
    header.ifi_flags = flags;
    header.ifi_change = change;
    header
}

fn push_family(buffer: &mut Vec<u8>, family: u16, inner: &[u8]) {
    let outer = push_nested_header(buffer, family);
    buffer.extend(inner);
    finalize_nested_header(buffer, outer);
}

/// `IFLA_AF_SPEC` / `AF_INET` / `IFLA_INET_CONF`: an array of 32-bit numbers when it is read.
fn inet_devconf(attributes: &[u8]) -> Vec<u32> {
    const AF_SPEC: u16 = 26;
    let conf = attribute(attributes, AF_SPEC)
        .and_then(|families| attribute(families, INET))
        .and_then(|inet| attribute(inet, INET_CONF))
        .unwrap_or_default();
    conf.chunks_exact(4).map(|value| u32::from_ne_bytes([value[0], value[1], value[2], value[3]])).collect()
}

fn attribute(buffer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut position = 0;
    while let Some((header, value)) = chop_header(buffer, &mut position) {
        if header.r#type == wanted {
            return Some(value);
        }
    }
    None
}
