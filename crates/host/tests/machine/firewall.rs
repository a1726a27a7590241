use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use host::{Firewall, FirewallConfig, Forwarding, ProxyRule};

use crate::namespace::{Namespace, announced_segments, answer, ask_tcp, ask_tcp_within, ask_udp, ping};

const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const POD_SIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);
const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const MOMENT: Duration = Duration::from_millis(300);

/// A pod, a node, and a peer behind the node's tunnel, which is a veth pair here.
struct World {
    pod: Namespace,
    node: Namespace,
    peer: Namespace,
}

impl World {
    fn new() -> Self {
        let (pod, node, peer) = (Namespace::new(), Namespace::new(), Namespace::new());
        node.join("eth0", &pod, "eth0");
        node.join("tailscale0", &peer, "tun0");
        pod.ip("addr add 10.1.0.2/24 dev eth0");
        pod.ip("-6 addr add fd00:1::2/64 dev eth0 nodad");
        pod.ip("link set eth0 up");
        pod.ip("route add default via 10.1.0.1");
        pod.ip("-6 route add default via fd00:1::1");
        node.ip("addr add 10.1.0.1/24 dev eth0");
        node.ip("-6 addr add fd00:1::1/64 dev eth0 nodad");
        node.ip("addr add 100.64.0.1/32 dev tailscale0");
        node.ip("-6 addr add fd7a:115c:a1e0::1/128 dev tailscale0 nodad");
        node.ip("link set eth0 up");
        node.ip("link set tailscale0 up mtu 1280");
        node.ip("route add 100.64.0.0/10 dev tailscale0");
        node.ip("-6 route add fd7a:115c:a1e0::/48 dev tailscale0");
        peer.ip("addr add 100.64.0.9/32 dev tun0");
        peer.ip("-6 addr add fd7a:115c:a1e0::9/128 dev tun0 nodad");
        peer.ip("link set tun0 up");
        peer.ip("route add 100.64.0.0/10 dev tun0");
        peer.ip("route add 10.1.0.0/24 via 100.64.0.1 dev tun0 onlink");
        peer.ip("-6 route add fd7a:115c:a1e0::/48 dev tun0");
        peer.ip("-6 route add fd00:1::/64 via fd7a:115c:a1e0::1 dev tun0 onlink");
        for namespace in [&pod, &node, &peer] {
            namespace.set("ipv4/conf/all/rp_filter", "0");
        }
        let failures = node.run(|| {
            let mut forwarding = Forwarding::new().unwrap();
            let mut failures = forwarding.forward_ipv4().unwrap().failures;
            failures.extend(forwarding.forward_ipv6().failures);
            failures
        });
        assert!(failures.is_empty(), "{failures:?}");
        Self { pod, node, peer }
    }

    fn install(&self, config: &FirewallConfig) {
        self.node.run(|| {
            let ruleset = config.ruleset().unwrap();
            let mut firewall = Firewall::new().unwrap();
            firewall.install(&ruleset).unwrap();
            assert!(firewall.has(&ruleset).unwrap());
        });
    }
}

fn router() -> FirewallConfig {
    FirewallConfig {
        addresses: [OWN.into(), "fd7a:115c:a1e0::1".parse().unwrap()].into(),
        udp_port: Some(41641),
        forward: true,
        masquerade: true,
        clamp_segments: true,
        ..FirewallConfig::node("tailscale0")
    }
}

fn everything() -> FirewallConfig {
    FirewallConfig {
        stateful: true,
        mark_replies: true,
        proxies: vec![
            ProxyRule::Egress { target: PEER.into(), own: OWN.into() },
            ProxyRule::Egress {
                target: "fd7a:115c:a1e0::9".parse().unwrap(),
                own: "fd7a:115c:a1e0::1".parse().unwrap(),
            },
            ProxyRule::Ingress { own: OWN.into(), destination: POD.into() },
        ],
        ..router()
    }
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_subnet_router_gives_forwarded_packets_its_own_address() {
    let world = World::new();
    world.install(&router());
    answer(&world.pod, at(POD, 80));
    assert_eq!(ask_tcp(&world.peer, at(POD, 80)).unwrap(), POD_SIDE.to_string());
    assert_eq!(ask_udp(&world.peer, at(POD, 80)).unwrap(), POD_SIDE.to_string());
    assert!(ping(&world.peer, POD));
    answer(&world.pod, at(v6("fd00:1::2"), 80));
    assert_eq!(ask_tcp(&world.peer, at(v6("fd00:1::2"), 80)).unwrap(), "fd00:1::1");
}

#[test]
fn without_masquerade_the_peers_address_is_seen() {
    let world = World::new();
    world.install(&FirewallConfig { masquerade: false, ..router() });
    answer(&world.pod, at(POD, 80));
    assert_eq!(ask_tcp(&world.peer, at(POD, 80)).unwrap(), PEER.to_string());
}

#[test]
fn an_egress_proxy_passes_every_port_and_ping_to_its_target() {
    let world = World::new();
    let own = ProxyRule::Egress { target: PEER.into(), own: OWN.into() };
    let own_v6 = ProxyRule::Egress { target: v6("fd7a:115c:a1e0::9"), own: v6("fd7a:115c:a1e0::1") };
    world.install(&FirewallConfig { proxies: vec![own, own_v6], ..router() });
    for port in [22, 8080] {
        answer(&world.peer, at(PEER, port));
        assert_eq!(ask_tcp(&world.pod, at(POD_SIDE, port)).unwrap(), OWN.to_string());
        assert_eq!(ask_udp(&world.pod, at(POD_SIDE, port)).unwrap(), OWN.to_string());
    }
    assert!(ping(&world.pod, POD_SIDE));
    answer(&world.peer, at(v6("fd7a:115c:a1e0::9"), 22));
    assert_eq!(ask_tcp(&world.pod, at(v6("fd00:1::1"), 22)).unwrap(), "fd7a:115c:a1e0::1");
}

#[test]
fn an_egress_proxys_own_port_and_its_tunnel_are_exempt() {
    let world = World::new();
    let egress = ProxyRule::Egress { target: PEER.into(), own: OWN.into() };
    world.install(&FirewallConfig { proxies: vec![egress], ..router() });
    // The node itself answers on its WireGuard port, and to what comes out of the tunnel.
    answer(&world.node, at(POD_SIDE, 41641));
    assert_eq!(ask_udp(&world.pod, at(POD_SIDE, 41641)).unwrap(), POD.to_string());
    answer(&world.node, at(OWN, 80));
    assert_eq!(ask_tcp(&world.peer, at(OWN, 80)).unwrap(), PEER.to_string());
}

#[test]
fn an_ingress_proxy_passes_what_comes_for_its_address_to_the_cluster() {
    let world = World::new();
    let ingress = ProxyRule::Ingress { own: OWN.into(), destination: POD.into() };
    let ingress_v6 = ProxyRule::Ingress { own: v6("fd7a:115c:a1e0::1"), destination: v6("fd00:1::2") };
    world.install(&FirewallConfig { proxies: vec![ingress, ingress_v6], ..router() });
    answer(&world.pod, at(POD, 80));
    assert_eq!(ask_tcp(&world.peer, at(OWN, 80)).unwrap(), POD_SIDE.to_string());
    assert_eq!(ask_udp(&world.peer, at(OWN, 80)).unwrap(), POD_SIDE.to_string());
    assert!(ping(&world.peer, OWN));
    answer(&world.pod, at(v6("fd00:1::2"), 80));
    assert_eq!(ask_tcp(&world.peer, at(v6("fd7a:115c:a1e0::1"), 80)).unwrap(), "fd00:1::1");
}

#[test]
fn a_draining_proxy_lets_what_is_open_go_on_and_nothing_new_begin() {
    let world = World::new();
    let egress = ProxyRule::Egress { target: PEER.into(), own: OWN.into() };
    let serving = FirewallConfig { proxies: vec![egress], ..router() };
    world.install(&serving);
    answer(&world.peer, at(PEER, 53));
    let socket = world.pod.run(|| std::net::UdpSocket::bind("10.1.0.2:4000").unwrap());
    socket.connect(at(POD_SIDE, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let exchange = || {
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 64]).unwrap()
    };
    exchange();
    assert!(ask_tcp(&world.pod, at(POD_SIDE, 53)).is_ok());

    world.install(&FirewallConfig { draining: true, ..serving.clone() });
    exchange();
    let refused = ask_tcp_within(&world.pod, at(POD_SIDE, 53), MOMENT).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut, "who tries is left to try again");
    answer(&world.pod, at(POD, 80));
    assert!(ask_tcp_within(&world.peer, at(POD, 80), MOMENT).is_err());
    world.install(&serving);
    assert!(ask_tcp(&world.pod, at(POD_SIDE, 53)).is_ok(), "the next proxy takes it");
}

#[test]
fn a_stream_of_datagrams_follows_an_egress_proxys_new_target() {
    let world = World::new();
    world.peer.ip("addr add 100.64.0.8/32 dev tun0");
    answer(&world.peer, at(PEER, 53));
    answer(&world.peer, at(Ipv4Addr::new(100, 64, 0, 8), 53));
    let to = |target: &str| FirewallConfig {
        proxies: vec![ProxyRule::Egress { target: target.parse().unwrap(), own: OWN.into() }],
        ..router()
    };
    // What the packets of one stream are translated to is seen by where the kernel counts them.
    let arrivals = |address: &str| {
        let program = ["conntrack", "-L", "-p", "udp", "--reply-src", address];
        world.node.tree(&program, "").lines().count()
    };
    world.install(&to("100.64.0.9"));
    let socket = world.pod.run(|| std::net::UdpSocket::bind("10.1.0.2:4000").unwrap());
    socket.connect(at(POD_SIDE, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let exchange = || {
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 64]).unwrap();
        (arrivals("100.64.0.9"), arrivals("100.64.0.8"))
    };
    assert_eq!(exchange(), (1, 0));
    world.install(&to("100.64.0.8"));
    assert_eq!(exchange(), (1, 0), "the kernel remembers the old target");
    let forgotten = world.node.run(|| Firewall::new().unwrap().forget_flows(&to("100.64.0.8")).unwrap());
    assert_eq!(forgotten, 1);
    assert_eq!(exchange(), (0, 1));
}

#[test]
fn connections_agree_on_segments_that_fit_the_tunnel_both_ways() {
    let world = World::new();
    world.install(&router());
    answer(&world.pod, at(POD, 80));
    let announced = announced_segments(&world.pod, POD);
    ask_tcp(&world.peer, at(POD, 80)).unwrap();
    assert_eq!(announced(), 1240, "out of the tunnel");
    answer(&world.peer, at(PEER, 80));
    let announced = announced_segments(&world.peer, PEER);
    ask_tcp(&world.pod, at(PEER, 80)).unwrap();
    assert_eq!(announced(), 1240, "into the tunnel");

    world.install(&FirewallConfig { clamp_segments: false, ..router() });
    let announced = announced_segments(&world.pod, POD);
    ask_tcp(&world.peer, at(POD, 80)).unwrap();
    assert_eq!(announced(), 1460, "it was the rule that did it");
}

#[test]
fn a_tailnet_address_from_elsewhere_is_dropped() {
    let world = World::new();
    world.install(&router());
    answer(&world.node, at(POD_SIDE, 80));
    world.pod.ip("addr add 100.70.0.1/32 dev eth0");
    world.pod.ip("route replace 10.1.0.0/24 dev eth0 src 100.70.0.1");
    world.node.ip("route add 100.70.0.1/32 dev eth0");
    assert!(ask_tcp_within(&world.pod, at(POD_SIDE, 80), MOMENT).is_err());
    world.install(&FirewallConfig { drop_spoofed: false, ..router() });
    assert_eq!(ask_tcp(&world.pod, at(POD_SIDE, 80)).unwrap(), "100.70.0.1");
}

#[test]
fn the_machine_reaches_its_own_tailnet_address() {
    let world = World::new();
    world.install(&router());
    answer(&world.node, at(OWN, 80));
    assert_eq!(ask_tcp(&world.node, at(OWN, 80)).unwrap(), OWN.to_string());
}

#[test]
fn a_stateful_router_lets_only_answers_into_the_tunnel() {
    let world = World::new();
    world.install(&FirewallConfig { stateful: true, ..router() });
    answer(&world.peer, at(PEER, 80));
    answer(&world.pod, at(POD, 80));
    assert!(ask_tcp_within(&world.pod, at(PEER, 80), MOMENT).is_err());
    assert!(ask_tcp(&world.peer, at(POD, 80)).is_ok());
}

#[test]
fn answers_to_the_nodes_own_packets_pass_a_strict_reverse_path_filter() {
    let world = World::new();
    world.install(&FirewallConfig { mark_replies: true, ..router() });
    answer(&world.pod, at(POD, 80));
    // An exit node: everything goes into the tunnel but what is marked.
    world.node.ip("rule add priority 10 fwmark 0x80000/0xff0000 lookup main");
    world.node.ip("rule add priority 20 lookup 52");
    world.node.ip("route add default dev tailscale0 table 52");
    for interface in ["all", "eth0"] {
        world.node.set(&format!("ipv4/conf/{interface}/rp_filter"), "1");
    }
    let ask = || {
        world.node.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            host::socket::set_bypass_mark(&socket).unwrap();
            socket.connect_timeout(&at(POD, 80).into(), MOMENT)
        })
    };
    assert!(ask().is_err(), "the filter takes the answer for a forged one");
    let applied = world.node.run(|| Forwarding::new().unwrap().trust_marks().unwrap());
    assert!(applied.failures.is_empty());
    ask().unwrap();
}

#[test]
fn replacing_keeps_one_table_and_cleaning_up_leaves_nothing() {
    let world = World::new();
    world.install(&everything());
    world.install(&router());
    world.node.run(|| {
        let mut firewall = Firewall::new().unwrap();
        assert!(!firewall.has(&everything().ruleset().unwrap()).unwrap());
        let other_port = FirewallConfig { udp_port: Some(1), ..router() };
        assert!(!firewall.has(&other_port.ruleset().unwrap()).unwrap(), "the same shape with another port");
        firewall.cleanup().unwrap();
        assert_eq!(firewall.installed().unwrap(), None);
        firewall.cleanup().unwrap();
    });
    assert_eq!(world.node.tree(&["nft", "list", "ruleset"], ""), "");
}

#[test]
fn the_printed_rules_are_what_nft_lists() {
    let world = World::new();
    world.install(&everything());
    let listed = world.node.tree(&["nft", "-y", "list", "table", "inet", "towline"], "");
    assert_eq!(listed, everything().ruleset().unwrap().to_string());
}

/// Rules in the shape that kube-proxy gives them in its nftables mode: a Service 10.96.0.10:80 for the pod.
const KUBE_PROXY: &str = "
table ip kube-proxy {
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.10 . tcp . 80 : goto service-web }
    }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
    }
    chain service-web {
        jump mark-for-masquerade
        meta l4proto tcp dnat to 10.1.0.2:8080
    }
    chain mark-for-masquerade {
        meta mark set meta mark or 0x4000
    }
    chain masquerading {
        mark and 0x4000 == 0 return
        meta mark set mark xor 0x4000
        masquerade fully-random
    }
    chain nat-prerouting {
        type nat hook prerouting priority dstnat;
        jump services
    }
    chain nat-output {
        type nat hook output priority -100;
        jump services
    }
    chain nat-postrouting {
        type nat hook postrouting priority srcnat;
        jump masquerading
    }
}
";

#[test]
fn kube_proxys_services_work_beside_and_stay_as_they_are() {
    let world = World::new();
    world.node.tree(&["nft", "-f", "-"], KUBE_PROXY);
    let list = || world.node.tree(&["nft", "list", "table", "ip", "kube-proxy"], "");
    let before = list();
    world.peer.ip("route add 10.96.0.0/16 via 100.64.0.1 dev tun0 onlink");
    world.install(&router());
    answer(&world.pod, at(POD, 8080));
    assert_eq!(ask_tcp(&world.peer, at(Ipv4Addr::new(10, 96, 0, 10), 80)).unwrap(), POD_SIDE.to_string());
    assert_eq!(list(), before);
    world.node.run(|| Firewall::new().unwrap().cleanup().unwrap());
    assert_eq!(list(), before);
}

#[test]
fn iptables_rules_stay_and_one_that_drops_is_named() {
    let world = World::new();
    let iptables = |arguments: &str| {
        let program: Vec<_> = std::iter::once("iptables-nft").chain(arguments.split_whitespace()).collect();
        world.node.tree(&program, "");
    };
    iptables("-A INPUT -p tcp --dport 81 -j REJECT");
    iptables("-P FORWARD DROP");
    iptables("-t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE");
    let list = || {
        let rules = world.node.tree(&["iptables-nft-save"], "");
        rules.lines().filter(|line| !line.starts_with(['#', ':'])).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = list();
    world.install(&router());
    answer(&world.pod, at(POD, 80));
    assert!(ask_tcp_within(&world.peer, at(POD, 80), MOMENT).is_err(), "another table's drop is final");
    let drops = world.node.run(|| Firewall::new().unwrap().foreign_drops().unwrap());
    assert_eq!(
        drops.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["the chain FORWARD of the table ip filter drops forwarded packets that it does not know: \
             allow forwarding from and to the tunnel's interface there"]
    );
    iptables("-P FORWARD ACCEPT");
    assert!(ask_tcp(&world.peer, at(POD, 80)).is_ok());
    world.node.run(|| Firewall::new().unwrap().cleanup().unwrap());
    assert_eq!(list(), before);
}

#[test]
fn rules_that_another_program_flushed_are_missed() {
    let world = World::new();
    world.install(&router());
    world.node.tree(&["nft", "flush", "ruleset"], "");
    assert!(!world.node.run(|| Firewall::new().unwrap().has(&router().ruleset().unwrap()).unwrap()));
}
