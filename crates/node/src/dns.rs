//! MagicDNS: answers names of the tailnet, and passes every other question on.

mod forward;
mod message;
mod server;

pub(crate) use server::{Served, Service};
