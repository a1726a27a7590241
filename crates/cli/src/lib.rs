//! The commands that people type: what they ask, whom they ask it, and how the answer is shown.
//!
//! - [`admin`]: users, keys, devices, routes, OAuth clients and the policy, over the REST API v2, with an admin's login
//!   or key.
//! - [`Output`]: every command's answer is a value; `-o json` prints it as it is, the default as a table or in words.
//! - [`Failure`]: what went wrong, and the process's exit code.
//!
//! What it does not do: decide anything that a server or daemon should; keep state beyond the credential of an admin.
//! Names are resolved by the resolver that the binary hands in, never by libc.

#![forbid(unsafe_code)]

pub mod admin;
mod failure;
mod output;
mod text_diff;

pub use failure::{EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, Failure};
pub use output::{Format, Output, OutputArguments, Table};
