use proptest::prelude::*;
use tailcfg::{RegionId, StableNodeId};

use super::*;

fn node(id: u64) -> Node {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&id.to_le_bytes());
    key[31] = 1;
    Node {
        id: NodeId(id),
        stable_id: StableNodeId(format!("n{id}")),
        name: format!("n{id}.example.ts.net."),
        key: NodePublic::from_bytes(key),
        addresses: vec![format!("100.64.{}.{}/32", id / 256, id % 256).parse().unwrap()],
        ..Node::default()
    }
}

fn first(peers: &[u64]) -> Netmap {
    Netmap::first(MapResponse {
        node: Some(node(1)),
        peers: peers.iter().map(|id| node(*id)).collect(),
        ..MapResponse::default()
    })
    .unwrap()
}

fn ids(netmap: &Netmap) -> Vec<u64> {
    netmap.peers().keys().map(|id| id.0).collect()
}

#[test]
fn the_first_message_must_hold_the_node_itself() {
    assert_eq!(Netmap::first(MapResponse::default()), Err(MapError::NoNode));
}

#[test]
fn an_empty_list_of_peers_changes_nothing_and_removal_does() {
    let mut map = first(&[2, 3]);
    map.apply(MapResponse { peers: Vec::new(), domain: "example".to_owned(), ..MapResponse::default() }).unwrap();
    assert_eq!(ids(&map), [2, 3]);
    map.apply(MapResponse { peers_removed: vec![NodeId(2), NodeId(9)], ..MapResponse::default() }).unwrap();
    assert_eq!(ids(&map), [3]);
    map.apply(MapResponse { peers: vec![node(7)], ..MapResponse::default() }).unwrap();
    assert_eq!(ids(&map), [7]);
}

#[test]
fn a_patch_of_an_unknown_node_is_ignored() {
    let mut map = first(&[2]);
    let before = map.clone();
    let patch = PeerChange { node_id: NodeId(9), derp_region: RegionId(3), ..PeerChange::default() };
    let changed = map.apply(MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() }).unwrap();
    assert!(!changed.any());
    assert_eq!(map, before);
}

#[test]
fn the_node_itself_is_never_among_its_peers() {
    let mut same_stable = node(5);
    same_stable.stable_id = node(1).stable_id;
    let message =
        MapResponse { node: Some(node(1)), peers: vec![node(1), node(2), same_stable], ..MapResponse::default() };
    assert_eq!(ids(&Netmap::first(message).unwrap()), [2]);
}

#[test]
fn a_peer_goes_that_the_node_becomes_or_that_gets_its_key() {
    let mut map = first(&[2, 3, 4]);
    let changed = map.apply(MapResponse { node: Some(node(2)), ..MapResponse::default() }).unwrap();
    assert!(changed.node && changed.peers);
    assert_eq!(ids(&map), [3, 4]);
    let patch = PeerChange { node_id: NodeId(3), key: Some(node(2).key), ..PeerChange::default() };
    map.apply(MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() }).unwrap();
    assert_eq!(ids(&map), [4]);
    assert_eq!(map.peer_by_key(&node(2).key), None);
}

#[test]
fn a_message_that_contradicts_itself_changes_nothing() {
    let mut map = first(&[2, 3]);
    let before = map.clone();
    let mut stolen = node(9);
    stolen.key = node(2).key;
    for (message, error) in [
        (
            MapResponse { peers_changed: vec![node(4), node(4)], ..MapResponse::default() },
            MapError::Duplicate(NodeId(4)),
        ),
        (
            MapResponse { peers_changed: vec![stolen.clone()], ..MapResponse::default() },
            MapError::SharedKey(NodeId(2), NodeId(9)),
        ),
        (
            MapResponse { peers_changed: vec![Node { id: NodeId(0), ..node(4) }], ..MapResponse::default() },
            MapError::Incomplete("a number"),
        ),
        (
            MapResponse { peers_changed: vec![Node { key: NodePublic::ZERO, ..node(4) }], ..MapResponse::default() },
            MapError::Incomplete("a node key"),
        ),
    ] {
        assert_eq!(map.apply(message), Err(error));
        assert_eq!(map, before);
    }
    // A key may move in the very message that takes its owner out.
    map.apply(MapResponse { peers_removed: vec![NodeId(2)], peers_changed: vec![stolen], ..MapResponse::default() })
        .unwrap();
    assert_eq!(ids(&map), [3, 9]);
}

#[test]
fn too_much_of_anything_is_refused_at_its_limit() {
    let endpoints = |count: usize| vec![std::net::SocketAddr::from(([1, 1, 1, 1], 1)); count];
    let message = |count| MapResponse {
        peers_changed: vec![Node { endpoints: endpoints(count), ..node(2) }],
        ..MapResponse::default()
    };
    assert!(first(&[]).apply(message(256)).is_ok());
    assert!(matches!(first(&[]).apply(message(257)), Err(MapError::TooMany { limit: 256, .. })));
    let regions = (1..=1_025).map(|id| (RegionId(id), tailcfg::DerpRegion::default())).collect();
    let relays = DerpMap { regions: Some(regions), ..DerpMap::default() };
    let message = MapResponse { derp_map: Some(relays), ..MapResponse::default() };
    assert!(matches!(first(&[]).apply(message), Err(MapError::TooMany { what: "relay regions", .. })));
}

#[test]
fn filter_chunks_are_set_deleted_and_cleared_by_name() {
    let rule = |source: &str| FilterRule { sources: [source.to_owned()].into(), ..FilterRule::default() };
    let sources = |map: &Netmap| map.filter_rules().map(|rule| rule.sources[0].clone()).collect::<Vec<_>>();
    let mut map = first(&[]);
    let chunks = [("b".to_owned(), Some(vec![rule("2")])), ("a".to_owned(), Some(vec![rule("1")]))].into();
    map.apply(MapResponse { packet_filters: chunks, ..MapResponse::default() }).unwrap();
    assert_eq!(sources(&map), ["1", "2"]);
    map.apply(MapResponse { packet_filter: Some(vec![rule("0")]), ..MapResponse::default() }).unwrap();
    assert_eq!(sources(&map), ["1", "2", "0"]);
    let chunks = [("a".to_owned(), None)].into();
    map.apply(MapResponse { packet_filters: chunks, ..MapResponse::default() }).unwrap();
    assert_eq!(sources(&map), ["2", "0"]);
    let chunks = [("*".to_owned(), None), ("c".to_owned(), Some(vec![rule("3")]))].into();
    map.apply(MapResponse { packet_filters: chunks, ..MapResponse::default() }).unwrap();
    assert_eq!(sources(&map), ["3"]);
    map.apply(MapResponse { packet_filter: None, ..MapResponse::default() }).unwrap();
    assert_eq!(sources(&map), ["3"]);
}

#[test]
fn relays_without_regions_keep_those_that_are_known() {
    let regions = Some([(RegionId(1), tailcfg::DerpRegion::default())].into());
    let mut map = first(&[]);
    let relays = DerpMap { regions: regions.clone(), ..DerpMap::default() };
    map.apply(MapResponse { derp_map: Some(relays), ..MapResponse::default() }).unwrap();
    let relays = DerpMap { regions: None, home_params: Some(tailcfg::DerpHomeParams::default()), ..DerpMap::default() };
    map.apply(MapResponse { derp_map: Some(relays), ..MapResponse::default() }).unwrap();
    assert_eq!(map.relays().regions, regions);
}

#[test]
fn a_keep_alive_changes_nothing_whatever_else_it_says() {
    let mut map = first(&[2]);
    let message = MapResponse { peers_removed: vec![NodeId(2)], ..MapResponse::keep_alive() };
    assert_eq!(map.apply(message), Ok(Changed::default()));
    assert_eq!(ids(&map), [2]);
}

#[test]
fn an_old_disco_key_of_a_node_that_left_is_not_taken() {
    let disco = |byte| crypto::DiscoPublic::from_bytes([byte; 32]);
    let seen = |second| Some(Time::from(jiff::Timestamp::new(second, 0).unwrap()));
    let mut map = first(&[2]);
    let patch = |patch: PeerChange| MapResponse {
        peers_changed_patch: vec![PeerChange { node_id: NodeId(2), ..patch }],
        ..MapResponse::default()
    };
    map.apply(patch(PeerChange { disco_key: Some(disco(1)), last_seen: seen(10), ..PeerChange::default() })).unwrap();
    let stale =
        PeerChange { disco_key: Some(disco(2)), online: Some(false), last_seen: seen(9), ..PeerChange::default() };
    map.apply(patch(stale)).unwrap();
    assert_eq!(map.peers()[&NodeId(2)].disco_key, disco(1));
    let fresh =
        PeerChange { disco_key: Some(disco(3)), online: Some(false), last_seen: seen(11), ..PeerChange::default() };
    map.apply(patch(fresh)).unwrap();
    assert_eq!(map.peers()[&NodeId(2)].disco_key, disco(3));
}

#[test]
fn who_has_an_address_is_found_after_every_change() {
    let mut map = first(&[2]);
    let at = |map: &Netmap, text: &str| map.node_at(text.parse().unwrap()).map(|node| node.id.0);
    assert_eq!((at(&map, "100.64.0.1"), at(&map, "100.64.0.2"), at(&map, "100.64.0.3")), (Some(1), Some(2), None));
    map.apply(MapResponse { peers_changed: vec![node(3)], peers_removed: vec![NodeId(2)], ..MapResponse::default() })
        .unwrap();
    assert_eq!((at(&map, "100.64.0.2"), at(&map, "100.64.0.3")), (None, Some(3)));
}

/// One thing that a server does to a tailnet.
#[derive(Debug, Clone)]
enum Step {
    Upsert(u64, u16),
    Remove(u64),
    Patch(u64, u16),
    Online(u64, bool),
    Chunk(u8, Option<u8>),
    Replace(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (2_u64..12, 0_u16..5).prop_map(|(id, home)| Step::Upsert(id, home)),
        (2_u64..12).prop_map(Step::Remove),
        (2_u64..12, 1_u16..5).prop_map(|(id, home)| Step::Patch(id, home)),
        (2_u64..12, any::<bool>()).prop_map(|(id, online)| Step::Online(id, online)),
        (0_u8..3, proptest::option::of(0_u8..4)).prop_map(|(name, rules)| Step::Chunk(name, rules)),
        proptest::collection::btree_set(2_u64..12, 1..6).prop_map(|ids| Step::Replace(ids.into_iter().collect())),
    ]
}

/// What the server has, and what it says of each step.
fn perform(truth: &mut MapResponse, step: &Step) -> MapResponse {
    let mut message = MapResponse::default();
    let place = |truth: &MapResponse, id: u64| truth.peers.iter().position(|peer| peer.id == NodeId(id));
    match step {
        Step::Upsert(id, home) => {
            let peer = Node { home_derp: RegionId(*home), ..node(*id) };
            truth.peers.retain(|known| known.id != peer.id);
            truth.peers.push(peer.clone());
            message.peers_changed.push(peer);
        }
        Step::Remove(id) => {
            truth.peers.retain(|known| known.id != NodeId(*id));
            message.peers_removed.push(NodeId(*id));
        }
        Step::Patch(id, home) => {
            let patch = PeerChange { node_id: NodeId(*id), derp_region: RegionId(*home), ..PeerChange::default() };
            if let Some(at) = place(truth, *id) {
                truth.peers[at].apply(&patch);
            }
            message.peers_changed_patch.push(patch);
        }
        Step::Online(id, online) => {
            if let Some(at) = place(truth, *id) {
                truth.peers[at].online = Some(*online);
            }
            message.online_change.insert(NodeId(*id), *online);
        }
        Step::Chunk(name, rules) => {
            let name = format!("chunk{name}");
            let rules = rules.map(|count| vec![FilterRule::default(); usize::from(count)]);
            match &rules {
                Some(rules) => drop(truth.packet_filters.insert(name.clone(), Some(rules.clone()))),
                None => drop(truth.packet_filters.remove(&name)),
            }
            message.packet_filters.insert(name, rules);
        }
        Step::Replace(ids) => {
            truth.peers = ids.iter().map(|id| node(*id)).collect();
            message.peers.clone_from(&truth.peers);
        }
    }
    message
}

proptest! {
    #[test]
    fn changes_one_by_one_give_the_same_as_the_whole_map(steps in proptest::collection::vec(step(), 0..40)) {
        let mut truth = MapResponse { node: Some(node(1)), ..MapResponse::default() };
        let mut map = Netmap::first(truth.clone()).unwrap();
        for step in &steps {
            let message = perform(&mut truth, step);
            map.apply(message).unwrap();
        }
        prop_assert_eq!(&map, &Netmap::first(truth).unwrap());
        prop_assert_eq!(&map, &Netmap::first(map.to_message()).unwrap());
    }
}
