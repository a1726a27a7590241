use ipnet::IpNet;
use kubeapi::RouteStanding;

use crate::proxy::{ObservedProxy, Proxy};

/// How many routes a message names: it is for people.
const MAX_NAMED: usize = 16;

/// Why not all that a replica is asked to serve is served, though its device is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shortcoming {
    /// Its pod does not forward.
    Stuck(String),
    /// Its routes wait for somebody to approve them.
    Unapproved(String),
    /// It does not offer all of them yet.
    Coming(String),
}

impl Shortcoming {
    /// Looks at what a replica says of its routes. Of a proxy that says nothing of them, as stock ones, nothing is known.
    pub(super) fn of(there: &ObservedProxy, proxy: &Proxy) -> Option<Self> {
        let said = there.said();
        let device = said.device_fqdn.as_deref().filter(|_| there.stateful_set.is_some() && said.is_logged_in())?;
        let unserved = said.routes.as_ref()?.unserved(&proxy.routes()?);
        let which = |standing: Option<RouteStanding>| -> Vec<IpNet> {
            unserved.iter().filter(|(_, found)| *found == standing).map(|(route, _)| *route).collect()
        };
        let stuck = which(Some(RouteStanding::NotForwarded));
        if !stuck.is_empty() {
            return Some(Self::Stuck(not_forwarded(device, &stuck)));
        }
        let unapproved = which(Some(RouteStanding::NotApproved));
        if !unapproved.is_empty() {
            return Some(Self::Unapproved(not_approved(device, &unapproved)));
        }
        let coming = which(None);
        let message = || {
            let routes = named(&coming, ", ");
            format!("{device} does not offer {routes} yet: a change of its configuration reaches a pod within a minute")
        };
        (!coming.is_empty()).then(|| Self::Coming(message()))
    }
}

fn not_approved(device: &str, routes: &[IpNet]) -> String {
    format!(
        "the tailnet does not use {} of {device}, because nobody has approved it: run `towline routes approve {device} {}`, \
         or have the policy approve it at once (autoApprovers)",
        named(routes, ", "),
        named(routes, " ")
    )
}

fn not_forwarded(device: &str, routes: &[IpNet]) -> String {
    let setting = match routes.iter().all(|route| route.addr().is_ipv6()) {
        true => "net.ipv6.conf.all.forwarding",
        false => "net.ipv4.ip_forward",
    };
    format!(
        "the pod of {device} forwards no packets to {}: set the sysctl {setting} in its ProxyClass, or have it work in user \
         space (TS_USERSPACE)",
        named(routes, ", ")
    )
}

fn named(routes: &[IpNet], between: &str) -> String {
    let mut named: Vec<String> = routes.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if routes.len() > MAX_NAMED {
        named.push("…".to_owned());
    }
    named.join(between)
}
