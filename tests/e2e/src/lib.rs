//! The walkthrough, asserted: our binary in the laboratory's boxes, beside the stock programs.
//!
//! - [`Installation`]: a coordination server and two relays as an administrator sets them up, by the commands of the guide.
//! - [`Browser`]: a person at a login page.
//! - [`Checks`]: named scenarios, run one after the other; each prints `ok` or `FAILED`.
//! - [`eventually`]: waits for what a command shows, with a deadline.
//!
//! The test programs under `tests/` are stages of `cargo xtask test`, which hands them the binary in `TOWLINE_BINARY`.

#![forbid(unsafe_code)]

mod browser;
mod checks;
mod eventually;
mod installation;

pub use browser::Browser;
pub use checks::{Checks, binary};
pub use eventually::eventually;
pub use installation::{ADMIN, CONTROL_URL, Installation, MEMBER, TAILNET_DOMAIN};
