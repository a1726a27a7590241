use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// A bounded queue to a thread that mostly finds it empty: then it costs one load.
///
/// Neither side holds the lock for longer than it takes to move what is in it.
#[derive(Debug)]
pub(crate) struct Handoff<T> {
    filled: AtomicBool,
    items: Mutex<VecDeque<T>>,
    most: usize,
}

impl<T> Handoff<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { filled: AtomicBool::new(false), items: Mutex::new(VecDeque::new()), most }
    }

    /// Puts something in; gives it back when there is no room.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.most {
            return Err(item);
        }
        items.push_back(item);
        self.filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Puts something in, in place of the oldest when there is no room.
    pub(crate) fn push_over(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.most {
            items.pop_front();
        }
        items.push_back(item);
        self.filled.store(true, Ordering::Release);
    }

    /// Takes all there is, into a queue that is empty.
    pub(crate) fn take(&self, into: &mut VecDeque<T>) {
        if !self.filled.load(Ordering::Acquire) {
            return;
        }
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        self.filled.store(false, Ordering::Release);
        std::mem::swap(&mut *items, into);
    }
}

/// Wakes a thread that waits in `poll`.
#[derive(Debug)]
pub(crate) struct Wakeup {
    event: OwnedFd,
    /// Whether it was woken and has not noticed: spares the system call.
    pending: AtomicBool,
}

impl Wakeup {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, pending: AtomicBool::new(false) })
    }

    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // It only fails when the counter is full, and then the thread is woken already.
            let _full = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// To be called before looking at what was handed over: what comes later wakes again.
    pub(crate) fn clear(&self) {
        let _empty = rustix::io::read(&self.event, &mut [0; 8]);
        // Reads what a waker wrote that found it woken: its item is seen by whoever looks next.
        self.pending.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_comes_back() {
        let handoff = Handoff::new(2);
        assert_eq!([handoff.push(1), handoff.push(2), handoff.push(3)], [Ok(()), Ok(()), Err(3)]);
        let mut taken = VecDeque::new();
        handoff.take(&mut taken);
        assert_eq!(taken, [1, 2]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let handoff = Handoff::new(2);
        (1..=3).for_each(|item| handoff.push_over(item));
        let mut taken = VecDeque::new();
        handoff.take(&mut taken);
        assert_eq!(taken, [2, 3]);
    }
}
