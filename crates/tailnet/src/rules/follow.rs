//! Bringing a policy that was compiled a moment ago up to date with the tailnet as it is now.

use policy::{Change, Topology};

use super::{MOST_CHANGES, Rules};

impl Rules {
    /// Applies what differs between the tailnet that this was compiled against and another one. Answers false, with nothing
    /// changed, where that is so much that compiling anew is as fast.
    pub(crate) fn follow(&mut self, topology: &Topology) -> bool {
        // A change of a service compiles everything anew.
        if self.topology().services != topology.services {
            return false;
        }
        let changes: Vec<Change> = differences(self.topology(), topology).take(MOST_CHANGES + 1).collect();
        if changes.len() > MOST_CHANGES {
            return false;
        }
        self.apply(changes);
        true
    }
}

/// What makes one tailnet of another, but for services. Users come first: nodes belong to them.
fn differences<'a>(known: &'a Topology, now: &'a Topology) -> impl Iterator<Item = Change> + 'a {
    let users = now.users.iter().filter(|(id, user)| known.users.get(*id) != Some(*user));
    let users = users.map(|(id, user)| Change::User(*id, user.clone()));
    let users_gone = known.users.keys().filter(|id| !now.users.contains_key(*id)).map(|id| Change::UserGone(*id));
    let nodes = now.nodes.iter().filter(|(id, node)| known.nodes.get(*id) != Some(*node));
    let nodes = nodes.map(|(id, node)| Change::Node(*id, Box::new(node.clone())));
    let nodes_gone = known.nodes.keys().filter(|id| !now.nodes.contains_key(*id)).map(|id| Change::NodeGone(*id));
    let routes = now.routers.iter().filter(|(route, routers)| known.routers.get(*route) != Some(*routers));
    let routes = routes.map(|(route, routers)| Change::Routers(*route, routers.clone()));
    let routes_gone = known.routers.keys().filter(|route| !now.routers.contains_key(*route));
    let routes_gone = routes_gone.map(|route| Change::Routers(*route, Vec::new()));
    let domains = (known.domains != now.domains).then(|| Change::Domains(now.domains.clone()));
    let https = (known.https != now.https).then_some(Change::Https(now.https));
    let people = users.chain(users_gone);
    let devices = nodes.chain(nodes_gone);
    people.chain(devices).chain(routes).chain(routes_gone).chain(domains).chain(https)
}
