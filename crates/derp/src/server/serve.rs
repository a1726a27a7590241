//! A connection from its first frame to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use listen::Place;
use packet::derp::Limits;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::handshake::{self, HandshakeError};
use super::metrics::RefusedReason;
use super::outbox::Ending;
use super::session::Session;
use super::shared::Shared;
use crate::link::Link;
use crate::wire::Wire;

/// A connection that has proven nothing yet.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) source: SocketAddr,
    /// Until when it must have proven a key.
    pub(crate) deadline: Instant,
    /// Whether the client would not rather be at another relay of the region.
    pub(crate) is_ideal: bool,
    pub(crate) place: Place,
    /// Counts the connection among those that a stopping relay waits for.
    pub(crate) token: TaskTrackerToken,
}

/// Serves a client until its connection is over.
pub(crate) async fn serve_client(shared: Arc<Shared>, wire: Wire, input: Bytes, newcomer: Newcomer) {
    let Newcomer { source, deadline, is_ideal, mut place, token: _token } = newcomer;
    let mut link = Link::new(wire, input, Limits::UNPROVEN_CLIENT);
    // Boxed, so that the task does not carry the handshake's states for the days that a session may last.
    let handshake = Box::pin(handshake::shake_hands(&shared, &mut link, source));
    let proven = match tokio::time::timeout_at(deadline, handshake).await.unwrap_or(Err(HandshakeError::TimedOut)) {
        Ok(proven) => proven,
        Err(error) => {
            let refused = matches!(error, HandshakeError::Refused(_));
            shared.metrics.refuse(if refused { RefusedReason::Admission } else { RefusedReason::Handshake });
            tracing::debug!(%source, %error, "turned a client away");
            return;
        }
    };
    let mut flags = proven.flags;
    if !is_ideal {
        flags.0 |= packet::derp::PresenceFlags::NOT_IDEAL.0;
    }
    if !shared.admission.is_open() {
        place.release_source();
    }
    let (presence, connection) = shared.hub.register(proven.key, source, flags);
    // A key that was revoked while its client shook hands was not there to be disconnected.
    let is_mesh_peer = proven.flags == packet::derp::PresenceFlags::MESH_PEER;
    if !is_mesh_peer && !shared.admission.still_admits(&proven.key) {
        connection.outbox.end(Ending::Revoked);
    }
    let key = proven.key.short();
    tracing::debug!(node = key, %source, "client connected");
    let end = Session::new(shared, link, presence, connection, place, is_mesh_peer).run().await;
    tracing::debug!(node = key, %end, "client disconnected");
}
