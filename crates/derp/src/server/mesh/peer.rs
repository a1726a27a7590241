use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use packet::derp::PresenceFlags;
use telemetry::Shutdown;

use super::{MeshKey, Remote};
use crate::client::{Connection, ConnectionError, Dialer, Event, Options, Relay};
use crate::server::outbox::Outbox;
use crate::server::shared::Shared;

/// Between two attempts to reach another relay of the mesh.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps a connection to another relay of the mesh, and the ways to its clients, until shutdown.
///
/// Ends early when the other relay turns out to be this one: a list of relays may be the same on all of them.
pub(crate) async fn keep_meshed(shared: Arc<Shared>, dialer: Dialer, relay: Relay, key: MeshKey, shutdown: Shutdown) {
    let options = Options { mesh_key: Some(key), app_name: "towline mesh".to_owned(), ..Options::default() };
    loop {
        let opened = tokio::select! {
            () = shutdown.requested() => return,
            opened = Connection::open(&dialer, &relay, &shared.key, &options) => opened,
        };
        match opened {
            Ok(connection) if connection.server_key() == shared.public => {
                tracing::debug!(relay = relay.host, "a relay of the mesh is this one");
                return;
            }
            Ok(connection) => {
                tracing::info!(relay = relay.host, "meshed");
                let ended = tokio::select! {
                    () = shutdown.requested() => return,
                    ended = forward(&shared, connection) => ended,
                };
                tracing::warn!(relay = relay.host, error = %ended, "the connection of the mesh ended");
            }
            Err(error) => tracing::warn!(relay = relay.host, %error, "a relay of the mesh can't be reached"),
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Carries packets to a relay until the connection ends.
async fn forward(shared: &Shared, mut connection: Connection) -> ConnectionError {
    let ways = Ways::new(shared);
    // The queue is empty: there is room for the first frame.
    let _queued = connection.watch();
    loop {
        match std::future::poll_fn(|cx| poll(&mut connection, &ways.remote.outbox, cx)).await {
            Ok(Event::PeerPresent { peer, flags, .. }) => {
                let is_relay = flags.0 & PresenceFlags::MESH_PEER.0 != 0;
                if !is_relay && peer != shared.public {
                    shared.hub.forwarders.add(peer, &ways.remote);
                }
            }
            Ok(Event::PeerGone { peer, .. }) => shared.hub.forwarders.remove(&peer, &ways.remote),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn poll(connection: &mut Connection, outbox: &Outbox, cx: &mut Context<'_>) -> Poll<Result<Event, ConnectionError>> {
    loop {
        let mut waits = false;
        while connection.has_room() && !waits {
            waits = outbox.take(1, usize::MAX, cx.waker(), |frame| connection.push(frame)).count == 0;
        }
        let event = connection.poll_next(cx);
        // Room that came of writing is used at once: nobody else would wake this task for it.
        if event.is_ready() || waits || !connection.has_room() {
            return event;
        }
    }
}

/// The ways to a relay's clients, which end with the connection.
struct Ways<'a> {
    shared: &'a Shared,
    remote: Arc<Remote>,
}

impl<'a> Ways<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, remote: Arc::new(Remote::default()) }
    }
}

impl Drop for Ways<'_> {
    fn drop(&mut self) {
        self.shared.hub.forwarders.remove_all(&self.remote);
    }
}
