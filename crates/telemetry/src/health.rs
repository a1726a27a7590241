use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What must hold before a role is ready to serve.
///
/// A role names each condition once with [`Health::condition`], before it starts to serve; readiness is the conjunction of
/// them all. A condition that nobody has spoken about yet does not hold.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Condition to the reason why it does not hold; `None` when it does.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Health {
    /// Starts with no condition: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, which does not hold until it is said to.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.locked().insert(name, Some("not started".to_owned()));
        Condition { name, health: self.clone() }
    }

    /// The conditions that do not hold, with the reason of each; empty when the role is ready.
    pub fn unmet(&self) -> Vec<(&'static str, String)> {
        self.locked().iter().filter_map(|(name, reason)| Some((*name, reason.clone()?))).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition of a role's readiness.
#[derive(Debug, Clone)]
pub struct Condition {
    name: &'static str,
    health: Health,
}

impl Condition {
    /// Says that the condition holds.
    pub fn met(&self) {
        self.health.locked().insert(self.name, None);
    }

    /// Says that the condition does not hold, and why.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.health.locked().insert(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_nobody_spoke_about_does_not_hold() {
        let health = Health::new();
        let _store = health.condition("store");
        assert_eq!(health.unmet(), vec![("store", "not started".to_owned())]);
    }

    #[test]
    fn readiness_follows_every_condition() {
        let health = Health::new();
        let (store, relay) = (health.condition("store"), health.condition("relay"));
        store.met();
        relay.met();
        assert!(health.unmet().is_empty());
        relay.unmet("no relay answers");
        assert_eq!(health.unmet(), vec![("relay", "no relay answers".to_owned())]);
    }
}
