use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crypto::tunnel::{CookieCipher, Identity, MacKey, OpenedInitiation, PresharedKey, SealedInitiation, Tai64n};
use crypto::{Entropy, NodePrivate, NodePublic};
use packet::wireguard::{CookieReply, CookieReplyRepr, Initiation, Message, Response};

use crate::admission::{Admission, Kind, Verdict};
use crate::limits::WAITING_TRANSMITS;
use crate::tunnel::Tunnel;
use crate::{Destination, Discard, Event, Source, Traffic, Transmit};

mod shared;

pub(crate) use shared::Shared;

/// Both clocks at one moment: one that never goes back, for timers, and the wall's, for initiations.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall's clock. It may be wrong and it may be set back; a running interface copes.
    pub wall: Tai64n,
}

/// What is agreed with one peer beyond its public key. The default is what peers of a tailnet have: nothing.
#[derive(Debug, Clone, Default)]
pub struct PeerConfig {
    /// The key mixed into handshakes beside the public ones.
    pub preshared_key: PresharedKey,
    /// Keeps a session up and a message going at least so often, for peers behind a NAT that nothing else keeps open.
    pub persistent_keepalive: Option<Duration>,
}

/// How a tunnel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Whether there is a session to send on.
    pub established: bool,
    /// When the last handshake was completed.
    pub last_handshake: Option<Instant>,
    /// What the tunnel has moved since it was last idle.
    pub traffic: Traffic,
}

/// An initiation that names its sender and hasn't been answered: the owner decides whether it will be.
#[derive(Debug)]
pub struct PendingInitiation {
    opened: OpenedInitiation,
    sender: u32,
    source: Source,
}

impl PendingInitiation {
    /// The key that the sender claims. [`Interface::accept`] finds out whether it is the sender's.
    pub fn peer(&self) -> &NodePublic {
        self.opened.claimed()
    }

    /// Where it came from.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// A node's side of all its tunnels. Only peers with which something is going on take memory.
#[derive(Debug)]
pub struct Interface {
    shared: Shared,
    mac_key: MacKey,
    cookie_cipher: CookieCipher,
    admission: Admission,
    tunnels: BTreeMap<NodePublic, Tunnel>,
    configs: BTreeMap<NodePublic, PeerConfig>,
    /// The last initiation of each peer that ever sent one, kept when its tunnel is forgotten: replays stay replays.
    latest: BTreeMap<NodePublic, Tai64n>,
    deadlines: BTreeSet<(Instant, NodePublic)>,
    scheduled: BTreeMap<NodePublic, Instant>,
}

impl Interface {
    /// The interface of the node that owns `private`.
    pub fn new(private: NodePrivate, now: Instant, entropy: &mut dyn Entropy) -> Self {
        let identity = Identity::new(private);
        Self {
            mac_key: MacKey::of(identity.public()),
            cookie_cipher: CookieCipher::of(identity.public()),
            shared: Shared::new(identity),
            admission: Admission::new(now, entropy),
            tunnels: BTreeMap::new(),
            configs: BTreeMap::new(),
            latest: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
        }
    }

    /// This node's public key.
    pub fn public(&self) -> &NodePublic {
        self.shared.identity.public()
    }

    /// Agrees on something with a peer, from its next handshake on. A persistent keepalive brings the tunnel up.
    pub fn configure(&mut self, peer: NodePublic, mut config: PeerConfig, now: Instant) {
        config.persistent_keepalive = config.persistent_keepalive.filter(|interval| !interval.is_zero());
        if config.persistent_keepalive.is_some() {
            self.tunnels.entry(peer).or_insert_with(|| Tunnel::new(peer, now));
        }
        self.configs.insert(peer, config);
        self.settle(&peer);
    }

    /// Ends whatever goes on with a peer and forgets it: its keys seal and open nothing from here on.
    pub fn remove(&mut self, peer: &NodePublic) {
        self.configs.remove(peer);
        self.latest.remove(peer);
        if let Some(tunnel) = self.tunnels.remove(peer) {
            tunnel.close(&mut self.shared);
        }
        self.settle(peer);
    }

    /// Takes a datagram of type 1, 2 or 3.
    ///
    /// An initiation comes back to be judged by whom it is from: [`accept`](Self::accept) it, or drop it.
    pub fn handle_datagram(
        &mut self,
        source: Source,
        datagram: &[u8],
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<PendingInitiation>, Discard> {
        match Message::parse(datagram)? {
            Message::Initiation(initiation) => self.handle_initiation(source, &initiation, now, entropy).map(Some),
            Message::Response(response) => self.handle_response(source, &response, now, entropy).map(|()| None),
            Message::CookieReply(reply) => self.handle_cookie_reply(&reply, now).map(|()| None),
            Message::Transport(_) => Err(Discard::Transport),
        }
    }

    /// Answers an initiation whose sender may be a peer, once the sender has proven to be it.
    pub fn accept(
        &mut self,
        initiation: PendingInitiation,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Discard> {
        let PendingInitiation { opened, sender, source } = initiation;
        let authentic = opened.authenticate(&self.shared.identity)?;
        let peer = *authentic.initiator();
        if self.latest.get(&peer).is_some_and(|latest| authentic.timestamp() <= *latest) {
            return Err(Discard::Replayed);
        }
        if self.tunnels.get(&peer).is_some_and(|tunnel| !tunnel.takes_initiation(now)) {
            return Err(Discard::TooSoon);
        }
        self.latest.insert(peer, authentic.timestamp());
        let config = self.config(&peer);
        let tunnel = self.tunnels.entry(peer).or_insert_with(|| Tunnel::new(peer, now));
        let surroundings = (&mut self.shared, entropy);
        let result = tunnel.handle_initiation(authentic, (source, sender), now, &config, surroundings);
        self.settle(&peer);
        Ok(result?)
    }

    /// Somebody has a packet for `peer` and no [`SendKey`](crate::SendKey) that still seals.
    ///
    /// May be called for every such packet: a row of initiations begins once, and spaces itself. The answer is
    /// [`Event::Send`] or [`Event::HandshakeFailed`].
    pub fn handle_wanted(&mut self, peer: NodePublic, now: Moment, entropy: &mut dyn Entropy) {
        let tunnel = self.tunnels.entry(peer).or_insert_with(|| Tunnel::new(peer, now.instant));
        tunnel.handle_wanted(now, &mut self.shared, entropy);
        self.settle(&peer);
    }

    /// A message opened with [`Opened::confirms`](crate::Opened::confirms): the peer's session can be sent on.
    ///
    /// Should the word get lost, the next [`handle_timeout`](Self::handle_timeout) notices by itself.
    pub fn handle_confirmed(&mut self, session: u32, now: Instant) {
        let Some(peer) = self.shared.indices.owner(session).copied() else { return };
        if let Some(tunnel) = self.tunnels.get_mut(&peer) {
            tunnel.look(now, &mut self.shared);
        }
        self.settle(&peer);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment, entropy: &mut dyn Entropy) {
        let due: Vec<NodePublic> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now.instant).map(|(_, peer)| *peer).collect();
        for peer in due {
            let config = self.config(&peer);
            if let Some(tunnel) = self.tunnels.get_mut(&peer) {
                tunnel.handle_timeout(now, &config, &mut self.shared, entropy);
            }
            self.settle(&peer);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` while nothing is going on.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// How the tunnel to a peer stands; `None` while it is idle.
    pub fn status(&self, peer: &NodePublic) -> Option<TunnelStatus> {
        self.tunnels.get(peer).map(|tunnel| TunnelStatus {
            established: tunnel.is_established(),
            last_handshake: tunnel.last_handshake(),
            traffic: tunnel.traffic(),
        })
    }

    fn handle_initiation(
        &mut self,
        source: Source,
        initiation: &Initiation<'_>,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<PendingInitiation, Discard> {
        if !self.mac_key.verify(initiation.under_mac1(), &initiation.mac1()) {
            return Err(Discard::Mac1);
        }
        let verdict =
            self.admission.judge(Kind::Initiation, &source, (initiation.under_mac2(), &initiation.mac2()), now);
        self.enforce(verdict, source, (initiation.sender(), initiation.mac1()), now, entropy)?;
        let pieces = SealedInitiation {
            ephemeral: initiation.ephemeral(),
            sealed_static: initiation.sealed_static(),
            sealed_timestamp: initiation.sealed_timestamp(),
        };
        let opened = OpenedInitiation::open(&self.shared.identity, &pieces)?;
        if opened.claimed() == self.public() {
            return Err(Discard::OwnKey);
        }
        Ok(PendingInitiation { opened, sender: initiation.sender(), source })
    }

    fn handle_response(
        &mut self,
        source: Source,
        response: &Response<'_>,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Discard> {
        if !self.mac_key.verify(response.under_mac1(), &response.mac1()) {
            return Err(Discard::Mac1);
        }
        let index = response.receiver();
        let peer = *self.shared.indices.owner(index).ok_or(Discard::UnknownIndex)?;
        if !self.tunnels.get(&peer).is_some_and(|tunnel| tunnel.awaits_response(index)) {
            return Err(Discard::UnknownIndex);
        }
        let verdict = self.admission.judge(Kind::Response, &source, (response.under_mac2(), &response.mac2()), now);
        self.enforce(verdict, source, (response.sender(), response.mac1()), now, entropy)?;
        let config = self.config(&peer);
        let tunnel = self.tunnels.get_mut(&peer).ok_or(Discard::UnknownIndex)?;
        tunnel.handle_response(response, source, now, &config, &mut self.shared)?;
        self.settle(&peer);
        Ok(())
    }

    fn handle_cookie_reply(&mut self, reply: &CookieReply<'_>, now: Instant) -> Result<(), Discard> {
        let peer = self.shared.indices.owner(reply.receiver()).ok_or(Discard::UnknownIndex)?;
        self.tunnels.get_mut(peer).ok_or(Discard::UnknownIndex)?.handle_cookie_reply(reply, now)
    }

    /// Lets an admitted message pass; sends a cookie to a source that has to show one.
    fn enforce(
        &mut self,
        verdict: Verdict,
        source: Source,
        (receiver, mac1): (u32, [u8; 16]),
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Discard> {
        match verdict {
            Verdict::Admit => return Ok(()),
            Verdict::Refuse => return Err(Discard::SourceLimit),
            Verdict::AskForCookie => {}
        }
        if self.shared.transmits.len() < WAITING_TRANSMITS {
            let cookie = self.admission.cookie(&source, now, entropy);
            let mut nonce = [0; 24];
            entropy.fill(&mut nonce);
            let sealed_cookie = self.cookie_cipher.seal(&nonce, &cookie, &mac1);
            let reply = CookieReplyRepr { receiver, nonce, sealed_cookie }.emit();
            self.shared.send(Destination::Source(source), &reply);
        }
        Err(Discard::CookieRequired)
    }

    fn config(&self, peer: &NodePublic) -> PeerConfig {
        self.configs.get(peer).cloned().unwrap_or_default()
    }

    /// After something happened to a tunnel: forgets it if nothing is left of it, and else notes when it is due.
    fn settle(&mut self, peer: &NodePublic) {
        let config = self.config(peer);
        if let Some(tunnel) = self.tunnels.get(peer).filter(|tunnel| tunnel.is_idle(&config)) {
            self.shared.events.push_back(Event::Idle { peer: *peer, traffic: tunnel.traffic() });
            self.tunnels.remove(peer);
        }
        let due = self.tunnels.get(peer).and_then(|tunnel| tunnel.deadline(&config));
        let before = match due {
            Some(due) => self.scheduled.insert(*peer, due),
            None => self.scheduled.remove(peer),
        };
        if let Some(before) = before {
            self.deadlines.remove(&(before, *peer));
        }
        if let Some(due) = due {
            self.deadlines.insert((due, *peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crypto::SystemEntropy;

    use super::*;
    use crate::SendKey;
    use crate::limits::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, REKEY_TIMEOUT};

    fn moment(instant: Instant) -> Moment {
        Moment { instant, wall: Tai64n::from_unix(1_800_000_000, 0) }
    }

    /// An interface with a session of its own making, the key of that, and its peer.
    fn established(now: Instant) -> (Interface, Arc<SendKey>, NodePublic) {
        let interface = || Interface::new(NodePrivate::generate(&mut SystemEntropy), now, &mut SystemEntropy);
        let (mut alice, mut bob) = (interface(), interface());
        let (from, peer) = (Source::Direct(([127, 0, 0, 1], 1).into()), *bob.public());
        alice.handle_wanted(peer, moment(now), &mut SystemEntropy);
        let initiation = alice.poll_transmit().unwrap().message;
        let pending = bob.handle_datagram(from, &initiation, now, &mut SystemEntropy).unwrap().unwrap();
        bob.accept(pending, now, &mut SystemEntropy).unwrap();
        let response = bob.poll_transmit().unwrap().message;
        alice.handle_datagram(from, &response, now, &mut SystemEntropy).unwrap();
        let key = std::iter::from_fn(|| alice.poll_event()).find_map(|event| match event {
            Event::Send { key, .. } => Some(key),
            _ => None,
        });
        while alice.poll_transmit().is_some() {}
        (alice, key.unwrap(), peer)
    }

    fn initiations(interface: &mut Interface) -> usize {
        std::iter::from_fn(|| interface.poll_transmit()).filter(|transmit| transmit.message.len() == 148).count()
    }

    #[test]
    fn a_session_is_renewed_when_it_has_sealed_rekey_after_messages() {
        for (sealed, expected) in [(REKEY_AFTER_MESSAGES - 2, 0), (REKEY_AFTER_MESSAGES - 1, 1)] {
            let now = Instant::now();
            let (mut interface, key, _) = established(now);
            key.skip_to(sealed);
            let later = now + Duration::from_secs(6);
            key.begin(1, later).unwrap().seal(&mut [0; 64], 16, 1280).unwrap();
            interface.handle_timeout(moment(later), &mut SystemEntropy);
            interface.handle_timeout(moment(later + Duration::from_millis(334)), &mut SystemEntropy);
            assert_eq!(initiations(&mut interface), expected);
        }
    }

    #[test]
    fn a_session_without_a_counter_left_is_none_to_send_on() {
        let now = Instant::now();
        let (mut interface, key, peer) = established(now);
        interface.handle_wanted(peer, moment(now + REKEY_TIMEOUT), &mut SystemEntropy);
        assert_eq!(initiations(&mut interface), 0);
        let told = std::iter::from_fn(|| interface.poll_event())
            .any(|event| matches!(event, Event::Send { key: again, .. } if Arc::ptr_eq(&again, &key)));
        assert!(told, "who asks while there is a key is told it again");
        key.skip_to(REJECT_AFTER_MESSAGES);
        assert_eq!(interface.status(&peer).map(|status| status.established), Some(false));
        interface.handle_wanted(peer, moment(now + REKEY_TIMEOUT), &mut SystemEntropy);
        assert_eq!(initiations(&mut interface), 1);
    }

    #[test]
    fn a_removed_peer_leaves_nothing_behind() {
        let now = Instant::now();
        let (mut interface, _, peer) = established(now);
        let stranger = NodePrivate::generate(&mut SystemEntropy);
        let mut other = Interface::new(stranger, now, &mut SystemEntropy);
        other.handle_wanted(*interface.public(), moment(now), &mut SystemEntropy);
        let initiation = other.poll_transmit().unwrap().message;
        let from = Source::Direct(([127, 0, 0, 1], 2).into());
        let pending = interface.handle_datagram(from, &initiation, now, &mut SystemEntropy).unwrap().unwrap();
        interface.accept(pending, now, &mut SystemEntropy).unwrap();
        interface.configure(peer, PeerConfig::default(), now);
        assert_eq!((interface.tunnels.len(), interface.latest.len(), interface.configs.len()), (2, 1, 1));
        interface.remove(&peer);
        interface.remove(other.public());
        assert!(interface.tunnels.is_empty() && interface.latest.is_empty() && interface.configs.is_empty());
        assert!(interface.deadlines.is_empty() && interface.scheduled.is_empty());
        assert!(interface.shared.indices.is_empty());
    }
}
