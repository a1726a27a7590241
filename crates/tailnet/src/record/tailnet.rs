use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::Domain;

/// A tailnet's number on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TailnetId(pub u64);

impl fmt::Display for TailnetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tailnet: one network with its users, devices and policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailnetRecord {
    /// Its number.
    pub id: TailnetId,
    /// What people call it, `example.com`; unique on the server.
    pub name: String,
    /// Where the names of its devices live; no domain of the server lies in another.
    pub domain: Domain,
    /// When it was made.
    pub created: Timestamp,
}
