use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crypto::NodePublic;
use path::{Endpoint, PathChoice, RegionId};
use tailcfg::NetInfo;
use tokio::sync::Notify;

/// What an engine tells.
#[derive(Debug, Clone)]
pub enum Event {
    /// Where this node can be reached: for the coordination server. The most promising first.
    Endpoints(Vec<Endpoint>),
    /// The relay region where this node waits from now on, and what was measured: for the coordination server.
    Home(RegionId),
    /// A measurement is done: for the coordination server, as `Hostinfo.NetInfo`.
    NetInfo(Box<NetInfo>),
    /// Packets for a peer go another way from now on.
    Path {
        /// The peer.
        peer: NodePublic,
        /// The way.
        choice: PathChoice,
    },
    /// A handshake with a peer was completed.
    Handshake {
        /// The peer.
        peer: NodePublic,
    },
    /// What does not work, all of it; told again whenever that changes. Empty when all is well.
    Health(Vec<Problem>),
    /// The device can't be read or written any more: the engine is of no use and should be shut down.
    DeviceFailed(String),
}

/// Something that does not work, and that a user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is, for programs: `no-udp`, `no-relay-home`, `relay-region-<number>`, `udp-sockets`.
    pub code: String,
    /// What it is, for people.
    pub text: String,
}

/// The events of an engine, in order.
///
/// Nothing is lost on a slow reader, and nothing piles up: of what describes a state, the last counts.
#[derive(Debug)]
pub struct Events {
    backlog: Arc<Backlog>,
}

impl Events {
    pub(crate) fn new(backlog: Arc<Backlog>) -> Self {
        Self { backlog }
    }

    /// Waits for the next event; `None` once the engine has stopped and all is told.
    ///
    /// A future that is dropped before it is ready has lost nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let notified = self.backlog.notify.notified();
            match self.backlog.pop() {
                Popped::Event(event) => return Some(*event),
                Popped::Closed => return None,
                Popped::Nothing => notified.await,
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.backlog.pop() {
            Popped::Event(event) => Some(*event),
            Popped::Closed | Popped::Nothing => None,
        }
    }
}

/// Events that nobody has fetched yet: at most one of each kind, and for each peer.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<Kind>,
    events: BTreeMap<Kind, Event>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Endpoints,
    Home,
    NetInfo,
    Path(NodePublic),
    Handshake(NodePublic),
    Health,
    DeviceFailed,
}

enum Popped {
    Event(Box<Event>),
    Closed,
    Nothing,
}

impl Backlog {
    pub(crate) fn push(&self, event: Event) {
        let kind = match &event {
            Event::Endpoints(_) => Kind::Endpoints,
            Event::Home(_) => Kind::Home,
            Event::NetInfo(_) => Kind::NetInfo,
            Event::Path { peer, .. } => Kind::Path(*peer),
            Event::Handshake { peer } => Kind::Handshake(*peer),
            Event::Health(_) => Kind::Health,
            Event::DeviceFailed(_) => Kind::DeviceFailed,
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.insert(kind, event).is_none() {
            waiting.order.push_back(kind);
        }
        drop(waiting);
        self.notify.notify_one();
    }

    /// Forgets what waits to be told of a peer that left.
    pub(crate) fn forget(&self, peer: &NodePublic) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in [Kind::Path(*peer), Kind::Handshake(*peer)] {
            if waiting.events.remove(&kind).is_some() {
                waiting.order.retain(|other| *other != kind);
            }
        }
    }

    pub(crate) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.notify.notify_one();
    }

    fn pop(&self) -> Popped {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.order.pop_front().and_then(|kind| waiting.events.remove(&kind));
        match next {
            Some(event) => Popped::Event(Box::new(event)),
            None if waiting.closed => Popped::Closed,
            None => Popped::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_describes_a_state_the_last_counts() {
        let backlog = Arc::new(Backlog::default());
        let mut events = Events::new(backlog.clone());
        let peer = NodePublic::from_bytes([7; 32]);
        for problems in [Vec::new(), vec![Problem { code: "no-udp".to_owned(), text: String::new() }]] {
            backlog.push(Event::Health(problems));
            backlog.push(Event::Handshake { peer });
        }
        assert!(matches!(events.try_next(), Some(Event::Health(problems)) if problems.len() == 1));
        assert!(matches!(events.try_next(), Some(Event::Handshake { .. })));
        assert!(events.try_next().is_none());
    }

    #[test]
    fn what_waits_is_forgotten_with_its_peer() {
        let backlog = Arc::new(Backlog::default());
        let peer = NodePublic::from_bytes([7; 32]);
        backlog.push(Event::Handshake { peer });
        backlog.forget(&peer);
        assert!(Events::new(backlog).try_next().is_none());
    }
}
