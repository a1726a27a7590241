use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use packet::wireguard::{PADDING, TRANSPORT_HEADER, TRANSPORT_OVERHEAD};
use path::{PathChoice, Via};
use wireguard::{SendKey, SessionOver};

use super::cut::Cut;
use super::train::Train;
use super::vnet::VnetHeader;
use crate::control::Shared;
use crate::counters::{count, count_many};
use crate::flows::{Recorder, Volume};
use crate::slots::Peer;
use crate::sockets::Patience;

/// Trains that may be open at a time.
const TRAINS: usize = 4;

/// Seals packets into trains and sends them: one for each thread that sends.
#[derive(Debug)]
pub(crate) struct Outbox {
    trains: [Train; TRAINS],
    shared: Arc<Shared>,
    pub(crate) recorder: Recorder,
    patience: Patience,
}

impl Outbox {
    pub(crate) fn new(shared: Arc<Shared>, patience: Patience) -> Self {
        let recorder = Recorder::new(shared.sent_flows.clone());
        Self { trains: std::array::from_fn(|_| Train::new()), shared, recorder, patience }
    }

    /// Seals all pieces of a packet for a peer. They leave with the next [`Self::flush`], or earlier.
    pub(crate) fn send(
        &mut self,
        peer: &Peer,
        key: &SendKey,
        cut: &Cut<'_>,
        mtu: usize,
        now: Instant,
    ) -> Result<(), SessionOver> {
        let choice = peer.slot.path();
        let pieces = cut.count();
        let mut sealing = key.begin(pieces as u32, now)?;
        for piece in 0..pieces {
            let length = cut.length(piece);
            // As `Sealing::seal` pads.
            let need = length.next_multiple_of(PADDING).min(mtu).max(length) + TRANSPORT_OVERHEAD;
            let train = self.train_for(peer, choice, need);
            let Some(room) = train.room(need) else {
                count(&self.shared.counters.unreadable);
                continue;
            };
            let inner = &mut room[TRANSPORT_HEADER..TRANSPORT_HEADER + length];
            cut.write(piece, inner);
            if let Some(address) = peer.masquerade(inner[0] >> 4 == 4)
                && packet::ip::set_source(inner, address).is_err()
            {
                count(&self.shared.counters.unreadable);
                continue;
            }
            match sealing.seal(room, length, mtu) {
                Ok(written) => train.push(written),
                Err(_) => count(&self.shared.counters.unreadable),
            }
        }
        Ok(())
    }

    /// Sends what waited for a peer's key, in order; what finds the session over waits again.
    pub(crate) fn send_waiting(&mut self, peer: &Peer, key: &SendKey, mtu: usize, now: Instant) {
        let mut over = false;
        for packet in peer.slot.take_waiting(&self.shared.waiting) {
            over = over
                || match Cut::new(&VnetHeader::WHOLE, &packet) {
                    Ok(cut) => self.send(peer, key, &cut, mtu, now).is_err(),
                    Err(_) => false,
                };
            if over {
                let dropped = peer.slot.wait(packet, &self.shared.waiting);
                count_many(&self.shared.counters.unsent_waiting, dropped);
            }
        }
    }

    /// Sends all trains, and makes what was counted visible.
    pub(crate) fn flush(&mut self) {
        for at in 0..TRAINS {
            self.depart(at);
        }
        self.recorder.flush();
    }

    /// The open train to a peer, or one that is empty.
    fn train_for(&mut self, peer: &Peer, choice: PathChoice, need: usize) -> &mut Train {
        let own = self.trains.iter().position(|train| train.slot().is_some_and(|slot| Arc::ptr_eq(slot, &peer.slot)));
        let at = own.or_else(|| self.trains.iter().position(Train::is_empty)).unwrap_or_else(|| {
            (0..TRAINS).for_each(|at| self.depart(at));
            0
        });
        if self.trains[at].room(need).is_none() {
            self.depart(at);
        }
        let train = &mut self.trains[at];
        if train.is_empty() {
            // It may have been begun for another peer whose packet then could not be sealed.
            train.begin(peer.slot.clone(), choice);
        }
        train
    }

    fn depart(&mut self, at: usize) {
        let train = &mut self.trains[at];
        let choice = train.choice();
        let volume = Volume { packets: train.count() as u64, bytes: train.bytes().len() as u64 };
        let Some(slot) = train.slot().filter(|_| volume.packets > 0).cloned() else {
            train.reset();
            return;
        };
        if let Some(direct) = choice.direct() {
            self.shared.sockets.load().send_train(&direct, train.bytes(), train.message_length(), self.patience);
            self.recorder.physical(&slot.node, Via::Direct(direct), volume);
        }
        if let Some(region) = choice.relay() {
            let bytes = Bytes::copy_from_slice(train.bytes());
            if self.shared.relay_out(region, slot.node, bytes, train.message_length()) {
                self.recorder.physical(&slot.node, Via::Relay(region), volume);
            } else {
                count_many(&self.shared.counters.relay_full, train.count());
            }
        }
        if choice == PathChoice::Nowhere {
            count_many(&self.shared.counters.no_path, train.count());
        }
        slot.sent_bytes.fetch_add(volume.bytes, Relaxed);
        train.reset();
    }
}

/// Seals a packet that is whole; false when the session is over. It leaves with the next flush.
pub(crate) fn send_plain(outbox: &mut Outbox, peer: &Peer, key: &SendKey, packet: &[u8], mtu: usize) -> bool {
    match Cut::new(&VnetHeader::WHOLE, packet) {
        Ok(cut) => outbox.send(peer, key, &cut, mtu, Instant::now()).is_ok(),
        // Nothing that this node makes itself is so.
        Err(_) => true,
    }
}
