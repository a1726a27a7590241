//! What holds whatever happens, in whichever order.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use tailcfg::{Hostinfo, NodeId, RegisterRequest};
use tailnet::{
    Actor, Change, Command, Decision, HostUpdate, KeyExpiry, NewAuthKey, NewPolicy, NewService, Proof, Registration,
    Reply, Role, SettingsPatch, StreamId, Viewer,
};

use crate::client::Client;
use crate::world::{World, auth_key, machine, node_key, report, request, tagged_key, with_routes};

const POLICIES: [&str; 5] = [
    crate::world::POLICY,
    "",
    r#"{"tagOwners": {"tag:server": [], "tag:k8s": []}, "acls": []}"#,
    r#"{"tagOwners": {"tag:server": [], "tag:k8s": []},
        "grants": [{"src": ["tag:k8s"], "dst": ["tag:k8s", "10.1.0.0/16"], "ip": ["*"]},
                   {"src": ["member@example.com"], "dst": ["tag:server"], "app": {"x.example/y": [{"a": 1}]}}],
        "nodeAttrs": [{"target": ["tag:server"], "attr": ["dns-subdomain-resolve"]}],
        "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:server"]}, "exitNode": ["autogroup:admin"]}}"#,
    r#"{"tagOwners": {"tag:server": [], "tag:k8s": []}, "groups": {"group:all": ["user:*@example.com"]},
        "postures": {"posture:linux": ["node:os == 'linux'"]},
        "grants": [{"src": ["*"], "dst": ["tag:server", "autogroup:internet"], "ip": ["80"]},
                   {"src": ["group:all"], "dst": ["10.1.0.0/16"], "ip": ["*"], "via": ["tag:k8s"]},
                   {"src": ["autogroup:admin"], "dst": ["*"], "ip": ["22"], "srcPosture": ["posture:linux"]},
                   {"src": ["autogroup:member"], "dst": ["autogroup:self", "svc:web"], "ip": ["*"]},
                   {"src": ["tag:k8s"], "dst": ["group:all"], "app": {"tailscale.com/cap/drive": [{"shares": ["*"]}]}}],
        "nodeAttrs": [{"target": ["autogroup:admin"], "attr": ["funnel"]},
                      {"target": ["tag:k8s"], "attr": ["disable-ipv4"]}],
        "ssh": [{"action": "accept", "src": ["group:all"], "dst": ["autogroup:self"], "users": ["root"]},
                {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"],
                 "users": ["localpart:*@example.com"], "recorder": ["tag:k8s"]}]}"#,
];

/// Something that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Join {
        machine: u8,
        user: bool,
        routes: u8,
    },
    JoinTagged {
        machine: u8,
        tag: bool,
        routes: u8,
        ephemeral: bool,
    },
    Rotate(u8),
    LogOut(u8),
    Connect(u8, u8),
    Disconnect(u8),
    Touch(u8, u8),
    Host(u8, u8),
    Delete(u8),
    Expire(u8),
    KeyExpiry(u8, bool),
    Rename(u8, u8),
    Routes(u8, u8),
    Tags(u8, bool),
    Suspend(bool),
    RoleOf(bool),
    Policy(u8),
    Settings(bool),
    Service(bool),
    Sweep,
    Wait(u16),
    /// Viewer by number reads what differs.
    Read(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..8, any::<bool>(), 0_u8..4).prop_map(|(machine, user, routes)| Step::Join { machine, user, routes }),
        4 => (0_u8..8, any::<bool>(), 0_u8..4, any::<bool>())
            .prop_map(|(machine, tag, routes, ephemeral)| Step::JoinTagged { machine, tag, routes, ephemeral }),
        2 => (0_u8..8).prop_map(Step::Rotate),
        1 => (0_u8..8).prop_map(Step::LogOut),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(node, port)| Step::Connect(node, port)),
        2 => any::<u8>().prop_map(Step::Disconnect),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(node, port)| Step::Touch(node, port)),
        2 => (any::<u8>(), 0_u8..4).prop_map(|(node, what)| Step::Host(node, what)),
        1 => any::<u8>().prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Expire),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(node, on)| Step::KeyExpiry(node, on)),
        1 => (any::<u8>(), 0_u8..3).prop_map(|(node, name)| Step::Rename(node, name)),
        3 => (any::<u8>(), 0_u8..4).prop_map(|(node, routes)| Step::Routes(node, routes)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(node, tag)| Step::Tags(node, tag)),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => any::<bool>().prop_map(Step::RoleOf),
        2 => (0_u8..5).prop_map(Step::Policy),
        1 => any::<bool>().prop_map(Step::Service),
        1 => any::<bool>().prop_map(Step::Settings),
        1 => Just(Step::Sweep),
        2 => (0_u16..400).prop_map(Step::Wait),
        6 => any::<u8>().prop_map(Step::Read),
    ]
}

const ROUTES: [&[&str]; 4] = [&[], &["10.1.0.0/16"], &["10.1.0.0/16", "0.0.0.0/0", "::/0"], &["192.168.0.0/24"]];

struct Play {
    world: World,
    member: tailcfg::UserId,
    streams: BTreeMap<NodeId, StreamId>,
    viewers: BTreeMap<NodeId, (Viewer, Client)>,
    next_key: u8,
    keys: BTreeMap<u8, u8>,
    tried: Option<NewPolicy>,
}

impl Play {
    fn new() -> Self {
        let mut world = World::new();
        let member = world.add_user("member@example.com", Role::Member);
        let (streams, viewers, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { world, member, streams, viewers, next_key: 10, keys, tried: None }
    }

    fn pick(&self, number: u8) -> Option<NodeId> {
        let ids: Vec<_> = self.world.home().nodes().map(|node| node.id).collect();
        (!ids.is_empty()).then(|| ids[usize::from(number) % ids.len()])
    }

    fn join(&mut self, machine_number: u8, routes: u8, proof: Proof) {
        let old = self.keys.get(&machine_number).copied();
        self.next_key = self.next_key.wrapping_add(1).max(1);
        let key = self.next_key;
        let request = RegisterRequest {
            old_node_key: old.map(node_key).unwrap_or_default(),
            ..with_routes(request(key, "x"), ROUTES[usize::from(routes)])
        };
        if let Ok(Reply::Registered(_)) = self.world.register(machine_number + 1, request, proof) {
            self.keys.insert(machine_number, key);
        }
    }

    fn run(&mut self, command: Command) {
        let _ = self.world.run(Actor::User(self.world.owner), command);
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Join { machine, user, routes } => {
                let user = if user { self.world.owner } else { self.member };
                self.join(machine, routes, Proof::Confirmed(user));
            }
            Step::JoinTagged { machine, tag, routes, ephemeral } => {
                let tag = if tag { "tag:k8s" } else { "tag:server" };
                let made = self.world.run(
                    Actor::User(self.world.owner),
                    Command::CreateAuthKey(NewAuthKey { ephemeral, ..tagged_key(tag) }),
                );
                if let Ok(Reply::Secret { text, .. }) = made {
                    self.join(machine, routes, Proof::AuthKey(text));
                }
            }
            Step::Rotate(machine) => self.join(machine, 0, Proof::Confirmed(self.world.owner)),
            Step::LogOut(machine_number) => {
                if let Some(key) = self.keys.get(&machine_number).copied() {
                    let past = jiff::Timestamp::from_second(123).unwrap();
                    let request = RegisterRequest { expiry: past.into(), ..request(key, "x") };
                    let _ = self.world.register(machine_number + 1, request, Proof::None);
                }
            }
            Step::Connect(node, port) => {
                if let Some(id) = self.pick(node) {
                    let stream = self.world.connect(id, u16::from(port) + 1);
                    self.streams.insert(id, stream);
                }
            }
            Step::Disconnect(node) => {
                if let Some((id, stream)) = self.pick(node).and_then(|id| Some((id, self.streams.remove(&id)?))) {
                    let now = self.world.now;
                    self.world.home_mut().close_stream(id, stream, now);
                }
            }
            Step::Touch(node, port) => {
                if let Some(id) = self.pick(node) {
                    let _ = self.world.home_mut().touch(id, report(u16::from(port) + 1));
                }
            }
            Step::Host(node, what) => {
                if let Some(id) = self.pick(node) {
                    let routable = ROUTES[usize::from(what)].iter().map(|route| route.parse().unwrap()).collect();
                    let hostinfo =
                        Hostinfo { hostname: format!("host-{what}"), routable_ips: routable, ..Hostinfo::default() };
                    let version = tailcfg::CapabilityVersion(130 + u32::from(what));
                    let machine = self.world.node(id).machine_key;
                    let update = Command::UpdateHost(Box::new(HostUpdate { node: id, hostinfo, version }));
                    let _ = self.world.run(Actor::Machine(machine), update);
                }
            }
            Step::Wait(seconds) => self.world.pass(SignedDuration::from_secs(i64::from(seconds) * 3600)),
            Step::Sweep => drop(self.world.run(Actor::Server, Command::Sweep)),
            Step::Read(number) => self.read(number),
            other => self.administer(other),
        }
    }

    fn administer(&mut self, step: Step) {
        let node = match &step {
            Step::Delete(n) | Step::Expire(n) => self.pick(*n),
            Step::KeyExpiry(n, _) | Step::Tags(n, _) => self.pick(*n),
            Step::Rename(n, _) | Step::Routes(n, _) => self.pick(*n),
            _ => None,
        };
        let command = match (step, node) {
            (Step::Delete(_), Some(id)) => Command::DeleteNode(id),
            (Step::Expire(_), Some(id)) => Command::ExpireNode(id),
            (Step::KeyExpiry(_, on), Some(id)) => {
                Command::SetKeyExpiry(id, if on { KeyExpiry::Enabled } else { KeyExpiry::Disabled })
            }
            (Step::Rename(_, name), Some(id)) => Command::RenameNode(id, ["", "one", "two"][usize::from(name)].into()),
            (Step::Routes(_, routes), Some(id)) => {
                Command::SetRoutes(id, ROUTES[usize::from(routes)].iter().map(|route| (*route).into()).collect())
            }
            (Step::Tags(_, tag), Some(id)) => {
                Command::SetNodeTags(id, if tag { vec!["tag:server".into()] } else { vec![] })
            }
            (Step::Suspend(true), _) => Command::SuspendUser(self.member),
            (Step::Suspend(false), _) => Command::RestoreUser(self.member),
            (Step::RoleOf(admin), _) => Command::SetRole(self.member, if admin { Role::Admin } else { Role::Member }),
            // What was tried at the last such step: the tailnet has changed since.
            (Step::Policy(number), _) => {
                let tried = self.world.tried(POLICIES[usize::from(number)]).unwrap();
                let before = self.tried.replace(tried.clone());
                Command::SetPolicy(Box::new(before.unwrap_or(tried)))
            }
            (Step::Settings(https), _) => {
                Command::UpdateSettings(SettingsPatch { https: Some(https), ..SettingsPatch::default() })
            }
            (Step::Service(true), _) => Command::PutService(NewService {
                name: "svc:web".parse().unwrap(),
                comment: String::new(),
                annotations: BTreeMap::new(),
                ports: Vec::new(),
                tags: Vec::new(),
            }),
            (Step::Service(false), _) => Command::DeleteService("svc:web".parse().unwrap()),
            _ => return,
        };
        self.run(command);
    }

    /// A device reads what differs, from the start if it has no stream.
    fn read(&mut self, number: u8) {
        let Some(id) = self.pick(number) else { return };
        let (home, now) = (self.world.server.tailnet(self.world.home).unwrap(), self.world.now);
        match self.viewers.get_mut(&id) {
            Some((viewer, client)) => {
                if let Some(map) = home.delta(viewer, now) {
                    client.apply(&map);
                }
            }
            None => {
                let (map, viewer) = home.netmap(id, now).unwrap();
                let mut client = Client::default();
                client.apply(&map);
                self.viewers.insert(id, (viewer, client));
            }
        }
        self.check_map(id);
    }

    fn check_map(&self, id: NodeId) {
        let home = self.world.home();
        let mut fresh = Client::default();
        fresh.apply(&home.netmap(id, self.world.now).unwrap().0);
        let client = &self.viewers[&id].1;
        let differences = client.clone().settled().differences(&fresh.clone().settled());
        assert_eq!(differences, Vec::<String>::new(), "deltas must lead to the map of a fresh start");
        let compiled = home.compiled();
        for peer in fresh.peers.keys() {
            assert!(compiled.are_peers(policy::NodeId(id.0), policy::NodeId(peer.0)), "policy hides {peer} from {id}");
        }
    }

    fn check(&self) {
        let home = self.world.home();
        let nodes: Vec<_> = home.nodes().collect();
        let distinct = |count: usize| assert_eq!(count, nodes.len(), "something is used by two devices");
        distinct(nodes.iter().map(|node| node.addresses.v4).collect::<BTreeSet<_>>().len());
        distinct(nodes.iter().map(|node| node.addresses.v6).collect::<BTreeSet<_>>().len());
        distinct(nodes.iter().map(|node| node.node_key).collect::<BTreeSet<_>>().len());
        distinct(nodes.iter().map(|node| node.name.clone()).collect::<BTreeSet<_>>().len());
        distinct(nodes.iter().map(|node| node.stable_id.clone()).collect::<BTreeSet<_>>().len());
        for node in &nodes {
            assert_eq!(home.identify(&node.machine_key, &node.node_key), Ok(node.id));
            assert_eq!(self.world.server.registry().node_by_key(&node.node_key), Some((self.world.home, node.id)));
            assert!(home.users().all(|user| user.id.0 != node.id.0), "a user and a device share a number");
            let offered: BTreeSet<_> = node.hostinfo.routable_ips.iter().copied().collect();
            assert!(node.revoked_routes.is_subset(&offered) && node.revoked_routes.is_disjoint(&node.approved_routes));
            let mut waits = offered.difference(&node.approved_routes);
            let by_policy = |route: &&_| home.compiled().approves_route(policy::NodeId(node.id.0), route);
            assert_eq!(waits.find(by_policy), None, "{} needs not wait", node.name);
        }
        let admitted = home.admitted_keys().count();
        assert_eq!(admitted, nodes.iter().filter(|node| home.is_admitted(node.id)).count());
    }

    /// A server that starts from what was written, and so works everything out from nothing, tells every device the same:
    /// peers and their routes, filters, SSH rules, capabilities.
    fn check_restart(&mut self) {
        let rows: Vec<Change> = self.world.written.iter().map(|(_, change)| change.clone()).collect();
        let presence = self.world.home_mut().take_presence();
        let mut server = tailnet::Server::new("100.64.0.0/10".parse().unwrap(), crate::world::relays());
        server.load(&rows, 1, presence, self.world.now);
        let (again, home) = (server.tailnet(self.world.home).unwrap(), self.world.home());
        assert_eq!(again.nodes().collect::<Vec<_>>(), home.nodes().collect::<Vec<_>>());
        for node in home.nodes() {
            let told = |tailnet: &tailnet::Tailnet| {
                let mut client = Client::default();
                client.apply(&tailnet.netmap(node.id, self.world.now).unwrap().0);
                client.settled().without_times()
            };
            assert_eq!(told(home).differences(&told(again)), Vec::<String>::new(), "{} is told otherwise", node.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn deltas_lead_to_the_map_of_a_fresh_start_and_nothing_is_used_twice(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut play = Play::new();
        for step in steps {
            play.play(step);
            let home = play.world.server.tailnet(play.world.home).unwrap();
            play.viewers.retain(|id, _| home.node(*id).is_some());
            play.check();
        }
        for number in 0..=u8::try_from(play.world.home().nodes().count()).unwrap() {
            play.read(number);
        }
        play.check_restart();
    }

    #[test]
    fn a_key_that_works_once_lets_one_device_in_in_any_order_of_deciding_and_writing(
        order in proptest::collection::vec((0_usize..4, any::<bool>()), 1..40),
    ) {
        let mut world = World::new();
        let key = world.make_key(auth_key());
        let mut pending: BTreeMap<usize, Decision> = BTreeMap::new();
        let mut won = Vec::new();
        for (device, write) in order {
            let number = u8::try_from(device).unwrap() + 1;
            if write {
                let Some(decision) = pending.remove(&device) else { continue };
                // The database takes one log row for each number: a decision from an older revision is not written.
                if world.server.is_current(&decision) {
                    world.write(&decision);
                    if let Reply::Registered(registered) = &decision.reply {
                        won.push(registered.node);
                    }
                } else {
                    world.server.discard(decision);
                }
            } else {
                let registration = Registration {
                    machine: machine(number),
                    request: request(number, "x"),
                    proof: Proof::AuthKey(key.clone()),
                };
                let command = Command::Register(Box::new(registration));
                if let Ok(decision) = world.decide_in(world.home, Actor::Machine(machine(number)), command)
                    && let Some(stale) = pending.insert(device, decision)
                {
                    world.server.discard(stale);
                }
            }
        }
        won.dedup();
        prop_assert!(won.len() <= 1);
        prop_assert_eq!(world.home().nodes().count(), won.len());
    }

    #[test]
    fn two_tailnets_share_no_address_number_or_key(
        joins in proptest::collection::vec((any::<bool>(), 1_u8..12), 1..30),
    ) {
        let mut world = World::new();
        let (other, owner) = world.add_tailnet("other.org", "other.ts.net", "owner@other.org");
        for (in_other, number) in joins {
            let (tailnet, user) = if in_other { (other, owner) } else { (world.home, world.owner) };
            let registration = Registration {
                machine: machine(number),
                request: request(number, "x"),
                proof: Proof::Confirmed(user),
            };
            let _ = world.run_in(tailnet, Actor::User(user), Command::Register(Box::new(registration)));
        }
        let all: Vec<_> = world.server.tailnets().flat_map(tailnet::Tailnet::nodes).collect();
        prop_assert_eq!(all.iter().map(|node| node.addresses.v4).collect::<BTreeSet<_>>().len(), all.len());
        prop_assert_eq!(all.iter().map(|node| node.id).collect::<BTreeSet<_>>().len(), all.len());
        prop_assert_eq!(all.iter().map(|node| node.node_key).collect::<BTreeSet<_>>().len(), all.len());
        for tailnet in world.server.tailnets() {
            for node in tailnet.nodes() {
                let (map, _) = tailnet.netmap(node.id, world.now).unwrap();
                for peer in &map.peers {
                    prop_assert!(tailnet.node(peer.decode().unwrap().id).is_some(), "a map holds a foreign device");
                }
            }
        }
    }
}
