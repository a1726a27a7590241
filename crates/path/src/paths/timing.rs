//! Every time and count that the choice of paths goes by.
//!
//! What the stock nodes of this protocol do in the same situation has the same value here, so that neither side of a
//! mixed pair waits for the other. The second half is our own: it makes failover faster and hostile peers cheaper.

use std::time::Duration;

/// Between pings to the path in use, while packets are sent.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long a pong, or an authenticated packet, vouches for a path.
pub(super) const TRUST: Duration = Duration::from_millis(6500);
/// How long after the last packet sent a session is kept warm.
pub(super) const SESSION_ACTIVE: Duration = Duration::from_secs(45);
/// Between two pings to one candidate.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long a pong is waited for.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between searches for a better path than one that works.
pub(super) const UPGRADE_INTERVAL: Duration = Duration::from_secs(60);
/// A path of this latency needs no better one.
pub(super) const GOOD_ENOUGH: Duration = Duration::from_millis(5);
/// How old this node's own endpoints may be when a peer is told them.
pub(super) const ENDPOINTS_FRESH: Duration = Duration::from_secs(27);
/// How long an endpoint that a ping came from is remembered, and the state of a session that is not used.
pub(super) const OBSERVED: Duration = Duration::from_secs(310);
/// How long a peer without disco may be silent before its next endpoint is tried.
pub(super) const PLAIN_TRUST: Duration = Duration::from_secs(5);

/// Packets sent and nothing heard for this long: the path is checked.
pub(super) const SILENCE: Duration = Duration::from_millis(750);
/// Between pings of a check.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The least and the most time that a check is given: with [`SILENCE`] before it the relay takes over within 3 s.
pub(super) const MIN_PATIENCE: Duration = Duration::from_millis(500);
pub(super) const MAX_PATIENCE: Duration = Duration::from_millis(1500);
/// The least time for a check that the peer itself gave the reason for.
pub(super) const MIN_HINT_PATIENCE: Duration = Duration::from_millis(250);
/// Between checks that the peer gives the reason for.
pub(super) const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// Between pings to a path whose trust has lapsed.
pub(super) const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// A search without result is repeated every [`PING_INTERVAL`] for so long, …
pub(super) const EAGER_SEARCH: Duration = Duration::from_secs(60);
/// … and then at this interval, so that a path that opens again is found in less than 30 s even if one round is lost.
pub(super) const PATIENT_INTERVAL: Duration = Duration::from_secs(14);
/// Between two searches, whatever asks for them.
pub(super) const SEARCH_GAP: Duration = Duration::from_secs(1);
/// For so long after they were learned this node's endpoints are not learned anew, whatever path fails. Less than
/// [`PING_INTERVAL`]: the second round of a search finds them older.
pub(super) const ENDPOINTS_CERTAIN: Duration = Duration::from_secs(4);
/// How long this node waits for its endpoints before it asks for them again.
pub(super) const ENDPOINTS_PATIENCE: Duration = Duration::from_secs(10);

/// Pings that one peer can cause out of turn: so many at once, …
pub(super) const PROVOKED_BURST: u32 = 64;
/// … and one more each time this passes (32 in 5 s).
pub(super) const PROVOKED_REFILL: Duration = Duration::from_micros(156_250);
/// Candidates that only a ping vouches for.
pub(super) const MAX_OBSERVED: usize = 8;
/// Pings to one peer that wait for a pong.
pub(super) const MAX_OUTSTANDING: usize = 128;
/// Pings to one peer that users wait for.
pub(super) const MAX_USER_PINGS: usize = 16;
/// Peers whose timers run in one call.
pub(super) const PEERS_PER_TIMEOUT: usize = 64;
/// Packets that wait to be fetched; one more is dropped, as a full socket would.
pub(super) const MAX_TRANSMITS: usize = 8192;
/// Nodes that share one disco key and are asked whether a pong is theirs.
pub(super) const MAX_SHARING: usize = 64;
