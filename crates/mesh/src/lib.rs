//! What one node knows of its network: its peers, the routes to them, its filter, names and preferences.
//!
//! [`Mesh`] is that state. It is told what the coordination server sends ([`Mesh::handle_map`]), what the user wants
//! ([`Preferences`]) and which networks the machine is on; from these follow, as values that are made anew when they
//! change:
//!
//! - [`View`], what the data plane is shown: peers, routes, filter. A value that is swapped as a whole.
//! - [`Routing`], what the machine's routing and firewall should be, and [`SystemDns`], its name settings.
//! - [`Names`], which answers MagicDNS queries or says who is to be asked.
//! - [`Whois`], who stands behind an address and what they may do here; [`Status`], all of it for people.
//!
//! Invariants:
//! - A map that breaks a limit or contradicts itself changes nothing: the last good one stays, and the caller is told
//!   to ask for the whole map again ([`MapError`]).
//! - Applying changes one after the other gives the same [`Netmap`] as the whole map that they add up to.
//! - A filter that can't be understood blocks everything.
//! - The node itself is never among its peers.
//!
//! What it does not do: speak to anybody. No sockets, clock, threads or files; what the coordination server says comes
//! in as values of `tailcfg`, and what is to be done comes out as values.

#![forbid(unsafe_code)]

mod exit_node;
mod identity;
mod local;
mod names;
mod netmap;
mod preferences;
mod routes;
mod routing;
mod state;
mod status;
mod view;

pub use exit_node::{ExitNode, ExitNodeError};
pub use identity::Whois;
pub use names::{Names, Question, QuestionKind, Resolution, SERVICE_V4, SERVICE_V6, SystemDns};
pub use netmap::{Changed, MapError, Netmap};
pub use preferences::{AppConnector, AutoUpdate, PreferenceError, Preferences};
pub use routes::Routes;
pub use routing::Routing;
pub use state::Mesh;
pub use status::{BackendState, ExitNodeStatus, LivePeer, LiveStatus, PeerStatus, Status, TailnetStatus};
pub use view::{PeerView, View};
