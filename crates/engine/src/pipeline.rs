//! What the data threads are made of: cutting and joining packets, trains, queues between threads.

mod coalesce;
mod cut;
mod handoff;
mod outbox;
mod receive;
mod summary;
mod train;
mod transmit;
mod vnet;

pub(crate) use handoff::{Handoff, Wakeup};
pub(crate) use outbox::{Outbox, send_plain};
pub(crate) use receive::{FromRelay, Receiver, RxOrder};
pub(crate) use summary::summarize;
pub(crate) use transmit::Transmitter;
pub(crate) use vnet::{Segmentation, VnetHeader};

/// Room for one super-packet with its header.
pub(crate) const SUPER_PACKET: usize = crate::VNET_HEADER + 65_535;
