//! The relay.
//!
//! A connection passes, in this order: the gate of its source ([`accept`]), TLS, the head of its HTTP request ([`http`]),
//! the handshake that proves its key and the question whether it is admitted ([`handshake`], [`admission`]), and is then a
//! session ([`session`]) that the hub ([`hub`]) knows by its key. Each step has a deadline and gives back what it held.
//!
//! A packet passes: the read buffer of its sender's thread, one lookup in the hub (none when it goes where the last one
//! went), the receiver's queue ([`outbox`]), and one vectored write of all that waits there.

mod accept;
mod admission;
mod arguments;
mod bootstrap_dns;
mod certificate;
mod config;
mod handshake;
mod http;
mod hub;
mod key_file;
mod mesh;
mod metrics;
mod outbox;
mod run;
mod second_counts;
mod serve;
mod session;
mod shared;
mod stun;

pub use admission::AdmissionConfig;
pub use arguments::Arguments;
pub use config::{Config, Limits, MeshConfig};
pub use key_file::KeyFileError;
pub use listen::CertificateFiles;
pub use mesh::{MeshKey, MeshKeyError};
pub use run::{Server, run};
pub use stun::StunLimits;

pub use crate::https::{ServerUrl, ServerUrlError};
