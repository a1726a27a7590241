//! Whatever a client sends arrives with exactly one identity, the one that its grant gives, or not at all.
//!
//! Requests are generated in bytes, over both versions of HTTP, and the API server behind the proxy speaks both as well.

use std::collections::BTreeSet;
use std::time::Duration;

use apiproxy::{CAPABILITY, Identity, LEGACY_CAPABILITY, Limits};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::http2::{self, Field, Outcome};
use crate::recording::Arrived;
use crate::world::{PATIENCE, World, head_of, rest, status};

/// What would be a request of its own to whoever loses count of the one before it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\n\r\n";

/// How long to wait for an answer to a request that may be without its end.
const BRIEFLY: Duration = Duration::from_millis(500);

/// A request as a hostile client may mean it.
#[derive(Debug, Clone)]
struct Hostile {
    method: &'static str,
    target: String,
    fields: Vec<Field>,
    body: Body,
}

impl Hostile {
    /// Whether it claims to be somebody, as a field or as what could become one.
    fn names_somebody(&self) -> bool {
        let splits = |bytes: &[u8]| normalized(bytes).contains("\nimpersonate");
        let field =
            |(name, value): &Field| normalized(name).starts_with("impersonate") || splits(name) || splits(value);
        self.fields.iter().any(field) || splits(self.target.as_bytes())
    }

    /// Whether it says itself how long its body is, and may lie.
    fn has_framing_of_its_own(&self) -> bool {
        let frames = |(name, _): &Field| ["content-length", "transfer-encoding"].contains(&normalized(name).as_str());
        self.fields.iter().any(frames)
    }
}

#[derive(Debug, Clone)]
enum Body {
    None,
    /// With its length told.
    Whole(Vec<u8>),
    /// In pieces, with fields behind them.
    Pieces(Vec<Vec<u8>>, Vec<Field>),
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Whole(bytes) => bytes.clone(),
            Self::Pieces(pieces, _) => pieces.concat(),
        }
    }
}

/// What a client of HTTP/1.1 adds to a request.
#[derive(Debug, Clone)]
struct Http1 {
    version: &'static str,
    line_end: &'static str,
    /// The Upgrade header and the Connection header of a request for a session, and whether it has a body all the same.
    upgrade: Option<(&'static str, &'static str, bool)>,
    behind: bool,
}

/// What a client of HTTP/2 adds to a request.
#[derive(Debug, Clone)]
struct Http2 {
    pseudo: Vec<Field>,
    pseudo_last: bool,
    lower_case: bool,
    in_two: bool,
}

fn field(name: &str, value: &str) -> Field {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

// ---- who sends it

/// The identity that a network map has: users and nodes with tags, with one rule, several, none, or rules that are no good.
fn identity() -> impl Strategy<Value = Option<Identity>> {
    let login = prop_oneof![
        15 => Just("alice@example.com"),
        15 => Just("bob@example.com"),
        1 => Just("system:admin"),
        1 => Just("tagged-devices"),
        1 => Just(""),
        1 => Just("carol\r\nImpersonate-Group: a"),
    ];
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(vec!["tag:ci", "tag:other"], 1..=2)];
    let rules = proptest::collection::vec(rule(), 0..3);
    let capability =
        prop_oneof![4 => Just(CAPABILITY), 1 => Just(LEGACY_CAPABILITY), 1 => Just("example.com/cap/other")];
    let known = (login, tags, rules, capability).prop_map(|(login, tags, rules, capability)| Identity {
        login: login.to_owned(),
        node: "runner.taila31de.ts.net.".to_owned(),
        tags: tags.into_iter().map(str::to_owned).collect(),
        capabilities: [(capability.to_owned(), rules)].into(),
    });
    prop_oneof![1 => Just(None), 19 => known.prop_map(Some)]
}

fn rule() -> impl Strategy<Value = Value> {
    let good =
        subsequence(vec!["a", "b", "tag:ci"], 0..=3).prop_map(|groups| json!({"impersonate": {"groups": groups}}));
    prop_oneof![
        40 => good,
        2 => Just(json!({"recorder": ["tag:recorder"]})),
        1 => Just(json!({"enforceRecorder": true, "impersonate": {"groups": ["a"]}})),
        1 => Just(json!({"enforceRecorder": true, "enableEvents": true})),
        1 => Just(json!({"impersonate": {"groups": ["system:masters"]}})),
        1 => Just(json!({"impersonate": {"groups": "a"}})),
        1 => Just(json!(["a"])),
    ]
}

/// What a grant gives, worked out from what the guide says and not as the proxy does.
struct Entitled {
    user: String,
    groups: Vec<String>,
    sessions: bool,
}

fn entitled(identity: Option<&Identity>) -> Option<Entitled> {
    let identity = identity?;
    let tagged = !identity.tags.is_empty();
    let user = if tagged { "runner.taila31de.ts.net" } else { &identity.login };
    let of = |name: &str| identity.capabilities.get(name).filter(|rules| !rules.is_empty());
    let rules = of(CAPABILITY).or(of(LEGACY_CAPABILITY)).cloned().unwrap_or_default();
    let (mut groups, mut sessions) = (BTreeSet::new(), true);
    for rule in rules {
        let named = rule.as_object()?.get("impersonate").map(|impersonate| &impersonate["groups"]);
        for group in named.map(|groups| groups.as_array().cloned()).unwrap_or(Some(Vec::new()))? {
            groups.insert(group.as_str()?.to_owned());
        }
        let (enforces, all) = (rule["enforceRecorder"] == true, rule["enableEvents"] == true);
        if enforces && all || groups.contains("system:masters") {
            return None;
        }
        sessions &= !enforces;
    }
    if tagged && groups.is_empty() && identity.tags.iter().any(|tag| tag == "tag:ci") {
        groups.insert("tag:ci".to_owned());
    }
    let is_person = ["alice@example.com", "bob@example.com"].contains(&user);
    (tagged || is_person).then(|| Entitled { user: user.to_owned(), groups: groups.into_iter().collect(), sessions })
}

// ---- what is sent

fn hostile() -> impl Strategy<Value = Hostile> {
    let method = prop_oneof![
        9 => select(vec!["GET", "POST", "PUT", "PATCH", "DELETE"]),
        1 => select(vec!["HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "IMPERSONATE"]),
    ];
    (method, target(), fields(), body()).prop_map(|(method, target, fields, body)| Hostile {
        method,
        target,
        fields,
        body,
    })
}

fn target() -> impl Strategy<Value = String> {
    let plain = select(vec![
        "/api/v1/pods",
        "/api/v1/pods?labelSelector=a%3Db&impersonate-user=root",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        "/api/v1/namespaces/d/pods/%78",
        "/api/v1/namespaces/d/pods/x/exec?command=sh",
        "/api/v1/namespaces/d/pods/x/%65xec",
    ]);
    let odd = select(vec![
        "https://elsewhere:1/api/v1/pods",
        "http://root:secret@elsewhere/api?as=root",
        "HTTPS://127.0.0.1/api",
        "//elsewhere/api",
        "*",
        "",
        "api",
        "elsewhere:443",
        "/api/../secrets",
        "/api/%2e%2e/secrets",
        "/api%2fv1",
        "/api/%252e",
        "/api/%0d%0aImpersonate-User:%20root",
        "/api/%00",
        "/api\\v1",
        "/api#fragment",
        "/a b",
        "/api/v1/pods HTTP/1.1\r\nImpersonate-User: root",
    ]);
    prop_oneof![5 => plain, 1 => odd].prop_map(str::to_owned)
}

/// Fields in whatever spelling, some of them several times over.
fn fields() -> impl Strategy<Value = Vec<Field>> {
    let identity = "(?i)(x-remote|x-forwarded|authorization|proxy-authorization|forwarded|x-real-ip|tailscale)[-_]?(user|group|uid|for|extra-a)?";
    let name = prop_oneof![
        18 => identity.prop_map(String::into_bytes),
        6 => "(?i)connection".prop_map(String::into_bytes),
        4 => "(?i)(te|keep-alive|proxy-connection|trailer|cookie|accept|expect|host|via)".prop_map(String::into_bytes),
        12 => "[a-zA-Z][a-zA-Z0-9_-]{0,10}".prop_map(String::into_bytes),
        1 => "(?i)impersonate[-_](user|group|uid|extra-a|)".prop_map(String::into_bytes),
        1 => "(?i)(transfer-encoding|content-length|upgrade|origin|sec-fetch-site|sec-websocket-protocol)"
            .prop_map(String::into_bytes),
        1 => select(vec![
            &b"Impersonate-User "[..], b" Impersonate-User", b"\tImpersonate-User", b"Impersonate-User\0",
            b"Impersonate-User:", b"x\r\nImpersonate-User", b"x\nimpersonate-user", b"x\rimpersonate-user",
            b"\xc4\xb0mpersonate-user", b"", b":path", b":impersonate-user",
        ]).prop_map(<[u8]>::to_vec),
    ];
    let value = prop_oneof![
        9 => "(?i)(impersonate-user|impersonate-group|authorization|x-forwarded-for|close|content-length)(, ?(authorization|keep-alive))?"
            .prop_map(String::into_bytes),
        12 => "[ -~]{0,16}".prop_map(String::into_bytes),
        1 => select(vec![
            &b"chunked"[..], b"identity", b"0", b"5", b"\xff\xfe", b"a\0b", b"a\r\nImpersonate-User: root",
            b"a\nImpersonate-User: root", b"a\r\n Impersonate-User: root", b"100-continue",
            b"v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.cm9vdA",
        ]).prop_map(<[u8]>::to_vec),
    ];
    let repeated = (name, value, prop_oneof![4 => Just(1_usize), 1 => 2_usize..4]);
    let repeated = repeated.prop_map(|(name, value, times)| std::iter::repeat_n((name, value), times));
    proptest::collection::vec(repeated, 0..4).prop_map(|fields| fields.into_iter().flatten().collect())
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 1..200),
        1 => Just(SMUGGLED.as_bytes().to_vec()),
    ];
    let trailers = prop_oneof![2 => Just(Vec::new()), 1 => Just(vec![field("impersonate-user", "root")])];
    let pieces = (proptest::collection::vec(bytes.clone(), 1..4), trailers);
    prop_oneof![
        2 => Just(Body::None),
        2 => bytes.prop_map(Body::Whole),
        2 => pieces.prop_map(|(pieces, trailers)| Body::Pieces(pieces, trailers)),
    ]
}

fn http1() -> impl Strategy<Value = Http1> {
    let session = (
        prop_oneof![
            6 => select(vec!["websocket", "WebSocket", "SPDY/3.1", "spdy/3.1"]),
            1 => select(vec!["h2c", "websocket, h2c", ""]),
        ],
        prop_oneof![
            6 => select(vec!["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade, Impersonate-User, Authorization"]),
            1 => select(vec!["close", "x"]),
        ],
        prop_oneof![6 => Just(false), 1 => Just(true)],
    );
    let upgrade = prop_oneof![1 => Just(None), 1 => session.prop_map(Some)];
    let version = prop_oneof![9 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    let line_end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n")];
    (version, line_end, upgrade, any::<bool>()).prop_map(|(version, line_end, upgrade, behind)| Http1 {
        version,
        line_end,
        upgrade,
        behind,
    })
}

fn http2() -> impl Strategy<Value = Http2> {
    let odd = select(vec![
        (":path", "/api/v1/secrets"),
        (":path", ""),
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":scheme", "ftp"),
        (":authority", "root:secret@elsewhere"),
        (":authority", "elsewhere:1"),
        (":authority", ""),
        (":protocol", "websocket"),
        (":status", "200"),
        (":impersonate-user", "root"),
        (":Path", "/api"),
        ("", ""),
    ]);
    let pseudo = prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(odd, 1..3)];
    let rarely = || prop_oneof![9 => Just(false), 1 => Just(true)];
    (pseudo, rarely(), rarely(), any::<bool>()).prop_map(|(pseudo, pseudo_last, as_is, in_two)| Http2 {
        pseudo: pseudo.into_iter().map(|(name, value)| field(name, value)).collect(),
        pseudo_last,
        lower_case: !as_is,
        in_two,
    })
}

// ---- how it is sent

/// The bytes of a request over HTTP/1.1. The last Connection header ends the connection, but where a session is asked for.
fn http1_bytes(hostile: &Hostile, http1: &Http1) -> Vec<u8> {
    let end = http1.line_end.as_bytes();
    let mut lines = vec![format!("{} {} {}", hostile.method, hostile.target, http1.version).into_bytes()];
    let mut add = |(name, value): &Field| lines.push([name, &b": "[..], value].concat());
    add(&field("Host", "x"));
    hostile.fields.iter().for_each(&mut add);
    match http1.upgrade {
        Some((protocol, connection, _)) => {
            add(&field("uPgRaDe", protocol));
            add(&field("Connection", connection));
        }
        None => add(&field("Connection", "close")),
    }
    let body = match http1.upgrade {
        Some((_, _, false)) => &Body::None,
        _ => &hostile.body,
    };
    match body {
        Body::None => {}
        Body::Whole(bytes) => add(&field("Content-Length", &bytes.len().to_string())),
        Body::Pieces(..) => add(&field("Transfer-Encoding", "chunked")),
    }
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [line, end].concat()).collect();
    bytes.extend(end);
    match body {
        Body::None => {}
        Body::Whole(whole) => bytes.extend(whole),
        Body::Pieces(pieces, trailers) => bytes.extend(chunked(pieces, trailers)),
    }
    if http1.behind {
        bytes.extend(SMUGGLED.as_bytes());
    }
    bytes
}

fn chunked(pieces: &[Vec<u8>], trailers: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n");
    for (name, value) in trailers {
        bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    [bytes, b"\r\n".to_vec()].concat()
}

fn http2_bytes(hostile: &Hostile, http2: &Http2) -> Vec<u8> {
    let lower = |(name, value): &Field| match http2.lower_case {
        true => (name.to_ascii_lowercase(), value.clone()),
        false => (name.clone(), value.clone()),
    };
    let mut pseudo = vec![field(":method", hostile.method), field(":scheme", "https")];
    pseudo.extend([field(":authority", "x"), field(":path", &hostile.target)]);
    // What is odd takes the place of what is not, or comes beside it.
    for (index, odd) in http2.pseudo.iter().enumerate() {
        if index == 0 {
            pseudo.retain(|(name, _)| *name != odd.0);
        }
        pseudo.push(odd.clone());
    }
    let mut regular: Vec<Field> = hostile.fields.iter().map(lower).collect();
    if let Body::Whole(bytes) = &hostile.body {
        regular.push(field("content-length", &bytes.len().to_string()));
    }
    let fields = if http2.pseudo_last { [regular, pseudo].concat() } else { [pseudo, regular].concat() };
    let ends = matches!(hostile.body, Body::None);
    let mut bytes = [http2::preface(), http2::head(1, &fields, ends, http2.in_two)].concat();
    match &hostile.body {
        Body::None => {}
        Body::Whole(whole) => bytes.extend(http2::data(1, whole, true)),
        Body::Pieces(pieces, trailers) => {
            let last = trailers.is_empty();
            pieces.iter().for_each(|piece| bytes.extend(http2::data(1, piece, false)));
            bytes.extend(if last { http2::data(1, b"", true) } else { http2::head(1, trailers, true, false) });
        }
    }
    bytes
}

// ---- what comes of it

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Answer(u16),
    Session,
    Closed,
    /// The proxy waits for the rest of a body that never comes.
    Waiting,
}

impl Seen {
    /// Whether it is what the API server of these tests says, which is never an error.
    fn is_of_the_api_server(self) -> bool {
        matches!(self, Self::Answer(200) | Self::Session)
    }
}

async fn over_http1(world: &World, bytes: &[u8]) -> Seen {
    let mut stream = world.connect(&["http/1.1"]).await;
    // A proxy that has seen enough may have closed already.
    let _closed = stream.write_all(bytes).await;
    let mut answer = head_of(&mut stream).await;
    while status(&answer) == 100 {
        answer = head_of(&mut stream).await;
    }
    match status(&answer) {
        0 => Seen::Closed,
        101 => {
            stream.write_all(b"through").await.unwrap();
            stream.read_exact(&mut [0; 7]).await.unwrap();
            Seen::Session
        }
        code => {
            rest(&mut stream).await;
            Seen::Answer(code)
        }
    }
}

async fn over_http2(world: &World, bytes: &[u8]) -> Seen {
    let mut stream = world.connect(&["h2"]).await;
    let _closed = stream.write_all(bytes).await;
    match http2::outcome(&mut stream, 1).await {
        Outcome::Answered { ok: true, .. } => Seen::Answer(200),
        Outcome::Answered { body, .. } => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            Seen::Answer(body["code"].as_u64().unwrap_or(400) as u16)
        }
        Outcome::Reset(_) | Outcome::Closed => Seen::Closed,
    }
}

/// How often what was seen, so that a proxy that refuses everything fails.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    bodies: usize,
    sessions: usize,
    refused: usize,
}

impl Tally {
    fn check(
        &mut self,
        identity: Option<&Identity>,
        hostile: &Hostile,
        seen: Seen,
        arrived: &[Arrived],
    ) -> Result<(), TestCaseError> {
        let (entitled, framed) = (entitled(identity), hostile.has_framing_of_its_own());
        prop_assert!(arrived.len() <= 1, "two requests out of one");
        prop_assert!(!seen.is_of_the_api_server() || arrived.len() == 1, "{seen:?} out of nothing");
        prop_assert!(framed || seen.is_of_the_api_server() != arrived.is_empty(), "{seen:?}");
        let Some(arrived) = arrived.first() else {
            self.refused += 1;
            return Ok(());
        };
        prop_assert!(!hostile.names_somebody(), "who names somebody is refused");
        prop_assert!(entitled.is_some(), "nobody's request arrived");
        let Entitled { user, groups, sessions } = entitled.unwrap();
        prop_assert!(arrived.is(&user, &groups), "{user} in {groups:?}: {arrived:?}");
        let is_session = seen == Seen::Session || ["exec", "%65xec"].iter().any(|exec| arrived.target.contains(exec));
        prop_assert!(sessions || !is_session, "what has to be recorded is not");
        prop_assert_ne!(&arrived.target, "/smuggled");
        if seen == Seen::Answer(200) && !framed {
            prop_assert_eq!(&arrived.body[..], &hostile.body.bytes()[..], "the body is another");
        }
        self.answered += usize::from(seen == Seen::Answer(200));
        self.bodies += usize::from(!arrived.body.is_empty());
        self.sessions += usize::from(seen == Seen::Session);
        Ok(())
    }
}

fn normalized(name: &[u8]) -> String {
    String::from_utf8_lossy(name).trim().to_ascii_lowercase().replace('_', "-")
}

/// Sends generated requests, each over a connection of its own, to a proxy whose API server speaks these protocols.
fn run<H: Strategy>(upstream: &[&str], how: H, ask: impl AsyncFn(&World, &Hostile, &H::Value) -> Seen) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = runtime.block_on(World::build(Limits::default(), upstream));
    let config = ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let tally = std::cell::RefCell::new(Tally::default());
    let checked = runner.run(&(identity(), hostile(), how), |(identity, hostile, how)| {
        world.server.forget();
        world.everybody.become_now(identity.clone());
        let patience = if hostile.has_framing_of_its_own() { BRIEFLY } else { PATIENCE };
        let seen = runtime.block_on(async { tokio::time::timeout(patience, ask(&world, &hostile, &how)).await });
        let seen = seen.unwrap_or(Seen::Waiting);
        tally.borrow_mut().check(identity.as_ref(), &hostile, seen, &world.server.arrived())
    });
    checked.unwrap();
    runtime.block_on(world.stop());
    tally.into_inner()
}

fn from_http1(upstream: &[&str]) {
    let tally =
        run(upstream, http1(), async |world, hostile, http1| over_http1(world, &http1_bytes(hostile, http1)).await);
    assert!(tally.answered > 10 && tally.bodies > 5 && tally.sessions > 2 && tally.refused > 10, "{tally:?}");
}

fn from_http2(upstream: &[&str]) {
    let tally =
        run(upstream, http2(), async |world, hostile, http2| over_http2(world, &http2_bytes(hostile, http2)).await);
    assert!(tally.answered > 10 && tally.bodies > 5 && tally.refused > 10, "{tally:?}");
}

#[test]
fn generated_requests_over_http1_arrive_with_one_identity_or_not_at_all() {
    from_http1(&["h2", "http/1.1"]);
}

#[test]
fn generated_requests_over_http2_arrive_with_one_identity_or_not_at_all() {
    from_http2(&["h2", "http/1.1"]);
}

#[test]
fn generated_requests_over_http1_to_an_api_server_without_http2_arrive_with_one_identity_or_not_at_all() {
    from_http1(&["http/1.1"]);
}

#[test]
fn generated_requests_over_http2_to_an_api_server_without_http2_arrive_with_one_identity_or_not_at_all() {
    from_http2(&["http/1.1"]);
}
