use std::collections::BTreeMap;

use crate::RegionId;

/// What this node's connection to a relay region is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayState {
    /// It stands.
    Up,
    /// It is not wanted at the moment; a packet would open it.
    Closed,
    /// It broke, or could not be made.
    Down,
}

/// The regions as this node's own connections show them.
#[derive(Debug, Default)]
pub(super) struct Relays {
    states: BTreeMap<RegionId, RelayState>,
    own_home: Option<RegionId>,
}

impl Relays {
    pub(super) fn set(&mut self, region: RegionId, state: RelayState) {
        match state {
            RelayState::Closed => self.states.remove(&region),
            RelayState::Up | RelayState::Down => self.states.insert(region, state),
        };
    }

    pub(super) fn set_own_home(&mut self, home: Option<RegionId>) {
        self.own_home = home;
    }

    /// The region through which to reach a peer that is at `home` and was last heard through `reverse`.
    ///
    /// A standing connection goes before one that is yet to be made. While the peer's home is down the node's own home
    /// is the best guess: nodes near each other choose the same next relay, and a peer that still reaches us there
    /// is heard, which settles it.
    pub(super) fn region_for(&self, home: Option<RegionId>, reverse: Option<RegionId>) -> Option<RegionId> {
        let up = |region: &RegionId| self.state(*region) == RelayState::Up;
        let not_down = |region: &RegionId| self.state(*region) != RelayState::Down;
        home.filter(up)
            .or(reverse.filter(up))
            .or(home.filter(not_down))
            .or(self.own_home.filter(|_| home.is_some()).filter(up))
            .or(home)
    }

    fn state(&self, region: RegionId) -> RelayState {
        self.states.get(&region).copied().unwrap_or(RelayState::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_the_peers_home_unless_another_is_known_to_work_better() {
        let [home, reverse, own] = [1, 2, 3].map(|number| RegionId::new(number).unwrap());
        use RelayState::{Closed, Down, Up};
        // (state of the peer's home, of the region it was heard through, of this node's home, what is chosen)
        let table = [
            (Closed, Closed, Up, home),
            (Up, Up, Up, home),
            (Closed, Up, Up, reverse),
            (Closed, Down, Up, home),
            (Down, Up, Up, reverse),
            (Down, Down, Up, own),
            (Down, Down, Down, home),
        ];
        for (home_state, reverse_state, own_state, expected) in table {
            let mut relays = Relays::default();
            relays.set_own_home(Some(own));
            relays.set(home, home_state);
            relays.set(reverse, reverse_state);
            relays.set(own, own_state);
            assert_eq!(relays.region_for(Some(home), Some(reverse)), Some(expected));
        }
        assert_eq!(Relays::default().region_for(None, None), None);
    }
}
