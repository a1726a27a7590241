use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubeapi::ProxyClass;
use kubeapi::condition::{self, proxy_class as reason};
use serde_json::{Value, json};

use super::Verdict;
use crate::event::Note;

/// What to say about a ProxyClass.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The status to apply, when it differs from what is there.
    pub apply: Option<Value>,
    /// Events, one a transition.
    pub events: Vec<Note>,
}

/// Says whether a ProxyClass can be used.
pub fn status(class: &ProxyClass, verdict: Verdict, now: Timestamp) -> Status {
    let before = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let valid = verdict.problems.is_empty();
    let message = if valid { "the class can be used".to_owned() } else { verdict.problems.join("; ") };
    let name = if valid { reason::VALID } else { reason::INVALID };
    let generation = class.metadata.generation;
    let new = condition::next(before, condition::PROXY_CLASS_READY, valid, name, &message, generation, &Time(now));
    let old = condition::find(before, condition::PROXY_CLASS_READY);
    if old == Some(&new) {
        return Status { apply: None, events: Vec::new() };
    }
    let mut events = verdict.notes;
    if !valid {
        events.push(Note::warning(name, &message));
    }
    Status { apply: Some(json!({"conditions": [new]})), events }
}
