//! The drawing of a world, as data: segments, boxes and the links that join them.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Address of the name server that every box asks.
pub const NAMES: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Address of the coordination server and of the first relay.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Address of the second relay.
pub const RELAY2: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// Outer address of the home router.
pub const HOME_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// Outer address of the cafe's router.
pub const CAFE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 30);
/// Outer address of the cabin's router.
pub const CABIN_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 40);
/// Address of the box that answers with the caller's address.
pub const ECHO: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
/// Address of the image registry.
pub const REGISTRY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 60);
/// Address of the first Kubernetes node, which also runs the control plane.
pub const NODE1: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 10);
/// Address of the second Kubernetes node.
pub const NODE2: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 11);
/// Address of the printer, plain HTTP on the home LAN.
pub const PRINTER: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 60);
/// Address of the laptop in the cafe.
pub const LAPTOP: Ipv4Addr = Ipv4Addr::new(172, 20, 30, 10);
/// Address of robbinsdale in the cabin.
pub const ROBBINSDALE: Ipv4Addr = Ipv4Addr::new(172, 20, 40, 10);

/// Addresses of pods.
pub const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);
/// Addresses of Services.
pub const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16);
/// Addresses of load balancers, routed to the cluster's first node.
pub const LOAD_BALANCERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 69, 0, 0), 16);
/// Address of the cluster's DNS Service.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

/// Addresses of the pods of a node, counted from 0.
pub const fn node_pods(node: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, node, 0), 24)
}

/// A bridge: whoever is linked to it is on one LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name, at most 12 bytes; the bridge is called `br-` and this.
    pub name: String,
    /// Addresses on the segment.
    pub prefix: Ipv4Net,
}

/// One end of a cable: an interface of a box, plugged into a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name of the interface inside the box.
    pub interface: String,
    /// Name of the segment.
    pub segment: String,
    /// Address of the interface; its prefix length is the segment's.
    pub address: Ipv4Addr,
}

/// A route besides those that the links bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destinations.
    pub to: Ipv4Net,
    /// Next hop.
    pub via: Ipv4Addr,
}

/// What a box does with packets that are not for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// Drops them: an ordinary computer.
    None,
    /// Forwards them, with address translation from interface `lan` to interface `wan`.
    Router,
    /// Forwards them as they are: a Kubernetes node.
    Plain,
}

/// One box of the drawing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxPlan {
    /// Name of the box, which is its host name too.
    pub name: String,
    /// Its interfaces.
    pub links: Vec<Link>,
    /// What it does with other people's packets.
    pub forwarding: Forwarding,
    /// Routes besides its links' own, the default route among them.
    pub routes: Vec<Route>,
    /// Folders inside the box that lie on the machine's disk, because an overlay or memory would not do.
    pub disk: Vec<String>,
}

impl BoxPlan {
    /// An ordinary computer with one interface `eth0`, whose default route is `gateway`.
    pub fn computer(name: &str, segment: &str, address: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Self {
        Self {
            name: name.to_owned(),
            links: vec![Link { interface: "eth0".to_owned(), segment: segment.to_owned(), address }],
            forwarding: Forwarding::None,
            routes: gateway.map(|via| Route { to: Ipv4Net::default(), via }).into_iter().collect(),
            disk: Vec::new(),
        }
    }

    /// A router with address translation between a LAN (whose first address it takes) and the internet.
    pub fn router(name: &str, outer: Ipv4Addr, lan: &Segment) -> Self {
        let inner = gateway_of(lan);
        let link = |interface: &str, segment: &str, address| Link {
            interface: interface.to_owned(),
            segment: segment.to_owned(),
            address,
        };
        Self {
            name: name.to_owned(),
            links: vec![link("wan", "internet", outer), link("lan", &lan.name, inner)],
            forwarding: Forwarding::Router,
            routes: Vec::new(),
            disk: Vec::new(),
        }
    }

    /// Address of the first interface.
    pub fn address(&self) -> Ipv4Addr {
        self.links.first().map_or(Ipv4Addr::UNSPECIFIED, |link| link.address)
    }
}

/// A whole drawing: what [`World::up`](crate::World::up) makes real.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Bridges.
    pub segments: Vec<Segment>,
    /// Boxes, each linked to some of the segments.
    pub boxes: Vec<BoxPlan>,
}

impl Plan {
    /// The walkthrough's world without its cluster: an internet, three homes behind routers, and who lives there.
    pub fn walkthrough() -> Self {
        let segment = |name: &str, prefix: [u8; 4]| Segment {
            name: name.to_owned(),
            prefix: Ipv4Net::new_assert(Ipv4Addr::from(prefix), 24),
        };
        let internet = segment("internet", [203, 0, 113, 0]);
        let home = segment("home", [192, 168, 50, 0]);
        let cafe = segment("cafe", [172, 20, 30, 0]);
        let cabin = segment("cabin", [172, 20, 40, 0]);
        let mut home_router = BoxPlan::router("home", HOME_ROUTER, &home);
        home_router.routes.push(Route { to: LOAD_BALANCERS, via: NODE1 });
        let boxes = vec![
            BoxPlan::computer("names", "internet", NAMES, None),
            BoxPlan::computer("control", "internet", CONTROL, None),
            BoxPlan::computer("relay2", "internet", RELAY2, None),
            BoxPlan::computer("echo", "internet", ECHO, None),
            home_router,
            BoxPlan::router("cafe", CAFE_ROUTER, &cafe),
            BoxPlan::router("cabin", CABIN_ROUTER, &cabin),
            BoxPlan::computer("printer", "home", PRINTER, Some(gateway_of(&home))),
            BoxPlan::computer("laptop", "cafe", LAPTOP, Some(gateway_of(&cafe))),
            BoxPlan::computer("robbinsdale", "cabin", ROBBINSDALE, Some(gateway_of(&cabin))),
        ];
        Self { segments: vec![internet, home, cafe, cabin], boxes }
    }

    /// The drawing with the cluster's boxes: two nodes on the home LAN and the image registry on the internet.
    pub fn with_cluster(mut self) -> Self {
        let gateway = Ipv4Addr::new(192, 168, 50, 1);
        for (name, address, other, neighbour) in [("node1", NODE1, 1, NODE2), ("node2", NODE2, 0, NODE1)] {
            let mut node = BoxPlan::computer(name, "home", address, Some(gateway));
            node.forwarding = Forwarding::Plain;
            node.routes.push(Route { to: node_pods(other), via: neighbour });
            // Overlays cannot stand on an overlay, and volumes should not eat memory.
            node.disk = vec!["/var/lib/containerd".to_owned(), "/var/lib/kubelet".to_owned()];
            self.boxes.push(node);
        }
        let mut registry = BoxPlan::computer("registry", "internet", REGISTRY, None);
        registry.disk = vec!["/var/lib/registry".to_owned()];
        self.boxes.push(registry);
        self
    }

    /// The box called `name`.
    pub fn find(&self, name: &str) -> Option<&BoxPlan> {
        self.boxes.iter().find(|plan| plan.name == name)
    }

    /// Outer addresses of all routers.
    pub fn routers(&self) -> Vec<Ipv4Addr> {
        self.boxes
            .iter()
            .filter(|plan| plan.forwarding == Forwarding::Router)
            .flat_map(|plan| plan.links.iter().filter(|link| link.interface == "wan").map(|link| link.address))
            .collect()
    }

    /// Checks that names fit the kernel's limits, are unique, and that links meet segments that hold their address.
    ///
    /// # Errors
    /// Names the first box or segment that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        for segment in &self.segments {
            ensure!(is_label(&segment.name, 12), "segment name {:?}: at most 12 of a-z, 0-9 and -", segment.name);
        }
        for (position, plan) in self.boxes.iter().enumerate() {
            ensure!(is_label(&plan.name, 15), "box name {:?}: at most 15 of a-z, 0-9 and -", plan.name);
            ensure!(plan.name != FABRIC, "a box cannot be called {FABRIC}: the bridges live there");
            ensure!(self.boxes[..position].iter().all(|other| other.name != plan.name), "two boxes {}", plan.name);
            for link in &plan.links {
                let segment = self.segments.iter().find(|segment| segment.name == link.segment);
                let prefix = segment.map(|segment| segment.prefix);
                ensure!(
                    prefix.is_some_and(|prefix| prefix.contains(&link.address)),
                    "box {}: no segment {} that holds {}",
                    plan.name,
                    link.segment,
                    link.address
                );
                let port = port_name(plan, link);
                ensure!(port.len() <= 15, "box {}: the port name {port} is longer than 15 bytes", plan.name);
            }
        }
        Ok(())
    }
}

/// Name of the namespace in which all bridges live.
pub(crate) const FABRIC: &str = "fabric";

/// Name of the bridge's end of a cable, inside the fabric.
pub(crate) fn port_name(plan: &BoxPlan, link: &Link) -> String {
    match link.interface.as_str() {
        "eth0" => plan.name.clone(),
        interface => format!("{}.{interface}", plan.name),
    }
}

/// Name of a segment's bridge, inside the fabric.
pub(crate) fn bridge_name(segment: &str) -> String {
    format!("br-{segment}")
}

/// First address of a LAN, which its router has.
pub(crate) fn gateway_of(segment: &Segment) -> Ipv4Addr {
    segment.prefix.hosts().next().unwrap_or(segment.prefix.addr())
}

/// Whether `text` can be a host name, a folder and an interface: lower case, digits, inner hyphens.
pub(crate) fn is_label(text: &str, longest: usize) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= longest
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walkthrough_is_a_valid_drawing() {
        Plan::walkthrough().with_cluster().check().unwrap();
        assert_eq!(Plan::walkthrough().routers(), [HOME_ROUTER, CAFE_ROUTER, CABIN_ROUTER]);
    }

    #[test]
    fn an_address_outside_its_segment_is_refused() {
        let mut plan = Plan::walkthrough();
        plan.boxes.push(BoxPlan::computer("stray", "home", LAPTOP, None));
        let message = plan.check().unwrap_err().to_string();
        assert!(message.contains("stray") && message.contains("172.20.30.10"), "{message}");
    }

    #[test]
    fn two_boxes_of_one_name_are_refused() {
        let mut plan = Plan::walkthrough();
        plan.boxes.push(BoxPlan::computer("echo", "internet", Ipv4Addr::new(203, 0, 113, 99), None));
        assert!(plan.check().is_err());
    }

    #[test]
    fn a_name_that_would_leave_its_folder_is_refused() {
        assert!(is_label("node1", 15));
        for wrong in ["", "../x", "-a", "a-", "A", "a b", "abcdefghijklmnop"] {
            assert!(!is_label(wrong, 15), "{wrong}");
        }
    }
}
