//! Transport messages: what the data threads hold of a session.

mod activity;
mod receive;
mod send;
mod window;

pub(crate) use activity::Activity;
pub use activity::Traffic;
pub(crate) use receive::SessionState;
pub use receive::{OpenError, Opened, Opening, RecvKey};
pub use send::{SealError, Sealing, SendKey};

/// A session seals and opens nothing any more: it is too old, has sent too much, or its peer was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is over: ask for the next one")]
pub struct SessionOver;
