//! The side of the server that nodes speak to: the ts2021 upgrade, the Noise channel, HTTP/2 within it, and the requests.
//!
//! ```text
//! POST /ts2021 ─ upgrade ─▶ Connection (Noise, early payload, HTTP/2)
//!                             ├─ POST /machine/register ─▶ Coordinator::register   (held while a login is pending)
//!                             ├─ POST /machine/map      ─▶ Coordinator::map ─▶ MapStream (long poll) or nothing (lite)
//!                             └─ the other /machine/…
//! ```
//!
//! A caller has proven that it holds a machine key, and nothing else. Which node it may speak for is the
//! [`Coordinator`]'s to check, on every request.

mod body;
mod caller;
mod connection;
mod entrance;
mod map_stream;
#[cfg(test)]
mod nobody;
mod refusal;
mod requests;
mod ssh;
mod upgrade;
mod websocket;

pub(crate) use caller::Caller;
pub(crate) use connection::{Connection, ConnectionLimits};
pub(crate) use entrance::Entrance;
pub(crate) use map_stream::MapSource;
#[cfg(test)]
pub(crate) use nobody::Nobody;
pub(crate) use refusal::Refusal;
pub(crate) use requests::{Coordinator, MapAnswer};
pub(crate) use ssh::SshLogin;
pub(crate) use upgrade::UPGRADE_PROTOCOL;
