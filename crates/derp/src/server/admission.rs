//! Who may use the relay.
//!
//! A relay that anybody may use carries anybody's traffic on its owner's bill, so a client is asked for: not just to prove
//! its key, but that the coordination server knows that key. There are three ways, and none of them is open by accident:
//!
//! - **Followed** ([`AdmissionConfig::Follow`], ours): the relay asks the coordination server for the set of admitted keys
//!   and keeps asking, each request waiting at the server until something changed. A change is there at once, a client
//!   whose key was revoked is cut in that moment, and the set is kept on disk: a relay that restarts while the
//!   coordination server is away admits whom it admitted before.
//! - **Asked** ([`AdmissionConfig::Ask`]): each client is asked about as it connects, by `POST` of
//!   `{"NodePublic": "nodekey:…", "Source": "ip"}` to a URL that answers `{"Allow": bool}`. Other coordination servers
//!   speak this. A key that is revoked later keeps the connections that it has.
//! - **Open**: anybody, when the owner says so in as many words.
//!
//! Why the relay asks, and is not told: a relay that takes orders needs an entrance for them on a port that the whole
//! internet reaches, and whoever has the token writes the set. This way the token only reads public keys, the relay
//! believes nobody but the server whose certificate it verified, a relay that was away catches up by itself, and the
//! coordination server keeps no list of who has heard what: any replica of it answers any relay.
//!
//! # The document
//!
//! `GET <url>?since=<version>&wait=<seconds>`, with `Authorization: Bearer <token>`. Without `since`, the whole set is
//! wanted. The answer is 200 with one of two documents, or 204 when nothing changed for `wait` seconds:
//!
//! ```json
//! {"version": 7, "nodes": ["nodekey:…", "nodekey:…"]}
//! {"version": 9, "since": 7, "add": ["nodekey:…"], "remove": ["nodekey:…"]}
//! ```
//!
//! A server may answer with the whole set at any time, and must when it can't tell the changes since that version. The
//! whole set replaces what the relay has whatever the versions are: the server's word counts, also after it was restored
//! from a backup. A change applies to the version that it names, or else the relay asks for the whole set.

mod ask;
mod document;
mod follow;
mod set;

use std::net::IpAddr;
use std::path::PathBuf;

use crypto::NodePublic;

pub(crate) use ask::Questioner;
pub(crate) use follow::{Follower, follow};
pub(crate) use set::AdmissionSet;

use crate::https::ServerUrl;

/// Who may use the relay, and how it finds out.
#[derive(Debug, Clone)]
pub enum AdmissionConfig {
    /// The keys that the coordination server tells, as they change.
    Follow {
        /// Where it tells them.
        url: ServerUrl,
        /// The file with the token that it wants; read again for each request.
        token_file: PathBuf,
        /// Where the set is kept.
        state_file: PathBuf,
    },
    /// Whom a URL allows, client by client.
    Ask {
        /// The URL.
        url: ServerUrl,
        /// Whether a client is let in when there is no answer.
        fail_open: bool,
    },
    /// Anybody.
    Open,
}

/// How the relay decides.
#[derive(Debug)]
pub(crate) enum Admission {
    Set(AdmissionSet),
    Ask(Questioner),
    Open,
}

/// Why a client may not use the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Its key is not in the set, or was not allowed.
    #[error("its key is not admitted")]
    NotAdmitted,
    /// No set has ever been received.
    #[error("the relay has not heard from the coordination server yet whom to admit")]
    NoSet,
    /// Who is to be asked does not answer.
    #[error("the admission server does not answer")]
    NoAnswer,
}

impl Admission {
    /// Whether a client that has proven `key` may use the relay.
    pub(crate) async fn admits(&self, key: &NodePublic, source: IpAddr) -> Result<(), Refusal> {
        match self {
            Self::Set(set) => set.admits(key),
            Self::Ask(questioner) => questioner.ask(key, source).await,
            Self::Open => Ok(()),
        }
    }

    /// Whether a client that was admitted still is; only a set can change its mind.
    pub(crate) fn still_admits(&self, key: &NodePublic) -> bool {
        match self {
            Self::Set(set) => set.admits(key).is_ok(),
            Self::Ask(_) | Self::Open => true,
        }
    }

    /// Whether having proven a key says anything about who that is.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}
