//! A kube-apiserver with its etcd on loopback ports, for tests.
//!
//! [`ApiServer::start`] gives one with real admission, real RBAC and the users that a test names. The programs come from
//! the cache that `cargo xtask fetch` fills; a missing one is an error, not a reason to pass.
//!
//! What it does not do: run a kubelet or a controller, which tests play; know a client library, so that crates which may
//! not name one can use it.
//!
//! Invariants:
//! - Both programs end with the [`ApiServer`], and with the thread that started them: it has to be one that lasts.
//! - Nothing is kept: each has a folder of its own, which goes with it.

#![forbid(unsafe_code)]

mod credentials;
mod program;
mod server;

pub use credentials::{ADMINISTRATOR, User};
pub use program::{Running, program};
pub use server::ApiServer;
