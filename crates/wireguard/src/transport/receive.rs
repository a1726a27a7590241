use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crypto::NodePublic;
use crypto::tunnel::{CipherError, TransportKey};
use packet::wireguard::{MessageError, TRANSPORT_HEADER, TransportHeader};

use super::activity::{Activity, Tick};
use super::window::Window;
use crate::SessionOver;
use crate::limits::REJECT_AFTER_MESSAGES;

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a transport message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// Addressed to another session.
    #[error("the message belongs to session {0:08x}")]
    OtherSession(u32),
    /// Its counter is past the last that a session may use.
    #[error("the message's counter is past the last of a session")]
    Counter,
    /// Received before, or too long after its time.
    #[error("the message is a replay, or older than the window")]
    Replayed,
    /// The tag is wrong.
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

/// What the machine and a receive key tell each other.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    /// Set by the machine: open nothing any more.
    pub(crate) over: AtomicBool,
    /// Set by the key: something opened, so the peer has the session too.
    pub(crate) confirmed: AtomicBool,
}

/// The receiving half of a session and its replay window: the one thread's that holds it.
#[derive(Debug)]
pub struct RecvKey {
    peer: NodePublic,
    session: u32,
    expires: Instant,
    cipher: TransportKey,
    window: Window,
    /// Whether the first message to open is news to the machine.
    unconfirmed: bool,
    state: Arc<SessionState>,
    activity: Arc<Activity>,
}

impl RecvKey {
    pub(crate) fn new(
        peer: NodePublic,
        session: u32,
        expires: Instant,
        cipher: TransportKey,
        state: Arc<SessionState>,
        activity: Arc<Activity>,
    ) -> Self {
        let unconfirmed = !state.confirmed.load(Relaxed);
        Self { peer, session, expires, cipher, window: Window::new(), unconfirmed, state, activity }
    }

    /// Whose messages it opens.
    pub fn peer(&self) -> &NodePublic {
        &self.peer
    }

    /// The index that messages of the session are addressed to.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Begins a batch of messages that arrived at `now`.
    #[inline]
    pub fn begin(&mut self, now: Instant) -> Result<Opening<'_>, SessionOver> {
        if now >= self.expires || self.state.over.load(Relaxed) {
            return Err(SessionOver);
        }
        let tick = self.activity.tick(now);
        Ok(Opening { key: self, tick, bytes: 0, data: false })
    }
}

/// A message that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where in the datagram the packet lies, its padding included: the packet's own header says where it ends.
    pub packet: Range<usize>,
    /// Whether this is the first message of a session that the peer began.
    ///
    /// Tell [`Interface::handle_confirmed`](crate::Interface::handle_confirmed) soon: from then on this side may send.
    pub confirms: bool,
}

impl Opened {
    /// Whether the message is empty. There is no packet in it to deliver.
    pub fn is_keepalive(&self) -> bool {
        self.packet.is_empty()
    }
}

/// A batch being opened. What it did is noted for the timers when it is dropped.
#[derive(Debug)]
pub struct Opening<'a> {
    key: &'a mut RecvKey,
    tick: Tick,
    bytes: u64,
    data: bool,
}

impl Opening<'_> {
    /// Opens a datagram in place. After an error its bytes are undefined and nothing else has changed.
    #[inline]
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let TransportHeader { receiver, counter } = TransportHeader::parse(datagram)?;
        if receiver != self.key.session {
            return Err(OpenError::OtherSession(receiver));
        }
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(OpenError::Counter);
        }
        if !self.key.window.admits(counter) {
            return Err(OpenError::Replayed);
        }
        let length = self.key.cipher.open(counter, &mut datagram[TRANSPORT_HEADER..])?;
        self.key.window.mark(counter);
        self.bytes += datagram.len() as u64;
        self.data |= length > 0;
        let confirms = self.key.unconfirmed;
        if confirms {
            self.key.unconfirmed = false;
            self.key.state.confirmed.store(true, Relaxed);
        }
        Ok(Opened { packet: TRANSPORT_HEADER..TRANSPORT_HEADER + length, confirms })
    }
}

impl Drop for Opening<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.key.activity.note_received(self.tick, self.bytes, self.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::SendKey;

    fn pair(now: Instant) -> (SendKey, RecvKey) {
        let peer = NodePublic::from_bytes([1; 32]);
        let activity = Arc::new(Activity::new(now));
        let expires = now + Duration::from_secs(180);
        let cipher = || TransportKey::new(&[3; 32]);
        (
            SendKey::new(peer, 8, 9, expires, cipher(), activity.clone()),
            RecvKey::new(peer, 9, expires, cipher(), Arc::default(), activity),
        )
    }

    fn sealed(key: &SendKey, packet: &[u8], now: Instant) -> Vec<u8> {
        let mut slot = vec![0; packet.len() + 64];
        let length = key.begin(1, now).unwrap().seal_from(&mut slot, packet, 1420).unwrap();
        slot.truncate(length);
        slot
    }

    #[test]
    fn what_was_sealed_opens_in_place() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        let mut datagram = sealed(&send, b"a packet", now);
        let opened = receive.begin(now).unwrap().open(&mut datagram).unwrap();
        assert_eq!(&datagram[opened.packet], b"a packet\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn an_empty_packet_is_a_keepalive_and_not_delivered() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        let mut datagram = sealed(&send, b"", now);
        assert_eq!(datagram.len(), 32);
        assert!(receive.begin(now).unwrap().open(&mut datagram).unwrap().is_keepalive());
    }

    #[test]
    fn a_replay_inside_or_outside_the_window_is_refused() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        let (first, second) = (sealed(&send, b"1", now), sealed(&send, b"2", now));
        let mut batch = receive.begin(now).unwrap();
        assert!(batch.open(&mut second.clone()).is_ok());
        assert_eq!(batch.open(&mut second.clone()), Err(OpenError::Replayed));
        send.skip_to(1 + 8192);
        assert!(batch.open(&mut sealed(&send, b"3", now)).is_ok());
        assert_eq!(batch.open(&mut first.clone()), Err(OpenError::Replayed));
        assert_eq!(batch.open(&mut second.clone()), Err(OpenError::Replayed));
    }

    #[test]
    fn nothing_moves_before_the_tag_verifies() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        send.skip_to(1 << 40);
        let far = sealed(&send, b"far ahead", now);
        for at in 16..far.len() {
            let mut forged = far.clone();
            forged[at] ^= 1;
            assert!(matches!(receive.begin(now).unwrap().open(&mut forged), Err(OpenError::Cipher(_))));
        }
        assert!(!receive.state.confirmed.load(Relaxed));
        assert_eq!(receive.activity.traffic().received, 0);
        send.skip_to(0);
        assert!(receive.begin(now).unwrap().open(&mut sealed(&send, b"near", now)).unwrap().confirms);
        assert!(receive.begin(now).unwrap().open(&mut far.clone()).is_ok());
    }

    #[test]
    fn a_counter_at_reject_after_messages_is_refused_unopened() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        send.skip_to(REJECT_AFTER_MESSAGES - 1);
        let last = sealed(&send, b"last", now);
        assert!(receive.begin(now).unwrap().open(&mut last.clone()).is_ok());
        for counter in [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, u64::MAX] {
            let mut datagram = TransportHeader { receiver: 9, counter }.emit().to_vec();
            let mut text = *b"sealed by a peer";
            let tag = TransportKey::new(&[3; 32]).seal(counter, &mut text).unwrap();
            datagram.extend_from_slice(&text);
            datagram.extend_from_slice(&tag);
            assert_eq!(receive.begin(now).unwrap().open(&mut datagram), Err(OpenError::Counter));
        }
    }

    #[test]
    fn only_the_first_message_of_a_peers_session_confirms_it() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        let confirms: Vec<bool> =
            (0..3).map(|_| receive.begin(now).unwrap().open(&mut sealed(&send, b"", now)).unwrap().confirms).collect();
        assert_eq!(confirms, [true, false, false]);
        assert!(receive.state.confirmed.load(Relaxed));
    }

    #[test]
    fn a_key_opens_nothing_once_it_is_old_or_over() {
        let now = Instant::now();
        let (_, mut receive) = pair(now);
        assert!(receive.begin(now + Duration::from_millis(179_999)).is_ok());
        assert_eq!(receive.begin(now + Duration::from_secs(180)).map(|_| ()), Err(SessionOver));
        receive.state.over.store(true, Relaxed);
        assert_eq!(receive.begin(now).map(|_| ()), Err(SessionOver));
    }

    #[test]
    fn a_datagram_of_any_size_is_refused_and_the_thread_lives_on() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        for length in (0..200).chain([1500, 9000, 65_507, 65_535]) {
            let mut datagram = vec![0; length];
            assert!(receive.begin(now).unwrap().open(&mut datagram).is_err());
            datagram.iter_mut().take(1).for_each(|kind| *kind = 4);
            datagram.iter_mut().skip(4).take(1).for_each(|receiver| *receiver = 9);
            assert!(receive.begin(now).unwrap().open(&mut datagram).is_err());
        }
        assert!(receive.begin(now).unwrap().open(&mut sealed(&send, b"still here", now)).is_ok());
        let large = vec![7; 65_535 - 32];
        assert!(receive.begin(now).unwrap().open(&mut sealed(&send, &large, now)).is_ok());
    }

    #[test]
    fn a_message_of_another_session_is_named_not_opened() {
        let now = Instant::now();
        let (send, mut receive) = pair(now);
        let mut datagram = sealed(&send, b"x", now);
        datagram[4] = 10;
        assert_eq!(receive.begin(now).unwrap().open(&mut datagram), Err(OpenError::OtherSession(10)));
    }
}
