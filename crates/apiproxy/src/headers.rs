//! The headers of a request, from what the client sent to what the API server may see.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::{Impersonated, Refusal};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a browser says of the page that makes it send a request (Fetch Metadata Request Headers, section 2.4).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How much of a header's name a refusal repeats.
const LONGEST_NAMED: usize = 64;

/// How a WebSocket protocol begins that is a bearer token to the API server.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// What may be upgraded to: what `kubectl exec`, `attach`, `cp` and `port-forward` speak.
const PROTOCOLS: [&str; 2] = ["websocket", "SPDY/3.1"];

/// A protocol that the client wants in place of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upgrade(&'static str);

impl Upgrade {
    /// The one that the headers ask for.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut asked = headers.get_all(header::UPGRADE).into_iter();
        let named = asked.next();
        if named.is_none() && !nominates(headers, "upgrade") {
            return Ok(None);
        }
        let (Some(named), None, true) = (named, asked.next(), nominates(headers, "upgrade")) else {
            return Err(Refusal::Malformed(
                "an upgrade takes one Upgrade header and a Connection header that names it",
            ));
        };
        PROTOCOLS
            .into_iter()
            .find(|known| named.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
            .map(|known| Some(Self(known)))
            .ok_or(Refusal::Malformed("it asks to upgrade to a protocol other than websocket and SPDY/3.1"))
    }

    /// Whether the API server has agreed to this very protocol.
    pub(crate) fn is_agreed(self, headers: &HeaderMap) -> bool {
        let mut agreed = headers.get_all(header::UPGRADE).into_iter();
        let first = agreed.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(self.0.as_bytes()));
        first && agreed.next().is_none() && nominates(headers, "upgrade")
    }

    pub(crate) fn set(self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(self.0));
    }
}

/// The headers that go to the API server.
///
/// What belongs to one connection goes first, also what a Connection header names: a client can thus take headers away,
/// but only its own. Then goes all that speaks of identity, by prefix. Ours come last, once each.
pub(crate) fn for_upstream(
    client: &HeaderMap,
    impersonated: &Impersonated,
    token: &HeaderValue,
    source: IpAddr,
) -> Result<HeaderMap, Refusal> {
    refuse_pages(client)?;
    refuse_tokens_of_websockets(client)?;
    if let Some(own) = client.keys().find(|name| normalized(name).starts_with("impersonate")) {
        return Err(Refusal::ImpersonatesItself(own.as_str().chars().take(LONGEST_NAMED).collect()));
    }
    let mut headers = without_hop_by_hop(client);
    let names_somebody: Vec<HeaderName> = headers.keys().filter(|name| speaks_of_identity(name)).cloned().collect();
    for name in names_somebody {
        headers.remove(name);
    }
    // Names the client's idea of this proxy; the API server has one of its own, from the request's URI.
    headers.remove(header::HOST);
    // The answer to it is the proxy's connection's business.
    headers.remove(header::EXPECT);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Refusal::Malformed("a name has a line break"));
    let mut ours = vec![(USER, value(impersonated.user())?)];
    for group in impersonated.groups() {
        ours.push((GROUP, value(group)?));
    }
    let mut token = token.clone();
    token.set_sensitive(true);
    ours.push((header::AUTHORIZATION, token));
    ours.push((FORWARDED_FOR, value(&source.to_string())?));
    for (name, value) in ours {
        headers.append(name, value);
    }
    check(&headers, impersonated)?;
    Ok(headers)
}

/// Refuses what a page in a browser has sent: the caller is proven by the device, and a page is not its user's will.
///
/// Browsers let any page open a WebSocket to any host, and send it some requests; they say so by these headers, which no
/// client of the API server sends.
fn refuse_pages(client: &HeaderMap) -> Result<(), Refusal> {
    if client.contains_key(header::ORIGIN) {
        return Err(Refusal::FromAPage("origin"));
    }
    // `none`: the user typed the address.
    if client.get_all(FETCH_SITE).into_iter().any(|site| site != "none") {
        return Err(Refusal::FromAPage("sec-fetch-site"));
    }
    Ok(())
}

/// Refuses a token in the place where browsers' WebSockets carry one for the API server, which takes it for `Authorization`.
fn refuse_tokens_of_websockets(client: &HeaderMap) -> Result<(), Refusal> {
    let mut offered = client.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let has_token = |value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.split(',').any(|protocol| protocol.trim().starts_with(TOKEN_PROTOCOL))
    };
    if offered.any(has_token) {
        return Err(Refusal::Malformed(
            "it offers a token among its WebSocket protocols; this proxy knows you by your device, so leave it out",
        ));
    }
    Ok(())
}

/// Looks once more at what is about to leave: one identity, the decided one, and nothing beside it.
fn check(headers: &HeaderMap, impersonated: &Impersonated) -> Result<(), Refusal> {
    let users: Vec<&[u8]> = headers.get_all(USER).into_iter().map(HeaderValue::as_bytes).collect();
    let groups: Vec<&[u8]> = headers.get_all(GROUP).into_iter().map(HeaderValue::as_bytes).collect();
    let named = users == [impersonated.user().as_bytes()]
        && groups == impersonated.groups().iter().map(String::as_bytes).collect::<Vec<_>>();
    let others = headers
        .keys()
        .any(|name| speaks_of_identity(name) && ![USER, GROUP, header::AUTHORIZATION, FORWARDED_FOR].contains(name));
    let tokens = headers.get_all(header::AUTHORIZATION).into_iter().count();
    if named && !others && tokens == 1 {
        return Ok(());
    }
    Err(Refusal::Malformed("its identity did not come out as decided; this is a defect of the proxy"))
}

/// The headers of an answer that concern more than one connection.
pub(crate) fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    const HOP_BY_HOP: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let mut rest = headers.clone();
    for name in HOP_BY_HOP {
        rest.remove(name);
    }
    for name in nominated(headers) {
        rest.remove(name);
    }
    rest
}

/// Whether a header says who somebody is, to the API server or to something in front of it.
fn speaks_of_identity(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 5] = ["impersonate", "x-remote-", "x-forwarded-", "tailscale-", "x-real-ip"];
    const NAMES: [&str; 4] = ["authorization", "forwarded", "x-client-cert", "proxy-user"];
    let name = normalized(name);
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name.as_str())
}

/// Some servers take an underscore for a hyphen. Names are in lower case already.
fn normalized(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

fn nominates(headers: &HeaderMap, option: &str) -> bool {
    nominated(headers).any(|name| name == option)
}

/// What the Connection headers name, in lower case.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers
        .get_all(header::CONNECTION)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|option| String::from_utf8_lossy(option).trim().to_ascii_lowercase())
        .filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Allowed, CAPABILITY, Identity};
    use proptest::prelude::*;
    use serde_json::json;

    fn alice() -> Impersonated {
        let identity = Identity {
            login: "alice@example.com".into(),
            node: "laptop.taila31de.ts.net.".into(),
            tags: Vec::new(),
            capabilities: [(CAPABILITY.to_owned(), vec![json!({"impersonate": {"groups": ["a", "b"]}})])].into(),
        };
        Impersonated::decide(&identity, &Allowed::groups(["a", "b"].map(str::to_owned))).unwrap()
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn sent(client: &HeaderMap) -> Result<HeaderMap, Refusal> {
        for_upstream(client, &alice(), &HeaderValue::from_static("Bearer ours"), "100.64.0.7".parse().unwrap())
    }

    #[test]
    fn ours_replace_whatever_names_somebody() {
        let client = headers(&[
            ("authorization", "Bearer theirs"),
            ("authorization", "Basic again"),
            ("x-remote-user", "root"),
            ("X-Remote-Group", "system:masters"),
            ("x_remote_extra", "x"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("accept", "application/json"),
        ]);
        let sent = sent(&client).unwrap();
        let expected = headers(&[
            ("accept", "application/json"),
            ("impersonate-user", "alice@example.com"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("authorization", "Bearer ours"),
            ("x-forwarded-for", "100.64.0.7"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_client_that_impersonates_is_refused_by_the_headers_name() {
        for name in [
            "Impersonate-User",
            "impersonate-group",
            "IMPERSONATE-EXTRA-x",
            "Impersonate-Uid",
            "impersonate_user",
            "impersonate-anything",
        ] {
            let refusal = sent(&headers(&[(name, "root")])).unwrap_err();
            assert_eq!(refusal, Refusal::ImpersonatesItself(name.to_ascii_lowercase()));
        }
    }

    #[test]
    fn what_a_page_in_a_browser_sends_is_refused() {
        assert_eq!(sent(&headers(&[("origin", "https://evil.example.com")])), Err(Refusal::FromAPage("origin")));
        for site in ["cross-site", "same-site", "same-origin"] {
            assert_eq!(sent(&headers(&[("sec-fetch-site", site)])), Err(Refusal::FromAPage("sec-fetch-site")));
        }
        assert!(sent(&headers(&[("sec-fetch-site", "none")])).is_ok());
    }

    #[test]
    fn a_token_among_the_protocols_of_a_websocket_is_refused() {
        let offers = |protocols: &str| sent(&headers(&[("sec-websocket-protocol", protocols)]));
        assert!(offers("v5.channel.k8s.io, v4.channel.k8s.io").is_ok());
        assert!(offers("v4.channel.k8s.io, Base64url.bearer.authorization.k8s.io.c2VjcmV0").is_err());
    }

    #[test]
    fn a_connection_header_takes_away_only_the_clients_own() {
        let client = headers(&[
            ("connection", "Impersonate-User, authorization"),
            ("connection", "impersonate-group,x-secret, keep-alive"),
            ("x-secret", "gone"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
        ]);
        let sent = sent(&client).unwrap();
        assert_eq!(sent.len(), 5, "{sent:?}");
        assert_eq!(sent.get("impersonate-user").unwrap(), "alice@example.com");
        assert_eq!(sent.get("authorization").unwrap(), "Bearer ours");
    }

    #[test]
    fn an_upgrade_is_one_known_protocol_that_the_connection_header_names() {
        let asked = |pairs: &[(&str, &str)]| Upgrade::asked(&headers(pairs));
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[("connection", "keep-alive")]), Ok(None));
        assert_eq!(asked(&[("connection", "Upgrade"), ("upgrade", "spdy/3.1")]), Ok(Some(Upgrade("SPDY/3.1"))));
        assert_eq!(
            asked(&[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")]),
            Ok(Some(Upgrade("websocket")))
        );
        for bad in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "SPDY/3.1")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
        ] {
            assert!(asked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_answer_must_agree_to_what_was_asked() {
        let spdy = Upgrade("SPDY/3.1");
        assert!(spdy.is_agreed(&headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!spdy.is_agreed(&headers(&[("connection", "Upgrade"), ("upgrade", "websocket")])));
        assert!(!spdy.is_agreed(&headers(&[("upgrade", "SPDY/3.1")])));
        assert!(!spdy.is_agreed(&headers(&[("connection", "Upgrade")])));
    }

    fn hostile_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "(?i)(impersonate|x-remote|authorization|x-forwarded|connection|te|upgrade)[-_]?(user|group|uid|extra-a)?",
            "(?i)(origin|sec-fetch-site|sec-websocket-protocol)",
            "[a-zA-Z][a-zA-Z0-9_-]{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn every_request_leaves_with_exactly_one_identity_or_not_at_all(
            pairs in proptest::collection::vec((hostile_name(), "[ -~]{0,20}"), 0..30)
        ) {
            let client: HeaderMap = pairs
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)))
                .collect();
            match sent(&client) {
                Ok(sent) => {
                    prop_assert!(check(&sent, &alice()).is_ok());
                    prop_assert!(!client.keys().any(|name| name.as_str().starts_with("impersonate-")));
                    prop_assert_eq!(sent.get_all("x-forwarded-for").iter().count(), 1);
                    prop_assert!(sent.get("connection").is_none() && sent.get("upgrade").is_none());
                }
                Err(refusal) => {
                    prop_assert!(matches!(refusal, Refusal::ImpersonatesItself(_) | Refusal::FromAPage(_)));
                }
            }
        }
    }
}
