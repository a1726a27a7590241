//! What waits to be sent to one client.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crypto::NodePublic;

use crate::link::Outgoing;

/// How many packets of each kind wait for a client before the oldest are dropped.
pub(crate) const MOST_PACKETS: usize = 32;

/// How many frames about peers wait for a client before new ones are dropped: they are advice.
const MOST_NOTES: usize = 64;

/// From this many waiting packets on, who sends to the client waits until it has had its turn to write.
///
/// Together with what one sender handles in a turn this is what a queue holds: where nothing but the relay's own
/// processors is slow, nothing is dropped, and no work is spent on reading what would be.
const PRESSED_FROM: usize = MOST_PACKETS / 2;

/// How many may wait for one client's turn; more go on and have packets dropped.
const MOST_PRESSING: usize = 64;

/// From this many waiting packets on, a packet is copied out of the buffer that it was read into, so that a client that
/// doesn't read keeps its packets in memory but not what came with them.
const COPY_FROM: usize = 8;

/// The bounded queues of one client: filled by other clients' tasks, emptied by its own.
///
/// The lock is this client's alone and is held for a push or for taking a batch, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    notes: VecDeque<Outgoing>,
    disco: VecDeque<Waiting>,
    data: VecDeque<Waiting>,
    /// For a relay of the mesh: the keys that came or went since it was last told.
    changed: BTreeSet<NodePublic>,
    /// Who sends what is here, and whether only the end is worth waking it for.
    waker: Option<Waker>,
    only_ending: bool,
    /// Who waits for room to send more to this client.
    pressing: Vec<Waker>,
    ending: Option<Ending>,
}

/// A packet that waits.
#[derive(Debug)]
struct Waiting {
    /// The connection that it came over.
    sender: u64,
    frame: Outgoing,
}

/// Why a relay ends a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its key is not admitted any more.
    Revoked,
    /// A relay of the mesh asked for it.
    ByMesh,
    /// Its key has too many connections, and this was the oldest.
    TooMany,
    /// The relay stops, after what is queued is sent.
    Restart,
}

/// Which queue a packet waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Packets that look for a path: few, and worth more than data.
    Disco,
    /// Everything else.
    Data,
}

impl Outbox {
    /// Adds a packet; says what came of it.
    ///
    /// When the lane is full, the oldest packet of the sender that has most of them there is dropped: one sender that
    /// floods a client loses its own packets, not those of others.
    pub(crate) fn push_packet(&self, lane: Lane, sender: u64, mut frame: Outgoing) -> Pushed {
        let mut queues = self.locked();
        if queues.ending.is_some() {
            return Pushed { dropped: true, pressed: false };
        }
        let queue = match lane {
            Lane::Disco => &mut queues.disco,
            Lane::Data => &mut queues.data,
        };
        let dropped = queue.len() >= MOST_PACKETS;
        if dropped {
            drop_from_the_greediest(queue);
        }
        if queue.len() >= COPY_FROM {
            frame.detach();
        }
        queue.push_back(Waiting { sender, frame });
        let pressed = queues.is_pressed();
        wake(queues);
        Pushed { dropped, pressed }
    }

    /// Whether who has just sent packets here should wait before sending more; `waker` is then told when to go on.
    ///
    /// Only the client's turn is waited for, never its network: one that doesn't read has packets dropped.
    pub(crate) fn wait_for_room(&self, waker: &Waker) -> bool {
        let mut queues = self.locked();
        let wait = queues.is_pressed() && queues.ending.is_none() && queues.pressing.len() < MOST_PRESSING;
        if wait && !queues.pressing.iter().any(|other| other.will_wake(waker)) {
            queues.pressing.push(waker.clone());
        }
        wait
    }

    /// Adds a frame that is not a packet, unless too many wait.
    pub(crate) fn push_note(&self, note: Outgoing) -> bool {
        let mut queues = self.locked();
        let fits = queues.notes.len() < MOST_NOTES && queues.ending.is_none();
        if fits {
            queues.notes.push_back(note);
            wake(queues);
        }
        fits
    }

    /// Notes that a key came or went, for a relay of the mesh that wants to know.
    pub(crate) fn push_change(&self, key: NodePublic) {
        let mut queues = self.locked();
        if queues.ending.is_none() {
            queues.changed.insert(key);
            wake(queues);
        }
    }

    /// Takes up to `most` of the keys that came or went; how they stand now is for the hub to say.
    pub(crate) fn take_changes(&self, most: usize) -> Vec<NodePublic> {
        let mut queues = self.locked();
        std::iter::from_fn(|| queues.changed.pop_first()).take(most).collect()
    }

    /// Ends the connection; the first reason counts. Unless the relay restarts, what waits is forgotten.
    pub(crate) fn end(&self, ending: Ending) {
        let mut queues = self.locked();
        if queues.ending.is_none() {
            queues.ending = Some(ending);
            if ending != Ending::Restart {
                queues.notes.clear();
                queues.disco.clear();
                queues.data.clear();
                queues.changed.clear();
            }
        }
        let pressing = std::mem::take(&mut queues.pressing);
        wake(queues);
        pressing.into_iter().for_each(Waker::wake);
    }

    /// Takes up to `frames` frames and about `bytes` bytes: notes, then disco, then data.
    ///
    /// When there are none, `waker` is told about the next.
    pub(crate) fn take(&self, frames: usize, bytes: usize, waker: &Waker, mut each: impl FnMut(Outgoing)) -> Taken {
        let mut queues = self.locked();
        let (mut count, mut length) = (0, 0);
        while count < frames && length < bytes {
            let Some(frame) = queues.pop() else { break };
            count += 1;
            length += frame.len();
            each(frame);
        }
        queues.only_ending = false;
        if count == 0 && queues.changed.is_empty() {
            queues.wait(waker, false);
        }
        let taken = Taken { count, changes: !queues.changed.is_empty(), ending: queues.ending };
        if !queues.pressing.is_empty() && !queues.is_pressed() {
            let pressing = std::mem::take(&mut queues.pressing);
            drop(queues);
            pressing.into_iter().for_each(Waker::wake);
        }
        taken
    }

    /// Why the connection is to end, if it is. If not, `waker` is told when it is, and of nothing else: who can't send
    /// need not know what more there is to send.
    pub(crate) fn ending(&self, waker: &Waker) -> Option<Ending> {
        let mut queues = self.locked();
        if queues.ending.is_none() {
            queues.wait(waker, true);
        }
        let (ending, pressing) = (queues.ending, std::mem::take(&mut queues.pressing));
        drop(queues);
        pressing.into_iter().for_each(Waker::wake);
        ending
    }

    /// Gives back memory that only a busy client needs.
    pub(crate) fn shrink(&self) {
        let mut queues = self.locked();
        if queues.is_empty() {
            queues.notes = VecDeque::new();
            queues.disco = VecDeque::new();
            queues.data = VecDeque::new();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// One had to be dropped: this or another.
    pub(crate) dropped: bool,
    /// Who sends should see whether to wait: [`Outbox::wait_for_room`].
    pub(crate) pressed: bool,
}

/// What [`Outbox::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many frames.
    pub(crate) count: usize,
    /// Whether [`Outbox::take_changes`] has something.
    pub(crate) changes: bool,
    /// Whether the connection is to end.
    pub(crate) ending: Option<Ending>,
}

impl Queues {
    fn wait(&mut self, waker: &Waker, only_ending: bool) {
        self.only_ending = only_ending;
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn pop(&mut self) -> Option<Outgoing> {
        if let Some(note) = self.notes.pop_front() {
            return Some(note);
        }
        self.disco.pop_front().or_else(|| self.data.pop_front()).map(|waiting| waiting.frame)
    }

    /// Whether many packets wait for nothing but the client's turn.
    fn is_pressed(&self) -> bool {
        !self.only_ending && (self.data.len() >= PRESSED_FROM || self.disco.len() >= PRESSED_FROM)
    }

    fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.disco.is_empty() && self.data.is_empty()
    }
}

/// Wakes who sends, outside of the lock that it will want.
fn wake(mut queues: MutexGuard<'_, Queues>) {
    let worth_it = !queues.only_ending || queues.ending.is_some();
    let waker = if worth_it { queues.waker.take() } else { None };
    drop(queues);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn drop_from_the_greediest(queue: &mut VecDeque<Waiting>) {
    let share = |sender: u64| queue.iter().filter(|waiting| waiting.sender == sender).count();
    // The first of several equal shares wins, which is the oldest packet: with one sender that is plain drop-oldest.
    let mut greediest = (0, 0);
    for (index, waiting) in queue.iter().enumerate() {
        let share = share(waiting.sender);
        if share > greediest.1 {
            greediest = (index, share);
        }
    }
    queue.remove(greediest.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use packet::derp::{Frame, FrameKind};

    const KEY: NodePublic = NodePublic::from_bytes([1; 32]);

    fn frame(packet: impl Into<Bytes>) -> Outgoing {
        Outgoing::packet(FrameKind::RECV_PACKET, &KEY, packet.into())
    }

    fn push(outbox: &Outbox, sender: u64, byte: u8) -> bool {
        outbox.push_packet(Lane::Data, sender, frame(vec![byte])).dropped
    }

    fn drain(outbox: &Outbox) -> Vec<u8> {
        let mut out = Vec::new();
        outbox.take(1000, usize::MAX, Waker::noop(), |frame| match frame {
            Outgoing::Packet { packet, .. } | Outgoing::Forward { packet, .. } => out.push(packet[0]),
            Outgoing::Whole(bytes) => out.push(bytes[0]),
        });
        out
    }

    #[test]
    fn drp_06_a_client_that_does_not_read_keeps_the_newest_32_packets() {
        let outbox = Outbox::default();
        for byte in 0..32 {
            assert!(!push(&outbox, 1, byte));
        }
        for byte in 32..200 {
            assert!(push(&outbox, 1, byte));
        }
        assert_eq!(drain(&outbox), (168..200).collect::<Vec<u8>>());
    }

    #[test]
    fn drp_05_who_floods_a_client_loses_their_own_packets_and_not_those_of_others() {
        let outbox = Outbox::default();
        for byte in 0..5 {
            push(&outbox, 2, byte);
        }
        for _ in 0..3200 {
            push(&outbox, 1, 99);
        }
        let kept = drain(&outbox);
        assert_eq!(kept.len(), MOST_PACKETS);
        assert_eq!(kept[..5], [0, 1, 2, 3, 4]);
    }

    #[test]
    fn disco_goes_before_data_and_notes_before_both() {
        let outbox = Outbox::default();
        push(&outbox, 1, 50);
        outbox.push_packet(Lane::Disco, 1, frame(vec![40]));
        assert!(outbox.push_note(Outgoing::frame(&Frame::KeepAlive)));
        assert_eq!(drain(&outbox), [6, 40, 50]);
    }

    #[test]
    fn data_does_not_push_disco_out() {
        let outbox = Outbox::default();
        outbox.push_packet(Lane::Disco, 1, frame(vec![40]));
        for _ in 0..100 {
            push(&outbox, 1, 50);
        }
        assert_eq!(drain(&outbox)[0], 40);
    }

    #[test]
    fn drp_04_notes_that_nobody_reads_do_not_pile_up() {
        let outbox = Outbox::default();
        let taken = (0..10_000).filter(|_| outbox.push_note(Outgoing::frame(&Frame::KeepAlive))).count();
        assert_eq!(taken, MOST_NOTES);
    }

    #[test]
    fn an_ended_connection_forgets_what_waits_unless_the_relay_restarts() {
        let revoked = Outbox::default();
        push(&revoked, 1, 1);
        revoked.end(Ending::Revoked);
        revoked.end(Ending::Restart);
        assert!(push(&revoked, 1, 2));
        assert_eq!(revoked.ending(Waker::noop()), Some(Ending::Revoked));
        assert!(drain(&revoked).is_empty());
        let restarting = Outbox::default();
        push(&restarting, 1, 1);
        restarting.end(Ending::Restart);
        assert_eq!(drain(&restarting), [1]);
    }

    #[test]
    fn a_waiting_packet_shares_its_buffer_only_while_few_wait() {
        let outbox = Outbox::default();
        let chunk = Bytes::from(vec![0; 1000]);
        for _ in 0..20 {
            outbox.push_packet(Lane::Data, 1, frame(chunk.slice(10..20)));
        }
        let mut shared = 0;
        outbox.take(100, usize::MAX, Waker::noop(), |frame| {
            if let Outgoing::Packet { packet, .. } = frame {
                shared += usize::from(chunk.as_ptr_range().contains(&packet.as_ptr()));
            }
        });
        assert_eq!(shared, COPY_FROM);
    }

    #[test]
    fn who_sends_faster_than_the_client_has_turns_waits_for_its_turn() {
        let outbox = Outbox::default();
        for byte in 0..15 {
            push(&outbox, 1, byte);
        }
        assert!(!outbox.wait_for_room(Waker::noop()));
        assert!(outbox.push_packet(Lane::Data, 1, frame(vec![15])).pressed);
        let (woken, waker) = counter();
        assert!(outbox.wait_for_room(&waker));
        drain(&outbox);
        assert_eq!(woken.count(), 1);
        assert!(!outbox.wait_for_room(&waker));
    }

    #[test]
    fn drp_06_nobody_waits_for_a_client_that_does_not_read() {
        let outbox = Outbox::default();
        for byte in 0..20 {
            push(&outbox, 1, byte);
        }
        let (woken, waker) = counter();
        assert!(outbox.wait_for_room(&waker));
        // Its network takes nothing more.
        assert_eq!(outbox.ending(Waker::noop()), None);
        assert_eq!(woken.count(), 1);
        assert!(!outbox.wait_for_room(&waker));
        assert!(!outbox.push_packet(Lane::Data, 1, frame(vec![1])).pressed);
    }

    #[test]
    fn nobody_waits_for_a_client_that_is_gone() {
        let outbox = Outbox::default();
        for byte in 0..20 {
            push(&outbox, 1, byte);
        }
        let (woken, waker) = counter();
        assert!(outbox.wait_for_room(&waker));
        outbox.end(Ending::Restart);
        assert_eq!(woken.count(), 1);
        assert!(!outbox.wait_for_room(&waker));
    }

    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicUsize);

    impl Count {
        fn count(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn counter() -> (std::sync::Arc<Count>, Waker) {
        let count = std::sync::Arc::new(Count::default());
        (count.clone(), count.into())
    }

    #[test]
    fn a_key_that_comes_and_goes_while_nobody_reads_is_one_change() {
        let outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push_change(KEY);
        }
        assert!(outbox.take(10, usize::MAX, Waker::noop(), |_| ()).changes);
        assert_eq!(outbox.take_changes(10), [KEY]);
        assert!(outbox.take_changes(10).is_empty());
    }

    #[test]
    fn a_batch_is_bounded_by_frames_and_by_bytes() {
        let outbox = Outbox::default();
        for byte in 0..20 {
            push(&outbox, 1, byte);
        }
        assert_eq!(outbox.take(3, usize::MAX, Waker::noop(), |_| ()).count, 3);
        assert_eq!(outbox.take(100, 39, Waker::noop(), |_| ()).count, 2);
    }
}
