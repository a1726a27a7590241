use std::collections::VecDeque;

use crypto::tunnel::{Identity, Tai64n};

use crate::indices::Indices;
use crate::{Destination, Event, Transmit};

/// What all tunnels of an interface have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) indices: Indices,
    pub(crate) events: VecDeque<Event>,
    pub(crate) transmits: VecDeque<Transmit>,
    last_stamp: Option<Tai64n>,
}

impl Shared {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            indices: Indices::default(),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            last_stamp: None,
        }
    }

    /// The stamp of an initiation: the wall's, or the next after the last when that clock stood still or went back.
    ///
    /// Peers take an initiation that is not later than the last for a replay.
    pub(crate) fn stamp(&mut self, wall: Tai64n) -> Tai64n {
        let stamp = self.last_stamp.map_or(wall, |last| wall.max(last.successor()));
        self.last_stamp = Some(stamp);
        stamp
    }

    pub(crate) fn send(&mut self, destination: Destination, message: &[u8]) {
        self.transmits.push_back(Transmit { destination, message: message.to_vec() });
    }
}
