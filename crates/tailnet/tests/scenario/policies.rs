//! Policy, settings and services as they are set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailcfg::{CapabilityVersion, RegisterRequest};
use tailnet::{
    Actor, Command, DnsPatch, HostUpdate, NewPolicy, NewService, Node, PolicyPrecondition, Proof, Refusal, RefusalKind,
    Reply, Role, SettingsPatch,
};

use crate::users::{new_user, program};
use crate::world::{POLICY, World, machine, node_key, request, tagged_key, with_routes};

#[test]
fn a_broken_policy_is_refused_with_its_place_and_the_old_one_stays() {
    let world = World::new();
    let etag = world.home().policy_etag().to_owned();
    for (text, says) in [
        ("{\n  \"acls\": [,]\n}", "line 2"),
        (r#"{"acls": [{"action": "accept", "src": ["group:none"], "dst": ["*:*"]}]}"#, "group:none"),
        (r#"{"acls": [{"action": "accept", "src": ["tag:none"], "dst": ["*:*"]}]}"#, "tag:none"),
        (r#"{"nonsense": 1}"#, "nonsense"),
    ] {
        let refusal = world.tried(text).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Invalid);
        assert!(refusal.to_string().contains(says), "{refusal}");
    }
    assert_eq!(world.home().policy_etag(), etag);
    assert_eq!(world.home().policy().text, POLICY);
}

#[test]
fn a_policy_that_fails_its_own_tests_is_refused() {
    let world = World::new();
    let text = r#"{"tagOwners": {"tag:server": []}, "acls": [],
        "tests": [{"src": "admin@example.com", "accept": ["tag:server:22"]}]}"#;
    let refusal = world.tried(text).unwrap_err();
    assert_eq!(refusal.to_string(), "test(s) failed");
    let Refusal::BadPolicy(policy::PolicyError::Tests(failed)) = refusal else { panic!("failed tests") };
    assert_eq!(failed[0].user, "admin@example.com");
}

#[test]
fn a_policy_that_cuts_its_author_off_is_told_when_it_is_tried() {
    let mut world = World::new();
    let admin = world.add_user("boss@example.com", Role::Admin);
    world.join(1, "laptop", Proof::Confirmed(admin));
    world.join_tagged(2, "server", "tag:server");
    let text = r#"{"tagOwners": {"tag:server": []}, "acls": []}"#;
    let cuts_off =
        |text: &str, author| world.home().policy_trial().try_policy(text, Some(author)).unwrap().review.cuts_author_off;
    assert!(cuts_off(text, admin).unwrap().everything);
    assert_eq!(cuts_off(POLICY, admin), None);
}

#[test]
fn two_authors_do_not_overwrite_each_other() {
    let mut world = World::new();
    let read = PolicyPrecondition::Etag(world.home().policy_etag().to_owned());
    let [first, second] = ["one", "two"].map(|name| {
        let new = world.tried(&format!("{POLICY} // {name}")).unwrap();
        Command::SetPolicy(Box::new(NewPolicy { precondition: Some(read.clone()), ..new }))
    });
    let Reply::Policy { etag, .. } = world.own(first) else { panic!("a mark") };
    assert_eq!(world.home().policy_etag(), etag);
    let refusal = world.run(Actor::User(world.owner), second).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Precondition);
    assert_eq!(
        refusal.to_string(),
        "the policy was changed by somebody else: fetch it, merge your change and try again"
    );
}

#[test]
fn a_policy_that_was_tried_is_set_as_it_stands_and_for_the_devices_that_came_meanwhile() {
    let mut world = World::new();
    let text = approving("\"tag:server\"");
    let new = world.tried(&text).unwrap();
    let key = world.make_key(tagged_key("tag:server"));
    let asks = with_routes(request(1, "router"), &["10.1.0.0/16"]);
    let id = world.join_as(1, asks, Proof::AuthKey(key));
    assert!(world.node(id).approved_routes.is_empty());
    world.own(Command::SetPolicy(Box::new(new.clone())));
    assert_eq!(world.home().policy().text, text);
    assert_eq!(world.node(id).approved_routes.len(), 1, "a device that came after the trial");

    let old = NewPolicy { precondition: Some(PolicyPrecondition::NeverSet), ..new };
    let refusal = world.run(Actor::User(world.owner), Command::SetPolicy(Box::new(old))).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Precondition, "that it was tried doesn't make it current");
}

#[test]
fn a_policy_that_was_tried_is_neither_read_nor_compiled_again_when_it_is_set() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let new = world.tried(&format!("{POLICY} // tried")).unwrap();
    world.join(2, "phone", Proof::Confirmed(world.owner));
    let read = Arc::clone(new.tried.policy());
    world.own(Command::SetPolicy(Box::new(new)));
    assert!(Arc::ptr_eq(world.home().compiled().policy(), &read), "it is the very one that was read");
    assert_eq!(world.home().compiled().topology().nodes.len(), 2, "and knows who came meanwhile");
    assert_eq!(world.home().netmap(id, world.now).unwrap().0.peers.len(), 1);
}

#[test]
fn a_policy_is_tried_again_once_too_much_of_the_tailnet_is_another() {
    let mut world = World::new();
    let new = world.tried(&format!("{POLICY} // tried")).unwrap();
    let read = Arc::clone(new.tried.policy());
    for number in 0..65 {
        world.add_user(&format!("user{number}@example.com"), Role::Member);
    }
    let refusal = world.run(Actor::User(world.owner), Command::SetPolicy(Box::new(new.clone()))).unwrap_err();
    assert_eq!(refusal, Refusal::TailnetChanged);
    let tried = world.home().policy_trial().try_read(read, None).unwrap();
    world.own(Command::SetPolicy(Box::new(NewPolicy { tried, ..new })));
    assert!(world.home().policy().text.ends_with("tried"));
}

#[test]
fn changes_of_the_tailnet_do_not_reach_into_a_trial() {
    let mut world = World::new();
    let trial = world.home().policy_trial();
    let before = trial.compiled().topology().nodes.len();
    let key = world.make_key(tagged_key("tag:server"));
    world.join_as(1, request(1, "server"), Proof::AuthKey(key));
    assert_eq!(trial.compiled().topology().nodes.len(), before);
    assert_eq!(world.home().compiled().topology().nodes.len(), before + 1);
}

#[test]
fn the_mark_of_a_policy_is_that_of_its_text_in_the_form_that_all_tools_agree_on() {
    let mut world = World::new();
    let text = "{\"acls\":[{\"action\":\"accept\",\"src\":[\"*\"],\"dst\":[\"*:*\"]}]}";
    world.set_policy(text);
    let mark = world.home().policy_etag().to_owned();
    let formatted = policy::Policy::parse(text).unwrap().formatted();
    assert_ne!(formatted, text);
    assert_eq!(mark, crypto::sha256_hex(formatted.as_bytes()));
    world.set_policy(&formatted);
    assert_eq!(world.home().policy_etag(), mark);
}

#[test]
fn a_policy_approves_what_devices_offered_before_it_and_takes_nothing_back() {
    let mut world = World::new();
    let key = world.make_key(tagged_key("tag:server"));
    let asks = with_routes(request(1, "router"), &["192.168.7.0/24", "10.1.0.0/16"]);
    let id = world.join_as(1, asks, Proof::AuthKey(key));
    let approved = |world: &World| world.node(id).approved_routes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(approved(&world).is_empty());
    let with = |approvers: &str| POLICY.replace("\"10.0.0.0/8\": [\"tag:k8s\"]", approvers);
    world.set_policy(&with("\"192.168.0.0/16\": [\"tag:server\"]"));
    assert_eq!(approved(&world), ["192.168.7.0/24"]);
    world.set_policy(&with(""));
    assert_eq!(approved(&world), ["192.168.7.0/24"]);
}

/// A policy under which some approve 10.0.0.0/8 and exit nodes at once.
fn approving(approvers: &str) -> String {
    format!(
        r#"{{"tagOwners": {{"tag:server": [], "tag:k8s": []}}, "groups": {{"group:ops": ["member@example.com"]}},
            "grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"]}}],
            "autoApprovers": {{"routes": {{"10.0.0.0/8": [{approvers}]}}, "exitNode": [{approvers}]}}}}"#
    )
}

fn approved(world: &World, id: tailcfg::NodeId) -> Vec<String> {
    world.node(id).approved_routes.iter().map(ToString::to_string).collect()
}

const OFFERED: [&str; 4] = ["10.1.0.0/16", "192.168.0.0/24", "0.0.0.0/0", "::/0"];
const APPROVED: [&str; 3] = ["0.0.0.0/0", "10.1.0.0/16", "::/0"];

#[test]
fn what_a_device_offers_when_it_joins_is_approved_at_once() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.set_policy(&approving("\"group:ops\""));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::Confirmed(member));
    assert_eq!(approved(&world, id), APPROVED);
    let other = world.join_as(2, with_routes(request(2, "other"), &OFFERED), Proof::Confirmed(world.owner));
    assert!(approved(&world, other).is_empty());
}

#[test]
fn what_a_device_offers_later_is_approved_at_once() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let id = world.join_tagged(1, "router", "tag:k8s");
    assert!(approved(&world, id).is_empty());
    let hostinfo = with_routes(request(1, "router"), &OFFERED).hostinfo.unwrap();
    let update = HostUpdate { node: id, hostinfo, version: CapabilityVersion(131) };
    world.run(Actor::Machine(machine(1)), Command::UpdateHost(Box::new(update))).unwrap();
    assert_eq!(approved(&world, id), APPROVED);
}

#[test]
fn a_new_membership_of_a_group_approves_what_is_offered_already() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.set_policy(&approving("\"tag:k8s\""));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::Confirmed(member));
    assert!(approved(&world, id).is_empty());
    world.set_policy(&approving("\"group:ops\""));
    assert_eq!(approved(&world, id), APPROVED);
}

#[test]
fn another_tag_approves_what_is_offered_already() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let key = world.make_key(tagged_key("tag:server"));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::AuthKey(key));
    assert!(approved(&world, id).is_empty());
    world.own(Command::SetNodeTags(id, vec!["tag:k8s".to_owned()]));
    assert_eq!(approved(&world, id), APPROVED);
    world.own(Command::SetNodeTags(id, vec!["tag:server".to_owned()]));
    assert_eq!(approved(&world, id), APPROVED, "what was approved stays so");
}

#[test]
fn another_role_of_the_owner_approves_what_is_offered_already() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.set_policy(&approving("\"autogroup:admin\""));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::Confirmed(member));
    assert!(approved(&world, id).is_empty());
    world.own(Command::SetRole(member, Role::NetworkAdmin));
    assert!(approved(&world, id).is_empty());
    world.own(Command::SetRole(member, Role::Admin));
    assert_eq!(approved(&world, id), APPROVED);
    let laptop = world.home().compiled().topology().nodes[&policy::NodeId(id.0)].subnets().count();
    assert_eq!(laptop, 1, "and is served");
}

#[test]
fn what_a_device_offered_while_its_user_was_kept_out_is_approved_once_the_user_is_back() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.set_policy(&approving("\"group:ops\""));
    let id = world.join(1, "router", Proof::Confirmed(member));
    world.own(Command::SuspendUser(member));
    let hostinfo = with_routes(request(1, "router"), &OFFERED).hostinfo.unwrap();
    let update = HostUpdate { node: id, hostinfo, version: CapabilityVersion(131) };
    world.run(Actor::Machine(machine(1)), Command::UpdateHost(Box::new(update))).unwrap();
    assert!(approved(&world, id).is_empty());
    world.own(Command::RestoreUser(member));
    assert_eq!(approved(&world, id), APPROVED);
}

/// The device with this number says of itself that it offers these routes.
fn offer(world: &mut World, id: tailcfg::NodeId, number: u8, hostname: &str, routes: &[&str]) {
    let hostinfo = with_routes(request(number, hostname), routes).hostinfo.unwrap();
    let update = HostUpdate { node: id, hostinfo, version: CapabilityVersion(131) };
    world.run(Actor::Machine(machine(number)), Command::UpdateHost(Box::new(update))).unwrap();
}

#[test]
fn a_route_that_was_taken_back_by_hand_is_not_approved_again_for_as_long_as_it_is_offered() {
    let mut world = World::new();
    let policy = approving("\"tag:k8s\"");
    world.set_policy(&policy);
    let key = world.make_key(tagged_key("tag:k8s"));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::AuthKey(key));
    assert_eq!(approved(&world, id), APPROVED);
    let exit = ["0.0.0.0/0", "::/0"];
    world.own(Command::SetRoutes(id, exit.map(String::from).to_vec()));
    assert_eq!(approved(&world, id), exit);

    offer(&mut world, id, 1, "renamed", &OFFERED);
    assert_eq!(approved(&world, id), exit, "it says something else of itself");
    world.set_policy(&format!("{policy} // again"));
    assert_eq!(approved(&world, id), exit, "another policy approves the same");
    world.set_policy(&policy.replace("10.0.0.0/8", "10.0.0.0/9"));
    assert_eq!(approved(&world, id), exit, "another line of the policy approves it");
    world.own(Command::SetNodeTags(id, vec!["tag:k8s".into(), "tag:server".into()]));
    assert_eq!(approved(&world, id), exit, "it has another tag");
    let key = world.make_key(tagged_key("tag:k8s"));
    let again = world.join_as(1, with_routes(request(9, "router"), &OFFERED), Proof::AuthKey(key));
    assert_eq!((again, approved(&world, id)), (id, exit.map(String::from).to_vec()), "it registers again");

    let more = [&OFFERED[..], &["10.2.0.0/16"]].concat();
    offer(&mut world, id, 1, "router", &more);
    assert_eq!(approved(&world, id), ["0.0.0.0/0", "10.2.0.0/16", "::/0"], "what is offered for the first time");

    offer(&mut world, id, 1, "router", &["10.2.0.0/16"]);
    offer(&mut world, id, 1, "router", &more);
    assert_eq!(approved(&world, id), ["0.0.0.0/0", "10.1.0.0/16", "10.2.0.0/16", "::/0"], "it is offered anew");
}

#[test]
fn a_route_of_a_users_device_that_was_taken_back_stays_so_whatever_the_user_becomes() {
    let mut world = World::new();
    let member = world.add_user("member@example.com", Role::Member);
    world.set_policy(&approving("\"group:ops\", \"autogroup:admin\""));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::Confirmed(member));
    assert_eq!(approved(&world, id), APPROVED);
    world.own(Command::SetRoutes(id, vec![]));
    world.own(Command::SetRole(member, Role::Admin));
    assert!(approved(&world, id).is_empty());
    world.own(Command::SuspendUser(member));
    world.own(Command::RestoreUser(member));
    assert!(approved(&world, id).is_empty());
}

#[test]
fn a_route_that_was_taken_back_is_approved_again_by_hand_and_one_that_waits_was_never_taken_back() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let key = world.make_key(tagged_key("tag:k8s"));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::AuthKey(key));
    world.own(Command::SetRoutes(id, vec![]));
    assert!(approved(&world, id).is_empty());
    world.own(Command::SetRoutes(id, vec!["10.1.0.0/16".into()]));
    assert_eq!(approved(&world, id), ["10.1.0.0/16"]);
    assert!(!world.node(id).revoked_routes.contains(&"10.1.0.0/16".parse().unwrap()));
    world.set_policy(&approving("\"tag:k8s\"").replace("10.0.0.0/8", "192.168.0.0/16"));
    assert_eq!(approved(&world, id), ["10.1.0.0/16", "192.168.0.0/24"], "nobody had taken that back");
}

#[test]
fn what_was_approved_and_is_not_offered_is_taken_back_without_a_trace() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let id = world.join_tagged(1, "router", "tag:k8s");
    world.own(Command::SetRoutes(id, vec!["10.1.0.0/16".into()]));
    world.own(Command::SetRoutes(id, vec![]));
    offer(&mut world, id, 1, "router", &["10.1.0.0/16"]);
    assert_eq!(approved(&world, id), ["10.1.0.0/16"], "it is offered for the first time");
}

#[test]
fn what_was_taken_back_is_written_and_a_device_is_read_that_was_written_before_it_could_be() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let key = world.make_key(tagged_key("tag:k8s"));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::AuthKey(key));
    world.own(Command::SetRoutes(id, vec![]));
    let mut written = serde_json::to_value(world.node(id)).unwrap();
    let read = |written: &serde_json::Value| serde_json::from_value::<Node>(written.clone()).unwrap();
    assert_eq!(read(&written).revoked_routes.len(), APPROVED.len());
    assert_eq!(&read(&written), world.node(id));
    assert!(written.as_object_mut().unwrap().remove("revoked_routes").is_some());
    assert_eq!(read(&written), Node { revoked_routes: BTreeSet::new(), ..world.node(id).clone() });
}

#[test]
fn a_device_that_registers_again_under_another_tag_has_approved_what_that_tag_needs_not_wait_for() {
    let mut world = World::new();
    world.set_policy(&approving("\"tag:k8s\""));
    let key = world.make_key(tagged_key("tag:server"));
    let id = world.join_as(1, with_routes(request(1, "router"), &OFFERED), Proof::AuthKey(key));
    assert!(approved(&world, id).is_empty());
    let key = world.make_key(tagged_key("tag:k8s"));
    let again = world.join_as(1, with_routes(request(11, "router"), &OFFERED), Proof::AuthKey(key));
    assert_eq!((again, approved(&world, id)), (id, APPROVED.map(String::from).to_vec()), "it is the same device");

    // A person's device becomes a tagged one.
    let id = world.join_as(2, with_routes(request(2, "own"), &OFFERED), Proof::Confirmed(world.owner));
    assert!(approved(&world, id).is_empty());
    let asks = RegisterRequest { old_node_key: node_key(2), ..with_routes(request(12, "own"), &OFFERED) };
    let key = world.make_key(tagged_key("tag:k8s"));
    let again = world.join_as(2, asks, Proof::AuthKey(key));
    assert_eq!((again, approved(&world, id)), (id, APPROVED.map(String::from).to_vec()), "it is the same device");
}

#[test]
fn what_a_user_offers_is_approved_at_once_when_the_user_has_been() {
    let mut world = World::new();
    world.set_policy(&approving("\"group:ops\""));
    let program = program(&mut world, &["users"]);
    let patch = SettingsPatch { users_approval: Some(true), ..SettingsPatch::default() };
    world.own(Command::UpdateSettings(patch));
    let new = new_user("member@example.com", Role::Member);
    let Ok(Reply::User(member)) = world.run(program, new) else { panic!("a user") };
    let asks = || with_routes(request(1, "router"), &OFFERED);
    let refusal = world.register(1, asks(), Proof::Confirmed(member)).unwrap_err();
    assert!(refusal.to_string().starts_with("user member@example.com is not approved yet"), "{refusal}");
    world.own(Command::ApproveUser(member));
    let id = world.join_as(1, asks(), Proof::Confirmed(member));
    assert_eq!(approved(&world, id), APPROVED);
}

#[test]
fn relays_that_policy_names_reach_devices_and_go_with_it() {
    let mut world = World::new();
    let id = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let (map, mut viewer) = world.home().netmap(id, world.now).unwrap();
    let regions = |map: &tailnet::Map| -> Vec<u16> {
        map.derp_map.as_ref().unwrap().regions.iter().flatten().map(|(id, _)| id.0).collect()
    };
    assert_eq!(regions(&map), [900]);
    let with = |map: &str| POLICY.replacen("\"groups\"", &format!("\"derpMap\": {map}, \"groups\""), 1);
    let own = r#"{"RegionID": 950, "RegionCode": "own", "Nodes": [{"Name": "a", "RegionID": 950, "HostName": "r.example.com"}]}"#;
    world.set_policy(&with(&format!("{{\"Regions\": {{\"950\": {own}}}}}")));
    let map = world.home().delta(&mut viewer, world.now).unwrap();
    assert_eq!(regions(&map), [900, 950]);
    world.set_policy(&with(&format!("{{\"OmitDefaultRegions\": true, \"Regions\": {{\"950\": {own}}}}}")));
    let map = world.home().delta(&mut viewer, world.now).unwrap();
    assert_eq!(regions(&map), [950]);
    let refused = world.tried(&with("{\"OmitDefaultRegions\": true}")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "line 2, column 16: derpMap: it leaves no relay, and devices need at least one to find each other"
    );
    world.set_policy(POLICY);
    let map = world.home().delta(&mut viewer, world.now).unwrap();
    assert_eq!(regions(&map), [900]);
}

#[test]
fn a_new_device_has_an_address_of_the_pool_that_policy_names_for_it() {
    let mut world = World::new();
    let pools = "\"nodeAttrs\": [{\"target\": [\"tag:server\"], \"ipPool\": [\"100.81.0.0/30\"]}], \"groups\"";
    let text = POLICY.replacen("\"groups\"", pools, 1);
    world.set_policy(&text);
    let server = world.join_tagged(1, "server", "tag:server");
    let laptop = world.join(2, "laptop", Proof::Confirmed(world.owner));
    assert_eq!(world.node(server).addresses.v4.to_string(), "100.81.0.0");
    assert_eq!(world.node(laptop).addresses.v4.to_string(), "100.81.0.4", "the rest of the pool is kept");
}

#[test]
fn the_starting_policy_counts_as_never_set_and_an_empty_text_brings_it_back() {
    let mut world = World::empty();
    let starting = world.home().policy().text.clone();
    let never = |world: &World, text: &str| {
        let new = world.tried(text).unwrap();
        Command::SetPolicy(Box::new(NewPolicy { precondition: Some(PolicyPrecondition::NeverSet), ..new }))
    };
    let set = never(&world, POLICY);
    world.own(set);
    let late = never(&world, "{}");
    assert!(world.refused(late).contains("changed by somebody else"));
    world.set_policy("");
    assert_eq!(world.home().policy().text, starting);
    let set = never(&world, POLICY);
    world.own(set);
    assert_eq!(world.home().policy().version, 3);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let mut world = World::new();
    for (days, good) in [(1, true), (180, true), (0, false), (181, false)] {
        let patch = SettingsPatch { key_duration_days: Some(days), ..SettingsPatch::default() };
        let outcome = world.run(Actor::User(world.owner), Command::UpdateSettings(patch));
        assert_eq!(outcome.is_ok(), good, "{days}");
    }
    assert_eq!(world.home().settings().key_duration_days, 180);
}

#[test]
fn resolvers_that_are_none_are_refused() {
    let mut world = World::new();
    for bad in ["dns.example", "http://1.2.3.4", "1.2.3.4:x", ""] {
        let refusal = world.refused(Command::UpdateDns(DnsPatch::NameServers(vec![bad.to_owned()])));
        assert!(refusal.contains("write an IP address, address:port, or an https:// URL"), "{refusal}");
    }
}

#[test]
fn a_service_keeps_its_addresses_and_its_annotations() {
    let mut world = World::new();
    let annotations = BTreeMap::from([("tailscale.com/owner-references".to_owned(), "{\"x\": 1}".to_owned())]);
    let service = NewService {
        name: "svc:web".parse().unwrap(),
        comment: String::new(),
        annotations: annotations.clone(),
        ports: vec!["tcp:443".into(), "do-not-validate".into()],
        tags: vec!["tag:k8s".into()],
    };
    world.own(Command::PutService(service.clone()));
    let first = world.home().service(&service.name).unwrap().clone();
    assert_eq!(first.annotations, annotations);
    world.own(Command::PutService(NewService { comment: "new".into(), ..service.clone() }));
    assert_eq!(world.home().service(&service.name).unwrap().addresses, first.addresses);
    let id = world.join(1, "web", Proof::Confirmed(world.owner));
    assert_eq!(world.node(id).name.as_str(), "web-1", "the name is the service's");
    let bad = NewService { ports: vec!["sctp:1".into()], ..service.clone() };
    assert!(world.refused(Command::PutService(bad)).contains("write \"tcp:443\""));
    world.own(Command::DeleteService(service.name.clone()));
    assert_eq!(world.refused(Command::DeleteService(service.name)), "there is no service svc:web in this tailnet");
}
