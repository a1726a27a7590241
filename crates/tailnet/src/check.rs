//! Logins by SSH that wait for a person to confirm them, and those that were confirmed.

use std::collections::BTreeMap;

use crypto::Entropy;
use jiff::{SignedDuration, Timestamp};
use tailcfg::{NodeId, UserId};

use crate::record::TailnetId;
use crate::secret::random_text;

/// The secret part of a check's URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(String);

impl CheckId {
    /// Takes what stands in a URL; what is no check finds none.
    pub fn from_text(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }

    /// The text for a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for CheckId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckId(…)")
    }
}

/// Who logs in where: what a confirmation is about, together with the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SshPath {
    /// The tailnet of all of them.
    pub tailnet: TailnetId,
    /// The user, who alone can confirm it.
    pub user: UserId,
    /// The user's device.
    pub source: NodeId,
    /// The device whose SSH server asks.
    pub destination: NodeId,
}

/// A login that waits for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheck {
    /// Who logs in where.
    pub path: SshPath,
    /// The account that was asked for.
    pub account: String,
    /// When it began to wait.
    pub opened: Timestamp,
    /// Whether the user has confirmed it.
    pub confirmed: bool,
}

/// The logins of a server that wait, and the confirmations that still count; both bounded in number and time.
///
/// They are kept in memory alone: after a restart users confirm again.
#[derive(Debug, Default)]
pub struct Checks {
    pending: BTreeMap<CheckId, PendingCheck>,
    confirmed: BTreeMap<(SshPath, String), Timestamp>,
}

impl Checks {
    /// How many logins wait at most, and how many confirmations are remembered: the oldest makes room.
    pub const LIMIT: usize = 4096;

    /// How many logins to one device wait at most: no device takes the room of others.
    pub const LIMIT_OF_DEVICE: usize = 128;

    /// How many logins from one device to another wait at most: no device takes the room of others there either.
    pub const LIMIT_OF_PATH: usize = 16;

    /// How long a login waits.
    pub const LIFETIME: SignedDuration = SignedDuration::from_mins(10);

    /// The longest time that policy lets a confirmation count.
    const LONGEST: SignedDuration = SignedDuration::from_hours(168);

    /// Has a login wait. Each is confirmed for itself, also where several wait for the same account.
    pub fn open(&mut self, path: SshPath, account: &str, now: Timestamp, entropy: &mut dyn Entropy) -> CheckId {
        self.expire(now);
        let of_path = |check: &PendingCheck| check.path == path;
        let here = |check: &PendingCheck| check.path.destination == path.destination;
        let count = |among: &dyn Fn(&PendingCheck) -> bool| self.pending.values().filter(|check| among(check)).count();
        if count(&of_path) >= Self::LIMIT_OF_PATH {
            self.make_room(of_path);
        } else if count(&here) >= Self::LIMIT_OF_DEVICE {
            self.make_room(here);
        } else if self.pending.len() >= Self::LIMIT {
            self.make_room(|_| true);
        }
        let id = CheckId(random_text(32, entropy));
        let check = PendingCheck { path, account: account.to_owned(), opened: now, confirmed: false };
        self.pending.insert(id.clone(), check);
        id
    }

    /// The login that waits under an id, unless its time is over.
    pub fn get(&mut self, id: &CheckId, now: Timestamp) -> Option<&PendingCheck> {
        self.expire(now);
        self.pending.get(id)
    }

    /// The user has confirmed a login. Gives false where it no longer waits, or is somebody else's.
    pub fn confirm(&mut self, id: &CheckId, tailnet: TailnetId, user: UserId, now: Timestamp) -> bool {
        self.expire(now);
        let own = |check: &&mut PendingCheck| (check.path.tailnet, check.path.user) == (tailnet, user);
        let Some(check) = self.pending.get_mut(id).filter(own) else { return false };
        check.confirmed = true;
        let login = (check.path, check.account.clone());
        if self.confirmed.len() >= Self::LIMIT
            && !self.confirmed.contains_key(&login)
            && let Some(oldest) = self.confirmed.iter().min_by_key(|(_, at)| **at).map(|(login, _)| login.clone())
        {
            self.confirmed.remove(&oldest);
        }
        self.confirmed.insert(login, now);
        true
    }

    /// Whether a login that waited was confirmed; if so it waits no more, and lets nobody in again.
    pub fn take_confirmed(&mut self, id: &CheckId, path: &SshPath, account: &str) -> bool {
        let same = |check: &&PendingCheck| check.confirmed && check.path == *path && check.account == account;
        let confirmed = self.pending.get(id).filter(same).is_some();
        if confirmed {
            self.pending.remove(id);
        }
        confirmed
    }

    /// Whether the user has confirmed such a login to this account within a time before now.
    pub fn is_confirmed(&self, path: &SshPath, account: &str, period: SignedDuration, now: Timestamp) -> bool {
        let confirmed = self.confirmed.get(&(*path, account.to_owned()));
        confirmed.is_some_and(|at| now.duration_since(*at) < period)
    }

    fn make_room(&mut self, among: impl Fn(&PendingCheck) -> bool) {
        let oldest = self.pending.iter().filter(|(_, check)| among(check)).min_by_key(|(_, check)| check.opened);
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.pending.remove(&id);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        self.pending.retain(|_, check| now.duration_since(check.opened) < Self::LIFETIME);
        self.confirmed.retain(|_, at| now.duration_since(*at) < Self::LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use crypto::SystemEntropy;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn path(destination: u64) -> SshPath {
        SshPath { tailnet: TailnetId(1), user: UserId(2), source: NodeId(3), destination: NodeId(destination) }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn open(checks: &mut Checks, destination: u64, account: &str, minute: i64) -> CheckId {
        checks.open(path(destination), account, at(minute), &mut SystemEntropy)
    }

    #[test]
    fn a_confirmation_counts_for_its_own_path_and_time() {
        let mut checks = Checks::default();
        let id = open(&mut checks, 9, "root", 0);
        assert!(!checks.is_confirmed(&path(9), "root", HOUR, at(0)));
        assert!(checks.confirm(&id, TailnetId(1), UserId(2), at(1)));
        assert!(checks.is_confirmed(&path(9), "root", HOUR, at(60)));
        assert!(!checks.is_confirmed(&path(9), "root", HOUR, at(61)), "its time is over");
        assert!(!checks.is_confirmed(&path(8), "root", HOUR, at(2)), "another destination");
        assert!(!checks.is_confirmed(&path(9), "ubuntu", HOUR, at(2)), "another account");
        assert!(!checks.is_confirmed(&SshPath { source: NodeId(4), ..path(9) }, "root", HOUR, at(2)), "another device");
        assert!(!checks.is_confirmed(&path(9), "root", SignedDuration::ZERO, at(1)), "`always` asks every time");
    }

    #[test]
    fn nobody_else_confirms_and_a_confirmed_login_lets_in_once() {
        let mut checks = Checks::default();
        let id = open(&mut checks, 9, "root", 0);
        assert!(!checks.confirm(&id, TailnetId(1), UserId(7), at(0)));
        assert!(!checks.confirm(&id, TailnetId(5), UserId(2), at(0)));
        assert!(!checks.take_confirmed(&id, &path(9), "root"));
        assert!(checks.confirm(&id, TailnetId(1), UserId(2), at(0)));
        assert!(!checks.take_confirmed(&id, &path(8), "root"), "it is another login's");
        assert!(!checks.take_confirmed(&id, &path(9), "admin"), "it is another account's");
        assert!(checks.take_confirmed(&id, &path(9), "root"));
        assert!(!checks.take_confirmed(&id, &path(9), "root"));
    }

    #[test]
    fn each_login_is_confirmed_for_itself_and_waits_not_for_ever() {
        let mut checks = Checks::default();
        let (first, second) = (open(&mut checks, 9, "root", 0), open(&mut checks, 9, "root", 5));
        assert!(checks.confirm(&second, TailnetId(1), UserId(2), at(5)));
        assert!(!checks.take_confirmed(&first, &path(9), "root"), "nobody has confirmed this one");
        assert!(checks.take_confirmed(&second, &path(9), "root"));
        assert!(checks.get(&first, at(10)).is_none());
        assert!(!checks.confirm(&first, TailnetId(1), UserId(2), at(10)));
    }

    #[test]
    fn a_device_that_asks_without_end_takes_no_other_devices_room() {
        let mut checks = Checks::default();
        let first = open(&mut checks, 9, "root", 0);
        let other = SshPath { source: NodeId(4), ..path(9) };
        for minute in 1..6 {
            for _ in 0..100 {
                checks.open(other, "root", at(minute), &mut SystemEntropy);
            }
        }
        assert!(checks.get(&first, at(6)).is_some());
        assert_eq!(checks.pending.len(), 1 + Checks::LIMIT_OF_PATH);
    }

    #[test]
    fn no_device_takes_the_room_of_others_and_all_room_is_bounded() {
        let mut checks = Checks::default();
        let first = open(&mut checks, 1, "root", 0);
        for source in 100..300 {
            let path = SshPath { source: NodeId(source), ..path(2) };
            checks.open(path, "root", at(1), &mut SystemEntropy);
        }
        assert!(checks.get(&first, at(1)).is_some());
        assert_eq!(checks.pending.len(), 1 + Checks::LIMIT_OF_DEVICE);
        for destination in 3..5000 {
            let id = open(&mut checks, destination, "root", 2);
            checks.confirm(&id, TailnetId(1), UserId(2), at(2));
        }
        assert_eq!((checks.pending.len(), checks.confirmed.len()), (Checks::LIMIT, Checks::LIMIT));
        assert!(checks.get(&first, at(2)).is_none());
    }
}
