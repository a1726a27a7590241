//! What administrators and owners do with devices.

use jiff::SignedDuration;
use tailcfg::NodeId;
use tailnet::{Actor, Command, KeyExpiry, Owner, Proof, RefusalKind, Role};

use crate::world::World;

#[test]
fn a_deleted_device_is_gone_and_its_stream_ends() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    world.own(Command::DeleteNode(id));
    assert!(world.home().node(id).is_none());
    assert!(world.effects.cut.contains(&id) && world.effects.admission);
    assert_eq!(world.refused(Command::DeleteNode(id)), format!("there is no device {id} in this tailnet"));
}

#[test]
fn names_given_by_hand_are_taken_strictly() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    world.join(2, "phone", Proof::Confirmed(world.owner));
    for (name, says) in [
        ("a b", "\"a b\" is not a name for a device: use 1 to 63 lower-case letters, digits and hyphens"),
        ("-i", "is not a name for a device"),
        ("a\nb", "is not a name for a device"),
        ("wpad", "wpad can't be the name of a device, because programs look it up for another meaning"),
        ("phone", "the name phone is taken: choose another, or rename what has it first"),
    ] {
        let refusal = world.refused(Command::RenameNode(id, name.into()));
        assert!(refusal.contains(says), "{refusal}");
    }
    assert!(world.refused(Command::RenameNode(id, "x".repeat(64))).contains("is not a name for a device"));
    world.own(Command::RenameNode(id, "desk".into()));
    assert_eq!(world.node(id).name.as_str(), "desk");
}

#[test]
fn a_machine_whose_name_means_something_else_gets_a_number() {
    let mut world = World::new();
    let id = world.join(1, "wpad", Proof::Confirmed(world.owner));
    assert_eq!(world.node(id).name.as_str(), "wpad-1");
}

#[test]
fn key_expiry_is_turned_off_and_on_and_does_not_bring_an_expired_device_back() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    world.own(Command::SetKeyExpiry(id, KeyExpiry::Disabled));
    assert_eq!(world.node(id).key_expiry, None);
    world.pass(SignedDuration::from_hours(24 * 400));
    assert!(world.home().is_admitted(id));
    world.own(Command::SetKeyExpiry(id, KeyExpiry::Enabled));
    assert_eq!(world.node(id).key_expiry, Some(world.now + SignedDuration::from_hours(24 * 180)));
    world.own(Command::ExpireNode(id));
    assert!(!world.home().is_admitted(id));
    world.own(Command::SetKeyExpiry(id, KeyExpiry::Disabled));
    assert!(!world.home().is_admitted(id), "only its user brings a device back");
}

#[test]
fn the_last_tag_makes_a_device_the_users_who_took_it() {
    let mut world = World::new();
    let id = world.join_tagged(1, "server", "tag:server");
    let refusal = world.run(Actor::Server, Command::SetNodeTags(id, vec![])).unwrap_err();
    assert!(refusal.to_string().starts_with("only a user can take the last tag from a device"), "{refusal}");
    world.own(Command::SetNodeTags(id, vec![]));
    assert_eq!(world.node(id).owner, Owner::User(world.owner));
    assert!(world.node(id).key_expiry.is_some());
    world.own(Command::SetNodeTags(id, vec!["tag:server".into(), "tag:k8s".into()]));
    assert_eq!(world.node(id).owner.tags().count(), 2);
    assert_eq!(world.node(id).key_expiry, None);
}

#[test]
fn tags_that_are_none_or_unknown_are_refused() {
    let mut world = World::new();
    let id = world.join(1, "x", Proof::Confirmed(world.owner));
    for (tag, says) in
        [("server", "is not a tag"), ("tag:", "is not a tag"), ("tag:none", "tag:none is not in the policy")]
    {
        let refusal = world.refused(Command::SetNodeTags(id, vec![tag.into()]));
        assert!(refusal.contains(says), "{refusal}");
    }
}

#[test]
fn routes_approved_by_hand_are_checked_like_offered_ones() {
    let mut world = World::new();
    let id = world.join(1, "x", Proof::Confirmed(world.owner));
    for (route, says) in [
        ("10.0.0.1/8", "has bits set behind its prefix: write 10.0.0.0/8"),
        ("10.0.0.0", "\"10.0.0.0\" is not a route: write an address and a prefix length"),
        ("100.64.0.0/10", "the mesh's own"),
        ("169.254.0.0/16", "link-local"),
    ] {
        let refusal = world.refused(Command::SetRoutes(id, vec![route.into()]));
        assert!(refusal.contains(says), "{refusal}");
    }
    let many = (0..1001).map(|at: u32| format!("10.0.{}.{}/32", at / 256, at % 256)).collect();
    assert!(world.refused(Command::SetRoutes(id, many)).contains("1001 routes, at most 1000"));
}

#[test]
fn members_manage_their_own_devices_and_no_others() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    let mine = world.join(1, "mine", Proof::Confirmed(member));
    let other = world.join(2, "other", Proof::Confirmed(world.owner));
    world.run(Actor::User(member), Command::RenameNode(mine, "fine".into())).unwrap();
    for command in [
        Command::DeleteNode(other),
        Command::ExpireNode(other),
        Command::RenameNode(other, "stolen".into()),
        Command::SetKeyExpiry(mine, KeyExpiry::Disabled),
        Command::SetRoutes(mine, vec!["10.0.0.0/8".into()]),
        Command::SetAuthorized(mine, true),
        Command::SetNodeTags(mine, vec!["tag:server".into()]),
    ] {
        let refusal = world.run(Actor::User(member), command).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Forbidden, "{refusal}");
        assert!(refusal.to_string().contains("member@example.com may not"), "{refusal}");
    }
    world.run(Actor::User(member), Command::SetNodeTags(mine, vec!["tag:dev".into()])).unwrap();
}

#[test]
fn a_machine_speaks_for_itself_alone() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let machine = world.node(id).machine_key;
    for command in [Command::DeleteNode(id), Command::Sweep, Command::SetAuthorized(id, true)] {
        let refusal = world.run(Actor::Machine(machine), command).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Forbidden);
    }
    assert_eq!(world.refused(Command::DeleteNode(NodeId(999))), "there is no device 999 in this tailnet");
}
