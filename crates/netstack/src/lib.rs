//! User-space TCP, UDP and ping over IP packets: what a node without a TUN device has in place of the kernel.
//!
//! What it does not do: touch a socket or a device, know peers or policy, dial a backend, or reassemble IP fragments (they
//! are dropped and counted; a datagram beyond the MTU is refused). Which packets may come in is the filter's business,
//! where a connection goes on to is the caller's.
//!
//! One [`Stack`] has the five verbs: packets go in by [`Stack::handle_packet`], come out by [`Stack::poll_transmit`], time
//! passes by [`Stack::handle_timeout`], and [`Stack::poll_event`] says what became possible. It serves its own addresses
//! and, where a listener says [`Destination::Any`], every address: that is a subnet router or an egress proxy in user
//! space.
//!
//! - A TCP client is asked for before it is answered: its SYN becomes [`Event::Incoming`], and the handshake goes on when
//!   the caller calls [`Stack::accept`], typically after it reached the backend; [`Stack::refuse`] answers with a reset.
//! - Packets are made when they are fetched, not before, so that a slow link slows the senders and no queue grows.
//! - With [`Config::offload`] TCP over IPv4 leaves as super-packets of up to 64 KiB ([`Transmit::segment`]), which the
//!   data plane splits while it encrypts; [`Transmit::split`] does it for everybody else. Coalesced segments may come in.
//!
//! Invariants:
//!
//! - Nothing that arrives makes memory grow beyond [`Config`]'s bounds: connections, unanswered handshakes (also per
//!   source), windows (from one budget), ended connections, flows and their queues each have one.
//! - Loopback, multicast, broadcast, link-local and unspecified addresses are never a source or destination.
//! - The cost of a packet does not depend on how many connections there are.
//!
//! TCP itself is smoltcp's, one socket to a set so that nothing is searched; no type of it is in this crate's interface.
//! Its congestion control is CUBIC (RFC 9438). It sends no selective retransmissions, begins with two segments, and its
//! least retransmission time is one second: after several losses in one window it is slower than a kernel.

#![forbid(unsafe_code)]

mod address;
mod config;
mod event;
mod icmp;
mod listeners;
mod outbox;
mod stack;
mod tcp;
mod transmit;
mod udp;

pub use config::Config;
pub use event::{Closed, Counters, Event, Ping};
pub use listeners::{Destination, Listen, Listener};
pub use stack::{Checksums, Stack};
pub use tcp::{AcceptError, Connection, DialError, Read, WriteError};
pub use transmit::Transmit;
pub use udp::{BindError, Datagram, SendError, UdpSocket};
