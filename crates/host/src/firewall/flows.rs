//! Tracked connections that a change of the proxies has overtaken.
//!
//! The kernel decides on a connection's translation once, with its first packet. A stream of datagrams or pings that
//! goes on while a proxy's target changes would go to the old target for ever: each packet keeps the entry alive.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_bindings::conntrack::{self, IterableTupleAttrs};
use netlink_bindings::nftables::{self, Nfgenmsg};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, find_attr, push_nested_header};

use super::{FirewallConfig, ProxyRule};
use crate::failure::Reason;
use crate::link;
use crate::netlink::Netlink;

/// `CTA_TUPLE_ORIG`, and `IPCTNL_MSG_CT_DELETE` of the subsystem for connection tracking.
const ORIGINAL: u16 = 1;
const DELETE: u16 = 0x102;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// What decides whether a connection is overtaken.
struct Flow {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    /// Where its packets really go.
    answered_by: IpAddr,
}

/// Forgets the connections that would be translated otherwise if they began now. TCP ends by itself and is left.
pub(super) fn forget(netlink: &mut Netlink, config: &FirewallConfig) -> Result<usize, Reason> {
    let local = local_addresses(&config.interface)?;
    let request = conntrack::Request::new().op_get_dump(&conntrack::Nfgenmsg::new());
    let overtaken = netlink.list(&request, |(header, attributes)| {
        let original = attributes.get_tuple_orig().ok()?;
        let (source, destination) = addresses(&original)?;
        let (answered_by, _) = addresses(&attributes.get_tuple_reply().ok()?)?;
        let transport = original.get_tuple_proto().ok()?;
        let protocol = transport.get_proto_num().ok()?;
        let port = transport.get_proto_dst_port().unwrap_or(0);
        let flow = Flow { protocol, source, destination, port, answered_by };
        let tuple = find_attr(attributes.get_buf(), ORIGINAL)?.to_vec();
        is_overtaken(&flow, config, &local).then_some((header.nfgen_family, tuple))
    })?;
    let mut forgotten = 0;
    for (family, tuple) in overtaken {
        match delete(netlink, family, &tuple) {
            Ok(()) => forgotten += 1,
            Err(reason) if reason.errno() == Some(libc::ENOENT) => {}
            Err(reason) => return Err(reason),
        }
    }
    Ok(forgotten)
}

fn is_overtaken(flow: &Flow, config: &FirewallConfig, local: &BTreeSet<IpAddr>) -> bool {
    if flow.protocol == TCP {
        return false;
    }
    let own_port = flow.protocol == UDP && Some(flow.port) == config.udp_port;
    config.proxies.iter().any(|proxy| match *proxy {
        ProxyRule::Ingress { own, destination } => flow.destination == own && flow.answered_by != destination,
        ProxyRule::Egress { target, .. } => {
            // What came by another interface than the tunnel's was for an address there.
            local.contains(&flow.destination)
                && !local.contains(&flow.source)
                && flow.destination.is_ipv4() == target.is_ipv4()
                && flow.answered_by != target
                && !own_port
        }
    })
}

/// The machine's addresses on other interfaces than the tunnel's.
fn local_addresses(tunnel: &str) -> Result<BTreeSet<IpAddr>, Reason> {
    let mut netlink = Netlink::route()?;
    let failed = |error: crate::HostError| Reason::from(std::io::Error::other(error.to_string()));
    let links = link::list_links(&mut netlink).map_err(failed)?;
    let tunnel = links.iter().find(|link| link.name == tunnel).map(|link| link.index);
    let addresses = link::list_addresses(&mut netlink, None).map_err(failed)?;
    Ok(addresses.into_iter().filter(|(index, _)| Some(*index) != tunnel).map(|(_, network)| network.addr()).collect())
}

fn addresses(tuple: &IterableTupleAttrs<'_>) -> Option<(IpAddr, IpAddr)> {
    let ip = tuple.get_tuple_ip().ok()?;
    let v4 = || Some((ip.get_ip_v4_src().ok()?.into(), ip.get_ip_v4_dst().ok()?.into()));
    v4().or_else(|| Some((ip.get_ip_v6_src().ok()?.into(), ip.get_ip_v6_dst().ok()?.into())))
}

fn delete(netlink: &mut Netlink, family: u8, tuple: &[u8]) -> Result<(), Reason> {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = family;
    let mut request = nftables::Request::new().op_do(DELETE, &header);
    let mut attributes = request.encode();
    let original = push_nested_header(attributes.as_vec_mut(), ORIGINAL);
    attributes.as_vec_mut().extend(tuple);
    finalize_nested_header(attributes.as_vec_mut(), original);
    drop(attributes);
    netlink.execute(&request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FirewallConfig {
        let address = |text: &str| text.parse().unwrap();
        FirewallConfig {
            udp_port: Some(41641),
            proxies: vec![
                ProxyRule::Egress { target: address("100.64.0.9"), own: address("100.64.0.1") },
                ProxyRule::Ingress { own: address("100.64.0.1"), destination: address("10.96.0.5") },
            ],
            ..FirewallConfig::node("tailscale0")
        }
    }

    fn overtaken(protocol: u8, source: &str, destination: &str, port: u16, answered_by: &str) -> bool {
        let local = ["10.1.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()].into();
        let address = |text: &str| text.parse().unwrap();
        let (source, destination) = (address(source), address(destination));
        is_overtaken(
            &Flow { protocol, source, destination, port, answered_by: address(answered_by) },
            &config(),
            &local,
        )
    }

    #[test]
    fn datagrams_to_the_old_target_are_forgotten_and_to_the_new_one_not() {
        assert!(overtaken(UDP, "10.1.0.2", "10.1.0.1", 53, "100.64.0.8"));
        assert!(overtaken(UDP, "10.1.0.2", "10.1.0.1", 53, "10.1.0.1"), "not translated at all");
        assert!(!overtaken(UDP, "10.1.0.2", "10.1.0.1", 53, "100.64.0.9"));
        assert!(overtaken(UDP, "100.64.0.7", "100.64.0.1", 53, "10.96.0.4"));
        assert!(!overtaken(UDP, "100.64.0.7", "100.64.0.1", 53, "10.96.0.5"));
    }

    #[test]
    fn tcp_the_nodes_own_packets_and_its_port_are_left() {
        assert!(!overtaken(TCP, "10.1.0.2", "10.1.0.1", 22, "100.64.0.8"));
        assert!(!overtaken(UDP, "10.1.0.2", "10.1.0.1", 41641, "10.1.0.1"));
        assert!(!overtaken(UDP, "10.1.0.1", "10.96.0.10", 53, "10.96.0.10"), "its question to a resolver");
        assert!(!overtaken(UDP, "127.0.0.1", "127.0.0.1", 53, "127.0.0.1"));
    }
}
