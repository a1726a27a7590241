use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Connection;

/// Connections of clients that the caller has given back and that have not ended yet, in the order in which they were given
/// back: nobody waits for them any more, so they are the first to make room.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    all: BTreeMap<Turn, (IpAddr, Connection)>,
    by_source: BTreeSet<(IpAddr, Turn)>,
    next: u64,
}

/// When one was given back, before or after the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

impl Lingering {
    pub(super) fn add(&mut self, source: IpAddr, connection: Connection) -> Turn {
        let turn = Turn(self.next);
        self.next += 1;
        self.all.insert(turn, (source, connection));
        self.by_source.insert((source, turn));
        turn
    }

    pub(super) fn remove(&mut self, turn: Turn) {
        if let Some((source, _)) = self.all.remove(&turn) {
            self.by_source.remove(&(source, turn));
        }
    }

    /// The one that was given back first of all.
    pub(super) fn oldest(&self) -> Option<Connection> {
        self.all.values().next().map(|(_, connection)| *connection)
    }

    /// The one that was given back first of those of a source.
    pub(super) fn oldest_of(&self, source: IpAddr) -> Option<Connection> {
        let (_, turn) = self.by_source.range((source, Turn(0))..=(source, Turn(u64::MAX))).next()?;
        self.all.get(turn).map(|(_, connection)| *connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_given_back_is_the_oldest_of_all_and_of_its_source() {
        let (one, other) = (IpAddr::from([100, 64, 0, 1]), IpAddr::from([100, 64, 0, 2]));
        let mut lingering = Lingering::default();
        let first = lingering.add(one, Connection(9));
        lingering.add(other, Connection(3));
        lingering.add(one, Connection(4));
        assert_eq!((lingering.oldest(), lingering.oldest_of(other)), (Some(Connection(9)), Some(Connection(3))));
        lingering.remove(first);
        assert_eq!((lingering.oldest(), lingering.oldest_of(one)), (Some(Connection(3)), Some(Connection(4))));
        assert_eq!(lingering.oldest_of(IpAddr::from([100, 64, 0, 3])), None);
    }
}
