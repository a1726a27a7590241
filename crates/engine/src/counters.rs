use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What was dropped and why, since the engine started, and what batching is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from the device that no route leads anywhere for.
    pub unroutable: u64,
    /// Packets that waited for a handshake and were dropped for newer ones, or because it failed.
    pub unsent_waiting: u64,
    /// Packets to a peer to which no way is known.
    pub no_path: u64,
    /// Packets that a relay's queue had no room for, or whose relay is not there.
    pub relay_full: u64,
    /// Datagrams that the socket did not take.
    pub socket_refused: u64,
    /// Packets from the device that can't be read or cut.
    pub unreadable: u64,
    /// Messages of sessions that don't exist.
    pub unknown_session: u64,
    /// Messages received before, or too late.
    pub replayed: u64,
    /// Messages whose tag is wrong.
    pub forged: u64,
    /// Packets whose source address is not their sender's.
    pub spoofed: u64,
    /// Packets that the filter refused.
    pub filtered: u64,
    /// Packets that the device did not take.
    pub device_refused: u64,
    /// Messages for the control thread that found its queue full.
    pub control_full: u64,
    /// Frames from relays that found the receiving thread's queue full.
    pub relay_unread: u64,
    /// Whether trains are sent with UDP segmentation.
    pub udp_gso: bool,
    /// Whether trains are received with UDP coalescing.
    pub udp_gro: bool,
}

macro_rules! live {
    ($($name:ident)*) => {
        /// The counters as the threads count them.
        #[derive(Debug, Default)]
        pub(crate) struct Live {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) udp_gso: AtomicBool,
            pub(crate) udp_gro: AtomicBool,
        }

        impl Live {
            pub(crate) fn read(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Relaxed),)*
                    udp_gso: self.udp_gso.load(Relaxed),
                    udp_gro: self.udp_gro.load(Relaxed),
                }
            }
        }
    };
}

live! {
    unroutable unsent_waiting no_path relay_full socket_refused unreadable unknown_session replayed forged spoofed filtered
    device_refused control_full relay_unread
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub(crate) fn count_many(counter: &AtomicU64, many: usize) {
    counter.fetch_add(many as u64, Relaxed);
}
