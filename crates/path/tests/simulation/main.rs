//! Nodes find, lose and find again their ways to each other in a simulated internet with a virtual clock.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod entropy;
mod nat;
mod node;
mod world;

use std::time::Duration;

use nat::Nat;
use node::Chatter;
use path::paths::Event;
use path::{NatKind, PathChoice, Via};
use world::{World, region};

/// Disco and STUN packets that one node may send in any one second to one busy peer.
const STORM: usize = 25;

/// The seeds to run a scenario with: a few, or as many as `SIMULATION_SEEDS` says.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..std::env::var("SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Two nodes that have measured their networks and know each other.
fn pair(one: Nat, other: Nat, seed: u64) -> World {
    let mut world = World::new(seed);
    world.add(one);
    world.add(other);
    world.run_seconds(10);
    world
}

fn both_direct(world: &World) -> bool {
    world.is_direct(0, 1) && world.is_direct(1, 0)
}

#[test]
fn which_nats_let_a_direct_path_through() {
    use Nat::{Blocked, Easy, Hard, None};
    let table = [
        (None, None, true),
        (None, Easy, true),
        (None, Hard, true),
        (Easy, Easy, true),
        (Easy, Hard, false),
        (Hard, Hard, false),
        (Blocked, None, false),
        (Blocked, Blocked, false),
    ];
    for (one, other, direct) in
        table.into_iter().flat_map(|(one, other, direct)| [(one, other, direct), (other, one, direct)])
    {
        let mut world = pair(one, other, 1);
        world.send(0, 1, 50, 300, true);
        let found = world.run_until(seconds(5), both_direct);
        assert_eq!(found.is_some(), direct, "{one:?} {other:?}: {:?}", world.choice(0, 1));
        if let Some(found) = found {
            assert!(found <= Duration::from_millis(600), "{one:?} {other:?} took {found:?}");
        } else {
            assert_eq!(world.choice(0, 1), PathChoice::Relay(region(1)));
        }
        let settled = world.now;
        world.run_seconds(120);
        for node in &world.nodes {
            assert!(
                node.busiest_second(world.start) <= STORM,
                "{one:?} {other:?}: {}",
                node.busiest_second(world.start)
            );
            let late = node.choices.iter().filter(|(at, ..)| *at > settled).count();
            assert_eq!(late, 0, "{one:?} {other:?} changes paths without need: {:?}", node.choices);
        }
        assert!(world.outage(1, world.start + seconds(11), world.now - seconds(1)) <= Duration::from_millis(50));
    }
}

#[test]
fn nodes_on_one_lan_talk_there_and_not_through_their_router() {
    let mut world = World::new(2);
    world.add(Nat::Easy);
    world.add_beside(0);
    world.run_seconds(10);
    world.send(0, 1, 50, 60, true);
    assert!(world.run_until(seconds(2), both_direct).is_some());
    assert_eq!(world.choice(0, 1).direct(), Some(world.nodes[1].socket()));
    world.run_seconds(120);
    let searches = world.nodes[0].sent_since(world.start + seconds(15), Chatter::DiscoRelay);
    assert_eq!(searches, 0, "a path of less than 5 ms needs no better one");
}

#[test]
fn a_path_that_is_blocked_is_replaced_by_the_relay_within_three_seconds_and_comes_back_within_thirty() {
    // (blocked from 0 to 1, blocked from 1 to 0, whether 1 answers what 0 sends)
    let table = [(true, true, true), (true, true, false), (true, false, true), (false, true, true)];
    for (forth, back, echo) in table {
        for seed in seeds(8) {
            let mut world = pair(Nat::Easy, Nat::Easy, seed);
            world.loss = seed % 5 * 10;
            world.send(0, 1, 20, 400, echo);
            assert!(world.run_until(seconds(20), |world| world.is_direct(0, 1)).is_some());
            // The moment of the cut against heartbeats and reports is another for each seed.
            world.run(Duration::from_millis(10_000 + 137 * seed));
            let cut = world.now;
            world.block(0, 1, forth);
            world.block(1, 0, back);
            world.run_seconds(60);
            let outage = world.outage(1, cut, world.now - seconds(1));
            let answers = world.outage(0, cut, world.now - seconds(1));
            if std::env::var_os("SIMULATION_SHOW").is_some() {
                println!("cut {forth} {back} {echo}: outage {outage:?}, answers {answers:?}");
            }
            let limit = if forth == back { seconds(3) } else { seconds(5) };
            assert!(outage <= limit, "{forth} {back} {echo} seed {seed}: no packet arrived for {outage:?}");
            assert!(!echo || answers <= limit, "{forth} {back} seed {seed}: no answer arrived for {answers:?}");
            assert!(world.choice(0, 1).relay().is_some());
            for node in &world.nodes {
                assert!(node.busiest_second(cut) <= STORM, "{}", node.busiest_second(cut));
            }
            world.block(0, 1, false);
            world.block(1, 0, false);
            let again = world.run_until(seconds(30), |world| world.is_direct(0, 1));
            assert!(again.is_some(), "{forth} {back} {echo} seed {seed}: no direct path again");
        }
    }
}

#[test]
fn a_path_that_was_blocked_for_long_comes_back_within_thirty_seconds() {
    for seed in seeds(5) {
        let mut world = pair(Nat::Easy, Nat::Easy, seed);
        world.loss = 20;
        world.send(0, 1, 100, 2000, true);
        world.run_seconds(20);
        world.block(0, 1, true);
        world.block(1, 0, true);
        world.run(Duration::from_millis(600_000 + 731 * seed));
        assert_eq!(world.choice(0, 1), PathChoice::Relay(region(1)));
        let before = world.now - seconds(60);
        assert!(world.nodes[0].sent_since(before, Chatter::DiscoUdp) <= 60, "the search does not slow down");
        world.block(0, 1, false);
        world.block(1, 0, false);
        assert!(world.run_until(seconds(30), both_direct).is_some(), "seed {seed}: no direct path again");
    }
}

#[test]
fn a_users_ping_shows_the_way_that_packets_take() {
    let mut world = pair(Nat::Easy, Nat::Easy, 3);
    let answered = |world: &World, ping| {
        world.nodes[0].events.iter().find_map(|(_, event)| match event {
            Event::PingAnswered { ping: of, answer, .. } if *of == ping => Some(*answer),
            _ => None,
        })
    };
    let first = world.ping(0, 1);
    world.run_seconds(1);
    assert_eq!(answered(&world, first).unwrap().via, Via::Relay(region(1)));
    let second = world.ping(0, 1);
    world.run_seconds(1);
    let answer = answered(&world, second).unwrap();
    assert!(matches!(answer.via, Via::Direct(address) if address.ip() == world.routers[1].public));
    assert_eq!(answer.latency, Duration::from_millis(20));
    assert_eq!(answer.observed.unwrap().ip(), world.routers[0].public);
    world.block(0, 1, true);
    world.block(1, 0, true);
    let mut ways = Vec::new();
    for _ in 0..4 {
        let ping = world.ping(0, 1);
        world.run_seconds(1);
        ways.push(answered(&world, ping).map(|answer| answer.via));
    }
    assert_eq!(ways[3], Some(Via::Relay(region(1))), "{ways:?}");
    world.set_relay(1, false);
    world.set_relay(2, false);
    let lost = world.ping(0, 1);
    world.run_seconds(6);
    assert!(
        world.nodes[0]
            .events
            .iter()
            .any(|(_, event)| { matches!(event, Event::PingUnanswered { ping, .. } if *ping == lost) })
    );
}

#[test]
fn a_node_that_comes_up_again_with_a_new_disco_key_is_reached_directly_again() {
    for restarted in [0, 1] {
        let mut world = pair(Nat::Easy, Nat::Easy, 4);
        world.send(0, 1, 50, 100, true);
        world.run_seconds(20);
        assert!(both_direct(&world));
        let key = world.nodes[restarted].paths.disco_key();
        world.restart(restarted);
        assert_ne!(world.nodes[restarted].paths.disco_key(), key);
        let restart = world.now;
        let found = world.run_until(seconds(10), both_direct);
        assert!(found.is_some_and(|found| found <= seconds(3)), "node {restarted}: {found:?}");
        world.run_seconds(5);
        let outage = world.outage(1 - restarted, restart, world.now - seconds(1));
        assert!(restarted == 0 || outage <= seconds(3), "{outage:?}");
    }
}

#[test]
fn traffic_goes_on_within_a_second_when_a_node_roams() {
    for seed in seeds(5) {
        for (from, to) in
            [(Nat::Easy, Nat::Easy), (Nat::None, Nat::Easy), (Nat::Easy, Nat::Hard), (Nat::Easy, Nat::Blocked)]
        {
            for roams in [0, 1] {
                let mut world = pair(Nat::Easy, Nat::Easy, seed);
                world.roam(roams, from);
                world.run_seconds(5);
                world.send(0, 1, 20, 120, true);
                world.run(Duration::from_millis(10_000 + 91 * seed));
                let moved = world.now;
                world.roam(roams, to);
                world.run_seconds(20);
                for receiver in [0, 1] {
                    let outage = world.outage(receiver, moved, world.now - seconds(1));
                    if std::env::var_os("SIMULATION_SHOW").is_some() {
                        println!("roam {from:?} to {to:?} {roams} {receiver}: outage {outage:?}");
                    }
                    assert!(outage <= seconds(1), "{from:?} to {to:?}, {roams} moved, seed {seed}: {outage:?}");
                }
                assert_eq!(both_direct(&world), to == Nat::Easy, "{from:?} to {to:?}");
                for node in &world.nodes {
                    assert!(node.busiest_second(moved) <= STORM, "{}", node.busiest_second(moved));
                }
            }
        }
    }
}

#[test]
fn a_nat_that_forgets_its_mappings_costs_seconds_and_not_the_time_until_the_next_measurement() {
    for seed in seeds(8) {
        let mut world = pair(Nat::Easy, Nat::Easy, seed);
        world.send(0, 1, 50, 300, true);
        assert!(world.run_until(seconds(5), both_direct).is_some());
        // The moment against heartbeats and measurements is another for each seed.
        world.run(Duration::from_millis(30_000 + 3_137 * seed));
        let forgotten = world.now;
        world.routers[0].forget();
        let lost = world.run_until(seconds(5), |world| !both_direct(world));
        assert!(lost.is_some(), "seed {seed}: the path did not fail");
        let again = world.run_until(seconds(30), both_direct);
        assert!(again.is_some_and(|again| again <= seconds(7)), "seed {seed}: direct again after {again:?}");
        for receiver in [0, 1] {
            let outage = world.outage(receiver, forgotten, world.now - seconds(1));
            assert!(outage <= seconds(3), "seed {seed}: {outage:?}");
        }
        for node in &world.nodes {
            assert!(node.busiest_second(forgotten) <= STORM, "{}", node.busiest_second(forgotten));
        }
    }
}

#[test]
fn paths_that_never_come_up_cost_no_more_measurements_than_others() {
    let mut world = pair(Nat::Hard, Nat::Hard, 12);
    world.send(0, 1, 50, 400, true);
    world.run_seconds(30);
    let begun = world.now;
    world.run_seconds(300);
    for node in &world.nodes {
        let stun = node.sent_since(begun, Chatter::Stun);
        assert!(stun <= 60, "{stun}");
    }
}

#[test]
fn relayed_traffic_moves_to_the_other_relay_within_two_seconds() {
    for control in [true, false] {
        let mut world = pair(Nat::Hard, Nat::Hard, 5);
        world.send(0, 1, 20, 100, true);
        world.run_seconds(20);
        assert_eq!(world.choice(0, 1), PathChoice::Relay(region(1)));
        world.control = control;
        let killed = world.now;
        world.set_relay(1, false);
        world.run_seconds(20);
        for receiver in [0, 1] {
            let outage = world.outage(receiver, killed, world.now - seconds(1));
            assert!(outage <= seconds(2), "control {control}: {outage:?}");
        }
        let home = if control { region(2) } else { region(1) };
        assert_eq!(world.nodes[0].paths.status(&world.nodes[1].key, world.now).unwrap().home, Some(home));
        assert_eq!(world.nodes[0].netcheck.home(), Some(region(2)));
    }
}

#[test]
fn a_quiet_session_falls_asleep_and_then_sends_nothing() {
    let mut world = pair(Nat::Easy, Nat::Easy, 6);
    world.send(0, 1, 50, 5, true);
    world.run_seconds(5);
    assert!(both_direct(&world));
    world.run_seconds(46);
    let asleep = world.now;
    world.run_seconds(400);
    for node in &world.nodes {
        let disco = node.sent_since(asleep, Chatter::DiscoUdp) + node.sent_since(asleep, Chatter::DiscoRelay);
        assert_eq!(disco, 0);
        assert_eq!(node.sent_since(asleep + seconds(46), Chatter::Stun), 0);
        assert_eq!(node.poll_timeout(), None, "an idle node needs no timer");
    }
    // It wakes as it began: by relay first, directly after.
    world.send(0, 1, 50, 5, true);
    let woken = world.now;
    assert!(world.run_until(seconds(2), both_direct).is_some());
    world.run_seconds(4);
    assert!(world.outage(1, woken, woken + seconds(4)) <= Duration::from_millis(50));
}

#[test]
fn heartbeats_are_all_that_a_good_path_costs() {
    let mut world = pair(Nat::Easy, Nat::Easy, 7);
    world.send(0, 1, 20, 400, true);
    world.run_seconds(20);
    let begun = world.now;
    world.run_seconds(300);
    for node in &world.nodes {
        // Each minute 20 pings, 20 pongs, and the search for a path of less than 5 ms.
        let disco = node.sent_since(begun, Chatter::DiscoUdp);
        assert!((190..=260).contains(&disco), "{disco}");
        let stun = node.sent_since(begun, Chatter::Stun);
        assert!(stun <= 60, "{stun}");
    }
}

#[test]
fn a_stream_one_way_is_checked_on_but_not_sent_twice() {
    let mut world = pair(Nat::Easy, Nat::Easy, 8);
    world.send(0, 1, 20, 100, false);
    world.run_seconds(10);
    let begun = world.now;
    world.run_seconds(60);
    assert!(world.nodes[0].choices.iter().all(|(at, ..)| *at < begun), "{:?}", world.nodes[0].choices);
    assert!(
        world.nodes[1]
            .arrivals
            .iter()
            .filter(|arrival| arrival.at > begun)
            .all(|arrival| matches!(arrival.via, Via::Direct(_)))
    );
    assert!(world.nodes[0].sent_since(begun, Chatter::DiscoUdp) <= 120);
}

#[test]
fn loss_makes_no_storm_and_no_outage() {
    for seed in seeds(5) {
        let mut world = pair(Nat::Easy, Nat::Easy, seed);
        world.loss = 200;
        world.send(0, 1, 20, 200, true);
        world.run_seconds(10);
        let begun = world.now;
        world.run_seconds(120);
        assert!(world.outage(1, begun, world.now - seconds(1)) <= Duration::from_millis(400));
        for node in &world.nodes {
            assert!(node.busiest_second(begun) <= STORM, "{}", node.busiest_second(begun));
        }
    }
}

#[test]
fn a_busy_node_that_roams_makes_no_storm() {
    let mut world = World::new(9);
    let hub = world.add(Nat::Easy);
    let peers: Vec<usize> = (0..60).map(|_| world.add(Nat::Easy)).collect();
    world.run_seconds(10);
    for peer in &peers {
        world.send(hub, *peer, 200, 60, true);
    }
    world.run_seconds(10);
    assert!(peers.iter().all(|peer| world.is_direct(hub, *peer)));
    let moved = world.now;
    world.roam(hub, Nat::Easy);
    world.run_seconds(10);
    assert!(peers.iter().all(|peer| world.is_direct(hub, *peer)));
    assert!(world.nodes[hub].busiest_second(moved) <= 60 * 12, "{}", world.nodes[hub].busiest_second(moved));
}

#[test]
fn measurements_tell_the_kind_of_nat_and_the_nearest_home() {
    for (nat, kind) in [
        (Nat::None, NatKind::None),
        (Nat::Easy, NatKind::Easy),
        (Nat::Hard, NatKind::Hard),
        (Nat::Blocked, NatKind::Unknown),
    ] {
        let mut world = World::new(10);
        let node = world.add(nat);
        world.run_seconds(6);
        let node = &world.nodes[node];
        let report = node.reports.first().unwrap();
        assert_eq!(report.nat(&[node.ip.into()]), kind);
        assert_eq!(report.home, Some(region(1)));
        assert_eq!((report.udp, node.https_wanted), (nat != Nat::Blocked, u32::from(nat == Nat::Blocked)));
        assert!(node.told_endpoints.contains(&node.socket()));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = pair(Nat::Easy, Nat::Easy, seed);
        world.loss = 50;
        world.send(0, 1, 30, 60, true);
        world.run_seconds(60);
        let chatter = |node: usize| -> Vec<_> {
            world.nodes[node].chatter.iter().map(|(at, kind)| format!("{:?} {kind:?}", *at - world.start)).collect()
        };
        (chatter(0), chatter(1))
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}
