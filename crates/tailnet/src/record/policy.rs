use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A policy file as it was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The text, exactly as it was given.
    pub text: String,
    /// How many were put in force before it; zero is the one that a tailnet starts with.
    pub version: u64,
    /// Who put it in force.
    pub who: String,
    /// Why, in their words.
    pub why: String,
    /// When.
    pub when: Timestamp,
}
