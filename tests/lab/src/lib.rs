//! The laboratory: the walkthrough's world made real on one Linux machine, for scenario tests, the demo and benchmarks.
//!
//! It does not simulate: packets cross the kernel's own bridges, NAT and routes, names come from a CoreDNS, pods run under a
//! kubelet. It does not build the parts (the crate `cache` and `cargo xtask` do), and it knows nothing of the product: what
//! runs in `control`, on the laptop or in the cluster is started by whoever asks for the world.
//!
//! # Model
//!
//! A [`Plan`] is a drawing: segments (bridges), boxes, and the links between them. [`World::up`] makes it real under a
//! [`WorldName`], or completes what is missing of it; [`World::attach`] finds it again; [`World::down`] removes it. A [`LabBox`]
//! is a computer: network, mount, PID, UTS and IPC namespaces over an overlay of one Debian tree. Its first process is
//! `lab-init` (see [`init`]), which runs [`Command`]s and [`Daemon`]s when asked over a socket in the world's folder. All bridges
//! live in a namespace of their own, the fabric. [`Cluster`] is Kubernetes in two of the boxes.
//!
//! ```text
//!  internet 203.0.113.0/24
//!    .2 names   .10 control   .11 relay2   .50 echo   .60 registry
//!    .20 home  ── home  192.168.50.0/24: .10 node1, .11 node2, .60 printer
//!    .30 cafe  ── cafe  172.20.30.0/24:  .10 laptop
//!    .40 cabin ── cabin 172.20.40.0/24:  .10 robbinsdale
//! ```
//!
//! Tests take a [`ScratchWorld`], which goes when it is dropped:
//!
//! ```no_run
//! let world = lab::ScratchWorld::up(lab::Options::boxes()?)?;
//! let seen = world.lab_box("laptop")?.run(["curl", "-s", "http://echo.towline.test"])?;
//! assert_eq!(seen.stdout.trim(), "203.0.113.30");
//! # anyhow::Ok(())
//! ```
//!
//! # Invariants
//!
//! * Nothing is ever added to the machine's own network namespace, mounts or `/run/netns`, but `cubic` to the congestion controls
//!   that it allows, where it is missing there, for good. Any number of worlds live side by side.
//! * State lies in `/run/towline-lab/WORLD` and `/var/lib/towline-lab/WORLD`, processes in cgroups `towline/WORLD`. What the
//!   product keeps on the machine, in `/run/towline` and `/var/lib/towline`, is never touched.
//! * A box that exists is on record: its first process waits until its number and start have been written down.
//! * A command dies with its caller; a daemon outlives it, until its box ends. When a box's first process ends, all in it does.
//! * Readiness is an event with a deadline. Errors name box, command, how it ended and its last words.
//!
//! # What it needs
//!
//! Linux 5.10 or later with overlayfs, bridge, veth, nf_tables and cgroups of either version; root; `unshare` and `nsenter`
//! (util-linux) on the machine. All else comes from the cache. What was found out the hard way stands in `NOTES.md` beside
//! this crate.

pub mod init;

mod authority;
mod cgroup;
mod cluster;
mod command;
mod congestion;
mod daemon;
mod deadline;
mod echo;
mod folder;
mod lab_box;
mod names;
mod network;
mod parallel;
mod plan;
mod pod;
mod process;
mod progress;
mod readiness;
mod registry;
mod request;
mod ssh;
mod stock;
mod traffic;
mod usage;
mod workload;
mod world;

pub use authority::{Authority, Credential, Subject};
pub use cluster::Cluster;
pub use command::{Command, CommandError, Output, Running};
pub use daemon::{Daemon, DaemonStart};
pub use deadline::Deadline;
pub use echo::ECHO_PORT;
pub use folder::WorldName;
pub use lab_box::LabBox;
pub use names::{CONTROL_NAME, DOMAIN, ECHO_NAME, REGISTRY_NAME, RELAY1_NAME, RELAY2_NAME};
pub use plan::*;
pub use process::{Process, ProcessIdentity, process_numbers};
pub use progress::{Event, Listener, StepState, silent, step};
pub use readiness::Ready;
pub use request::Ended;
pub use ssh::SshKey;
pub use stock::{STOCK_PORT, StockNode, start_stock_relay};
pub use traffic::Udp;
pub use usage::Usage;
pub use world::{BoxStatus, DaemonStatus, Options, Scratch, ScratchWorld, Status, World, locate_init};
