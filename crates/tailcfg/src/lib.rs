//! The control protocol's JSON, exactly as the wire has it.
//!
//! A node and a coordination server talk JSON inside a Noise channel. This crate is that vocabulary for both of them:
//! every type serializes to what stock peers read and deserializes what stock peers write. It follows the encoding
//! rules of Go, where the protocol comes from (see [`go`]): unknown fields are ignored, `null` reads as the zero value,
//! the zero time means "never", prefixes are text, bytes are base64, and integer map keys are decimal strings.
//!
//! Where absence, `null` and an empty list differ in meaning, the types say so: [`MapResponse::packet_filter`] is
//! `None` for "unchanged" and `Some` of nothing for "block everything"; in [`MapResponse::packet_filters`] a name with
//! `None` deletes that chunk.
//!
//! - Joining: [`RegisterRequest`], [`RegisterResponse`]; before it [`ServerKeys`] and [`EarlyPayload`].
//! - Staying: [`MapRequest`], [`MapResponse`], framed and compressed by [`frame`].
//! - What a map carries: [`Node`], [`PeerChange`], [`DerpMap`], [`DnsConfig`], [`UserProfile`], [`FilterRule`],
//!   [`SshPolicy`], [`PingRequest`].
//! - Other requests of a node: [`request`]; requests of the server to a node: [`c2n`].
//! - Limits on what a hostile peer may send: [`json`] and [`frame`].
//!
//! What it does not do: decide anything, hold connections, verify keys. No I/O and no clock.

#![forbid(unsafe_code)]

pub mod c2n;
mod capability;
mod derp;
mod dns;
pub mod frame;
pub mod go;
mod greeting;
mod hostinfo;
mod id;
pub mod json;
mod map;
mod node;
mod notice;
mod ping;
mod register;
pub mod request;
mod ssh;
mod user;

pub use capability::{CapabilityVersion, Encoded, cap};
pub use derp::{DerpAddress, DerpHomeParams, DerpMap, DerpNode, DerpRegion};
pub use dns::{DnsConfig, DnsRecord, Resolver};
pub use filter::{CapGrant, CapMap, DstPort, PortRange, RawJson, Rule as FilterRule};
pub use go::Time;
pub use greeting::{EarlyPayload, EarlyPayloadError, ServerKeys};
pub use hostinfo::{Hostinfo, Location, NetInfo, Service};
pub use id::{NodeId, RegionId, StableNodeId, UserId};
pub use map::{EndpointType, MapRequest, MapResponse};
pub use node::{Node, PeerChange};
pub use notice::{
    ClientVersion, ControlCandidate, ControlDialPlan, Debug, DisplayMessage, DisplayMessageAction, LockStatus,
};
pub use ping::{PingRequest, PingResponse};
pub use register::{RegisterAuth, RegisterRequest, RegisterResponse, TailnetLockKey};
pub use ssh::{SshAction, SshPolicy, SshPrincipal, SshRecorderFailureAction, SshRule};
pub use user::{Login, User, UserProfile};
