use std::collections::VecDeque;

use crate::Transmit;

/// Answers that wait to be fetched: resets, acknowledgments of what came out of order, echoes, errors, datagrams.
///
/// Data of TCP never waits here. When the link does not keep up, answers are lost like packets on any link.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Transmit>,
    bytes: usize,
    pub(crate) dropped: u64,
}

impl Outbox {
    const MOST: usize = 1024;
    const MOST_BYTES: usize = 4 << 20;

    /// Whether there was room.
    pub(crate) fn push(&mut self, transmit: Transmit) -> bool {
        if self.waiting.len() >= Self::MOST || self.bytes >= Self::MOST_BYTES {
            self.dropped += 1;
            return false;
        }
        self.bytes += transmit.packet.len();
        self.waiting.push_back(transmit);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Transmit> {
        let transmit = self.waiting.pop_front()?;
        self.bytes -= transmit.packet.len();
        Some(transmit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_beyond_the_bound_are_dropped_and_counted() {
        let mut outbox = Outbox::default();
        for _ in 0..Outbox::MOST {
            assert!(outbox.push(Transmit::plain(vec![0; 40])));
        }
        assert!(!outbox.push(Transmit::plain(vec![0; 40])));
        assert_eq!(outbox.dropped, 1);
        outbox.pop();
        assert!(outbox.push(Transmit::plain(vec![0; 40])));
    }
}
