use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use crypto::{Entropy, SystemEntropy};
use futures_util::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::access::Standing;
use super::reply::{Refusal, Reply, with_headers};
use super::routes::Asked;
use crate::daemon::{Notice, network_map, notice_of};
use crate::node::{Node, WeakNode};
use crate::snapshot::Snapshot;

const INITIAL_STATE: u64 = 1 << 1;
const INITIAL_PREFERENCES: u64 = 1 << 2;
const INITIAL_NETMAP: u64 = 1 << 3;
const INITIAL_HEALTH: u64 = 1 << 7;
const NO_NETMAP: u64 = 1 << 13;
const INITIAL_STATUS: u64 = 1 << 14;
/// What is for those who may change the node.
const CLOSED: u64 = INITIAL_PREFERENCES | INITIAL_NETMAP;

/// A listener of the bus.
struct Watcher {
    mask: u64,
    caller: Option<u32>,
    notices: Receiver<Arc<Notice>>,
    node: WeakNode,
    /// What is said of how things stand before anything new.
    first: Option<u64>,
}

/// Tells what changes for as long as the caller listens: one JSON object a line.
pub(super) fn stream(asked: &Asked) -> Result<Reply, Refusal> {
    let mask = match asked.query.get("mask") {
        Some(text) => text.parse().map_err(|_| Refusal::malformed("bad mask"))?,
        None => 0,
    };
    if mask & CLOSED != 0 {
        asked.write()?;
    }
    let (caller, notices) = (asked.caller, asked.node.bus());
    let watcher = Watcher { mask, caller, notices, node: asked.node.weak(), first: Some(mask) };
    let lines = stream::unfold(watcher, |mut watcher| async move {
        let line = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), watcher))
    });
    let reply = Response::new(StreamBody::new(lines).boxed_unsync());
    Ok(with_headers(reply, StatusCode::OK, "application/json"))
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(mask) = self.first.take() {
                let node = self.node.get()?;
                return Some(line(&initial(mask, node.snapshot(), self.may_write(&node))));
            }
            match self.notices.recv().await {
                Ok(notice) => {
                    if self.mask & NO_NETMAP != 0 && notice.has_map() {
                        continue;
                    }
                    if let Some(shown) = notice.shown_to(self.may_write(&self.node.get()?)) {
                        return Some(line(shown));
                    }
                }
                // Who could not keep up is told how things stand, in place of what was missed.
                Err(RecvError::Lagged(_)) => {
                    self.first = Some(INITIAL_STATE | INITIAL_PREFERENCES | (self.mask & NO_NETMAP));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Asked for each notice: a user who is the operator no more goes on listening as everybody does.
    fn may_write(&self, node: &Node) -> bool {
        Standing::at(self.caller, node).may_write()
    }
}

/// How things stand, as far as the listener wants to know and may.
fn initial(mask: u64, snapshot: Arc<Snapshot>, may_write: bool) -> Value {
    let mask = if may_write { mask } else { mask & !CLOSED };
    let snapshot = snapshot.shown_to(may_write);
    let session = SystemEntropy.bytes32().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut fields = json!({"SessionID": session});
    if mask & INITIAL_STATE != 0 {
        fields["State"] = json!(snapshot.state.number());
        if let Some(url) = &snapshot.auth_url {
            fields["BrowseToURL"] = json!(url);
        }
        if let Some(error) = &snapshot.login_error {
            fields["ErrMessage"] = json!(error);
        }
    }
    if mask & INITIAL_PREFERENCES != 0 {
        fields["Prefs"] = json!(snapshot.mesh.preferences());
    }
    if mask & INITIAL_NETMAP != 0
        && mask & NO_NETMAP == 0
        && let Some(map) = network_map(&snapshot)
    {
        fields["NetMap"] = map;
    }
    if mask & INITIAL_HEALTH != 0 {
        fields["Health"] = json!({"Warnings": {}});
    }
    if mask & INITIAL_STATUS != 0 {
        let live = mesh::LiveStatus {
            version: crate::VERSION.to_owned(),
            state: snapshot.state,
            ..mesh::LiveStatus::default()
        };
        fields["InitialStatus"] = json!(snapshot.mesh.status(&live, true));
    }
    notice_of(fields)
}

fn line(notice: &Value) -> Bytes {
    Bytes::from(format!("{notice}\n"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mesh::{BackendState, Mesh, Preferences};
    use tailcfg::RegionId;

    use super::*;
    use crate::snapshot::Ledgers;

    /// A node that waits for a login.
    fn waiting() -> Arc<Snapshot> {
        let mesh = Mesh::new(Preferences::default(), Timestamp::UNIX_EPOCH);
        Arc::new(Snapshot {
            state: BackendState::NeedsLogin,
            auth_url: Some("https://control.example/a/1".to_owned()),
            login_error: None,
            control_error: None,
            names: Arc::new(mesh.names()),
            mesh: Arc::new(mesh),
            health: Vec::new(),
            open_health: Vec::new(),
            node_key: None,
            home: RegionId::NONE,
            endpoints: Vec::new(),
            tun: false,
            hostname: String::new(),
            engine: None,
            ledgers: Ledgers::default(),
            profile: Arc::new(Value::Null),
        })
    }

    #[test]
    fn a_reader_is_told_of_the_state_and_of_nothing_that_is_for_others() {
        let told = |may_write| initial(!NO_NETMAP, waiting(), may_write);
        let (reader, writer) = (told(false), told(true));
        assert_eq!((&reader["State"], &writer["State"]), (&json!(2), &json!(2)));
        assert_eq!(writer["BrowseToURL"], "https://control.example/a/1");
        assert!(writer["Prefs"].is_object());
        assert!(reader.get("BrowseToURL").is_none() && reader.get("Prefs").is_none(), "{reader}");
    }
}
