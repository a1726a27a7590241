//! How long a tailnet of ten thousand devices takes to know whom a command concerns, beside building it from nothing:
//! `cargo bench -p tailnet`.
//!
//! The two shapes are those of `cargo bench -p policy`: 10,000 devices of 500 users under (a) 15,000 rules that name groups,
//! tags and hosts, and (b) a flat `*` to `*`. A policy is set. A device joins, gets other tags and is deleted, be it tagged or
//! a user's; a subnet router and an exit node join, get their routes approved and are deleted. Each by the command that a
//! driver would give: decided, committed, and then told to those whom it concerns. All on one core, in the processor's time.
//! Nothing is written to a disk: that is the driver's.
#![expect(clippy::expect_used, reason = "a benchmark ends where it fails")]

#[expect(dead_code, reason = "the changes and the edit are for the benchmark of policy")]
#[path = "../../policy/benches/speed/shape.rs"]
mod shape;

use std::collections::BTreeMap;
use std::time::Duration;

use crypto::{MachinePublic, NodePublic, SystemEntropy};
use jiff::Timestamp;
use shape::{Guest, Shape};
use tailcfg::{CapabilityVersion, DerpMap, Hostinfo, NodeId, RegisterRequest, UserId};
use tailnet::{
    Actor, Addresses, Change, Command, Effects, Label, NewPolicy, Node, Owner, PolicyRecord, Proof, Registration,
    Reply, Role, Server, TailnetId, TailnetRecord, User, UserStatus, Viewer, Wake,
};

const TAILNET: TailnetId = TailnetId(1);

/// No user and no device has the number of another, so devices begin after the users.
const FIRST_DEVICE: u64 = 1000;

/// Who lets guests in, and whose they are where they have no tag: the owner.
const GUEST_OWNER: UserId = UserId(1);

/// Rounds of each guest.
const ROUNDS: u64 = 21;

/// How often the policy is set.
const SETTINGS: u64 = 5;

/// Of so many devices it is measured what it takes to tell them.
const LISTENERS: usize = 20;

fn main() {
    println!("{:60}{:>14}{:>14}", "median", "grouped (a)", "flat (b)");
    let columns = [measure(&shape::grouped()), measure(&shape::flat())];
    for (one, two) in columns[0].iter().zip(&columns[1]) {
        println!("{:60}{:>14}{:>14}", one.0, one.1, two.1);
    }
}

fn measure(shape: &Shape) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let written = written(shape);
    let now = Timestamp::UNIX_EPOCH;
    let mut server = Server::new("100.64.0.0/10".parse().expect("a network"), DerpMap::default());
    let start = spent();
    server.load(&written, 1, Vec::new(), now);
    row("devices", shape.topology.nodes.len().to_string());
    row("from nothing", millis(spent() - start));
    let (tried, set): (Vec<_>, Vec<_>) = (0..SETTINGS).map(|round| set_policy(&mut server, round)).unzip();
    row("a policy is tried, which nobody waits for", millis(median(&tried)));
    row("and put in force, which everybody waits for", millis(median(&set)));

    let mut taken: BTreeMap<&str, Taken> = BTreeMap::new();
    for (round, guest) in (0..ROUNDS).flat_map(|round| Guest::ALL.map(|guest| (round, guest))) {
        let [joins, becomes, goes] = steps(guest);
        let join = Command::Register(Box::new(registration(round, guest)));
        let Reply::Registered(joined) = run(&mut server, join, &mut taken, joins) else {
            panic!("the device is let in")
        };
        let change = match guest {
            Guest::Tagged | Guest::OfUser => Command::SetNodeTags(joined.node, vec![tag(round + 7)]),
            Guest::Router | Guest::ExitNode => {
                Command::SetRoutes(joined.node, guest.routes().iter().map(|route| (*route).to_owned()).collect())
            }
        };
        run(&mut server, change, &mut taken, becomes);
        run(&mut server, Command::DeleteNode(joined.node), &mut taken, goes);
    }
    for name in Guest::ALL.iter().flat_map(|guest| steps(*guest)) {
        let taken = &taken[name];
        row(&format!("{name}: who must hear of it"), millis(median(&taken.committed)));
        row("  worst", millis(taken.committed.iter().copied().max().unwrap_or_default()));
        row("  devices that must", taken.concerned.to_string());
        row("  and what one of them is told", millis(median(&taken.told)));
    }
    rows
}

/// What happens to a guest in a round, in this order.
fn steps(guest: Guest) -> [&'static str; 3] {
    match guest {
        Guest::Tagged => ["one device joins", "one device gets another tag", "one device is deleted"],
        Guest::OfUser => {
            ["a user's device joins", "a user's device gets a tag", "a device that was a user's is deleted"]
        }
        Guest::Router => ["a subnet router joins", "a subnet router's route is approved", "a subnet router is deleted"],
        Guest::ExitNode => ["an exit node joins", "an exit node is approved", "an exit node is deleted"],
    }
}

fn tag(number: u64) -> String {
    format!("tag:t{}", number % 390)
}

/// Sets the same policy with another comment; gives how long trying and setting it took.
fn set_policy(server: &mut Server, round: u64) -> (Duration, Duration) {
    let now = Timestamp::UNIX_EPOCH;
    let tailnet = server.tailnet(TAILNET).expect("the tailnet is there");
    let (text, trial) = (format!("{}// {round}\n", tailnet.policy().text), tailnet.policy_trial());
    let start = spent();
    let tried = trial.try_policy(&text, None).expect("the policy is good");
    let read = spent() - start;
    drop(trial);
    let new = NewPolicy { tried, precondition: None, who: String::new(), why: String::new() };
    let (command, actor) = (Command::SetPolicy(Box::new(new)), Actor::User(UserId(1)));
    let start = spent();
    let decided = server.decide(TAILNET, command, actor, now, &mut SystemEntropy).expect("the tailnet is there");
    let mut decision = decided.expect("the owner may");
    let effects = server.commit(&mut decision, now);
    let set = spent() - start;
    assert!(matches!(effects.wake, Wake::All), "everybody may be told something else");
    (read, set)
}

/// How long things took.
#[derive(Default)]
struct Taken {
    committed: Vec<Duration>,
    told: Vec<Duration>,
    concerned: usize,
}

fn run(server: &mut Server, command: Command, taken: &mut BTreeMap<&'static str, Taken>, name: &'static str) -> Reply {
    let now = Timestamp::UNIX_EPOCH;
    let mut listeners = listeners(server, &command);
    let actor = Actor::User(UserId(1));
    let start = spent();
    let decided = server.decide(TAILNET, command, actor, now, &mut SystemEntropy).expect("the tailnet is there");
    let mut decision = decided.expect("the owner may");
    let effects = server.commit(&mut decision, now);
    let known = spent() - start;
    let taken = taken.entry(name).or_default();
    taken.committed.push(known);
    taken.concerned = concerned(&effects);
    let tailnet = server.tailnet(TAILNET).expect("the tailnet is there");
    for viewer in listeners.iter_mut().filter(|viewer| effects.wake.concerns(viewer.node())) {
        let start = spent();
        let told = tailnet.delta(viewer, now);
        taken.told.push(spent() - start);
        assert!(told.is_some(), "who is woken is told something");
    }
    decision.reply
}

/// Some devices that listen, all of which a command is about to concern.
fn listeners(server: &mut Server, command: &Command) -> Vec<Viewer> {
    let mut trial = Vec::new();
    let tailnet = server.tailnet(TAILNET).expect("the tailnet is there");
    let compiled = tailnet.compiled();
    let about: Vec<NodeId> = match command {
        // Who has the tag that the guest comes with, or its user, sees whom the guest will see, and most see it.
        Command::Register(registration) => {
            let tags = &registration.request.hostinfo.as_ref().expect("it has one").request_tags;
            let is_like = |node: &&Node| match tags.first() {
                Some(asked) => node.owner.tags().any(|tag| tag.as_str() == asked),
                None => node.owner == Owner::User(GUEST_OWNER),
            };
            tailnet.nodes().filter(is_like).map(|node| node.id).take(1).collect()
        }
        Command::SetNodeTags(node, _) | Command::SetRoutes(node, _) | Command::DeleteNode(node) => vec![*node],
        _ => Vec::new(),
    };
    for id in about.iter().flat_map(|id| compiled.peers(policy::NodeId(id.0))).take(LISTENERS) {
        trial.extend(tailnet.netmap(NodeId(id.0), Timestamp::UNIX_EPOCH).map(|(_, viewer)| viewer));
    }
    trial
}

fn concerned(effects: &Effects) -> usize {
    match &effects.wake {
        Wake::Some(nodes) => nodes.len(),
        Wake::All => usize::MAX,
    }
}

fn registration(round: u64, guest: Guest) -> Registration {
    let mut bytes = [0xee; 32];
    bytes[..8].copy_from_slice(&(round * Guest::ALL.len() as u64 + guest as u64).to_be_bytes());
    let request_tags = match guest {
        Guest::Tagged | Guest::ExitNode => vec![tag(round)],
        Guest::OfUser => Vec::new(),
        Guest::Router => vec![format!("tag:r{}", round % 50)],
    };
    let routable_ips = guest.routes().iter().map(|route| route.parse().expect("a route")).collect();
    let hostinfo = Hostinfo { hostname: format!("guest-{round}"), request_tags, routable_ips, ..Hostinfo::default() };
    let request = RegisterRequest {
        version: CapabilityVersion(130),
        node_key: NodePublic::from_bytes(bytes),
        hostinfo: Some(hostinfo),
        ..RegisterRequest::default()
    };
    Registration { machine: MachinePublic::from_bytes(bytes), request, proof: Proof::Confirmed(GUEST_OWNER) }
}

/// The rows of a shape, as they would stand in the database.
fn written(shape: &Shape) -> Vec<Change> {
    let now = Timestamp::UNIX_EPOCH;
    let record = TailnetRecord {
        id: TAILNET,
        name: "example.com".to_owned(),
        domain: "example.ts.net".parse().expect("a domain"),
        created: now,
    };
    let text = shape.text.clone();
    let policy = PolicyRecord { text, version: 1, who: String::new(), why: String::new(), when: now };
    let mut written = vec![Change::PutTailnet(record), Change::PutPolicy(policy)];
    written.extend(shape.topology.users.iter().map(|(id, user)| {
        Change::PutUser(User {
            id: user_id(*id),
            login: user.login.parse().expect("a login name"),
            display_name: String::new(),
            profile_pic_url: String::new(),
            role: if user.role == policy::Role::Owner { Role::Owner } else { Role::Member },
            status: UserStatus::Active,
            created: now,
            password: None,
        })
    }));
    written.extend(shape.topology.nodes.iter().map(|(id, known)| Change::PutNode(Box::new(node(*id, known)))));
    written
}

fn user_id(id: policy::UserId) -> UserId {
    UserId(id.0 + 1)
}

fn node(id: policy::NodeId, known: &policy::Node) -> Node {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(id.0 + 1).to_be_bytes());
    let v4 = std::net::Ipv4Addr::from_bits(u32::from_be_bytes([100, 70, 0, 0]) + id.0 as u32);
    let v6 = std::net::Ipv6Addr::from_bits(0xfd7a_115c_a1e0_u128 << 80 | u128::from(v4.to_bits()));
    let routable_ips = known.advertised.iter().copied().collect();
    Node {
        id: NodeId(FIRST_DEVICE + id.0),
        stable_id: tailcfg::StableNodeId(format!("n{}", id.0)),
        machine_key: MachinePublic::from_bytes(bytes),
        node_key: NodePublic::from_bytes(bytes),
        owner: match &known.owner {
            policy::Owner::User(user) => Owner::User(user_id(*user)),
            policy::Owner::Tags(tags) => {
                Owner::Tags(tags.iter().map(|tag| tag.as_str().parse().expect("a tag")).collect())
            }
        },
        name: known.name.parse::<Label>().expect("a name"),
        named_by_hand: false,
        addresses: Addresses { v4, v6 },
        created: Timestamp::UNIX_EPOCH,
        key_expiry: None,
        key_expiry_disabled: false,
        ephemeral: false,
        authorized: true,
        approved_routes: known.approved.clone(),
        revoked_routes: std::collections::BTreeSet::new(),
        hostinfo: std::sync::Arc::new(Hostinfo {
            hostname: known.name.to_string(),
            routable_ips,
            ..Hostinfo::default()
        }),
        cap: CapabilityVersion(130),
        joined_with: None,
    }
}

/// The processor's time that was spent so far: on a busy machine, what else runs doesn't count.
fn spent() -> Duration {
    // The count is brought up to date when the thread gives way, or else a few hundred times a second.
    std::thread::yield_now();
    // What the scheduler counted for this thread, in nanoseconds; there is no other.
    let counted = std::fs::read_to_string("/proc/self/schedstat").expect("Linux counts what threads spend");
    let nanoseconds = counted.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat begins with nanoseconds"))
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
