//! What a system costs, measured on the same ground as what it is compared with.
//!
//! A [`System`] is a name and a [`Cast`](crate::Cast). [`Ground`] is the world that systems take turns on: one [`enters`](Ground),
//! is measured, and leaves nothing behind for the next. What is measured goes into [`Figures`] under a [`Row`], round by round,
//! and failures do too; [`Report`] sets the systems against each other.

mod counters;
mod figures;
mod first_byte;
mod ground;
mod image_size;
mod kubernetes;
mod memory;
mod nodes;
mod report;
mod row;
mod throughput;

use std::time::Duration;

pub use figures::Figures;
pub use ground::{Ground, SYSTEMS, System};
pub use report::Report;
pub use row::{ROWS, Row, Target, Verdict};

/// How much of everything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// How many Services are exposed at once.
    pub services: usize,
    /// How long nobody does anything while calls and writes are counted.
    pub idle: Duration,
    /// How long TCP is sent, at each rate.
    pub transfer: Duration,
    /// Whether nodes are measured.
    pub nodes: bool,
    /// Whether the operator and its proxies are measured.
    pub kubernetes: bool,
}

/// Lets a system run by itself.
fn let_be(time: Duration) {
    // tidy: sleep, what is measured is what happens while nothing is asked for
    std::thread::sleep(time);
}
