use std::net::SocketAddr;
use std::time::Instant;

use crypto::{DiscoPublic, NodePublic};
use packet::disco::{Pong, TransactionId};

use super::direct::{Direct, Step};
use super::quality::Quality;
use super::session::Session;
use super::shared::{Turn, admitted};
use super::{Event, PeerConfig, PingRefused, UserPing};
use crate::address::is_endpoint;
use crate::{Answer, PathChoice, RegionId, RelayState, Via, Way};

/// A peer that speaks disco.
#[derive(Debug)]
pub(super) struct DiscoPeer {
    node: NodePublic,
    key: DiscoPublic,
    home: Option<RegionId>,
    /// The netmap's endpoints.
    listed: Vec<SocketAddr>,
    session: Option<Box<Session>>,
    choice: PathChoice,
}

impl DiscoPeer {
    pub(super) fn new(config: &PeerConfig, turn: &mut Turn<'_>) -> Self {
        turn.shared.keys.add(config.disco, config.node);
        Self {
            node: config.node,
            key: config.disco,
            home: config.home,
            listed: admitted(&config.endpoints),
            session: None,
            choice: PathChoice::Nowhere,
        }
    }

    pub(super) fn update(&mut self, config: &PeerConfig, turn: &mut Turn<'_>) {
        self.change_key(config.disco, turn);
        self.home = config.home;
        let listed = admitted(&config.endpoints);
        let new = listed.iter().any(|endpoint| !self.listed.contains(endpoint));
        self.listed = listed;
        if let Some(session) = &mut self.session {
            session.candidates.list(&self.listed, session.direct_address());
            if new {
                session.search.begin(turn.now);
            }
        }
    }

    /// Takes another disco key: the peer is a new process, whose sockets are not those of the old one.
    pub(super) fn change_key(&mut self, key: DiscoPublic, turn: &mut Turn<'_>) {
        if key == self.key {
            return;
        }
        turn.shared.keys.remove(self.key, self.node);
        turn.shared.keys.add(key, self.node);
        self.key = key;
        if let Some(session) = &mut self.session {
            session.start_over(turn.now);
        }
    }

    /// Leaves: whoever waits for a pong is told that none comes.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>) {
        turn.shared.keys.remove(self.key, self.node);
        let users = self.session.iter().flat_map(|session| session.pings.users());
        turn.shared.events.extend(users.map(|ping| Event::PingUnanswered { ping, node: self.node }));
    }

    pub(super) fn handle_sent(&mut self, turn: &mut Turn<'_>) {
        self.session(turn.now).sent(turn.now);
    }

    pub(super) fn handle_received(&mut self, via: Via, turn: &mut Turn<'_>) {
        let session = self.hear(turn.now);
        match via {
            Via::Relay(region) => {
                session.reverse = Some(region);
                session.direct.iter_mut().for_each(|direct| direct.hint(turn.now));
            }
            Via::Direct(address) if session.direct_address() == Some(address) => {
                session.direct.iter_mut().for_each(|direct| direct.heard(turn.now));
            }
            Via::Direct(address) => {
                session.direct.iter_mut().for_each(Direct::heard_elsewhere);
                self.observe(address, turn);
            }
        }
    }

    pub(super) fn handle_ping(&mut self, came: Way, transaction: TransactionId, turn: &mut Turn<'_>) {
        let session = self.hear(turn.now);
        let duplicate = match came {
            Way::Udp(address) => session.candidates.is_duplicate(address, transaction),
            Way::Relay { region, .. } => {
                session.reverse = Some(region);
                session.direct.iter_mut().for_each(|direct| direct.hint(turn.now));
                session.relay_ping.replace(transaction) == Some(transaction)
            }
        };
        if duplicate {
            return;
        }
        turn.pong(came, &self.key, transaction);
        if let Way::Udp(address) = came {
            self.observe(address, turn);
            self.hear(turn.now).candidates.is_duplicate(address, transaction);
        }
    }

    /// Takes a pong; false when no ping waits for it.
    pub(super) fn handle_pong(&mut self, came: Via, pong: &Pong, turn: &mut Turn<'_>) -> bool {
        let Some(session) = &mut self.session else { return false };
        let Some(proof) = session.pings.answer(pong.transaction, came, turn.now) else { return false };
        session.last_heard = turn.now;
        if let Some(ping) = proof.user {
            let observed = matches!(proof.via, Via::Direct(_)).then_some(pong.observed);
            let answer = Answer { via: proof.via, latency: proof.latency, observed };
            turn.shared.events.push_back(Event::PingAnswered { ping, node: self.node, answer });
        }
        let Via::Direct(address) = proof.via else { return true };
        if !session.candidates.ponged(address, proof.latency, turn.now) {
            return true;
        }
        let quality = Quality { address, latency: proof.latency };
        match &mut session.direct {
            Some(direct) if direct.quality.address == address => direct.ponged(proof.latency, turn.now),
            Some(direct) if direct.trusted(turn.now) && !quality.beats(&direct.quality) => {}
            // A path that is not trusted loses to any that works, however far.
            other => *other = Some(Direct::new(quality, turn.now)),
        }
        true
    }

    /// The peer asks to be pinged at these addresses.
    pub(super) fn handle_call(&mut self, endpoints: &[SocketAddr], region: RegionId, turn: &mut Turn<'_>) {
        let endpoints = admitted(endpoints);
        let session = self.hear(turn.now);
        session.reverse = Some(region);
        session.candidates.call(&endpoints, session.direct_address());
        session.search.hope(turn.now);
        session.direct.iter_mut().for_each(|direct| direct.hint(turn.now));
        for address in session.candidates.due(turn.now) {
            if !self.session(turn.now).provoked.take(turn.now) {
                break;
            }
            self.ping_at(address, None, turn);
        }
    }

    /// Endpoints that this peer waited for are known.
    pub(super) fn handle_own_endpoints(&mut self, turn: &mut Turn<'_>) {
        if self.session.as_ref().is_some_and(|session| session.is_active(turn.now)) {
            self.call(turn);
        }
    }

    /// This node is in another network; a search starts at `search_at`.
    pub(super) fn handle_network_change(&mut self, search_at: Instant) {
        if let Some(session) = &mut self.session {
            session.start_over(search_at);
            session.moved = true;
        }
    }

    pub(super) fn handle_relay(&mut self, region: RegionId, state: RelayState) {
        if state != RelayState::Up {
            self.forget_reverse(region);
        }
    }

    /// The peer can't be reached through this region, or the connection that it was heard through is gone.
    pub(super) fn forget_reverse(&mut self, region: RegionId) {
        if let Some(session) = &mut self.session {
            session.reverse = session.reverse.filter(|reverse| *reverse != region);
        }
    }

    /// Pings for a user: the path in use if it is trusted, otherwise every way there is.
    pub(super) fn ping_for(&mut self, user: UserPing, turn: &mut Turn<'_>) -> Result<(), PingRefused> {
        let session = self.session(turn.now);
        if !session.pings.takes_user() {
            return Err(PingRefused::TooMany);
        }
        session.sent(turn.now);
        let mut sent = false;
        if let Some(direct) = session.trusted(turn.now) {
            let address = direct.quality.address;
            sent |= self.ping_at(address, Some(user), turn);
        } else {
            self.search(turn);
            sent |= self.ping_by_relay(Some(user), turn);
            for address in self.session(turn.now).candidates.all() {
                sent |= self.ping_at(address, Some(user), turn);
            }
        }
        if !sent {
            return Err(PingRefused::NoWay);
        }
        self.session(turn.now).pings.add_user(user, turn.now);
        Ok(())
    }

    /// Does what is due, and tells if packets now go another way. Follows every other call.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.expire(turn);
        self.keep_direct(turn);
        self.search(turn);
        let choice = self.chosen(turn);
        if choice != self.choice {
            self.choice = choice;
            turn.shared.changed.insert(self.node);
        }
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.session.as_ref().map(|session| session.deadline(now))
    }

    pub(super) fn choice(&self) -> PathChoice {
        self.choice
    }

    pub(super) fn home(&self) -> Option<RegionId> {
        self.home
    }

    /// The netmap's endpoints.
    pub(super) fn listed(&self) -> &[SocketAddr] {
        &self.listed
    }

    pub(super) fn session_state(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    fn session(&mut self, now: Instant) -> &mut Session {
        self.session.get_or_insert_with(|| Box::new(Session::new(&self.listed, now)))
    }

    fn hear(&mut self, now: Instant) -> &mut Session {
        let session = self.session(now);
        session.last_heard = now;
        session
    }

    /// The peer sends from this address, which is not the one in use: a candidate, and maybe a sign that it moved.
    fn observe(&mut self, address: SocketAddr, turn: &mut Turn<'_>) {
        if !is_endpoint(&address) {
            return;
        }
        let active = self.session(turn.now).is_active(turn.now);
        let session = self.session(turn.now);
        let in_use = session.direct_address() == Some(address);
        session.candidates.observe(address, turn.now, session.direct_address());
        if in_use && session.trusted(turn.now).is_some() {
            return;
        }
        let may_return = active && session.candidates.may_return(address, turn.now);
        if !may_return || !session.provoked.take(turn.now) {
            return;
        }
        session.direct.iter_mut().for_each(|direct| direct.hint(turn.now));
        self.ping_at(address, None, turn);
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        let Some(session) = &mut self.session else { return };
        session.candidates.expire(turn.now, session.direct.as_ref().map(|direct| direct.quality.address));
        let expired = session.pings.expire(turn.now).into_iter();
        turn.shared.events.extend(expired.map(|ping| Event::PingUnanswered { ping, node: self.node }));
        if session.forgotten_at() <= turn.now {
            self.session = None;
        }
    }

    fn keep_direct(&mut self, turn: &mut Turn<'_>) {
        let relay = self.region(turn);
        loop {
            let Some(session) = self.session.as_mut().filter(|session| session.is_active(turn.now)) else { return };
            let Some(direct) = &mut session.direct else { return };
            let address = direct.quality.address;
            match direct.step(turn.now) {
                Step::Rest => return,
                Step::Ping => {
                    self.ping_at(address, None, turn);
                }
                Step::Lapsed => match session.candidates.proven_beside(address, direct.proven(), turn.now) {
                    Some((quality, proven)) => {
                        // It may have died with the other: little patience, or several such would hold up the relay.
                        let mut next = Direct::new(quality, proven);
                        next.hint(turn.now);
                        session.direct = Some(next);
                    }
                    None => {
                        session.search.begin(turn.now);
                        turn.learn_endpoints_for(self.node);
                    }
                },
                // Without a relay a path that may work is all there is.
                Step::Dead if relay.is_none() => direct.wake(),
                Step::Dead => session.direct = None,
            }
        }
    }

    fn search(&mut self, turn: &mut Turn<'_>) {
        let Some(session) = &mut self.session else { return };
        if session.search_at(turn.now).is_none_or(|at| turn.now < at) {
            return;
        }
        session.search.ran(turn.now);
        if session.search.is_second() && session.trusted(turn.now).is_none() {
            turn.learn_endpoints_for(self.node);
        }
        if std::mem::take(&mut session.moved) {
            // The peer sends to where this node was. Hearing from it by relay makes it look, however long STUN takes.
            self.ping_by_relay(None, turn);
        }
        let session = self.session(turn.now);
        let unknown = session.candidates.is_empty();
        let mut sent = false;
        for address in session.candidates.due(turn.now) {
            sent |= self.ping_at(address, None, turn);
        }
        if sent || unknown {
            self.call(turn);
        }
    }

    fn call(&self, turn: &mut Turn<'_>) {
        if let Some(region) = self.region(turn) {
            turn.call(self.node, &self.key, region);
        }
    }

    fn ping_at(&mut self, address: SocketAddr, user: Option<UserPing>, turn: &mut Turn<'_>) -> bool {
        let now = turn.now;
        let sent = turn.ping(Way::Udp(address), &self.key);
        let session = self.session(now);
        // A user's pings take no candidate from the search, which calls the peer only where it pings.
        if user.is_none() {
            session.candidates.pinged(address, now);
        }
        if let Some(direct) = session.direct.as_mut().filter(|direct| direct.quality.address == address) {
            direct.pinged(now);
        }
        if let Some(transaction) = sent {
            session.pings.add(transaction, Via::Direct(address), user, now);
        }
        sent.is_some()
    }

    fn ping_by_relay(&mut self, user: Option<UserPing>, turn: &mut Turn<'_>) -> bool {
        let Some(region) = self.region(turn) else { return false };
        let Some(transaction) = turn.ping(Way::Relay { region, node: self.node }, &self.key) else { return false };
        let now = turn.now;
        self.session(now).pings.add(transaction, Via::Relay(region), user, now);
        true
    }

    fn region(&self, turn: &Turn<'_>) -> Option<RegionId> {
        let reverse = self.session.as_ref().and_then(|session| session.reverse);
        turn.shared.relays.region_for(self.home, reverse)
    }

    fn chosen(&self, turn: &Turn<'_>) -> PathChoice {
        let direct = self.session.as_ref().and_then(|session| session.direct.as_ref());
        let direct = direct.map(|direct| (direct.quality.address, direct.trusted(turn.now)));
        PathChoice::new(direct, self.region(turn))
    }
}
