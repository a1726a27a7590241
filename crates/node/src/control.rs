//! The coordination server as a client sees it.

mod channel;
mod client;
mod dial;
mod map_stream;
mod noise_stream;
mod session;
mod url;

pub(crate) use client::{Client, ClientError};
pub(crate) use dial::Dialer;
pub(crate) use session::{ControlEvent, Login, Report, Session, SessionConfig, SessionEvent, SessionNumber};
pub use url::{ControlUrl, ControlUrlError};
