//! What every role of the binary tells the world about itself: logs, metrics, health, and when it stops.
//!
//! - [`LogArguments`] chooses what is logged and how: text for people on a terminal, one JSON object a line otherwise.
//! - [`Metrics`] is the registry that a role adds its counters to.
//! - [`Health`] collects conditions that must hold before a role is ready.
//! - [`serve_admin`] answers `/healthz`, `/readyz` and `/metrics` on a listener of its own.
//! - [`Shutdown`] turns SIGTERM and SIGINT into one cancellation with a deadline for draining.
//!
//! What it does not do: decide what is worth measuring or logging, or authenticate anybody: the admin listener belongs on
//! an address that only the operator of the machine reaches.

#![forbid(unsafe_code)]

mod admin;
mod health;
mod logs;
mod metrics;
mod shutdown;

pub use admin::serve_admin;
pub use health::{Condition, Health};
pub use logs::{LogArguments, LogError, LogFormat};
pub use metrics::Metrics;
pub use shutdown::{DrainTimedOut, Shutdown};
