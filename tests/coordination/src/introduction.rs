use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tailcfg::{FilterRule, MapResponse, Node};

use crate::{Server, peer};

/// A node under test, as the other is to know it: its server, and the UDP port that it was given.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Its server, whose script has its number.
    pub server: &'a Server,
    /// The port.
    pub port: u16,
}

impl Side<'_> {
    /// How the other side is to see this one, once it has told its disco key.
    async fn seen(&self) -> Node {
        let told = self.server.until("the disco key is told", |script| {
            script.maps.iter().find(|map| !map.disco_key.is_zero()).map(|map| (map.node_key, map.disco_key))
        });
        let (key, disco_key) = told.await;
        let number = self.server.script.lock().unwrap().number;
        let endpoints = vec![SocketAddr::new(own_address(), self.port)];
        Node { key, disco_key, endpoints, ..peer(number + 1, "peer") }
    }
}

/// Makes two nodes peers of each other. `rules`, JSON as the wire has it, say what the first lets in.
pub async fn introduce(one: Side<'_>, other: Side<'_>, rules: &str) {
    let (as_one, as_other) = tokio::join!(one.seen(), other.seen());
    let rules: Vec<FilterRule> = serde_json::from_str(rules).unwrap();
    one.server.send(MapResponse {
        peers_changed: vec![as_other],
        packet_filter: Some(rules),
        ..MapResponse::default()
    });
    other.server.send(MapResponse { peers_changed: vec![as_one], ..MapResponse::default() });
}

/// The address by which this machine would go out; a machine on no network is at home on loopback.
fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Connecting a datagram socket asks for a route and sends nothing.
    match socket.connect("203.0.113.1:9") {
        Ok(()) => socket.local_addr().unwrap().ip(),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}
