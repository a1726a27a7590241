use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The routes that a Connector's proxy offers to the tailnet, and what becomes of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfferedRoutes(pub BTreeMap<IpNet, RouteStanding>);

/// What becomes of a route that a proxy offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteStanding {
    /// It is approved and its packets are forwarded. Among several proxies that offer it another one may be in use.
    Served,
    /// Nobody has approved it: the tailnet does not use it.
    NotApproved,
    /// It is approved or not, and the pod's kernel forwards no packets of its family.
    NotForwarded,
}

/// The longest value that is believed, in bytes: room for some thousand routes.
const MAX_VALUE: usize = 128 * 1024;

/// The value as it stands in the Secret, of which the pod that wrote it is a part: stock proxies know nothing of it, and
/// leave behind what one of ours wrote.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    pod: &'a str,
    routes: BTreeMap<IpNet, RouteStanding>,
}

impl OfferedRoutes {
    /// Reads what the pod with this UID wrote; what another one did counts as absent.
    pub(super) fn read(value: &[u8], pod: &str) -> Option<Self> {
        let value = Some(value).filter(|value| value.len() <= MAX_VALUE)?;
        let written: Written<'_> = serde_json::from_slice(value).ok()?;
        (written.pod == pod).then_some(Self(written.routes))
    }

    /// The value that the pod with this UID writes.
    pub fn write(&self, pod: &str) -> Vec<u8> {
        // A string, and a map from strings to words, always have a JSON form.
        serde_json::to_vec(&Written { pod, routes: self.0.clone() }).unwrap_or_default()
    }

    /// Those of the routes that are asked for and not served, each with what becomes of it; `None` is not offered.
    ///
    /// That the kernel forwards no IPv6 counts for nothing of an exit node that has IPv4: many clusters forward nothing else.
    pub fn unserved(&self, asked: &[IpNet]) -> Vec<(IpNet, Option<RouteStanding>)> {
        let by_ipv4 = self.0.get(&IpNet::V4(Ipv4Net::default()));
        let leaves = by_ipv4.is_some_and(|standing| *standing != RouteStanding::NotForwarded);
        let found = asked.iter().map(|route| (*route, self.0.get(route).copied()));
        found
            .filter(|(route, standing)| match standing {
                Some(RouteStanding::Served) => false,
                Some(RouteStanding::NotForwarded) => !(leaves && *route == IpNet::V6(Ipv6Net::default())),
                Some(RouteStanding::NotApproved) | None => true,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, RouteStanding)]) -> OfferedRoutes {
        OfferedRoutes(all.iter().map(|(route, standing)| (route.parse().unwrap(), *standing)).collect())
    }

    fn unserved(offered: &OfferedRoutes, asked: &[&str]) -> Vec<(String, Option<RouteStanding>)> {
        let asked: Vec<IpNet> = asked.iter().map(|route| route.parse().unwrap()).collect();
        offered.unserved(&asked).into_iter().map(|(route, standing)| (route.to_string(), standing)).collect()
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let offered = routes(&[("10.0.0.0/16", RouteStanding::Served), ("fd00::/64", RouteStanding::NotApproved)]);
        let value = offered.write("p1");
        assert_eq!(
            String::from_utf8(value.clone()).unwrap(),
            r#"{"pod":"p1","routes":{"10.0.0.0/16":"served","fd00::/64":"not-approved"}}"#
        );
        assert_eq!(OfferedRoutes::read(&value, "p1"), Some(offered));
    }

    #[test]
    fn what_another_pod_left_behind_or_nobody_understands_counts_as_absent() {
        let offered = routes(&[("10.0.0.0/16", RouteStanding::Served)]);
        assert_eq!(OfferedRoutes::read(&offered.write("p1"), "p2"), None);
        for value in [r#"{"pod":"p1","routes":{"10.0.0.0/16":"bored"}}"#, r#"{"pod":"p1","routes":{"x":"served"}}"#] {
            assert_eq!(OfferedRoutes::read(value.as_bytes(), "p1"), None, "{value}");
        }
        let mut long = offered.write("p1");
        long.resize(MAX_VALUE + 1, b' ');
        assert_eq!(OfferedRoutes::read(&long, "p1"), None);
    }

    #[test]
    fn a_route_that_is_asked_for_and_not_offered_is_not_served() {
        let offered = routes(&[("10.0.0.0/16", RouteStanding::Served), ("10.1.0.0/16", RouteStanding::NotApproved)]);
        assert_eq!(
            unserved(&offered, &["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]),
            [("10.1.0.0/16".to_owned(), Some(RouteStanding::NotApproved)), ("10.2.0.0/16".to_owned(), None)]
        );
    }

    #[test]
    fn an_exit_node_serves_without_ipv6_where_the_kernel_has_none_but_not_unapproved() {
        let exit = |v4, v6| routes(&[("0.0.0.0/0", v4), ("::/0", v6)]);
        let count = |offered: OfferedRoutes| unserved(&offered, &["0.0.0.0/0", "::/0"]).len();
        assert_eq!(count(exit(RouteStanding::Served, RouteStanding::NotForwarded)), 0);
        assert_eq!(count(exit(RouteStanding::NotApproved, RouteStanding::NotForwarded)), 1);
        assert_eq!(count(exit(RouteStanding::Served, RouteStanding::NotApproved)), 1);
        assert_eq!(count(exit(RouteStanding::NotForwarded, RouteStanding::NotForwarded)), 2);
    }
}
