use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use packet::disco::TransactionId;

use super::UserPing;
use super::timing::{MAX_OUTSTANDING, MAX_USER_PINGS, PING_TIMEOUT};
use crate::Via;

/// The pings to one peer that no pong has answered yet.
#[derive(Debug, Default)]
pub(super) struct Pings {
    sent: BTreeMap<TransactionId, Sent>,
    users: BTreeMap<UserPing, Instant>,
}

#[derive(Debug)]
struct Sent {
    via: Via,
    at: Instant,
    user: Option<UserPing>,
}

/// What a pong proved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// The way that the ping went, and the pong came.
    pub(super) via: Via,
    pub(super) latency: Duration,
    /// The user that waits for it; the first pong answers.
    pub(super) user: Option<UserPing>,
}

impl Pings {
    /// Whether one more user may wait.
    pub(super) fn takes_user(&self) -> bool {
        self.users.len() < MAX_USER_PINGS
    }

    pub(super) fn add_user(&mut self, user: UserPing, now: Instant) {
        self.users.insert(user, now);
    }

    pub(super) fn add(&mut self, transaction: TransactionId, via: Via, user: Option<UserPing>, now: Instant) {
        if self.sent.len() >= MAX_OUTSTANDING {
            let oldest = self.sent.iter().min_by_key(|(_, sent)| sent.at).map(|(transaction, _)| *transaction);
            oldest.map(|oldest| self.sent.remove(&oldest));
        }
        self.sent.insert(transaction, Sent { via, at: now, user });
    }

    /// Takes a pong; `None` when no ping waits for it, or one that went another way.
    pub(super) fn answer(&mut self, transaction: TransactionId, came: Via, now: Instant) -> Option<Proof> {
        let sent = self.sent.get(&transaction)?;
        let same_way = match (sent.via, came) {
            // A host with several addresses may answer from another than was asked; that the ping arrived is proven.
            (Via::Direct(_), Via::Direct(_)) => true,
            (sent, came) => sent == came,
        };
        if !same_way || sent.at + PING_TIMEOUT <= now {
            return None;
        }
        let sent = self.sent.remove(&transaction)?;
        let user = sent.user.filter(|user| self.users.remove(user).is_some());
        Some(Proof { via: sent.via, latency: now.saturating_duration_since(sent.at), user })
    }

    /// Forgets pings that took too long; returns the users that nothing answered.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<UserPing> {
        self.sent.retain(|_, sent| now < sent.at + PING_TIMEOUT);
        let expired = self.users.extract_if(.., |_, at| *at + PING_TIMEOUT <= now);
        expired.map(|(user, _)| user).collect()
    }

    /// Forgets every ping: no pong to them means anything now. Users go on waiting.
    pub(super) fn forget(&mut self) {
        self.sent.clear();
    }

    /// When [`Self::expire`] has something to do. Pings that no user waits for may lie a little longer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.users.values().min().map(|at| *at + PING_TIMEOUT)
    }

    pub(super) fn users(&self) -> Vec<UserPing> {
        self.users.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(port: u16) -> Via {
        Via::Direct(([203, 0, 113, 1], port).into())
    }

    #[test]
    fn a_pong_counts_once_and_within_its_time() {
        let start = Instant::now();
        let (one, two) = (TransactionId([1; 12]), TransactionId([2; 12]));
        let mut pings = Pings::default();
        pings.add(one, direct(1), None, start);
        pings.add(two, direct(1), None, start);
        let later = start + Duration::from_millis(30);
        let proof = Proof { via: direct(1), latency: Duration::from_millis(30), user: None };
        assert_eq!(pings.answer(one, direct(2), later), Some(proof));
        assert_eq!(pings.answer(one, direct(1), later), None);
        assert_eq!(pings.answer(two, direct(1), start + PING_TIMEOUT), None);
    }

    #[test]
    fn a_relay_cannot_answer_for_a_direct_path() {
        let start = Instant::now();
        let relay = Via::Relay(crate::RegionId::new(1).unwrap());
        let mut pings = Pings::default();
        pings.add(TransactionId([1; 12]), direct(1), None, start);
        assert_eq!(pings.answer(TransactionId([1; 12]), relay, start), None);
        assert!(pings.answer(TransactionId([1; 12]), direct(1), start).is_some());
    }

    #[test]
    fn the_first_of_several_pongs_answers_the_user() {
        let start = Instant::now();
        let user = UserPing(7);
        let mut pings = Pings::default();
        pings.add_user(user, start);
        for number in 1..=2 {
            pings.add(TransactionId([number; 12]), direct(1), Some(user), start);
        }
        assert_eq!(pings.answer(TransactionId([2; 12]), direct(1), start).unwrap().user, Some(user));
        assert_eq!(pings.answer(TransactionId([1; 12]), direct(1), start).unwrap().user, None);
        assert!(pings.expire(start + PING_TIMEOUT).is_empty());
    }

    #[test]
    fn what_is_outstanding_has_a_bound() {
        let start = Instant::now();
        let mut pings = Pings::default();
        for number in 0..=u8::MAX {
            pings.add(TransactionId([number; 12]), direct(1), None, start + Duration::from_millis(number.into()));
        }
        assert_eq!(pings.sent.len(), MAX_OUTSTANDING);
        assert!(pings.answer(TransactionId([255; 12]), direct(1), start + Duration::from_secs(1)).is_some());
    }
}
