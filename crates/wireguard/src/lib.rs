//! WireGuard without sockets, clock or threads: handshakes, timers and cookies in one machine, transport as key handles.
//!
//! [`Interface`] is a node's side of every tunnel: it turns datagrams, time and "somebody wants to send" into
//! handshakes, and hands out the keys of each session. It never touches a packet of traffic. [`SendKey`] and
//! [`RecvKey`] are what the data threads hold: they seal and open in place, in batches, without a lock.
//!
//! ```text
//!      datagrams of types 1-3 ──▶ Interface ──▶ Transmit: handshake messages, keepalives
//!                                    │  ▲
//!             Event::{Receive, Send} │  │ Activity (atomics), Opened::confirms
//!                                    ▼  │
//!   packets ──▶ SendKey::begin ── Sealing::seal ──▶ datagrams of type 4
//!   packets ◀── Opening::open ── RecvKey::begin ◀── datagrams of type 4
//! ```
//!
//! What it does not do:
//! - **Know where a peer is.** There is no endpoint in here and nothing roams. [`Event::Authenticated`] and the owner of
//!   a [`RecvKey`] say that a message from a [`Source`] was a peer's; which path to use is another crate's decision.
//! - **Know who may be a peer.** An initiation names its sender ([`PendingInitiation::peer`]) before any state is made;
//!   the owner looks that key up and calls [`Interface::accept`], or drops it. Silent peers are forgotten.
//! - **Hold packets.** Who has one and no key calls [`Interface::handle_wanted`] and waits for [`Event::Send`].
//! - **Read a packet.** A payload comes out as it was padded; which inner addresses a peer may use is not asked here.
//!
//! Invariants:
//! - No counter of a [`SendKey`] seals twice, and none at or past [`limits::REJECT_AFTER_MESSAGES`].
//! - No receive state moves before a tag has verified. A window has one owner: [`RecvKey`] can't be cloned.
//! - A session that is over seals and opens nothing, even in the hands of a thread that hasn't heard yet.
//! - One source can't drive others into cookie mode, and no datagram makes state that outlives its source's due.
//!
//! Call [`Interface::poll_event`] until it is empty, then [`Interface::poll_transmit`], after every `handle_*`: a
//! receive key must be in place before the message that invites its use is sent.

#![forbid(unsafe_code)]

mod admission;
mod event;
mod indices;
mod interface;
pub mod limits;
mod source;
mod transport;
mod tunnel;

pub use event::{Destination, Discard, Event, Transmit};
pub use interface::{Interface, Moment, PeerConfig, PendingInitiation, TunnelStatus};
pub use source::Source;
pub use transport::{OpenError, Opened, Opening, RecvKey, SealError, Sealing, SendKey, SessionOver, Traffic};
