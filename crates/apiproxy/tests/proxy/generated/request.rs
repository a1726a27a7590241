//! A request in whose bytes a hostile client has a hand, and what such a client may think of.

use proptest::prelude::*;
use proptest::sample::select;

use crate::http2::Field;

/// What would be a request of its own to whoever loses count of the one before it.
pub(super) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\n\r\n";

/// A request as a hostile client may mean it.
#[derive(Debug, Clone)]
pub(super) struct Hostile {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) fields: Vec<Field>,
    pub(super) body: Body,
}

impl Hostile {
    /// Whether it claims to be somebody, as a field or as what could become one.
    pub(super) fn names_somebody(&self) -> bool {
        let splits = |bytes: &[u8]| normalized(bytes).contains("\nimpersonate");
        let field =
            |(name, value): &Field| normalized(name).starts_with("impersonate") || splits(name) || splits(value);
        self.fields.iter().any(field) || splits(self.target.as_bytes())
    }

    /// Whether it says itself how long its body is, and may lie.
    pub(super) fn has_framing_of_its_own(&self) -> bool {
        let frames = |(name, _): &Field| ["content-length", "transfer-encoding"].contains(&normalized(name).as_str());
        self.fields.iter().any(frames)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    None,
    /// With its length told.
    Whole(Vec<u8>),
    /// In pieces, with fields behind them.
    Pieces(Vec<Vec<u8>>, Vec<Field>),
}

impl Body {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Whole(bytes) => bytes.clone(),
            Self::Pieces(pieces, _) => pieces.concat(),
        }
    }
}

/// What a client of HTTP/1.1 adds to a request.
#[derive(Debug, Clone)]
pub(super) struct Http1 {
    pub(super) version: &'static str,
    pub(super) line_end: &'static str,
    /// The Upgrade header and the Connection header of a request for a session, and whether it has a body all the same.
    pub(super) upgrade: Option<(&'static str, &'static str, bool)>,
    pub(super) behind: bool,
}

/// What a client of HTTP/2 adds to a request.
#[derive(Debug, Clone)]
pub(super) struct Http2 {
    pub(super) pseudo: Vec<Field>,
    pub(super) pseudo_last: bool,
    pub(super) lower_case: bool,
    pub(super) in_two: bool,
}

pub(super) fn field(name: &str, value: &str) -> Field {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}

pub(super) fn hostile() -> impl Strategy<Value = Hostile> {
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

pub(super) fn http1() -> impl Strategy<Value = Http1> {
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

pub(super) fn http2() -> impl Strategy<Value = Http2> {
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

fn normalized(name: &[u8]) -> String {
    String::from_utf8_lossy(name).trim().to_ascii_lowercase().replace('_', "-")
}
