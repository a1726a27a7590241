//! The commands that people type: what they ask, whom they ask it, and how the answer is shown.
//!
//! - [`admin`]: users, keys, devices, routes, OAuth clients and the policy, over the REST API v2, with an admin's login
//!   or key.
//! - [`node`]: joining, leaving, settings, status, ping and the like, over the socket of this machine's daemon: ours or
//!   the stock one, which serve the same LocalAPI.
//! - [`go_flags`]: what makes the binary's other name, `tailscale`, take arguments as the stock command does.
//! - [`Output`]: every command's answer is a value; `-o json` prints it as it is, the default as a table or in words.
//! - [`Failure`]: what went wrong, and the process's exit code.
//!
//! What it does not do: decide anything that a server or daemon should; keep state beyond the credential of an admin.
//! Names are resolved by the resolver that the binary hands in, never by libc.
//!
//! Invariants: what others wrote can't steer a terminal, in whatever form it is printed; answers of a daemon or server
//! are bounded in size and time; what a daemon said of itself is sent back with what we don't know of it left in place.

#![forbid(unsafe_code)]

pub mod admin;
mod failure;
pub mod go_flags;
mod kubeconfig;
mod moment;
pub mod node;
mod output;
mod tabbed;
mod text_diff;
mod trust;
mod web;

pub use failure::{EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, Failure};
pub use output::{Format, NobodyReads, Output, OutputArguments, Table};
