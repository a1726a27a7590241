//! What the kernel has of ours, and one change of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use ipnet::IpNet;
use netlink_bindings::{rt_route, rt_rule};

use super::{
    BYPASS_MARK, Family, InstalledRoute, Ipv6, MARK_MASK, PolicyRule, ROUTE_PROTOCOL, RouteChange, RouteKind,
    RouterState, RuleAction, TABLE,
};
use crate::failure::{Area, HostError, Reason};
use crate::link;
use crate::netlink::Netlink;

const LOOKUP: u8 = 1;
const UNREACHABLE: u8 = 7;
const UNICAST: u8 = 1;
const BLACKHOLE: u8 = 6;
const THROW: u8 = 9;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;

/// Reads everything of ours.
pub(super) fn observe(netlink: &mut Netlink, interface: &str) -> Result<RouterState, HostError> {
    let found = link::list_links(netlink)?.into_iter().find(|link| link.name == interface);
    let index = found.map(|link| link.index);
    let addresses = match index {
        Some(index) => addresses_of(netlink, index)?,
        None => BTreeSet::new(),
    };
    let mut routes = BTreeMap::new();
    for family in [Family::V4, Family::V6] {
        let list = list_routes(netlink, family);
        routes.extend(list.map_err(|reason| HostError::new(Area::Network, "list the routes of table 52", reason))?);
    }
    let rules = list_rules(netlink).map_err(|reason| HostError::new(Area::Network, "list the policy rules", reason))?;
    Ok(RouterState { interface: index, addresses, routes, rules, ipv6: ipv6_on(interface, Path::new("/proc/sys/net")) })
}

/// Makes one change.
pub(super) fn make(netlink: &mut Netlink, state: &RouterState, change: RouteChange) -> Result<(), Reason> {
    let gone = || Reason::from(io::Error::from_raw_os_error(libc::ENODEV));
    match change {
        RouteChange::AddAddress(address) => link::add_address(netlink, state.interface.ok_or_else(gone)?, address),
        RouteChange::RemoveAddress(address) => {
            let removed = link::remove_address(netlink, state.interface.ok_or_else(gone)?, address);
            unless(removed, libc::EADDRNOTAVAIL)
        }
        RouteChange::SetRoute(prefix, kind) => {
            let interface = match kind {
                RouteKind::Tunnel => Some(state.interface.ok_or_else(gone)?),
                RouteKind::Blackhole | RouteKind::Throw => None,
            };
            set_route(netlink, prefix, kind, interface)
        }
        RouteChange::RemoveRoute(prefix, route) => unless(remove_route(netlink, prefix, route), libc::ESRCH),
        RouteChange::AddRule(rule) => unless(add_rule(netlink, rule), libc::EEXIST),
        RouteChange::RemoveRule(rule) => unless(remove_rule(netlink, rule), libc::ENOENT),
    }
}

/// A refusal that says that the change is made already is none.
fn unless(result: Result<(), Reason>, made: i32) -> Result<(), Reason> {
    match result {
        Err(reason) if reason.errno() == Some(made) => Ok(()),
        result => result,
    }
}

fn addresses_of(netlink: &mut Netlink, index: u32) -> Result<BTreeSet<IpNet>, HostError> {
    let link_local = |network: &IpNet| match network {
        IpNet::V4(_) => false,
        IpNet::V6(network) => network.addr().is_unicast_link_local(),
    };
    let listed = link::list_addresses(netlink, Some(index))?;
    Ok(listed.into_iter().map(|(_, network)| network).filter(|network| !link_local(network)).collect())
}

fn list_routes(netlink: &mut Netlink, family: Family) -> Result<Vec<(IpNet, InstalledRoute)>, Reason> {
    let mut header = rt_route::Rtmsg::new();
    header.rtm_family = number(family);
    let mut request = rt_route::Request::new().op_getroute_dump(&header);
    request.encode().push_table(TABLE);
    let listed = netlink.list(&request, |(header, attributes)| {
        let table = attributes.get_table().unwrap_or(u32::from(header.rtm_table));
        if table != TABLE || header.rtm_protocol != ROUTE_PROTOCOL || header.rtm_family != number(family) {
            return None;
        }
        let kind = match header.rtm_type {
            UNICAST => RouteKind::Tunnel,
            BLACKHOLE => RouteKind::Blackhole,
            THROW => RouteKind::Throw,
            _ => return None,
        };
        let any = || match family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let prefix = IpNet::new(attributes.get_dst().unwrap_or_else(|_| any()), header.rtm_dst_len).ok()?;
        let interface = attributes.get_oif().ok().filter(|_| kind == RouteKind::Tunnel);
        let metric = attributes.get_priority().unwrap_or(0);
        Some((prefix, InstalledRoute { kind, interface, metric }))
    });
    match listed {
        // The table comes with its first route, the family with its module.
        Err(reason) if matches!(reason.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

fn set_route(netlink: &mut Netlink, prefix: IpNet, kind: RouteKind, interface: Option<u32>) -> Result<(), Reason> {
    let mut request = rt_route::Request::new().set_change().op_newroute_do(&route_header(prefix, kind));
    let mut attributes = request.encode().push_dst(prefix.addr()).push_table(TABLE);
    if let Some(interface) = interface {
        attributes = attributes.push_oif(interface);
    }
    drop(attributes);
    netlink.execute(&request)
}

fn remove_route(netlink: &mut Netlink, prefix: IpNet, route: InstalledRoute) -> Result<(), Reason> {
    let mut header = route_header(prefix, route.kind);
    header.rtm_scope = SCOPE_NOWHERE;
    let mut request = rt_route::Request::new().op_delroute_do(&header);
    let mut attributes = request.encode().push_dst(prefix.addr()).push_table(TABLE).push_priority(route.metric);
    if let Some(interface) = route.interface {
        attributes = attributes.push_oif(interface);
    }
    drop(attributes);
    netlink.execute(&request)
}

fn route_header(prefix: IpNet, kind: RouteKind) -> rt_route::Rtmsg {
    let (kind, scope) = match kind {
        RouteKind::Tunnel => (UNICAST, SCOPE_LINK),
        RouteKind::Blackhole => (BLACKHOLE, 0),
        RouteKind::Throw => (THROW, 0),
    };
    rt_route::Rtmsg {
        rtm_family: link::family(prefix.addr()),
        rtm_dst_len: prefix.prefix_len(),
        rtm_table: TABLE as u8,
        rtm_protocol: ROUTE_PROTOCOL,
        rtm_scope: scope,
        rtm_type: kind,
        ..Default::default()
    }
}

fn list_rules(netlink: &mut Netlink) -> Result<BTreeSet<PolicyRule>, Reason> {
    let request = rt_rule::Request::new().op_getrule_dump(&rt_rule::FibRuleHdr::new());
    let listed = netlink.list(&request, |(header, attributes)| {
        let family = match i32::from(header.family) {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return None,
        };
        let action = match header.action {
            LOOKUP => RuleAction::Table(attributes.get_table().unwrap_or(u32::from(header.table))),
            UNREACHABLE => RuleAction::Unreachable,
            _ => return None,
        };
        if attributes.get_protocol().ok() != Some(ROUTE_PROTOCOL) {
            return None;
        }
        Some(PolicyRule {
            family,
            priority: attributes.get_priority().unwrap_or(0),
            marked: attributes.get_fwmark().is_ok(),
            action,
        })
    })?;
    Ok(listed.into_iter().collect())
}

fn add_rule(netlink: &mut Netlink, rule: PolicyRule) -> Result<(), Reason> {
    let mut request = rt_rule::Request::new().set_create().set_excl().op_newrule_do(&rule_header(rule));
    push_rule(request.encode(), rule);
    netlink.execute(&request)
}

fn remove_rule(netlink: &mut Netlink, rule: PolicyRule) -> Result<(), Reason> {
    let mut request = rt_rule::Request::new().op_delrule_do(&rule_header(rule));
    push_rule(request.encode(), rule);
    netlink.execute(&request)
}

fn push_rule(attributes: rt_rule::PushFibRuleAttrs<&mut Vec<u8>>, rule: PolicyRule) {
    let mut attributes = attributes.push_priority(rule.priority).push_protocol(ROUTE_PROTOCOL);
    if let RuleAction::Table(table) = rule.action {
        attributes = attributes.push_table(table);
    }
    if rule.marked {
        attributes.push_fwmark(BYPASS_MARK).push_fwmask(MARK_MASK);
    }
}

fn rule_header(rule: PolicyRule) -> rt_rule::FibRuleHdr {
    let mut header = rt_rule::FibRuleHdr::new();
    header.family = number(rule.family);
    header.action = match rule.action {
        RuleAction::Table(_) => LOOKUP,
        RuleAction::Unreachable => UNREACHABLE,
    };
    header
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// What the machine has of IPv6, by the settings below `net` (`/proc/sys/net`). Where they can't be seen it is taken as
/// usable, and a change that fails says so.
fn ipv6_on(interface: &str, net: &Path) -> Ipv6 {
    let conf = net.join("ipv6/conf");
    let off = |name: &str| {
        fs::read_to_string(conf.join(name).join("disable_ipv6")).is_ok_and(|setting| setting.trim() == "1")
    };
    match (conf.exists(), net.join("ipv4").exists()) {
        (false, true) => Ipv6::Absent,
        (true, _) if !interface.is_empty() && off(interface) => {
            let others = fs::read_dir(&conf).into_iter().flatten().flatten();
            let elsewhere = others
                .filter_map(|entry| entry.file_name().into_string().ok())
                .any(|name| !["all", "default", "lo", interface].contains(&name.as_str()) && !off(&name));
            if elsewhere { Ipv6::OffOnInterface } else { Ipv6::Absent }
        }
        _ => Ipv6::Usable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_told_apart_by_machine_and_interface() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path();
        fs::create_dir_all(net.join("ipv4")).unwrap();
        assert_eq!(ipv6_on("tun0", net), Ipv6::Absent);
        for (name, setting) in [("all", "1\n"), ("eth0", "0\n"), ("tun0", "1\n")] {
            fs::create_dir_all(net.join("ipv6/conf").join(name)).unwrap();
            fs::write(net.join("ipv6/conf").join(name).join("disable_ipv6"), setting).unwrap();
        }
        assert_eq!(ipv6_on("tun0", net), Ipv6::OffOnInterface);
        assert_eq!(ipv6_on("eth0", net), Ipv6::Usable);
        fs::write(net.join("ipv6/conf/eth0/disable_ipv6"), "1\n").unwrap();
        assert_eq!(ipv6_on("tun0", net), Ipv6::Absent);
    }
}
