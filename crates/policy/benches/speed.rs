//! How long ten thousand nodes wait for a policy, beside the same without sharing: `cargo bench -p policy`.
//!
//! Two shapes over 10,000 nodes of 500 users. (a): 200 groups, 15,000 rules with tags, hosts, `autogroup:self` and
//! `via`, where nobody sees more than 300 others. (b): a flat `*` to `*`. What is measured is what a coordination server
//! does: the policy with one rule edited is read and compiled, every node's filter is made and encoded in chunks, one a
//! rule; a node comes, is retagged and goes, be it tagged, a user's, a subnet router or an exit node, and who must hear of
//! it is known. All on one core, in the processor's time; memory is what was asked of the allocator.
//!
//! Naive is the same meaning without anything shared: every rule resolved by a walk over all nodes, every node's filter by
//! a walk over all rules. The latter is measured on a sample of the nodes and multiplied.

#[path = "speed/memory.rs"]
mod memory;
#[path = "speed/naive.rs"]
mod naive;
#[path = "speed/shape.rs"]
mod shape;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::{Affected, Compiled, Difference, NodeId, Policy, Question, Topology, UserId};
use shape::{Guest, Shape};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// How often a node comes, is retagged and goes.
const ROUNDS: u64 = 101;

/// How often each change is made: they are shorter than the grain of the processor's time, so that the clock is read, and the
/// fastest counts, which nothing else on the machine interrupted. The slowest of all is told too.
const TRIES: usize = 5;

/// How many others a node of shape (a) sees at most.
const MOST_PEERS: usize = 300;

fn main() {
    println!("{:72}{:>14}{:>14}", "median", "grouped (a)", "flat (b)");
    let columns = [measure(&shape::grouped(), Some(MOST_PEERS)), measure(&shape::flat(), None)];
    let names: Vec<&String> = columns[0].iter().map(|(name, _)| name).collect();
    for (at, name) in names.iter().enumerate() {
        println!("{name:72}{:>14}{:>14}", columns[0][at].1, columns[1][at].1);
    }
}

/// Measures a shape, in which a node may see so many others.
fn measure(shape: &Shape, peers: Option<usize>) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let before = memory::held();
    memory::most();
    let mut compiled =
        Compiled::new(Arc::new(Policy::parse(&shape.text).expect("the shape is a policy")), shape.topology.clone());
    let (held, reading) = (memory::held() - before, memory::most() - before);
    let sent = encode_all(&compiled, &shape.topology);
    row("nodes", shape.topology.nodes.len().to_string());
    row("rules", compiled.policy().rules().len().to_string());
    let seen = most_peers(&compiled, &shape.topology);
    assert!(peers.is_none_or(|most| seen <= most), "a node sees {seen} others");
    row("peers at most", seen.to_string());
    row("policy, tailnet and compilation, MB", megabytes(held));
    row("  at most while it was read and compiled, MB", megabytes(reading));

    let rounds: Vec<Edit> = (0..5).map(|_| edit(shape, &sent)).collect();
    row("one rule edited: read and compiled", millis(median(rounds.iter().map(|round| round.compiled))));
    row("  and encoded for all nodes", millis(median(rounds.iter().map(|round| round.encoded))));
    assert_eq!(rounds[0].most_chunks, 1, "an edit of one rule is one chunk, to whomever");
    row("  chunks sent, at most to one node", rounds[0].most_chunks.to_string());
    row("  nodes that are sent any", rounds[0].nodes.to_string());
    row("  bytes sent, MB", megabytes(rounds[0].bytes));
    row("  at most, both policies and what nodes were sent, MB", megabytes(memory::most() - before));

    for (name, time) in ask(shape, &compiled) {
        row(name, millis(time));
    }

    for guest in Guest::ALL {
        for (step, Heard { times, nodes }) in guest.steps().iter().zip(visits(shape, &mut compiled, guest)) {
            let fastest: Vec<Duration> = times.chunks(TRIES).filter_map(|tries| tries.iter().copied().min()).collect();
            let worst = |times: &[Duration]| millis(times.iter().copied().max().unwrap_or_default());
            let half = millis(median(fastest.iter().copied()));
            row(&format!("{step}: who must hear, p50 of fastest of {TRIES}"), half);
            row("  worst", worst(&fastest));
            row("  worst of all tries", worst(&times));
            row("  nodes", nodes.to_string());
        }
    }
    let naive = naive::all(&Policy::parse(&shape.text).expect("the shape is a policy"), &shape.topology);
    row("naive: the same edit", format!("{:.2} s", naive.as_secs_f64()));
    rows
}

/// How long it took to know who must hear of a step, each time, and how many had to at last.
#[derive(Default)]
struct Heard {
    times: Vec<Duration>,
    nodes: usize,
}

/// A guest comes, becomes another's and goes, again and again.
fn visits(shape: &Shape, compiled: &mut Compiled, guest: Guest) -> [Heard; 3] {
    let mut heard = <[Heard; 3]>::default();
    for round in (0..ROUNDS).flat_map(|round| [round; TRIES]) {
        for (heard, changes) in heard.iter_mut().zip(shape.changes(guest, round)) {
            let mut affected = Affected::default();
            let start = Instant::now();
            changes.into_iter().for_each(|change| affected.join(compiled.apply(change)));
            heard.times.push(start.elapsed());
            heard.nodes = affected.concerned().len();
        }
    }
    heard
}

/// What a check of the edited policy costs, beside reading and compiling it, and what a question does.
fn ask(shape: &Shape, compiled: &Compiled) -> Vec<(&'static str, Duration)> {
    let compile = |text: &str| {
        let policy = Policy::parse(text).expect("the shape is a policy");
        Compiled::new(Arc::new(policy), shape.topology.clone())
    };
    let edited = compile(&shape.edited);
    let tests: Vec<String> = (0..1000)
        .map(|at| format!("{{\"src\": \"user{}@example.com\", \"deny\": [\"tag:t{}:1001\"]}}", at % 500, at % 390))
        .collect();
    let end = shape.text.rfind('}').expect("a policy is an object");
    let tested = compile(&format!("{}, \"tests\": [{}]}}", &shape.text[..end], tests.join(",")));
    let question = Question::new("group:g7", "tag:t7:1001", None).expect("a question");
    // Everybody on everything that has a tag, some with a check, and each user on the devices of a tag.
    let login = |action: &str, source: &str, destination: &str| {
        format!(
            "{{\"action\": \"{action}\", \"src\": [\"{source}\"], \"dst\": [\"{destination}\"], \"users\": [\"root\"]}}"
        )
    };
    let mut logins: Vec<String> = (0..500)
        .map(|user| login("accept", &format!("user{user}@example.com"), &format!("tag:t{}", user % 390)))
        .collect();
    logins.extend(["autogroup:owner", "autogroup:member"].map(|source| login("check", source, "autogroup:tagged")));
    let with_logins = format!("{}, \"ssh\": [{}]}}", &shape.text[..end], logins.join(","));
    let all_logins = || {
        let compiled = compile(&with_logins);
        let told = shape.topology.nodes.keys().map(|id| compiled.ssh(*id).len());
        assert!(told.sum::<usize>() > shape.topology.nodes.len() / 10, "many devices let somebody in");
    };
    let timed = |work: &dyn Fn()| {
        median((0..5).map(|_| {
            let start = spent();
            work();
            spent() - start
        }))
    };
    vec![
        ("what the edit opens and closes", timed(&|| drop(Difference::between(compiled, &edited)))),
        ("whether it cuts its author off", timed(&|| _ = black_box(compiled.would_cut_off(&edited, UserId(1))))),
        ("a thousand tests in the policy", timed(&|| drop(tested.verify()))),
        (
            "why, for a group of 5 users and the devices of a tag",
            timed(&|| drop(compiled.explain(&question).expect("so few are looked at"))),
        ),
        ("502 rules of SSH: compiled, and told to all devices", timed(&all_logins)),
    ]
}

/// The chunks that each node has, by name, with their sizes.
type Sent = BTreeMap<NodeId, BTreeMap<u64, usize>>;

/// What an edit costs.
struct Edit {
    compiled: Duration,
    encoded: Duration,
    most_chunks: usize,
    nodes: usize,
    bytes: usize,
}

/// Reads and compiles the edited policy, encodes it for everybody, and compares with what was sent.
fn edit(shape: &Shape, sent: &Sent) -> Edit {
    let start = spent();
    let policy = Policy::parse(&shape.edited).expect("the shape is a policy");
    let compiled = Compiled::new(Arc::new(policy), shape.topology.clone());
    let after_compiling = spent() - start;
    let next = encode_all(&compiled, &shape.topology);
    let encoded = spent() - start;
    let fresh = next.iter().map(|(id, chunks)| {
        let new = chunks.iter().filter(|(name, _)| !sent[id].contains_key(name)).map(|(_, size)| *size);
        new.collect::<Vec<usize>>()
    });
    let fresh: Vec<Vec<usize>> = fresh.filter(|sizes| !sizes.is_empty()).collect();
    Edit {
        compiled: after_compiling,
        encoded,
        most_chunks: fresh.iter().map(Vec::len).max().unwrap_or_default(),
        nodes: fresh.len(),
        bytes: fresh.iter().flatten().sum(),
    }
}

/// Every node's filter as JSON, a chunk a rule, each named by what it says.
fn encode_all(compiled: &Compiled, topology: &Topology) -> Sent {
    let mut text = Vec::new();
    let mut all = Sent::new();
    for id in topology.nodes.keys() {
        let chunks = compiled.filter(*id).into_iter().map(|rule| {
            text.clear();
            serde_json::to_writer(&mut text, &rule).expect("a rule is JSON");
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            (hasher.finish(), text.len())
        });
        all.insert(*id, chunks.collect());
    }
    all
}

/// The processor's time that was spent so far: on a busy machine, what else runs doesn't count.
pub(crate) fn spent() -> Duration {
    // What the scheduler counted for this thread, in nanoseconds; there is no other.
    let counted = std::fs::read_to_string("/proc/self/schedstat").expect("Linux counts what threads spend");
    let nanoseconds = counted.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat begins with nanoseconds"))
}

fn most_peers(compiled: &Compiled, topology: &Topology) -> usize {
    topology.nodes.keys().map(|id| compiled.peers(*id).len()).max().unwrap_or_default()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn megabytes(bytes: usize) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}
