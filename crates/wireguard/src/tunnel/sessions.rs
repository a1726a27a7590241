use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crypto::NodePublic;
use crypto::tunnel::TransportKeys;

use crate::interface::Shared;
use crate::limits::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME};
use crate::transport::{Activity, SessionState};
use crate::{Event, RecvKey, SendKey};

/// Who began a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// This side: it renews the session by time.
    Initiator,
    /// The peer.
    Responder,
}

/// What the machine keeps of a session whose keys other threads hold.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) index: u32,
    pub(super) role: Role,
    pub(super) created: Instant,
    pub(super) send: Arc<SendKey>,
    state: Arc<SessionState>,
}

impl Session {
    /// Makes both keys of a session; the receiving one is the caller's to hand out.
    pub(super) fn open(
        peer: NodePublic,
        role: Role,
        (index, receiver): (u32, u32),
        keys: TransportKeys,
        now: Instant,
        activity: &Arc<Activity>,
    ) -> (Self, RecvKey) {
        let expires = now + REJECT_AFTER_TIME;
        let state = Arc::new(SessionState::default());
        state.confirmed.store(role == Role::Initiator, Relaxed);
        let receive = RecvKey::new(peer, index, expires, keys.receive, state.clone(), activity.clone());
        let send = SendKey::new(peer, index, receiver, expires, keys.send, activity.clone());
        (Self { index, role, created: now, send: Arc::new(send), state }, receive)
    }

    pub(super) fn expires(&self) -> Instant {
        self.created + REJECT_AFTER_TIME
    }

    fn end(self, peer: &NodePublic, shared: &mut Shared) {
        self.send.retire();
        self.state.over.store(true, Relaxed);
        shared.indices.free(self.index);
        shared.events.push_back(Event::Ended { peer: *peer, session: self.index });
    }
}

/// The sessions of a tunnel, at most three.
///
/// `current` is sent on. `previous` is only received on: what was under way when `current` took its place.
/// `next` is of the peer's making, and becomes `current` when the peer is heard on it.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    previous: Option<Session>,
    current: Option<Session>,
    next: Option<Session>,
}

impl Sessions {
    /// Takes a session that this side began and the peer answered: it is sent on at once.
    pub(super) fn establish(&mut self, session: Session, peer: &NodePublic, shared: &mut Shared) {
        // Handshakes that crossed leave one of each; the peer may be sending on the one that it began.
        let demoted = match self.next.take() {
            Some(next) => {
                end(self.current.take(), peer, shared);
                Some(next)
            }
            None => self.current.take(),
        };
        end(std::mem::replace(&mut self.previous, demoted), peer, shared);
        shared.events.push_back(Event::Send { peer: *peer, key: session.send.clone() });
        self.current = Some(session);
    }

    /// Takes a session that the peer began: this side waits to hear the peer on it.
    pub(super) fn offer(&mut self, session: Session, peer: &NodePublic, shared: &mut Shared) {
        end(self.next.replace(session), peer, shared);
    }

    /// Sends on the peer's session from now on if the peer was heard on it.
    pub(super) fn promote_confirmed(&mut self, peer: &NodePublic, shared: &mut Shared) -> bool {
        let Some(next) = self.next.take_if(|next| next.state.confirmed.load(Relaxed)) else { return false };
        end(std::mem::replace(&mut self.previous, self.current.take()), peer, shared);
        shared.events.push_back(Event::Send { peer: *peer, key: next.send.clone() });
        self.current = Some(next);
        true
    }

    pub(super) fn expire(&mut self, now: Instant, peer: &NodePublic, shared: &mut Shared) {
        for slot in [&mut self.previous, &mut self.current, &mut self.next] {
            end(slot.take_if(|session| session.expires() <= now), peer, shared);
        }
    }

    pub(super) fn end_all(&mut self, peer: &NodePublic, shared: &mut Shared) {
        for slot in [&mut self.previous, &mut self.current, &mut self.next] {
            end(slot.take(), peer, shared);
        }
    }

    /// The session that is sent on, unless it has no counter left.
    pub(super) fn usable(&self) -> Option<&Session> {
        self.current.as_ref().filter(|session| session.send.reserved() < REJECT_AFTER_MESSAGES)
    }

    pub(super) fn current(&self) -> Option<&Session> {
        self.current.as_ref()
    }

    /// When the peer began the session that waits to be confirmed.
    pub(super) fn offered_at(&self) -> Option<Instant> {
        self.next.as_ref().map(|next| next.created)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        [&self.previous, &self.current, &self.next].into_iter().flatten()
    }
}

fn end(session: Option<Session>, peer: &NodePublic, shared: &mut Shared) {
    if let Some(session) = session {
        session.end(peer, shared);
    }
}
