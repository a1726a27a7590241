use std::sync::Arc;

use path::PathChoice;

use crate::slots::PeerSlot;

/// Most messages in a train, and most bytes: what Linux takes in one UDP_SEGMENT send over either family.
pub(crate) const MOST_MESSAGES: usize = 64;
pub(crate) const MOST_BYTES: usize = 65_507;

/// Messages to one peer that leave in one system call: all of one length, only the last may be shorter.
#[derive(Debug)]
pub(crate) struct Train {
    buffer: Box<[u8]>,
    length: usize,
    message: usize,
    count: usize,
    closed: bool,
    to: Option<(Arc<PeerSlot>, PathChoice)>,
}

impl Train {
    /// An empty train. Its memory is only touched as far as it was ever filled.
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; MOST_BYTES].into(), length: 0, message: 0, count: 0, closed: false, to: None }
    }

    /// Whom it goes to, once it has been begun.
    pub(crate) fn slot(&self) -> Option<&Arc<PeerSlot>> {
        self.to.as_ref().map(|(slot, _)| slot)
    }

    /// Decides whom it goes to, and how.
    pub(crate) fn begin(&mut self, slot: Arc<PeerSlot>, choice: PathChoice) {
        self.to = Some((slot, choice));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the next message is to be written, if one of `length` bytes can follow.
    pub(crate) fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        let fits = !self.closed
            && self.count < MOST_MESSAGES
            && (self.count == 0 || length <= self.message)
            && self.length + length <= MOST_BYTES;
        fits.then(|| &mut self.buffer[self.length..self.length + length])
    }

    /// Takes the message of `length` bytes that was written.
    pub(crate) fn push(&mut self, length: usize) {
        if self.count == 0 {
            self.message = length;
        }
        self.closed = length < self.message;
        self.length += length;
        self.count += 1;
    }

    /// All messages, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Length of each message but the last.
    pub(crate) fn message_length(&self) -> usize {
        self.message
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Empties it; says whom it was for.
    pub(crate) fn reset(&mut self) -> Option<(Arc<PeerSlot>, PathChoice)> {
        (self.length, self.message, self.count, self.closed) = (0, 0, 0, false);
        self.to.take()
    }

    /// The way that was chosen when it was begun.
    pub(crate) fn choice(&self) -> PathChoice {
        self.to.as_ref().map(|(_, choice)| *choice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_message_is_the_last() {
        let mut train = Train::new();
        train.push(100);
        assert!(train.room(101).is_none(), "nothing longer than the first");
        train.push(100);
        train.push(40);
        assert!(train.room(40).is_none());
        assert_eq!((train.bytes().len(), train.message_length(), train.count()), (240, 100, 3));
    }

    #[test]
    fn a_train_ends_at_the_kernels_bounds() {
        let mut train = Train::new();
        (0..MOST_MESSAGES).for_each(|_| train.push(32));
        assert!(train.room(32).is_none());
        let mut train = Train::new();
        (0..7).for_each(|_| train.push(9000));
        assert!(train.room(9000).is_none());
        train.reset();
        assert!(train.room(9000).is_some());
    }
}
