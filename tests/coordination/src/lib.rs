//! A coordination server that does what a test says, on loopback.
//!
//! A node under test registers with a [`Server`] and follows its map, over the real channel. The [`Script`] says what the
//! server answers, and has what it was asked; [`introduce`] makes two nodes, each with a server of its own, peers.
//!
//! What it does not do: decide anything, keep anything, or know more than one node. What a server makes of a tailnet is
//! `control`'s.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "it is a part of tests, which end where they fail")]

mod channel;
mod introduction;
mod server;

pub use introduction::{Side, introduce};
pub use server::{Script, Server, bomb, let_in, own_node, peer};
