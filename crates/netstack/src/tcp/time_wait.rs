use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use packet::tcp::{Flags, Tcp};

use crate::address::Pair;
use crate::outbox::Outbox;
use crate::transmit::Transmit;

/// How long a pair of ends rests, and how many may.
const REST: Duration = Duration::from_secs(10);
const MOST: usize = 4096;

/// Connections that ended in good order, kept as their last acknowledgment only: it is sent again to a side that has not
/// heard it (RFC 9293, TIME-WAIT). The oldest makes room.
#[derive(Debug, Default)]
pub(super) struct TimeWait {
    last_words: HashMap<Pair, (Vec<u8>, Instant)>,
    order: VecDeque<(Instant, Pair)>,
}

impl TimeWait {
    pub(super) fn add(&mut self, pair: Pair, last_word: Vec<u8>, now: Instant) {
        while self.order.len() >= MOST {
            self.drop_oldest();
        }
        self.last_words.insert(pair, (last_word, now + REST));
        self.order.push_back((now + REST, pair));
    }

    pub(super) fn holds(&self, pair: &Pair) -> bool {
        self.last_words.contains_key(pair)
    }

    /// A client may use its port again at once: its new sequence numbers tell old segments apart (RFC 6191).
    pub(super) fn forget(&mut self, pair: &Pair) {
        self.last_words.remove(pair);
    }

    /// Whether the segment belongs to a connection that rests.
    pub(super) fn handle(&mut self, pair: &Pair, tcp: &Tcp<'_>, now: Instant, outbox: &mut Outbox) -> bool {
        let Some((last_word, until)) = self.last_words.get(pair) else { return false };
        if *until <= now {
            return false;
        }
        if tcp.flags().contains(Flags::FIN) {
            outbox.push(Transmit::plain(last_word.clone()));
        }
        true
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((until, pair)) = self.order.pop_front()
            && self.last_words.get(&pair).is_some_and(|(_, other)| *other == until)
        {
            self.last_words.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(port: u16) -> Pair {
        Pair { local: ([100, 64, 0, 1], 80).into(), remote: ([100, 64, 0, 2], port).into() }
    }

    #[test]
    fn the_oldest_makes_room_and_time_clears_the_rest() {
        let now = Instant::now();
        let mut time_wait = TimeWait::default();
        for port in 0..=MOST as u16 {
            time_wait.add(pair(port), vec![0; 40], now);
        }
        assert!(!time_wait.holds(&pair(0)) && time_wait.holds(&pair(1)));
        assert_eq!(time_wait.last_words.len(), MOST);
        time_wait.expire(now + REST);
        assert!(time_wait.last_words.is_empty() && time_wait.order.is_empty());
    }

    #[test]
    fn a_pair_that_came_back_is_not_cleared_by_its_first_rest() {
        let now = Instant::now();
        let mut time_wait = TimeWait::default();
        time_wait.add(pair(1), vec![0; 40], now);
        time_wait.forget(&pair(1));
        time_wait.add(pair(1), vec![0; 40], now + Duration::from_secs(5));
        time_wait.expire(now + REST);
        assert!(time_wait.holds(&pair(1)));
    }
}
