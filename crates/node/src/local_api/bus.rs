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

use super::reply::{Refusal, Reply, with_headers};
use super::routes::Asked;
use crate::daemon::{network_map, notice_of};
use crate::node::{Node, WeakNode};
use crate::snapshot::Snapshot;

const INITIAL_STATE: u64 = 1 << 1;
const INITIAL_PREFERENCES: u64 = 1 << 2;
const INITIAL_NETMAP: u64 = 1 << 3;
const INITIAL_HEALTH: u64 = 1 << 7;
const NO_NETMAP: u64 = 1 << 13;
const INITIAL_STATUS: u64 = 1 << 14;

/// A listener of the bus.
struct Watcher {
    mask: u64,
    notices: Receiver<Arc<Value>>,
    node: WeakNode,
    /// What is said before anything new.
    first: Option<Value>,
}

/// Tells what changes for as long as the caller listens: one JSON object a line.
pub(super) fn stream(asked: &Asked) -> Result<Reply, Refusal> {
    let mask = match asked.query.get("mask") {
        Some(text) => text.parse().map_err(|_| Refusal::malformed("bad mask"))?,
        None => 0,
    };
    // Preferences and login URLs are for those who may use them.
    if mask & (INITIAL_PREFERENCES | INITIAL_NETMAP) != 0 && !asked.may_write {
        asked.write()?;
    }
    let notices = asked.node.bus();
    let first = Some(initial(mask, &asked.node));
    let watcher = Watcher { mask, notices, node: asked.node.weak(), first };
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
            if let Some(first) = self.first.take() {
                return Some(line(&first));
            }
            match self.notices.recv().await {
                Ok(notice) => {
                    let hidden = self.mask & NO_NETMAP != 0 && notice.get("NetMap").is_some();
                    if !hidden {
                        return Some(line(&notice));
                    }
                }
                // Who could not keep up is told how things stand, in place of what was missed.
                Err(RecvError::Lagged(_)) => {
                    let node = self.node.get()?;
                    self.first = Some(initial(INITIAL_STATE | INITIAL_PREFERENCES | (self.mask & NO_NETMAP), &node));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// How things stand, as far as the listener wants to know.
fn initial(mask: u64, node: &Node) -> Value {
    let snapshot: Arc<Snapshot> = node.snapshot();
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
