use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::owner::Owner;

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Service {
        namespace: String,
        name: String,
    },
    Connector(String),
    ProxyClass(String),
    /// Something was made for an object that is not there any more.
    Orphan(Owner),
    Tombstone(String),
}

/// What is to be looked at, and when: each key once, and never twice at a time.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: BTreeMap<(Instant, u64), Key>,
    scheduled: HashMap<Key, (Instant, u64)>,
    running: HashSet<Key>,
    /// Running now, and due again at this time.
    again: HashMap<Key, Instant>,
    sequence: u64,
}

impl Queue {
    /// Looks at it as soon as somebody is free.
    pub(crate) fn push(&self, key: Key) {
        self.push_after(key, Duration::ZERO);
    }

    /// Looks at it after so long, or earlier when it is due earlier anyway.
    pub(crate) fn push_after(&self, key: Key, after: Duration) {
        self.locked().schedule(key, Instant::now() + after);
        self.changed.notify_one();
    }

    /// The next that is due; it runs until [`Self::done`].
    pub(crate) async fn next(&self) -> Key {
        loop {
            let wait = {
                let mut state = self.locked();
                let now = Instant::now();
                match state.due.first_key_value().map(|(at, _)| at.0) {
                    Some(at) if at <= now => {
                        if let Some((_, key)) = state.due.pop_first() {
                            state.scheduled.remove(&key);
                            state.running.insert(key.clone());
                            // More may be due than this one waiter takes.
                            self.changed.notify_one();
                            return key;
                        }
                        continue;
                    }
                    at => at,
                }
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// It was looked at.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.locked();
        state.running.remove(key);
        if let Some(at) = state.again.remove(key) {
            state.schedule(key.clone(), at);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn schedule(&mut self, key: Key, at: Instant) {
        if self.running.contains(&key) {
            let earlier = self.again.get(&key).map_or(at, |other| at.min(*other));
            self.again.insert(key, earlier);
            return;
        }
        if let Some(place) = self.scheduled.get(&key).copied() {
            if place.0 <= at {
                return;
            }
            self.due.remove(&place);
        }
        self.sequence += 1;
        let place = (at, self.sequence);
        self.due.insert(place, key.clone());
        self.scheduled.insert(key, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Connector(name.to_owned())
    }

    #[tokio::test]
    async fn a_key_is_there_once_and_the_earliest_time_counts() {
        let queue = Queue::default();
        queue.push_after(key("a"), Duration::from_secs(3600));
        queue.push(key("b"));
        queue.push(key("a"));
        queue.push_after(key("a"), Duration::from_secs(1800));
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"));
        assert!(queue.locked().due.is_empty());
    }

    #[tokio::test]
    async fn a_key_that_runs_comes_again_when_it_is_done() {
        let queue = Queue::default();
        queue.push(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.push(key("a"));
        assert!(queue.locked().due.is_empty());
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test]
    async fn what_is_due_later_waits_for_its_time_or_for_an_earlier_push() {
        let queue = Queue::default();
        queue.push_after(key("a"), Duration::from_millis(5));
        assert_eq!(queue.next().await, key("a"));
        queue.push_after(key("b"), Duration::from_secs(3600));
        let (next, ()) = futures_util::join!(queue.next(), async { queue.push(key("b")) });
        assert_eq!(next, key("b"));
    }
}
