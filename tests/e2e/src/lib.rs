//! The walkthrough, asserted: our binary in the laboratory's boxes, beside the stock programs.
//!
//! - [`Installation`]: a coordination server and two relays as an administrator sets them up, by the commands of the guide.
//! - [`Client`]: a device and the client program on it. [`Operator`]: an operator and its chart.
//! - [`Tailnet`]: a world with server, relays and two devices. [`Stage`]: a whole one, with Kubernetes and an operator.
//! - [`rows`]: the walkthrough's rows, to be played on one or the other. Which clients and which operator play is the
//!   [`Cast`]'s business, and [`Arguments`] say who that is; a row asserts what a user sees.
//! - [`Promise`]: within which time the walkthrough promises something. [`Stopwatch`]: how long it took, on how late a machine.
//! - [`Overview`]: what runs where in such a world. [`Login`]: how far a client in it is.
//! - [`NetworkSettings`]: a computer's routes, firewall and name servers, to be compared with those of before.
//! - [`Browser`]: a person at a login page.
//! - [`Conversation`]: one TCP connection that nothing may break.
//! - [`Checks`]: named scenarios, run one after the other; each prints `ok` or `FAILED`, with what it reached when.
//! - [`measure`]: what a system costs, beside another on the same cluster.
//! - [`eventually`]: waits for what a command shows, with a deadline.
//!
//! The test programs under `tests/` are stages of `cargo xtask test` or benchmarks of `cargo xtask bench`, which hand them the binary in `TOWLINE_BINARY` and, where
//! they need it, the folder of the stock programs' sources in `STOCK_SOURCES`.

#![forbid(unsafe_code)]

pub mod measure;
pub mod rows;

mod arguments;
mod browser;
mod checks;
mod client;
mod conversation;
mod eventually;
mod installation;
mod login;
mod network_settings;
mod operator;
mod overview;
mod parts;
mod promise;
mod stage;
mod stopwatch;
mod table;
mod workloads;

pub use arguments::{Arguments, Cast, Program};
pub use browser::{Browser, Page};
pub use checks::{Checks, Marks};
pub use client::{Client, login_url};
pub use conversation::Conversation;
pub use eventually::eventually;
pub use installation::{ADMIN, CONTROL_URL, Installation, MEMBER, OAuthClient, TAILNET_DOMAIN};
pub use login::{Login, LoginState};
pub use network_settings::NetworkSettings;
pub use operator::{Habits, Operator};
pub use overview::Overview;
pub use parts::{Parts, binary};
pub use promise::Promise;
pub use stage::{PATIENCE, Stage, Tailnet};
pub use stopwatch::{Stopwatch, Took};
pub use workloads::WEB_PAGE;
