//! The packet filter of a node: rules as the control protocol sends them, compiled into one value that answers for
//! every packet.
//!
//! A [`Filter`] is made once per netmap from [`Rule`]s and the ranges that are [`Local`] to the node; it never changes
//! afterwards and is shared between threads. A [`Flow`] is what a packet says about itself; [`Filter::judge`] gives the
//! [`Verdict`] for an inbound one, with the reason. What a node sends out is always allowed: [`FlowTable`] remembers it,
//! so that answers to UDP and SCTP come back in.
//!
//! Invariants:
//! - One rule that can't be understood voids the whole filter ([`FilterError`]); who gets that error blocks everything
//!   ([`Filter::blocking`]). A filter is never weaker than the rules it came from.
//! - The same filter answers for packets, for capabilities ([`Filter::capabilities`]) and for people
//!   ([`Filter::explain`]).
//! - Lookups cost the logarithm of the rules' size, not their number, and allocate nothing.
//!
//! What it does not do: parse packets, count hits, read a clock, or know peers. Whoever asks says what stands behind a
//! source address ([`Standing`]).

#![forbid(unsafe_code)]

mod capability;
mod compile;
mod explain;
mod flow;
mod index;
mod judge;
mod local;
mod range;
mod rule;
mod sparse;
mod table;

pub use capability::{CapMap, RawJson};
pub use compile::{Filter, FilterError};
pub use explain::{Explanation, Lack, NearMiss};
pub use flow::{Flow, Payload, Protocol};
pub use judge::{Pass, Refusal, Standing, Verdict};
pub use local::Local;
pub use range::{AddressRange, RangeError};
pub use rule::{CapGrant, DstPort, PortRange, Rule, Source};
pub use table::FlowTable;
