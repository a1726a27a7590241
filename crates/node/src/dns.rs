//! MagicDNS: answers names of the tailnet, and passes every other question on. The node's own questions pass it by.

mod forward;
mod machine;
mod message;
mod server;

pub use machine::machine_resolver;
pub(crate) use server::{Served, Service};
