//! The coordination server: lets devices join tailnets, tells each what it may know of the others, and keeps all of it.
//!
//! ```text
//! nodes ──▶ Listener ─▶ web (/key, /ts2021) ─▶ machine (Noise, HTTP/2) ─┐
//! people ─▶    "     ─▶ pages (signing in)                              ├─▶ Coordination ─▶ tailnet::Server
//! programs ▶   "     ─▶ rest (REST API v2)                              ┘        └────────▶ Store (SQLite)
//! relays ─▶    "     ─▶ web (/relay/admission, /verify)
//! ```
//!
//! [`Arguments`] is what is typed, [`Config`] what is resolved, [`run`] the server; [`init`] sets one up.
//!
//! Invariants:
//! - What is answered was written: one transaction per decision, made one at a time. What somebody did stands in a log
//!   of bounded size. When the database can't be written, nothing changes and maps are still served.
//! - A Noise channel proves a machine key and nothing else. Machine key, node key, tenant and user are checked together,
//!   by one function, for every request.
//! - Everything that a stranger sends is bounded in size, time and number before anything is done with it.
//! - Secrets are kept as hashes, or in files that only their owner may read.
//!
//! What it does not do: decide (crate `tailnet`), understand policy (crate `policy`), name operations of the REST API
//! (crate `api`), or relay traffic (crate `derp`).

#![forbid(unsafe_code)]

mod arguments;
mod authority;
mod clock;
mod config;
mod coordination;
mod files;
mod folder;
mod init;
mod listener;
mod machine;
mod metrics;
mod noise;
mod origin;
mod pages;
mod password;
mod rate;
mod rest;
mod serve;
mod session;
mod sign_in;
mod store;
mod web;

pub use arguments::{Arguments, execute};
pub use authority::AuthorityError;
pub use config::{Config, ConfigError, ServerUrl};
pub use files::FileError;
pub use init::{
    FirstTailnet, Initialized, NewServer, Standing, add_tailnet, init, relay_map, reset_password, standing, told,
};
pub use listen::{CertificateError, CertificateFiles};
pub use noise::NoiseStream;
pub use origin::TrustedProxies;
pub use password::PasswordError;
pub use serve::{Running, run};
pub use store::StoreError;
