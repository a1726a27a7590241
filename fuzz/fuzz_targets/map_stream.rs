//! Any sequence of a coordination server's messages: what a node makes of them never contradicts itself, a message that
//! is refused changes nothing, and the map is the same when it is sent anew as one message.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use crypto::{DiscoPublic, NodePublic};
use jiff::Timestamp;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mesh::{LiveStatus, Mesh, Netmap, Preferences, Question, QuestionKind};
use tailcfg::{
    CapMap, DerpMap, DerpRegion, DisplayMessage, DnsConfig, DnsRecord, FilterRule, MapResponse, Node, NodeId,
    PeerChange, RegionId, Resolver, StableNodeId, Time, UserId, UserProfile,
};

const MOST_MESSAGES: usize = 12;
const NAMES: [&str; 8] = [
    "laptop.corp.example.",
    "Laptop.corp.example",
    "web.corp.example.",
    "corp.example.",
    "printer",
    ".",
    "",
    "other.tailnet.example.",
];
const PREFIXES: [&str; 10] = [
    "100.64.0.1/32",
    "100.64.0.2/32",
    "100.64.0.3/32",
    "fd7a:115c:a1e0::1/128",
    "10.0.0.0/8",
    "10.1.2.3/8",
    "0.0.0.0/0",
    "::/0",
    "203.0.113.0/24",
    "192.168.50.60/32",
];
const ENDPOINTS: [&str; 4] = ["203.0.113.1:41641", "203.0.113.2:0", "[2001:db8::1]:7", "[::ffff:192.0.2.1]:9"];
const CHUNKS: [&str; 4] = ["base", "a", "b", "*"];

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let _ = play(&mut input);
});

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let mut mesh = Mesh::new(preferences(input)?, moment(input)?);
    for _ in 0..MOST_MESSAGES {
        if input.is_empty() {
            break;
        }
        let message = message(input)?;
        // A message travels as JSON.
        let text = serde_json::to_vec(&message).expect("a message can be written");
        let read: MapResponse = serde_json::from_slice(&text).expect("what was written can be read");
        let now = moment(input)?;
        let before = mesh.netmap().cloned();
        let taken = if input.ratio(1, 8)? || before.is_none() {
            mesh.handle_first_map(read, now)
        } else {
            mesh.handle_map(read, now)
        };
        match taken {
            Ok(changed) if !changed.any() => {
                assert_eq!(mesh.netmap(), before.as_ref(), "it was said that nothing changed")
            }
            Ok(_) => {}
            Err(error) => assert_eq!(mesh.netmap(), before.as_ref(), "refused, and yet taken: {error}"),
        }
        if input.ratio(1, 4)? {
            mesh.set_preferences(preferences(input)?);
        }
        if let Some(netmap) = mesh.netmap() {
            check_map(netmap);
            check_mesh(&mesh, netmap, now);
        }
    }
    Ok(())
}

fn check_map(netmap: &Netmap) {
    let own = netmap.node();
    for (id, peer) in netmap.peers() {
        assert_eq!(*id, peer.id);
        assert!(
            peer.id != own.id && peer.key != own.key && peer.stable_id != own.stable_id,
            "a peer is the node itself"
        );
        assert!(!peer.key.is_zero());
        assert_eq!(netmap.peer_by_key(&peer.key), Some(peer), "keys tell peers apart");
        for prefix in peer.addresses.iter().filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len()) {
            assert!(netmap.node_at(prefix.addr()).is_some(), "somebody has each address");
        }
    }
    let text = serde_json::to_vec(&netmap.to_message()).expect("a map can be written");
    let again = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(Netmap::first(again).as_ref(), Ok(netmap), "the whole map is what its messages add up to");
}

fn check_mesh(mesh: &Mesh, netmap: &Netmap, now: Timestamp) {
    let view = mesh.view().expect("there is a map");
    let names = mesh.names();
    for (key, peer) in &view.peers {
        let known = netmap.peer_by_key(key).expect("who is shown is known");
        assert!(peer.endpoints.iter().all(|endpoint| endpoint.port() != 0));
        assert!(peer.allowed.iter().all(|prefix| prefix.trunc() == *prefix));
        for prefix in &peer.allowed {
            let owner = view.routes.lookup(prefix.addr()).expect("what a peer may send from leads to a peer");
            assert!(view.peers.contains_key(owner), "a route leads to nobody");
        }
        for address in &peer.addresses {
            assert!(known.addresses.iter().any(|prefix| prefix.addr() == *address));
            assert!(mesh.peer_toward(*address).is_some() || netmap.node_at(*address).is_some());
            mesh.whois(*address);
        }
        mesh.short_name(known);
        for name in [&*known.name, "10-1-2-3-via-7.corp.example", "1.0.64.100.in-addr.arpa", "www.example.org"] {
            for kind in [QuestionKind::A, QuestionKind::Aaaa, QuestionKind::Ptr, QuestionKind::Any, QuestionKind::Zone]
            {
                names.resolve(&Question { name: name.to_owned(), kind });
            }
        }
    }
    let routing = mesh.routing();
    assert!(routing.routes.is_sorted(), "routes are in order, each once");
    mesh.system_dns();
    let status = mesh.status(&LiveStatus::default(), true);
    serde_json::to_vec(&status).expect("a status can be written");
    mesh.warnings();
    assert!(mesh.poll_timeout().is_none_or(|at| at > now), "what is waited for is to come");
}

fn preferences(input: &mut Unstructured<'_>) -> Result<Preferences> {
    let mut preferences =
        Preferences { corp_dns: input.arbitrary()?, route_all: input.arbitrary()?, ..Preferences::default() };
    preferences.shields_up = input.ratio(1, 8)?;
    match input.int_in_range(0..=3)? {
        0 => preferences.exit_node_id = stable_id(input)?,
        1 => preferences.exit_node_ip = Some(IpAddr::from([100, 64, 0, input.int_in_range(1..=3)?])),
        _ => {}
    }
    if input.ratio(1, 4)? {
        preferences.advertise_routes = prefixes(input)?;
    }
    Ok(preferences)
}

fn message(input: &mut Unstructured<'_>) -> Result<MapResponse> {
    let mut message = MapResponse { keep_alive: input.ratio(1, 30)?, ..MapResponse::default() };
    if input.ratio(1, 3)? {
        message.node = Some(node(input)?);
    }
    message.peers = several(input, 6, node)?;
    message.peers_changed = several(input, 6, node)?;
    message.peers_removed = several(input, 6, |input| Ok(NodeId(input.int_in_range(0..=5)?)))?;
    message.peers_changed_patch = several(input, 6, patch)?;
    message.online_change =
        several(input, 6, |input| Ok((NodeId(input.int_in_range(0..=5)?), input.arbitrary()?)))?.into_iter().collect();
    message.peer_seen_change =
        several(input, 6, |input| Ok((NodeId(input.int_in_range(0..=5)?), input.arbitrary()?)))?.into_iter().collect();
    message.control_time = maybe(input, 4, time)?;
    message.packet_filter = maybe(input, 6, |input| several(input, 2, rule))?;
    message.packet_filters = several(input, 6, |input| {
        Ok(((*input.choose(&CHUNKS)?).to_owned(), maybe(input, 2, |input| several(input, 2, rule))?))
    })?
    .into_iter()
    .collect();
    message.user_profiles = several(input, 8, |input| {
        Ok(UserProfile { id: UserId(input.int_in_range(0..=3)?), ..UserProfile::default() })
    })?;
    message.health = maybe(input, 8, |input| several(input, 2, |_| Ok("down".to_owned())))?;
    message.display_messages = several(input, 8, |input| {
        let shown = |input: &mut Unstructured<'_>| {
            Ok(DisplayMessage { title: input.arbitrary()?, ..DisplayMessage::default() })
        };
        Ok(((*input.choose(&CHUNKS)?).to_owned(), maybe(input, 2, shown)?))
    })?
    .into_iter()
    .collect();
    message.dns_config = maybe(input, 6, dns)?;
    message.derp_map = maybe(input, 8, relays)?;
    if input.ratio(1, 10)? {
        message.domain = (*input.choose(&NAMES)?).to_owned();
    }
    Ok(message)
}

fn node(input: &mut Unstructured<'_>) -> Result<Node> {
    let mut node = Node {
        id: NodeId(input.int_in_range(0..=5)?),
        stable_id: stable_id(input)?,
        name: (*input.choose(&NAMES)?).to_owned(),
        user: UserId(input.int_in_range(0..=3)?),
        key: key(input)?,
        addresses: prefixes(input)?,
        ..Node::default()
    };
    node.disco_key = DiscoPublic::from_bytes([input.int_in_range(0..=2)?; 32]);
    node.allowed_ips = maybe(input, 2, prefixes)?;
    node.endpoints = endpoints(input)?;
    node.home_derp = RegionId(input.int_in_range(0..=2)?);
    if input.ratio(1, 6)? {
        node.legacy_derp =
            ["127.3.3.40:0", "127.3.3.40:7", "127.3.3.40:x", "1.2.3.4:5"][input.int_in_range(0..=3)?].to_owned();
    }
    node.key_expiry = time(input)?;
    node.last_seen = maybe(input, 2, time)?;
    node.online = maybe(input, 2, |input| input.arbitrary())?;
    node.expired = input.ratio(1, 8)?;
    node.is_jailed = input.ratio(1, 8)?;
    node.is_wireguard_only = input.ratio(1, 8)?;
    node.primary_routes = prefixes(input)?;
    Ok(node)
}

fn patch(input: &mut Unstructured<'_>) -> Result<PeerChange> {
    Ok(PeerChange {
        node_id: NodeId(input.int_in_range(0..=5)?),
        derp_region: RegionId(input.int_in_range(0..=2)?),
        endpoints: maybe(input, 2, endpoints)?,
        key: maybe(input, 3, key)?,
        disco_key: maybe(input, 3, |input| Ok(DiscoPublic::from_bytes([input.int_in_range(0..=2)?; 32])))?,
        online: maybe(input, 3, |input| input.arbitrary())?,
        last_seen: maybe(input, 3, time)?,
        key_expiry: maybe(input, 3, time)?,
        cap_map: maybe(input, 6, |_| Ok(CapMap::default()))?,
        ..PeerChange::default()
    })
}

fn rule(input: &mut Unstructured<'_>) -> Result<FilterRule> {
    let source = ["*", "100.64.0.1", "10.0.0.0/8", "cap:relay", "nonsense"][input.int_in_range(0..=4)?];
    Ok(FilterRule { sources: [source.to_owned()].into(), ..FilterRule::default() })
}

fn dns(input: &mut Unstructured<'_>) -> Result<DnsConfig> {
    let resolver = |input: &mut Unstructured<'_>| {
        let addr = ["1.1.1.1", "100.100.100.100", "https://dns.example/q", ""][input.int_in_range(0..=3)?];
        Ok(Resolver { addr: addr.to_owned(), ..Resolver::default() })
    };
    let record = |input: &mut Unstructured<'_>| {
        Ok(DnsRecord {
            name: (*input.choose(&NAMES)?).to_owned(),
            value: ["100.64.0.9", "::1", "x"][input.int_in_range(0..=2)?].to_owned(),
            kind: ["", "A", "AAAA", "TXT"][input.int_in_range(0..=3)?].to_owned(),
        })
    };
    Ok(DnsConfig {
        proxied: input.arbitrary()?,
        resolvers: several(input, 3, resolver)?,
        fallback_resolvers: several(input, 3, resolver)?,
        extra_records: several(input, 3, record)?,
        routes: several(input, 3, |input| Ok(((*input.choose(&NAMES)?).to_owned(), several(input, 2, resolver)?)))?
            .into_iter()
            .collect(),
        domains: several(input, 3, |input| Ok((*input.choose(&NAMES)?).to_owned()))?,
        ..DnsConfig::default()
    })
}

fn relays(input: &mut Unstructured<'_>) -> Result<DerpMap> {
    let region = |input: &mut Unstructured<'_>| Ok((RegionId(input.int_in_range(0..=2)?), DerpRegion::default()));
    let regions = maybe(input, 2, |input| several(input, 2, region))?;
    Ok(DerpMap { regions: regions.map(|regions| regions.into_iter().collect()), ..DerpMap::default() })
}

fn stable_id(input: &mut Unstructured<'_>) -> Result<StableNodeId> {
    Ok(StableNodeId(format!("n{}", input.int_in_range(0..=5)?)))
}

fn key(input: &mut Unstructured<'_>) -> Result<NodePublic> {
    Ok(NodePublic::from_bytes([input.int_in_range(0..=5)?; 32]))
}

fn prefixes(input: &mut Unstructured<'_>) -> Result<Vec<ipnet::IpNet>> {
    several(input, 2, |input| Ok(input.choose(&PREFIXES)?.parse().expect("a prefix")))
}

fn endpoints(input: &mut Unstructured<'_>) -> Result<Vec<SocketAddr>> {
    several(input, 2, |input| Ok(input.choose(&ENDPOINTS)?.parse().expect("an endpoint")))
}

fn time(input: &mut Unstructured<'_>) -> Result<Time> {
    if input.ratio(1, 2)? { Ok(Time::default()) } else { moment(input).map(Time::from) }
}

fn moment(input: &mut Unstructured<'_>) -> Result<Timestamp> {
    Ok(Timestamp::from_second(input.int_in_range(0..=4)?).expect("a moment"))
}

/// Nothing most of the time; else some.
fn several<T>(
    input: &mut Unstructured<'_>,
    one_in: u8,
    make: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = if input.ratio(1, one_in)? { input.int_in_range(1..=4)? } else { 0 };
    (0..count).map(|_| make(input)).collect()
}

fn maybe<T>(
    input: &mut Unstructured<'_>,
    one_in: u8,
    make: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if input.ratio(1, one_in)? { make(input).map(Some) } else { Ok(None) }
}
