//! The data plane of a running node: threads that move packets, UDP sockets, sessions and relay connections.
//!
//! An [`Engine`] joins a packet [`Device`] to the peers of a [`mesh::View`]. Packets pass two threads that run each to
//! its end; everything that is not a packet of traffic is the control thread's:
//!
//! ```text
//!   Device ──read──▶ TX: route, flow, split into a train, seal in place ──▶ UDP_SEGMENT ──▶ socket
//!                                                            └──▶ queue of a relay
//!   Device ◀─write── RX: open in place, replay, coalesce, source, filter ◀── socket (GRO), frames of relays
//!                       │ handshakes, disco, STUN, TSMP            ▲ keys, paths: one slot a peer
//!                       └──────▶ control: wireguard, path, netcheck, relays, ping ──┘
//! ```
//!
//! What it does not do: change anything of the host (no interface, route, rule or name setting), speak to the
//! coordination server, or decide what is in a view. Who owns an engine tells it the machine's addresses.
//!
//! Invariants:
//!
//! - A packet is let in only when its session's peer owns its source address (longest prefix over all peers) and the
//!   filter accepts it. What can't be read is dropped.
//! - A data thread waits for nothing but its own device and sockets, and allocates nothing for a packet. Packets that
//!   wait for a handshake are the exception: bounded for each peer and altogether, the oldest dropped first.
//! - The replay window of a session has one owner, the RX thread, whichever way a message came.
//! - A view is swapped as a whole; keys and path of one peer singly. A thread loads both after it has read.
//! - Every queue is bounded, and what is dropped is counted ([`Counters`]).

mod config;
mod control;
mod counters;
mod device;
mod engine;
mod event;
mod flows;
mod pipeline;
mod slots;
mod sockets;
mod status;

pub use config::{Config, Offloads, StartError};
pub use counters::Counters;
pub use derp::client::{Proxy, SocketSetup};
pub use device::{Device, PacketQueue, QueueDevice, SuperPacket, VNET_HEADER};
pub use dial::{Ledger, Resolve, Roots};
pub use engine::Engine;
pub use event::{Event, Events, Problem};
pub use flows::{Flow, Initiator, MeshFlow, PhysicalFlow, Refused, Volume};
pub use path::{Answer, Endpoint, EndpointKind, NatKind, PathChoice, RegionId, Report, Via};
pub use status::{Netcheck, PeerStatus, PingError, PingKind, Pong, Status, Stopped};
