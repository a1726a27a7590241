use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use mesh::Preferences;
use serde::Serialize;
use serde_json::{Value, json};
use tailcfg::{CapMap, Node as Peer, UserProfile};

use super::access::{Standing, check_headers};
use super::reply::{Refusal, Reply, done, json_reply, text_reply, with_headers};
use super::{bus, certificate, own};
use crate::config::AuthKey;
use crate::control_pings::ping;
use crate::node::{Node, WeakNode};
use crate::snapshot::Snapshot;

/// The longest request.
const MAX_BODY: usize = 1 << 20;

/// A request, with what is known of who makes it.
pub(super) struct Asked {
    pub(super) node: Node,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Who asks, by the kernel's word.
    pub(super) caller: Option<u32>,
    may_write: bool,
    body: Option<Incoming>,
}

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, caller: Option<u32>, node: WeakNode) -> Reply {
    let answered = async {
        check_headers(request.headers())?;
        let node = node.get().ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping"))?;
        let may_write = Standing::at(caller, &node).may_write();
        let (head, body) = request.into_parts();
        let query = parameters(head.uri.query().unwrap_or_default());
        let path = head.uri.path().to_owned();
        let mut asked = Asked { node, method: head.method, path, query, caller, may_write, body: Some(body) };
        route(&mut asked).await
    };
    answered.await.unwrap_or_else(Refusal::into_reply)
}

async fn route(asked: &mut Asked) -> Result<Reply, Refusal> {
    if let Some(path) = asked.path.strip_prefix("/towline/v0/").map(str::to_owned) {
        return own::route(asked, &path).await;
    }
    let Some(path) = asked.path.strip_prefix("/localapi/v0/").map(str::to_owned) else { return Err(not_found()) };
    if let Some(rest) = path.strip_prefix("profiles/") {
        return profiles(asked, rest);
    }
    if let Some(name) = path.strip_prefix("cert/").filter(|_| asked.method == Method::GET) {
        return certificate::answer(asked, name).await;
    }
    match (path.as_str(), asked.method.as_str()) {
        ("status", "GET") => {
            let peers = asked.query.get("peers").is_none_or(|peers| peers != "false");
            json_reply(&asked.snapshot().status(peers).await)
        }
        ("whois", "GET") => whois(asked),
        ("ping", "POST") => send_ping(asked).await,
        ("prefs", "GET") => json_reply(&asked.node.preferences()),
        ("prefs", "PATCH") => {
            asked.write()?;
            let masked = asked.json().await?;
            json_reply(&asked.node.edit_preferences(masked).await?)
        }
        ("check-prefs", "POST") => {
            asked.write()?;
            let error = Preferences::read(asked.json().await?).err().map(|error| error.to_string());
            json_reply(&json!({"Error": error.unwrap_or_default()}))
        }
        ("start", "POST") => start(asked).await,
        ("login-interactive", "POST") => {
            asked.write()?;
            asked.node.log_in().await?;
            Ok(done())
        }
        ("logout", "POST") => {
            asked.write()?;
            asked.node.log_out().await?;
            Ok(done())
        }
        ("watch-ipn-bus", "GET") => bus::stream(asked),
        ("derpmap", "GET") => {
            let snapshot = asked.snapshot();
            json_reply(&snapshot.mesh.netmap().map(|netmap| netmap.relays().as_ref()))
        }
        ("metrics" | "usermetrics", "GET") => own::metrics(asked).await,
        ("check-ip-forwarding", "GET") => json_reply(&json!({"Warning": own::forwarding_warning(asked)})),
        ("check-udp-gro-forwarding" | "check-so-mark-in-use" | "set-udp-gro-forwarding", _) => {
            json_reply(&json!({"Warning": "", "UseSOMark": asked.snapshot().tun}))
        }
        ("dns-config", "GET") => {
            let snapshot = asked.snapshot();
            json_reply(&snapshot.mesh.netmap().map(|netmap| netmap.dns().as_ref()))
        }
        ("cert-domains", "GET") => {
            let snapshot = asked.snapshot();
            json_reply(&snapshot.mesh.netmap().map(|netmap| netmap.dns().cert_domains.clone()).unwrap_or_default())
        }
        ("serve-config", "GET") => json_reply(&json!({})),
        ("reload-config", "POST") => json_reply(&json!({"Reloaded": false, "Err": ""})),
        ("goroutines", "GET") => Ok(text_reply("this daemon has no goroutines\n".to_owned())),
        _ => Err(not_found()),
    }
}

impl Asked {
    /// How the node stands, as far as the caller may know.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.node.snapshot().shown_to(self.may_write)
    }

    /// Lets only those on who may change something.
    pub(super) fn write(&self) -> Result<(), Refusal> {
        if self.may_write {
            return Ok(());
        }
        let text = "changing settings needs root or the user named with --operator: use sudo, or `sudo towline set --operator=$USER`";
        Err(Refusal::new(StatusCode::FORBIDDEN, text))
    }

    async fn bytes(&mut self) -> Result<Bytes, Refusal> {
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        let read = Limited::new(body, MAX_BODY).collect().await;
        let read = read.map_err(|error| match error.is::<LengthLimitError>() {
            true => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the request is longer than a megabyte"),
            false => Refusal::malformed(format!("the request broke off: {error}")),
        })?;
        Ok(read.to_bytes())
    }

    pub(super) async fn json(&mut self) -> Result<Value, Refusal> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        tailcfg::json::read(&bytes, tailcfg::json::Limits::REQUEST)
            .map_err(|error| Refusal::malformed(error.to_string()))
    }
}

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "this daemon does not serve that")
}

/// Who has an address: JSON of the protocol's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WhoisAnswer<'a> {
    node: &'a Peer,
    user_profile: &'a UserProfile,
    cap_map: &'a CapMap,
}

fn whois(asked: &Asked) -> Result<Reply, Refusal> {
    let text = asked.query.get("addr").ok_or_else(|| Refusal::malformed("missing 'addr' parameter"))?;
    let snapshot = asked.snapshot();
    let found = match text.parse::<crypto::NodePublic>() {
        Ok(key) => snapshot.mesh.whois_key(&key),
        Err(_) => {
            let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|at| at.ip()));
            let address = address
                .ok_or_else(|| Refusal::malformed(format!("invalid 'addr' parameter: {text:?} is no address")))?;
            snapshot.mesh.whois(address)
        }
    };
    let found = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no match for IP:port"))?;
    json_reply(&WhoisAnswer { node: &found.node, user_profile: &found.user, cap_map: &found.capabilities })
}

async fn send_ping(asked: &Asked) -> Result<Reply, Refusal> {
    asked.write()?;
    let address = asked.query.get("ip").and_then(|text| text.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Refusal::malformed("invalid 'ip' parameter"))?;
    let kind = asked.query.get("type").ok_or_else(|| Refusal::malformed("missing 'type' parameter"))?;
    let response = ping(kind, address, &asked.snapshot()).await;
    json_reply(&json!({
        "IP": response.ip,
        "NodeIP": response.node_ip,
        "NodeName": response.node_name,
        "Err": response.err,
        "LatencySeconds": response.latency_seconds,
        "Endpoint": response.endpoint,
        "PeerRelay": response.peer_relay,
        "DERPRegionID": response.derp_region_id,
        "DERPRegionCode": response.derp_region_code,
        "PeerAPIPort": response.peer_api_port,
        "PeerAPIURL": "",
        "IsLocalIP": response.is_local_ip,
    }))
}

/// `ipn.Options`: whole preferences, and an auth key.
async fn start(asked: &mut Asked) -> Result<Reply, Refusal> {
    asked.write()?;
    let mut options = asked.json().await?;
    let preferences = options.get_mut("UpdatePrefs").map(Value::take).filter(|value| !value.is_null());
    let key = options.get("AuthKey").and_then(Value::as_str).map(AuthKey::new);
    asked.node.begin(preferences, key).await?;
    Ok(done())
}

/// The settings of this node are the only ones; lists have one entry.
fn profiles(asked: &Asked, rest: &str) -> Result<Reply, Refusal> {
    let profile = asked.snapshot().profile.clone();
    let id = profile.get("ID").and_then(Value::as_str).unwrap_or_default().to_owned();
    match (rest, asked.method.as_str()) {
        ("", "GET") => json_reply(&json!([profile.as_ref()])),
        ("current", "GET") => json_reply(profile.as_ref()),
        (rest, "GET") if rest == id => json_reply(profile.as_ref()),
        (rest, "POST") if rest == id => {
            asked.write()?;
            Ok(done())
        }
        // Another profile than one that nobody has logged in to is that same one.
        ("", "PUT") if profile.get("NodeID").and_then(Value::as_str).is_none_or(str::is_empty) => {
            asked.write()?;
            Ok(with_headers(done(), StatusCode::CREATED, ""))
        }
        (_, "GET") => Err(Refusal::new(StatusCode::NOT_FOUND, "no such profile")),
        _ => {
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this daemon has one profile: log out to log in as another"))
        }
    }
}

/// Reads a query string.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(64);
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = parameters("ip=100.64.0.1&type=disco&x=%3A%zz+a&flag");
        assert_eq!((query["ip"].as_str(), query["x"].as_str(), query["flag"].as_str()), ("100.64.0.1", ":%zz a", ""));
    }
}
