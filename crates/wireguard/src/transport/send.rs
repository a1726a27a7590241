use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crypto::NodePublic;
use crypto::tunnel::{CipherError, TAG, TransportKey};
use packet::wireguard::{PADDING, TRANSPORT_HEADER, TRANSPORT_OVERHEAD, TransportHeader};

use super::activity::{Activity, Tick};
use crate::SessionOver;
use crate::limits::REJECT_AFTER_MESSAGES;

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The slot ends before the message would.
    #[error("a slot of {have} bytes can't take a message of {need}")]
    Slot {
        /// Bytes that the message needs.
        need: usize,
        /// Bytes that the slot has.
        have: usize,
    },
    /// Every counter that [`SendKey::begin`] reserved is used.
    #[error("more packets than counters were reserved for")]
    Spent,
    /// The cipher takes no packet of that size.
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

/// The sending half of a session, for any number of threads at once.
///
/// A thread reserves counters for a whole train ([`SendKey::begin`], one atomic operation), then seals packet after
/// packet in place. Counters that are reserved and not used are skipped, which the protocol allows.
#[derive(Debug)]
pub struct SendKey {
    peer: NodePublic,
    session: u32,
    receiver: u32,
    expires: Instant,
    cipher: TransportKey,
    next: AtomicU64,
    activity: Arc<Activity>,
}

impl SendKey {
    pub(crate) fn new(
        peer: NodePublic,
        session: u32,
        receiver: u32,
        expires: Instant,
        cipher: TransportKey,
        activity: Arc<Activity>,
    ) -> Self {
        Self { peer, session, receiver, expires, cipher, next: AtomicU64::new(0), activity }
    }

    /// Whom it seals for.
    pub fn peer(&self) -> &NodePublic {
        &self.peer
    }

    /// This side's index of the session, as [`Event::Ended`](crate::Event::Ended) names it.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Reserves the next `count` counters and begins a train of at most so many packets.
    ///
    /// `now` is when the train is sent, for the tunnel's timers; one reading of the clock for a train will do.
    #[inline]
    pub fn begin(&self, count: u32, now: Instant) -> Result<Sealing<'_>, SessionOver> {
        if now >= self.expires {
            return Err(SessionOver);
        }
        let reserve = |next: u64| next.checked_add(u64::from(count)).filter(|end| *end <= REJECT_AFTER_MESSAGES);
        let first = self.next.fetch_update(Relaxed, Relaxed, reserve).map_err(|_| SessionOver)?;
        Ok(Sealing {
            key: self,
            counters: first..first + u64::from(count),
            tick: self.activity.tick(now),
            bytes: 0,
            data: false,
        })
    }

    /// Counters reserved so far.
    pub(crate) fn reserved(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Leaves no counter to reserve, whoever still holds the key.
    pub(crate) fn retire(&self) {
        self.next.store(REJECT_AFTER_MESSAGES, Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, next: u64) {
        self.next.store(next, Relaxed);
    }
}

/// A train being sealed. What it did is noted for the timers when it is dropped.
#[derive(Debug)]
pub struct Sealing<'a> {
    key: &'a SendKey,
    counters: Range<u64>,
    tick: Tick,
    bytes: u64,
    data: bool,
}

impl Sealing<'_> {
    /// Seals in place the packet of `length` bytes that lies in `slot` behind 16 bytes of room, and returns how many
    /// bytes of `slot` the message has. A packet of no bytes is a keepalive.
    ///
    /// The packet is padded to a multiple of 16, though not past `mtu`: the message never exceeds `mtu` by more than
    /// the 32 bytes that every message adds, unless the packet alone does.
    #[inline]
    pub fn seal(&mut self, slot: &mut [u8], length: usize, mtu: usize) -> Result<usize, SealError> {
        let padded = padded(length, mtu);
        let (need, have) = (padded.saturating_add(TRANSPORT_OVERHEAD), slot.len());
        let message = slot.get_mut(..need).ok_or(SealError::Slot { need, have })?;
        let counter = self.counters.next().ok_or(SealError::Spent)?;
        let (header, body) = message.split_at_mut(TRANSPORT_HEADER);
        let (text, tag) = body.split_at_mut(body.len() - TAG);
        header.copy_from_slice(&TransportHeader { receiver: self.key.receiver, counter }.emit());
        text[length..].fill(0);
        tag.copy_from_slice(&self.key.cipher.seal(counter, text)?);
        self.bytes += need as u64;
        self.data |= length > 0;
        Ok(need)
    }

    /// Seals a packet that lies elsewhere into `slot`.
    #[inline]
    pub fn seal_from(&mut self, slot: &mut [u8], packet: &[u8], mtu: usize) -> Result<usize, SealError> {
        let (need, have) = (padded(packet.len(), mtu).saturating_add(TRANSPORT_OVERHEAD), slot.len());
        let room = slot.get_mut(TRANSPORT_HEADER..TRANSPORT_HEADER + packet.len());
        room.ok_or(SealError::Slot { need, have })?.copy_from_slice(packet);
        self.seal(slot, packet.len(), mtu)
    }
}

impl Drop for Sealing<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.key.activity.note_sent(self.tick, self.bytes, self.data);
        }
    }
}

/// The length of a packet with its padding.
#[inline]
fn padded(length: usize, mtu: usize) -> usize {
    length.checked_next_multiple_of(PADDING).unwrap_or(length).min(mtu).max(length)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(now: Instant) -> SendKey {
        let activity = Arc::new(Activity::new(now));
        let expires = now + Duration::from_secs(180);
        SendKey::new(NodePublic::from_bytes([1; 32]), 1, 2, expires, TransportKey::new(&[3; 32]), activity)
    }

    fn counters(key: &SendKey, count: u32, now: Instant) -> Vec<u64> {
        let mut train = key.begin(count, now).unwrap();
        let mut slot = [0; 64];
        std::iter::from_fn(|| {
            train.seal(&mut slot, 0, 1280).ok().map(|_| TransportHeader::parse(&slot).unwrap().counter)
        })
        .collect()
    }

    #[test]
    fn packets_are_padded_to_16_but_never_above_the_mtu() {
        for (length, mtu, expected) in
            [(0, 1280, 0), (1, 1280, 16), (16, 1280, 16), (1273, 1280, 1280), (1281, 1420, 1296), (1419, 1420, 1420)]
        {
            assert_eq!(padded(length, mtu), expected);
        }
        assert_eq!(padded(1500, 1420), 1500);
        assert_eq!(padded(usize::MAX, 0), usize::MAX);
    }

    #[test]
    fn padding_is_zero_whatever_the_slot_held() {
        let now = Instant::now();
        let key = key(now);
        let mut slot = [0xff; 64];
        slot[16..19].copy_from_slice(b"abc");
        let length = key.begin(1, now).unwrap().seal(&mut slot, 3, 1280).unwrap();
        assert_eq!(length, 48);
        assert_eq!(TransportKey::new(&[3; 32]).open(0, &mut slot[16..48]), Ok(16));
        assert_eq!(&slot[16..32], b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(slot[48], 0xff);
    }

    #[test]
    fn a_slot_too_short_is_refused_and_costs_no_counter() {
        let now = Instant::now();
        let key = key(now);
        let mut train = key.begin(1, now).unwrap();
        assert_eq!(train.seal(&mut [0; 47], 3, 1280), Err(SealError::Slot { need: 48, have: 47 }));
        assert_eq!(train.seal_from(&mut [0; 10], b"abc", 1280), Err(SealError::Slot { need: 48, have: 10 }));
        assert!(matches!(train.seal(&mut [0; 47], usize::MAX, 1280), Err(SealError::Slot { .. })));
        assert_eq!(train.seal(&mut [0; 48], 3, 1280), Ok(48));
        assert_eq!(train.seal(&mut [0; 48], 3, 1280), Err(SealError::Spent));
    }

    #[test]
    fn trains_never_share_a_counter() {
        let now = Instant::now();
        let key = key(now);
        assert_eq!(counters(&key, 3, now), [0, 1, 2]);
        drop(key.begin(5, now));
        assert_eq!(counters(&key, 2, now), [8, 9]);
    }

    #[test]
    fn threads_never_share_a_counter() {
        let now = Instant::now();
        let key = key(now);
        let seen: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..500).flat_map(|_| counters(&key, 3, now)).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (6000, 6000));
    }

    /// The counter is 64 bits wide on every machine, and stops where the protocol says.
    #[test]
    fn counters_end_at_reject_after_messages() {
        let now = Instant::now();
        let key = key(now);
        key.skip_to(REJECT_AFTER_MESSAGES - 2);
        assert_eq!(key.begin(3, now).map(|_| ()), Err(SessionOver));
        assert_eq!(counters(&key, 2, now), [u64::MAX - 8194, u64::MAX - 8193]);
        for _ in 0..20_000 {
            assert_eq!(key.begin(1, now).map(|_| ()), Err(SessionOver));
        }
        assert_eq!(key.reserved(), REJECT_AFTER_MESSAGES);
    }

    #[test]
    fn a_key_seals_nothing_once_it_is_old_or_retired() {
        let now = Instant::now();
        let key = key(now);
        assert!(key.begin(1, now + Duration::from_millis(179_999)).is_ok());
        assert_eq!(key.begin(1, now + Duration::from_secs(180)).map(|_| ()), Err(SessionOver));
        key.retire();
        assert_eq!(key.begin(1, now).map(|_| ()), Err(SessionOver));
    }

    #[test]
    fn a_train_is_noted_once_with_all_its_bytes() {
        let now = Instant::now();
        let key = key(now);
        let mut train = key.begin(2, now).unwrap();
        train.seal(&mut [0; 64], 0, 1280).unwrap();
        train.seal(&mut [0; 64], 20, 1280).unwrap();
        assert_eq!(key.activity.traffic().sent, 0);
        drop(train);
        assert_eq!(key.activity.traffic().sent, 32 + 64);
        assert_eq!(key.activity.seen().sent_unanswered, Some(now));
    }
}
