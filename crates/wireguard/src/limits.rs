//! Every number that bounds a tunnel: the protocol's own (whitepaper, section 6.1), then this implementation's.

use std::time::Duration;

/// Age at which the initiator of a session that sends asks for the next one.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a session seals and opens nothing any more.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// How long a handshake is retried.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Least time between two initiations to one peer.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that chance adds to the time between two initiations, so that two peers don't keep crossing.
pub const REKEY_JITTER: Duration = Duration::from_millis(333);
/// How long a peer that received data waits for something to send before it sends an empty message.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cookie is good for, and how long a secret makes new ones.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
/// Messages after which either side asks for the next session.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// The first counter that is neither sealed nor opened.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// How far behind the newest counter of a session a message may be. Trains of 64 segments reorder by whole trains.
pub const REPLAY_WINDOW: u64 = 8192;

/// Handshakes per second from one source that says nothing to prove it, and as many again from it once proven.
pub const HANDSHAKES_PER_SOURCE: u32 = 20;
/// Handshakes per second from all unproven sources together: a twentieth of a core in Diffie-Hellman.
pub const UNPROVEN_HANDSHAKES: u32 = 500;
/// How many of those may come at once: every peer of a large tailnet after a restart.
pub const UNPROVEN_BURST: u32 = 1000;
/// Sources whose rate is kept. Only those with a handshake in the last second need a place.
pub const SOURCES: usize = 8192;
/// Least time between two handshakes that one proven peer begins.
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// Messages that may wait for [`poll_transmit`](crate::Interface::poll_transmit) before cookie replies are dropped.
pub const WAITING_TRANSMITS: usize = 256;
/// How often a live tunnel looks at what the data threads did. Every timer that follows from it is longer.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same once a session of this side's making is due for the next one.
pub(crate) const LOOK_INTERVAL_WHEN_OLD: Duration = Duration::from_secs(1);
