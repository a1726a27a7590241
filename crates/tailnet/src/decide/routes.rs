use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tailcfg::NodeId;

use super::limits::{ROUTE_LIMIT, check_route};
use super::{Draft, device_of};
use crate::change::Change;
use crate::command::Reply;
use crate::record::Node;
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// Both default routes: what makes an exit node. One is never approved without the other.
const EXIT: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Says which routes a device may serve, offered by it or not.
pub(super) fn set_routes(
    tailnet: &Tailnet,
    id: NodeId,
    routes: &[String],
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let before = device_of(tailnet, id)?;
    if routes.len() > ROUTE_LIMIT {
        let count = routes.len();
        return Err(Refusal::TooMany { what: "the request", count, things: "routes", limit: ROUTE_LIMIT });
    }
    let mut approved: BTreeSet<IpNet> = routes.iter().map(|text| read(text)).collect::<Result<_, _>>()?;
    if EXIT.iter().any(|route| approved.contains(route)) {
        approved.extend(EXIT);
    }
    let node = Node { revoked_routes: revoked(before, &approved), approved_routes: approved, ..before.clone() };
    if node != *before {
        draft.put(Change::PutNode(Box::new(node)));
    }
    Ok(Reply::Done)
}

/// What a device offers that was taken back from it by hand, now or before, and isn't approved again by hand now.
fn revoked(before: &Node, approved: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let was_approved = |route: &IpNet| before.approved_routes.contains(route) || before.revoked_routes.contains(route);
    let offered = before.hostinfo.routable_ips.iter().copied();
    offered.filter(|route| was_approved(route) && !approved.contains(route)).collect()
}

fn read(text: &str) -> Result<IpNet, Refusal> {
    let route = text.parse().map_err(|_| Refusal::BadRoute { given: text.chars().take(80).collect() })?;
    check_route(&route)?;
    Ok(route)
}
