//! What one node knows of its network: its peers, the routes to them, its filter, names and preferences.
//!
//! [`View`] is what the data plane is shown of all that: a value, made anew when the netmap or the preferences change,
//! and swapped as a whole.
//!
//! What it does not do: speak to anybody. No sockets, clock, threads or files; what the coordination server says comes
//! in as values of `tailcfg`, and what is to be done comes out as values.

#![forbid(unsafe_code)]

mod routes;
mod view;

pub use routes::Routes;
pub use view::{PeerView, View};
