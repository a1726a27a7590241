//! What every server of ours shares where connections come in: how many a stranger may hold, the certificate that is
//! shown, and the sockets that listen.
//!
//! - [`Places`] bounds the connections of each source and of all together. A [`Place`] is one connection's, for as long
//!   as it lives; a server that lets a connection in without one has no bound.
//! - [`ServerCertificate`] is read from files, and again when they change; a broken change leaves the old one in use.
//! - [`tcp`] and [`udp`] open sockets of both address families, or of IPv4 alone where the machine has no other.
//!
//! What it does not do: accept. Each server has its own pace, its own time limits and its own word for who is refused.

#![forbid(unsafe_code)]

mod certificate;
mod places;
mod socket;

pub use certificate::{CertificateError, CertificateFiles, ServerCertificate};
pub use places::{Full, Place, Places, network, site};
pub use socket::{ListenError, tcp, udp};
