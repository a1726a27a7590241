//! What devices are told: the first map, and then what differs.

use jiff::SignedDuration;
use tailcfg::{CapabilityVersion, Hostinfo, MapRequest, NodeId, RegionId, RegisterRequest, cap};
use tailnet::{
    Actor, Command, DnsPatch, DnsSettings, HostUpdate, Map, NameServer, Proof, Report, Role, SettingsPatch, SshVerdict,
    TAGGED_DEVICES, Viewer,
};

use crate::client::Client;
use crate::world::{World, node_key, report, request, tagged_key, with_routes};

/// A device with its stream.
struct Stream {
    client: Client,
    viewer: Viewer,
}

impl Stream {
    fn open(world: &World, id: NodeId) -> Self {
        let (map, viewer) = world.home().netmap(id, world.now).expect("the device is there");
        let mut client = Client::default();
        client.apply(&map);
        Self { client, viewer }
    }

    fn next(&mut self, world: &World) -> Option<Map> {
        let map = world.home().delta(&mut self.viewer, world.now)?;
        self.client.apply(&map);
        let fresh = Self::open(world, self.viewer.node()).client.settled();
        assert_eq!(self.client.clone().settled(), fresh, "what differs must lead to the same map");
        Some(map)
    }
}

struct Scene {
    world: World,
    laptop: NodeId,
    member: NodeId,
    operator: NodeId,
    server: NodeId,
}

/// An administrator's laptop, a member's, the operator and a server.
fn scene() -> Scene {
    let mut world = World::new();
    let user = world.add_user("member@example.com", Role::Member);
    let laptop = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let member = world.join(2, "member-laptop", Proof::Confirmed(user));
    let operator = world.join_tagged(3, "tailscale-operator", "tag:k8s-operator");
    let server = world.join_tagged(4, "robbinsdale", "tag:server");
    Scene { world, laptop, member, operator, server }
}

#[test]
fn the_first_map_has_all_that_a_client_needs_to_start() {
    let Scene { world, laptop, .. } = scene();
    let (map, _) = world.home().netmap(laptop, world.now).unwrap();
    let node = map.node.as_ref().unwrap();
    assert_eq!(node.name, "laptop.taila31de.ts.net.");
    assert!(node.machine_authorized && !node.expired);
    assert_eq!(node.addresses, node.allowed_ips());
    assert_eq!(map.derp_map, Some(crate::world::relays()));
    assert_eq!(map.domain, "example.com");
    assert_eq!(map.collect_services, Some(false));
    assert_eq!(map.packet_filters["base"], Some(vec![]));
    let dns = map.dns_config.as_ref().unwrap();
    assert!(dns.proxied && dns.routes["taila31de.ts.net"].is_empty());
    assert_eq!(dns.domains, ["taila31de.ts.net"]);
    assert_eq!(map.control_time.unwrap().get(), Some(world.now));
    let ids: Vec<_> = map.peers.iter().map(|peer| peer.decode().unwrap().id).collect();
    assert!(ids.is_sorted());
}

#[test]
fn each_sees_whom_policy_shows_and_nobody_else() {
    let Scene { world, laptop, member, operator, server } = scene();
    let names = |id| Stream::open(&world, id).client.names().join(" ");
    assert_eq!(names(laptop), "member-laptop tailscale-operator robbinsdale");
    assert_eq!(names(member), "laptop tailscale-operator");
    assert_eq!(names(operator), "laptop member-laptop");
    assert_eq!(names(server), "laptop");
}

#[test]
fn before_any_policy_each_user_sees_their_own_devices_only() {
    let mut world = World::empty();
    let user = world.add_user("member@example.com", Role::Member);
    let laptop = world.join(1, "laptop", Proof::Confirmed(world.owner));
    let phone = world.join(2, "phone", Proof::Confirmed(world.owner));
    let member = world.join(3, "member-laptop", Proof::Confirmed(user));
    assert_eq!(Stream::open(&world, laptop).client.names(), ["phone"]);
    assert_eq!(Stream::open(&world, phone).client.names(), ["laptop"]);
    assert!(Stream::open(&world, member).client.names().is_empty());
}

#[test]
fn a_tagged_device_is_its_own_user_to_itself_and_tagged_devices_to_others() {
    let Scene { world, laptop, operator, .. } = scene();
    let itself = Stream::open(&world, operator).client;
    let own = itself.node.as_ref().unwrap();
    assert_eq!(itself.profiles[&own.user].login_name, "tailscale-operator.taila31de.ts.net");
    let seen = Stream::open(&world, laptop).client;
    let peer = seen.peer("tailscale-operator");
    assert_eq!(peer.user, TAGGED_DEVICES);
    assert_eq!(seen.profiles[&TAGGED_DEVICES].login_name, "tagged-devices");
    assert_eq!(peer.tags, ["tag:k8s-operator"]);
}

#[test]
fn roles_show_in_a_devices_own_capabilities_and_ssh_is_off_without_rules() {
    let Scene { world, laptop, member, operator, .. } = scene();
    let caps = |id| Stream::open(&world, id).client.node.unwrap().cap_map;
    assert!(caps(laptop).has(cap::IS_ADMIN) && caps(laptop).has(cap::IS_OWNER));
    assert!(!caps(member).has(cap::IS_ADMIN) && !caps(member).has(cap::IS_OWNER));
    assert!(!caps(operator).has(cap::IS_ADMIN) && !caps(operator).has(cap::IS_OWNER), "tags have no role");
    assert!(!caps(laptop).has(cap::TAILNET_LOCK) && !caps(laptop).has("default-auto-update"), "there is neither");
    assert!(caps(member).has(cap::FILE_SHARING) && !caps(member).has(cap::SSH));
    assert_eq!(caps(member).values(cap::TAILNET_DISPLAY_NAME).unwrap()[0].as_str(), "\"example.com\"");
}

#[test]
fn where_a_device_is_goes_to_its_peers_as_a_patch() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    let mut other = Stream::open(&s.world, s.server);
    s.world.connect(s.operator, 41641);
    assert!(s.world.effects.wake.concerns(s.laptop) && !s.world.effects.wake.concerns(s.server));
    let map = stream.next(&s.world).unwrap();
    assert!(map.node.is_none() && map.peers_changed.is_empty() && map.dns_config.is_none());
    let patch = &map.peers_changed_patch[0];
    assert_eq!((patch.node_id, patch.online, patch.derp_region), (s.operator, Some(true), RegionId(900)));
    assert!(patch.last_seen.is_some() && patch.disco_key.is_some() && patch.key.is_none());
    assert_eq!(map.peers_changed_patch.len(), 1);
    assert!(other.next(&s.world).is_none());
    assert!(stream.next(&s.world).is_none(), "nothing is told twice");
}

#[test]
fn a_slow_reader_gets_one_message_for_all_that_happened() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    for port in 1..50 {
        s.world.connect(s.operator, port);
    }
    s.world.own(Command::RenameNode(s.member, "renamed".into()));
    let new = s.world.join_tagged(5, "proxy", "tag:server");
    s.world.own(Command::DeleteNode(s.server));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.peers_changed_patch.len(), 1);
    let whole: Vec<_> = map.peers_changed.iter().map(|peer| peer.decode().unwrap().id).collect();
    assert_eq!(whole, [s.member, new]);
    assert_eq!(map.peers_removed, [s.server]);
}

#[test]
fn vanished_endpoints_come_as_a_whole_node_because_a_patch_cannot_say_it() {
    let mut s = scene();
    s.world.connect(s.operator, 7);
    let mut stream = Stream::open(&s.world, s.laptop);
    let _ = s.world.home_mut().touch(s.operator, Report::of(&MapRequest::default()));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.peers_changed.len(), 1);
    assert!(map.peers_changed_patch.is_empty());
}

#[test]
fn ones_own_place_is_not_sent_back() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.connect(s.laptop, 9);
    assert!(stream.next(&s.world).is_none());
}

#[test]
fn a_short_interruption_does_not_show_and_a_long_one_does() {
    let mut s = scene();
    let first = s.world.connect(s.operator, 1);
    let mut stream = Stream::open(&s.world, s.laptop);
    let now = s.world.now;
    s.world.home_mut().close_stream(s.operator, first, now);
    s.world.pass(SignedDuration::from_secs(9));
    let second = s.world.connect(s.operator, 1);
    s.world.pass(SignedDuration::from_secs(60));
    assert!(stream.next(&s.world).is_none());
    // The end of a stream that was replaced means nothing.
    let now = s.world.now;
    s.world.home_mut().close_stream(s.operator, first, now);
    assert_eq!(s.world.home().presence(s.operator).map(|presence| presence.online), Some(true));
    assert!(s.world.home().is_live(s.operator, second));
    s.world.home_mut().close_stream(s.operator, second, now);
    assert_eq!(s.world.home().poll_timeout(), Some(now + SignedDuration::from_secs(10)));
    s.world.pass(SignedDuration::from_secs(10));
    assert!(s.world.effects.wake.concerns(s.laptop));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.peers_changed_patch[0].online, Some(false));
    assert_eq!(map.peers_changed_patch[0].last_seen.unwrap().get(), Some(now));
}

#[test]
fn a_policy_that_hides_everybody_removes_every_peer() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.set_policy(r#"{"tagOwners": {"tag:k8s-operator": [], "tag:server": []}, "acls": []}"#);
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.peers_removed, [s.member, s.operator, s.server]);
    assert!(stream.client.peers.is_empty());
    assert_eq!(stream.client.filter.values().flatten().count(), 0);
}

#[test]
fn one_changed_rule_changes_one_chunk_of_the_filter() {
    let policy = |port: u16| {
        format!(
            r#"{{"tagOwners": {{"tag:server": [], "tag:k8s-operator": []}}, "grants": [
                {{"src": ["autogroup:admin"], "dst": ["tag:server"], "ip": ["tcp:{port}"]}},
                {{"src": ["tag:k8s-operator"], "dst": ["tag:server"], "ip": ["udp:53"]}}]}}"#
        )
    };
    let mut s = scene();
    s.world.set_policy(&policy(22));
    let mut stream = Stream::open(&s.world, s.server);
    let mut others = [s.laptop, s.member, s.operator].map(|id| Stream::open(&s.world, id));
    assert_eq!(stream.client.filter.len(), 3, "the base and two rules");
    s.world.set_policy(&policy(23));
    for other in &mut others {
        assert_eq!(other.next(&s.world), None, "the rule is at the server alone");
    }
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.packet_filters.values().filter(|rules| rules.is_none()).count(), 1);
    assert_eq!(map.packet_filters.values().filter(|rules| rules.is_some()).count(), 1);
    assert!(map.packet_filter.is_none() && map.peers_changed.is_empty() && map.peers_removed.is_empty());
}

#[test]
fn ssh_rules_reach_the_devices_that_they_are_about_and_go_again() {
    let mut s = scene();
    let policy = |ssh: &str| {
        format!(
            "{{\"tagOwners\": {{\"tag:server\": []}}, \"grants\": [{{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}}], \"ssh\": [{ssh}]}}"
        )
    };
    let accept = r#"{"action": "accept", "src": ["autogroup:admin"], "dst": ["tag:server"], "users": ["root"], "acceptEnv": ["GIT_*"]}"#;
    s.world.set_policy(&policy(accept));
    let (map, _) = s.world.home().netmap(s.laptop, s.world.now).unwrap();
    assert_eq!(map.ssh_policy, None, "no rule is about the laptop");
    let (map, mut viewer) = s.world.home().netmap(s.server, s.world.now).unwrap();
    let rule = &map.ssh_policy.as_ref().unwrap().rules[0];
    assert!(map.node.as_ref().unwrap().cap_map.has(cap::SSH));
    let own = s.world.node(s.laptop).addresses.both();
    let principals: Vec<_> = rule.principals.iter().filter_map(|principal| principal.node_ip).collect();
    assert_eq!(principals, own);
    assert_eq!(rule.ssh_users["root"], "root");
    assert_eq!(rule.accept_env, ["GIT_*"]);
    assert!(rule.action.as_ref().unwrap().accept);

    let second = s.world.join(9, "second-laptop", Proof::Confirmed(s.world.owner));
    assert!(s.world.effects.wake.concerns(s.server), "its rule has more sources");
    let map = s.world.home().delta(&mut viewer, s.world.now).unwrap();
    assert_eq!(map.ssh_policy.unwrap().rules[0].principals.len(), 4, "{second}");
    let map = s.world.home().delta(&mut viewer, s.world.now);
    assert!(map.is_none_or(|map| map.ssh_policy.is_none()), "what stays is not sent again");

    s.world.set_policy(&policy(&accept.replace("accept\",", "check\",")));
    let map = s.world.home().delta(&mut viewer, s.world.now).unwrap();
    let action = map.ssh_policy.unwrap().rules[0].action.clone().unwrap();
    assert!(action.hold_and_delegate.contains("/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?ssh_user=$SSH_USER"));
    assert!(!action.accept && !action.reject, "the server is asked");
    let verdict = |account| s.world.home().ssh_verdict(s.laptop, s.server, account);
    let SshVerdict::Check { user, period, then } = verdict("root") else { panic!("a check") };
    assert_eq!((user, period.as_secs()), (s.world.owner, 12 * 3600));
    assert!(then.accept && then.hold_and_delegate.is_empty());
    assert!(matches!(verdict("nobody"), SshVerdict::Refuse(_)));
    assert!(matches!(s.world.home().ssh_verdict(s.member, s.server, "root"), SshVerdict::Refuse(_)));
    s.world.set_policy(&policy(""));
    let map = s.world.home().delta(&mut viewer, s.world.now).unwrap();
    assert_eq!(map.ssh_policy.unwrap().rules, []);
}

#[test]
fn attributes_reach_the_devices_that_they_are_for() {
    let mut s = scene();
    s.world.set_policy(
        r#"{"tagOwners": {"tag:server": []}, "grants": [], "randomizeClientPort": true,
            "nodeAttrs": [{"target": ["tag:server"], "attr": ["funnel"]}]}"#,
    );
    let caps = |id| Stream::open(&s.world, id).client.node.unwrap().cap_map;
    assert!(caps(s.server).has("funnel") && caps(s.server).has("randomize-client-port"));
    assert!(!caps(s.laptop).has("funnel") && caps(s.laptop).has("randomize-client-port"));
}

#[test]
fn who_has_nothing_to_do_with_a_new_device_is_not_woken() {
    let mut s = scene();
    let other = s.world.join_tagged(8, "other-server", "tag:server");
    let wake = &s.world.effects.wake;
    assert!(wake.concerns(s.laptop) && wake.concerns(other));
    assert!(!wake.concerns(s.member) && !wake.concerns(s.operator) && !wake.concerns(s.server));
}

#[test]
fn a_grant_of_an_application_reaches_the_filter() {
    let mut s = scene();
    s.world.set_policy(
        r#"{"tagOwners": {"tag:k8s-operator": [], "tag:server": []}, "grants": [{"src": ["autogroup:admin"], "dst": ["tag:k8s-operator"],
            "app": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["system:masters"]}}]}}]}"#,
    );
    let client = Stream::open(&s.world, s.operator).client;
    let rule = client.filter.values().flatten().find(|rule| !rule.grants.is_empty()).unwrap();
    let own = s.world.node(s.operator).addresses.prefixes();
    assert!(rule.grants.iter().all(|grant| grant.destinations.iter().all(|dst| own.contains(dst))));
    let values = rule.grants[0].capabilities.values(cap::KUBERNETES).unwrap();
    assert_eq!(values[0].as_str().replace(' ', ""), r#"{"impersonate":{"groups":["system:masters"]}}"#);
    assert_eq!(client.names(), ["laptop"]);
}

#[test]
fn routes_go_to_those_whom_policy_lets_use_them_and_come_and_go_with_approval() {
    let mut s = scene();
    let key = s.world.make_key(tagged_key("tag:server"));
    let asks = with_routes(request(6, "router"), &["192.168.7.0/24", "0.0.0.0/0", "::/0"]);
    let router = s.world.join_as(6, asks, Proof::AuthKey(key));
    let mut stream = Stream::open(&s.world, s.laptop);
    assert_eq!(stream.client.peer("router").allowed_ips().len(), 2, "nothing is approved yet");
    s.world.own(Command::SetRoutes(router, vec!["192.168.7.0/24".into(), "0.0.0.0/0".into()]));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.peers_changed.len(), 1);
    let peer = stream.client.peer("router");
    let allowed: Vec<_> = peer.allowed_ips().iter().skip(2).map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.168.7.0/24", "0.0.0.0/0", "::/0"]);
    assert_eq!(peer.primary_routes.len(), 1);
    assert!(peer.cap_map.has(cap::SUGGEST_EXIT_NODE));
    s.world.own(Command::SetRoutes(router, vec![]));
    stream.next(&s.world).unwrap();
    assert_eq!(stream.client.peer("router").allowed_ips().len(), 2);
    assert!(!stream.client.peer("router").cap_map.has(cap::SUGGEST_EXIT_NODE));
}

#[test]
fn when_a_router_goes_the_next_takes_over_and_keeps_the_route() {
    let mut s = scene();
    let mut routers = Vec::new();
    for number in [6, 7] {
        let key = s.world.make_key(tagged_key("tag:k8s"));
        let asks = with_routes(request(number, "router"), &["10.1.0.0/16"]);
        routers.push(s.world.join_as(number, asks, Proof::AuthKey(key)));
    }
    let first = s.world.connect(routers[0], 1);
    s.world.connect(routers[1], 2);
    let mut stream = Stream::open(&s.world, s.laptop);
    let serves = |stream: &Stream, name: &str| stream.client.peer(name).allowed_ips().len() > 2;
    assert!(serves(&stream, "router") && !serves(&stream, "router-1"));
    let now = s.world.now;
    s.world.home_mut().close_stream(routers[0], first, now);
    s.world.pass(SignedDuration::from_secs(10));
    stream.next(&s.world).unwrap();
    assert!(!serves(&stream, "router") && serves(&stream, "router-1"));
    s.world.connect(routers[0], 1);
    stream.next(&s.world).unwrap();
    assert!(serves(&stream, "router-1"), "who serves goes on serving");
}

#[test]
fn an_expired_device_vanishes_from_its_peers_and_sees_nobody() {
    let mut s = scene();
    let mut peer = Stream::open(&s.world, s.member);
    let mut own = Stream::open(&s.world, s.laptop);
    s.world.own(Command::ExpireNode(s.laptop));
    assert!(s.world.effects.admission);
    assert_eq!(peer.next(&s.world).unwrap().peers_removed, [s.laptop]);
    own.next(&s.world).unwrap();
    assert!(own.client.peers.is_empty() && own.client.node.as_ref().unwrap().expired);
    assert_eq!(own.client.filter.values().flatten().count(), 0);
    // It comes back with a new key and the same address.
    let again = RegisterRequest { old_node_key: node_key(1), ..request(9, "laptop") };
    s.world.join_as(1, again, Proof::Confirmed(s.world.owner));
    peer.next(&s.world).unwrap();
    assert_eq!(peer.client.peer("laptop").key, node_key(9));
}

#[test]
fn a_suspended_users_devices_are_out_until_the_user_is_restored() {
    let mut s = scene();
    let user = s.world.node(s.member).owner.user().unwrap();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.own(Command::SuspendUser(user));
    assert_eq!(stream.next(&s.world).unwrap().peers_removed, [s.member]);
    s.world.own(Command::RestoreUser(user));
    assert_eq!(stream.next(&s.world).unwrap().peers_changed.len(), 1);
}

#[test]
fn what_a_host_says_of_itself_reaches_peers_without_what_is_private() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    let hostinfo: Hostinfo = serde_json::from_str(
        r#"{"Hostname":"tailscale-operator","OS":"linux","BackendLogID":"secret","PushDeviceToken":"secret","Newer":{"x":1},
            "NetInfo":{"PreferredDERP":900},"sshHostKeys":["ssh-ed25519 AAAA"]}"#,
    )
    .unwrap();
    let update = HostUpdate { node: s.operator, hostinfo, version: CapabilityVersion(138) };
    let machine = s.world.node(s.operator).machine_key;
    s.world.run(Actor::Machine(machine), Command::UpdateHost(Box::new(update.clone()))).unwrap();
    stream.next(&s.world).unwrap();
    let seen = stream.client.peer("tailscale-operator");
    let text = serde_json::to_string(seen.hostinfo.as_ref().unwrap()).unwrap();
    assert!(text.contains(r#""Newer":{"x":1}"#) && text.contains("ssh-ed25519") && !text.contains("secret"), "{text}");
    assert_eq!(seen.cap, CapabilityVersion(138));
    let written = s.world.written.len();
    s.world.run(Actor::Machine(machine), Command::UpdateHost(Box::new(update))).unwrap();
    assert_eq!(s.world.written.len(), written, "the same again is nothing new");
}

#[test]
fn a_device_follows_its_machines_name_until_somebody_names_it() {
    let mut s = scene();
    let update = |hostname: &str| HostUpdate {
        node: NodeId(0),
        hostinfo: Hostinfo { hostname: hostname.into(), ..Hostinfo::default() },
        version: CapabilityVersion(131),
    };
    let say = |s: &mut Scene, hostname: &str| {
        let update = HostUpdate { node: s.server, ..update(hostname) };
        let machine = s.world.node(s.server).machine_key;
        s.world.run(Actor::Machine(machine), Command::UpdateHost(Box::new(update))).unwrap();
        s.world.node(s.server).name.to_string()
    };
    assert_eq!(say(&mut s, "other"), "other");
    assert_eq!(say(&mut s, "laptop"), "laptop-1");
    s.world.own(Command::RenameNode(s.server, "fixed.taila31de.ts.net".into()));
    assert_eq!(say(&mut s, "third"), "fixed");
    s.world.own(Command::RenameNode(s.server, String::new()));
    assert_eq!(s.world.node(s.server).name.as_str(), "third");
}

#[test]
fn dns_settings_reach_everybody_as_they_are_meant() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    let server = |address: &str| NameServer { address: address.into(), use_with_exit_node: false };
    let dns = DnsSettings {
        override_local: true,
        nameservers: vec![server("9.9.9.9"), server("https://dns.example/dns-query")],
        split: [("corp.example".parse().unwrap(), vec![server("10.0.0.1:53")])].into(),
        search: vec!["corp.example".parse().unwrap()],
        ..DnsSettings::default()
    };
    s.world.own(Command::UpdateDns(DnsPatch::Whole(dns.clone())));
    let map = stream.next(&s.world).unwrap();
    assert!(map.peers_changed.is_empty() && map.packet_filters.is_empty());
    let sent = map.dns_config.unwrap();
    assert_eq!(sent.resolvers.len(), 2);
    assert_eq!(sent.routes["corp.example"][0].addr, "10.0.0.1:53");
    assert_eq!(sent.domains, ["taila31de.ts.net", "corp.example"]);
    s.world.own(Command::UpdateDns(DnsPatch::Whole(DnsSettings { override_local: false, ..dns })));
    let sent = stream.next(&s.world).unwrap().dns_config.unwrap();
    assert_eq!((sent.resolvers.len(), sent.fallback_resolvers.len()), (0, 2));
}

#[test]
fn certificates_are_for_the_devices_own_name_where_the_tailnet_has_them() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.own(Command::UpdateSettings(SettingsPatch { https: Some(true), ..SettingsPatch::default() }));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.dns_config.unwrap().cert_domains, ["laptop.taila31de.ts.net"]);
    assert!(map.node.unwrap().cap_map.has(cap::HTTPS));
    s.world.own(Command::RenameNode(s.laptop, "desk".into()));
    assert_eq!(stream.next(&s.world).unwrap().dns_config.unwrap().cert_domains, ["desk.taila31de.ts.net"]);
}

#[test]
fn another_domain_renames_everybody() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.own(Command::SetNames { name: Some("corp".into()), domain: Some("mesh.corp".parse().unwrap()) });
    let map = stream.next(&s.world).unwrap();
    assert_eq!((map.domain.as_str(), map.peers_changed.len()), ("corp", 3));
    assert_eq!(stream.client.peer("robbinsdale").name, "robbinsdale.mesh.corp.");
}

#[test]
fn other_relays_reach_everybody() {
    let mut s = scene();
    let mut stream = Stream::open(&s.world, s.laptop);
    let mut relays = crate::world::relays();
    relays.omit_default_regions = true;
    let told = s.world.server.set_relays(relays.clone());
    assert!(told[0].1.wake.concerns(s.laptop));
    assert_eq!(stream.next(&s.world).unwrap().derp_map, Some(relays));
}

#[test]
fn a_users_new_name_is_sent_without_their_devices() {
    let mut s = scene();
    let user = s.world.node(s.member).owner.user().unwrap();
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.own(Command::SetDisplayName(user, "Mia".into()));
    let map = stream.next(&s.world).unwrap();
    assert_eq!(map.user_profiles[0].display_name, "Mia");
    assert!(map.peers_changed.is_empty());
}

#[test]
fn after_a_restart_everything_is_as_it_was_written_and_peers_are_where_they_were() {
    let mut s = scene();
    s.world.connect(s.operator, 5);
    let saved = s.world.home_mut().take_presence();
    assert!(s.world.home_mut().take_presence().is_empty(), "what was written behind is not written again");
    let rows: Vec<_> = s.world.written.iter().map(|(_, change)| change.clone()).collect();
    let revision = s.world.home().revision();
    let before = Stream::open(&s.world, s.laptop).client;
    let stored: Vec<tailnet::Change> = serde_json::from_str(&serde_json::to_string(&rows).unwrap()).unwrap();
    assert_eq!(stored, rows);
    s.world.server = tailnet::Server::new("100.64.0.0/10".parse().unwrap(), crate::world::relays());
    let now = s.world.now;
    s.world.server.load(&stored, revision, saved, now);
    assert_eq!(Stream::open(&s.world, s.laptop).client, before);
    assert_eq!(s.world.home().revision(), revision);
    // Who does not come back is gone after a while, and not at once.
    let mut stream = Stream::open(&s.world, s.laptop);
    s.world.pass(SignedDuration::from_secs(119));
    assert!(stream.next(&s.world).is_none());
    s.world.pass(SignedDuration::from_secs(1));
    assert_eq!(stream.next(&s.world).unwrap().peers_changed_patch[0].online, Some(false));
    let new = s.world.join_tagged(5, "proxy", "tag:server");
    assert!(new > s.server && s.world.node(new).addresses > s.world.node(s.server).addresses);
}

#[test]
fn a_number_is_not_given_twice_even_when_its_device_was_deleted_before_a_restart() {
    let mut s = scene();
    let last = s.world.join_tagged(5, "proxy", "tag:server");
    s.world.own(Command::DeleteNode(last));
    // A database keeps each row's newest form and forgets deleted ones.
    let mut rows = std::collections::BTreeMap::new();
    for (_, change) in &s.world.written {
        if change.is_deletion() {
            rows.remove(&change.row())
        } else {
            rows.insert(change.row(), change.clone())
        };
    }
    let rows: Vec<_> = rows.into_values().collect();
    s.world.server = tailnet::Server::new("100.64.0.0/10".parse().unwrap(), crate::world::relays());
    let now = s.world.now;
    s.world.server.load(&rows, 99, vec![], now);
    assert!(s.world.join_tagged(6, "proxy", "tag:server") > last);
}

#[test]
fn a_touch_of_nobody_and_a_map_of_nobody_are_nothing() {
    let mut world = World::new();
    assert!(world.home_mut().touch(NodeId(99), report(1)).is_empty());
    let now = world.now;
    let (stream, effects) = world.home_mut().open_stream(NodeId(99), now);
    assert!(effects.is_empty() && !world.home().is_live(NodeId(99), stream));
    assert!(world.home().netmap(NodeId(99), now).is_none());
}
