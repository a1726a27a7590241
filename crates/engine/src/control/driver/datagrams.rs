//! Datagrams that are no traffic, and what the handshake machine makes of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use crypto::{NodePublic, SystemEntropy};
use packet::demux::{Carried, Datagram};
use path::{PathChoice, RegionId, Way};
use wireguard::limits::REKEY_TIMEOUT;
use wireguard::{Destination, Event as Told, Source};

use super::{Driver, Note, RxOrder, Stranger, moment, via};
use crate::Event;
use crate::counters::count_many;

impl Driver {
    /// A word from a data thread.
    pub(super) fn note(&mut self, note: Note) {
        let now = moment();
        let entropy = &mut SystemEntropy;
        match note {
            Note::Sent(node) => {
                self.paths.handle_sent(&node, now.instant, entropy);
                self.netcheck.handle_activity(now.instant, entropy);
                self.take_flows(now.instant, false);
            }
            Note::Wanted(node) => {
                if self.shared.table.load().peer(&node).is_some() {
                    self.paths.handle_sent(&node, now.instant, entropy);
                    self.wireguard.handle_wanted(node, now, entropy);
                }
            }
            Note::Heard { node, via } => {
                self.paths.handle_received(&node, via, now.instant, entropy);
                self.take_flows(now.instant, false);
            }
            Note::Confirmed(session) => self.wireguard.handle_confirmed(session, now.instant),
            Note::Tsmp { node, packet } => self.take_tsmp(node, &packet),
            Note::Echo { node, packet } => self.take_echo(&node, &packet),
            Note::Refused { node, flow, reason } => self.tell_refusal(node, &flow, reason),
            Note::DeviceFailed(text) => self.backlog.push(Event::DeviceFailed(text)),
        }
    }

    /// A datagram that anybody may have sent.
    pub(super) fn stranger(&mut self, stranger: &Stranger) {
        let (source, message) = (stranger.source, &*stranger.message);
        let carried = match source {
            Source::Direct(_) => match Datagram::classify(message) {
                Datagram::Stun(datagram) => {
                    // An answer to nothing that was asked changes nothing.
                    let _stray = self.netcheck.handle_stun(datagram, Instant::now(), &mut SystemEntropy);
                    return;
                }
                Datagram::Direct(carried) => Some(carried),
                Datagram::Relayed { .. } | Datagram::Unknown => None,
            },
            Source::Derp { .. } => Carried::classify(message),
            Source::PeerRelay { .. } => None,
        };
        match carried {
            Some(Carried::Disco(envelope)) => {
                let Some(came) = way(&source) else { return };
                let taken = self.paths.handle_disco(&envelope, came, Instant::now(), &mut SystemEntropy);
                if let Err(refused) = taken {
                    tracing::trace!(%refused, "disco packet refused");
                }
            }
            Some(Carried::WireGuard(message)) => self.take_handshake(source, message),
            None => {}
        }
    }

    fn take_handshake(&mut self, source: Source, message: &[u8]) {
        let now = Instant::now();
        let entropy = &mut SystemEntropy;
        match self.wireguard.handle_datagram(source, message, now, entropy) {
            Ok(None) => {}
            Ok(Some(pending)) => {
                let is_peer = self.shared.table.load().peer(pending.peer()).is_some();
                let is_sender = match source {
                    Source::Derp { node, .. } => node == *pending.peer(),
                    _ => true,
                };
                if !is_peer || !is_sender {
                    return;
                }
                if let Err(discard) = self.wireguard.accept(pending, now, entropy) {
                    tracing::trace!(%discard, "handshake refused");
                }
            }
            Err(discard) => tracing::trace!(%discard, "handshake message refused"),
        }
    }

    /// Does what the handshake machine asks for; true when it asked for nothing.
    pub(super) fn pump_wireguard(&mut self) -> bool {
        let mut quiet = true;
        while let Some(event) = self.wireguard.poll_event() {
            quiet = false;
            self.wireguard_event(event);
        }
        while let Some(transmit) = self.wireguard.poll_transmit() {
            quiet = false;
            match transmit.destination {
                Destination::Peer(node) => {
                    if !self.send_to_peer(&node, &transmit.message) {
                        self.unsent.insert(node, (Instant::now(), transmit.message));
                    }
                }
                Destination::Answer(node, source) => {
                    if !self.send_to_peer(&node, &transmit.message) {
                        self.send_to_source(&source, &transmit.message);
                    }
                }
                Destination::Source(source) => self.send_to_source(&source, &transmit.message),
            }
        }
        quiet
    }

    fn wireguard_event(&mut self, event: Told) {
        let now = Instant::now();
        let table = self.shared.table.load_full();
        match event {
            Told::Receive { peer, key } => {
                if let Some(peer) = table.peer(&peer) {
                    let order = RxOrder::Receive { key, slot: peer.slot.clone() };
                    if self.shared.rx_orders.push(order).is_err() {
                        tracing::warn!("the receiving thread takes no keys: is the device stuck?");
                    }
                }
            }
            Told::Send { peer: node, key } => {
                let Some(peer) = table.peer(&node) else { return };
                let is_new = peer.slot.key().is_none_or(|before| before.session() != key.session());
                peer.slot.set_key(Some(key));
                peer.slot.wanted_told.store(0, Relaxed);
                if let Some(key) = peer.slot.ready() {
                    self.outbox.send_waiting(peer, &key, usize::from(table.view.mtu), now);
                }
                if is_new {
                    tracing::debug!(peer = %node, "session established");
                    self.backlog.push(Event::Handshake { peer: node });
                }
            }
            Told::Ended { peer, session } => {
                if let Some(peer) = table.peer(&peer) {
                    peer.slot.end_session(session);
                }
                // A key that no one can use any more is only memory.
                let _full = self.shared.rx_orders.push(RxOrder::End(session));
            }
            Told::Authenticated { peer, source } => {
                if let Some(via) = via(&source) {
                    self.paths.handle_received(&peer, via, now, &mut SystemEntropy);
                }
            }
            Told::HandshakeStarted { peer, .. } => {
                // What goes out may have to find its way first.
                self.paths.handle_sent(&peer, now, &mut SystemEntropy);
            }
            Told::HandshakeFailed { peer, attempts } => {
                tracing::debug!(%peer, attempts, "no answer to any handshake");
                if let Some(peer) = table.peer(&peer) {
                    let dropped = peer.slot.take_waiting(&self.shared.waiting).len();
                    count_many(&self.shared.counters.unsent_waiting, dropped);
                }
            }
            Told::Idle { .. } => {}
        }
    }

    /// Sends a message the best way there is; false when there is none.
    fn send_to_peer(&mut self, node: &NodePublic, message: &[u8]) -> bool {
        let choice = self.paths.choice(node);
        if let Some(peer) = self.shared.table.load().peer(node) {
            peer.slot.sent_bytes.fetch_add(message.len() as u64, Relaxed);
        }
        if let Some(to) = choice.direct() {
            self.shared.sockets.load().send_one(&to, message);
        }
        if let Some(region) = choice.relay() {
            self.shared.relay_out(region, *node, Bytes::copy_from_slice(message), message.len());
        }
        choice != PathChoice::Nowhere
    }

    /// Sends the handshake message that found no way to a peer, now that there is one: the next is seconds away.
    pub(super) fn send_unsent(&mut self, node: &NodePublic) {
        if let Some((at, message)) = self.unsent.remove(node)
            && at.elapsed() < REKEY_TIMEOUT
        {
            self.send_to_peer(node, &message);
        }
    }

    fn send_to_source(&self, source: &Source, message: &[u8]) {
        match way(source) {
            Some(Way::Udp(to)) => self.shared.sockets.load().send_one(&to, message),
            Some(Way::Relay { region, node }) => {
                self.shared.relay_out(region, node, Bytes::copy_from_slice(message), message.len());
            }
            None => {}
        }
    }
}

/// The way back to where a datagram came from.
fn way(source: &Source) -> Option<Way> {
    match *source {
        Source::Direct(address) => Some(Way::Udp(address)),
        Source::Derp { region, node } => {
            let region = u16::try_from(region).ok().and_then(RegionId::new)?;
            Some(Way::Relay { region, node })
        }
        Source::PeerRelay { .. } => None,
    }
}
