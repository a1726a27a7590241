//! What devices say of themselves, and how often.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use jiff::SignedDuration;
use tailcfg::{CapabilityVersion, Hostinfo, NodeId};
use tailnet::{Actor, Change, Command, HostUpdate, Proof, RefusalKind, Registration};

use crate::world::{World, machine, request};

fn says(node: NodeId, hostinfo: Hostinfo) -> Command {
    Command::UpdateHost(Box::new(HostUpdate { node, hostinfo, version: CapabilityVersion(131) }))
}

/// A laptop with this system on it.
fn running(system: &str) -> Hostinfo {
    Hostinfo { hostname: "laptop".to_owned(), os: system.to_owned(), ..Hostinfo::default() }
}

#[test]
fn what_a_device_says_of_itself_is_written_and_is_no_act() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let (home, device) = (world.home, Actor::Machine(machine(1)));
    let said = world.decide_in(home, device.clone(), says(id, running("plan9"))).unwrap();
    assert_eq!((said.changes.len(), said.is_act), (1, false));
    let text = |change: &Change| serde_json::to_string(change).unwrap();
    assert!(text(&said.changes[0]).contains("plan9"));
    assert!(!text(&said.changes[0].for_log()).contains("plan9"));
    world.write(&said);

    let again = Registration { machine: machine(1), request: request(1, "laptop"), proof: Proof::None };
    let said = world.decide_in(home, device.clone(), Command::Register(Box::new(again))).unwrap();
    assert_eq!((said.changes.len(), said.is_act), (1, false));
    world.write(&said);

    let renamed = Hostinfo { hostname: "desk".to_owned(), ..running("plan9") };
    let said = world.decide_in(home, device, says(id, renamed)).unwrap();
    assert!(said.is_act, "its name in the tailnet is another one now");
}

#[test]
fn who_describes_itself_again_and_again_is_asked_to_wait_and_is_served_all_the_same() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let device = Actor::Machine(machine(1));
    for number in 0..60 {
        world.run(device.clone(), says(id, running(&number.to_string()))).unwrap();
    }
    let refusal = world.run(device.clone(), says(id, running("60"))).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::TooOften);
    assert_eq!(
        refusal.to_string(),
        "device laptop says something new of itself too often: this is taken when it says it again in 30 s"
    );
    let written = world.written.len();
    world.run(device.clone(), says(id, running("59"))).unwrap();
    assert_eq!(world.join(1, "laptop", Proof::None), id, "a registration says it in passing");
    assert_eq!(world.written.len(), written);
    world.pass(SignedDuration::from_secs(30));
    world.run(device, says(id, running("60"))).unwrap();
    assert_eq!(world.node(id).hostinfo.os, "60");
}

#[test]
fn routes_that_are_approved_by_and_by_are_not_kept_without_end() {
    let mut world = World::new();
    let id = world.join_tagged(1, "router", "tag:k8s");
    for network in 0..5_u32 {
        let route =
            |host: u32| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + (network << 16) + host).into(), 32).unwrap();
        let offered: Vec<IpNet> = (0..600).map(route).collect();
        let hostinfo = Hostinfo { routable_ips: offered.clone(), ..request(1, "router").hostinfo.unwrap() };
        world.run(Actor::Machine(machine(1)), says(id, hostinfo)).unwrap();
        let approved = &world.node(id).approved_routes;
        assert!(offered.iter().all(|route| approved.contains(route)));
        assert!(approved.len() <= 1000, "{}", approved.len());
    }
}
