use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crypto::NodePublic;
use filter::Flow;
use path::RegionId;
use tokio::sync::mpsc;
use wireguard::Source;

use super::relays::RelayQueue;
use super::{Note, Stranger};
use crate::counters::{Live, count};
use crate::flows::{Batch, Direction};
use crate::pipeline::{FromRelay, Handoff, RxOrder, Wakeup};
use crate::slots::{Clock, Table, WaitingBytes};
use crate::sockets::Sockets;
use crate::{Config, Offloads, StartError};

/// Orders for the receiving thread: two for each session, which only come to be at a bounded rate.
const MOST_ORDERS: usize = 1 << 16;
/// Messages from relays that wait for it.
const MOST_FRAMES: usize = 1024;
/// Flows that the sending thread found new; older ones are told again.
const MOST_NEW_FLOWS: usize = 4096;

/// What the threads of an engine share. None of them waits for another in here.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) sockets: ArcSwap<Sockets>,
    pub(crate) relays: ArcSwap<BTreeMap<RegionId, RelayQueue>>,
    pub(crate) counters: Arc<Live>,
    pub(crate) waiting: WaitingBytes,
    pub(crate) clock: Clock,
    pub(crate) offloads: Offloads,
    pub(crate) rx_orders: Handoff<RxOrder>,
    pub(crate) frames: Handoff<FromRelay>,
    pub(crate) new_flows: Handoff<Flow>,
    pub(crate) wakeup: Wakeup,
    pub(crate) sent_flows: Arc<Batch>,
    pub(crate) received_flows: Arc<Batch>,
    /// What ICMP pings of this engine are told by; 0 while there are none.
    pub(crate) echo_identifier: AtomicU32,
    notes: mpsc::Sender<Note>,
    /// By UDP and by relay: a flood of one leaves the other its room.
    strangers: [mpsc::Sender<Stranger>; 2],
    stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        notes: mpsc::Sender<Note>,
        strangers: [mpsc::Sender<Stranger>; 2],
    ) -> Result<Self, StartError> {
        let counters = Arc::new(Live::default());
        let sockets = Sockets::open(config.port, config, &counters)
            .map_err(|source| StartError::Socket { port: config.port, source })?;
        let wakeup = Wakeup::new().map_err(|source| StartError::System { what: "wake-up event", source })?;
        Ok(Self {
            table: ArcSwap::from_pointee(Table::empty()),
            sockets: ArcSwap::from_pointee(sockets),
            relays: ArcSwap::default(),
            counters,
            waiting: WaitingBytes::default(),
            clock: Clock::start(),
            offloads: config.offloads,
            rx_orders: Handoff::new(MOST_ORDERS),
            frames: Handoff::new(MOST_FRAMES),
            new_flows: Handoff::new(MOST_NEW_FLOWS),
            wakeup,
            sent_flows: Arc::new(Batch::new(Direction::Sent)),
            received_flows: Arc::new(Batch::new(Direction::Received)),
            echo_identifier: AtomicU32::new(0),
            notes,
            strangers,
            stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wakeup.wake();
    }

    pub(crate) fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            count(&self.counters.control_full);
        }
    }

    pub(crate) fn stranger(&self, stranger: Stranger) {
        let queue = usize::from(matches!(stranger.source, Source::Derp { .. }));
        if self.strangers[queue].try_send(stranger).is_err() {
            count(&self.counters.control_full);
        }
    }

    /// Queues messages that follow each other for a peer at a relay; false when there is no room or no such relay.
    pub(crate) fn relay_out(&self, region: RegionId, to: NodePublic, bytes: Bytes, message: usize) -> bool {
        self.relays.load().get(&region).is_some_and(|queue| queue.push(to, bytes, message))
    }

    /// Hands a message that came by relay to the receiving thread.
    pub(crate) fn frame(&self, frame: FromRelay) {
        if self.frames.push(frame).is_err() {
            count(&self.counters.relay_unread);
        }
        self.wakeup.wake();
    }
}
