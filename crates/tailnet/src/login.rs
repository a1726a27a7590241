//! Logins that wait for a person: a device was shown a URL, and somebody has yet to open it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crypto::{Entropy, MachinePublic};
use jiff::{SignedDuration, Timestamp};
use tailcfg::{NodeId, RegisterRequest};

use crate::record::TailnetId;
use crate::secret::random_text;

/// The secret part of a login's URL: whoever has it can let the device in, if they may.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoginId(String);

impl LoginId {
    /// Takes what stands in a URL; what is no login finds none.
    pub fn from_text(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }

    /// The text for a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for LoginId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginId(…)")
    }
}

/// A device that waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingLogin {
    /// The machine, proven by its channel.
    pub machine: MachinePublic,
    /// What it asked for.
    pub request: RegisterRequest,
    /// Where it asked from.
    pub source: Option<IpAddr>,
    /// When it was shown the URL.
    pub opened: Timestamp,
    /// How it stands.
    pub state: LoginState,
}

/// How a login stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginState {
    /// Nobody has confirmed it.
    Open,
    /// The device is in.
    Joined {
        /// The tailnet.
        tailnet: TailnetId,
        /// The device.
        node: NodeId,
    },
    /// Somebody refused it, or it could not be let in; the text is for the device's user.
    Failed(String),
}

/// The logins of a server that wait, bounded in number and time.
#[derive(Debug, Default)]
pub struct Logins {
    pending: BTreeMap<LoginId, PendingLogin>,
    by_machine: BTreeMap<MachinePublic, LoginId>,
    /// Oldest use first.
    order: BTreeSet<(u64, LoginId)>,
    used: BTreeMap<LoginId, u64>,
    clock: u64,
}

impl Logins {
    /// How many logins wait at most: the one that was not used for longest makes room.
    pub const LIMIT: usize = 1024;

    /// How long a login waits.
    pub const LIFETIME: SignedDuration = SignedDuration::from_mins(15);

    /// Opens a login for a device, or finds the one that is open for it.
    ///
    /// A machine waits for one login at a time: one that it has asked for before, with another node key, name or tags, is
    /// taken back, so that what a person confirms is what the device still wants.
    pub fn open(
        &mut self,
        machine: MachinePublic,
        request: RegisterRequest,
        source: Option<IpAddr>,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> LoginId {
        self.expire(now);
        if let Some(id) = self.by_machine.get(&machine).cloned()
            && let Some(login) = self.pending.get(&id)
            && login.state == LoginState::Open
        {
            if asks_the_same(&login.request, &request) {
                self.touch(&id);
                return id;
            }
            self.finish(&id, LoginState::Failed("this device has asked for another login since".to_owned()));
        }
        let id = LoginId(random_text(32, entropy));
        while self.pending.len() >= Self::LIMIT {
            let Some((_, oldest)) = self.order.first().cloned() else { break };
            self.remove(&oldest);
        }
        self.pending
            .insert(id.clone(), PendingLogin { machine, request, source, opened: now, state: LoginState::Open });
        self.by_machine.insert(machine, id.clone());
        self.touch(&id);
        id
    }

    /// The login with an id, unless its time is over.
    pub fn get(&mut self, id: &LoginId, now: Timestamp) -> Option<&PendingLogin> {
        self.expire(now);
        if self.pending.contains_key(id) {
            self.touch(id);
        }
        self.pending.get(id)
    }

    /// The login that a device waits for, by the URL that it was shown: only its own machine may ask for it.
    pub fn awaited(&mut self, id: &LoginId, machine: &MachinePublic, now: Timestamp) -> Option<&PendingLogin> {
        self.get(id, now).filter(|login| login.machine == *machine)
    }

    /// Says how a login ended; one that has ended before stays as it is.
    pub fn finish(&mut self, id: &LoginId, state: LoginState) {
        if let Some(login) = self.pending.get_mut(id)
            && login.state == LoginState::Open
        {
            login.state = state;
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn touch(&mut self, id: &LoginId) {
        self.clock += 1;
        if let Some(before) = self.used.insert(id.clone(), self.clock) {
            self.order.remove(&(before, id.clone()));
        }
        self.order.insert((self.clock, id.clone()));
    }

    fn remove(&mut self, id: &LoginId) {
        if let Some(at) = self.used.remove(id) {
            self.order.remove(&(at, id.clone()));
        }
        if let Some(login) = self.pending.remove(id) {
            if self.by_machine.get(&login.machine) == Some(id) {
                self.by_machine.remove(&login.machine);
            }
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let over: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, login)| now.duration_since(login.opened) >= Self::LIFETIME)
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.remove(&id);
        }
    }
}

/// Whether a person who is asked to confirm one of two requests is asked the same by the other.
fn asks_the_same(one: &RegisterRequest, other: &RegisterRequest) -> bool {
    fn question(request: &RegisterRequest) -> impl PartialEq + '_ {
        let host = request.hostinfo.as_ref();
        let host = host.map(|host| (&host.hostname, &host.os, &host.os_version, &host.request_tags));
        (request.node_key, &request.expiry, request.ephemeral, &request.tailnet, host)
    }
    question(one) == question(other)
}

#[cfg(test)]
mod tests {
    use crypto::{NodePublic, SystemEntropy};
    use tailcfg::Hostinfo;

    use super::*;

    fn open(logins: &mut Logins, machine: u16, now: Timestamp) -> LoginId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&machine.to_be_bytes());
        let request = RegisterRequest { node_key: NodePublic::from_bytes(bytes), ..RegisterRequest::default() };
        logins.open(MachinePublic::from_bytes(bytes), request, None, now, &mut SystemEntropy)
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    #[test]
    fn a_device_that_asks_again_gets_the_same_login() {
        let mut logins = Logins::default();
        let first = open(&mut logins, 1, at(0));
        assert_eq!(open(&mut logins, 1, at(1)), first);
        assert_ne!(open(&mut logins, 2, at(1)), first);
        assert_eq!(logins.len(), 2);
    }

    #[test]
    fn a_device_that_asks_for_something_else_takes_its_earlier_login_back() {
        let mut logins = Logins::default();
        let machine = MachinePublic::from_bytes([1; 32]);
        let mut request =
            RegisterRequest { hostinfo: Some(Hostinfo::default()), ..RegisterRequest::default() };
        let mut ask = |request: &RegisterRequest| logins.open(machine, request.clone(), None, at(0), &mut SystemEntropy);
        let first = ask(&request);
        request.hostinfo.as_mut().unwrap().request_tags = vec!["tag:web".to_owned()];
        let tagged = ask(&request);
        request.node_key = NodePublic::from_bytes([2; 32]);
        let last = ask(&request);
        // What it says of its network meanwhile is nothing that a person is asked.
        request.hostinfo.as_mut().unwrap().net_info = Some(tailcfg::NetInfo::default());
        assert_eq!(ask(&request), last);
        for id in [first, tagged] {
            assert!(matches!(logins.get(&id, at(0)).unwrap().state, LoginState::Failed(_)));
        }
        assert_eq!(logins.get(&last, at(0)).unwrap().state, LoginState::Open);
    }

    #[test]
    fn a_login_ends_once_and_a_new_one_starts_afresh() {
        let mut logins = Logins::default();
        let id = open(&mut logins, 1, at(0));
        logins.finish(&id, LoginState::Failed("no".into()));
        logins.finish(&id, LoginState::Joined { tailnet: TailnetId(1), node: NodeId(1) });
        assert_eq!(logins.get(&id, at(1)).unwrap().state, LoginState::Failed("no".into()));
        assert_ne!(open(&mut logins, 1, at(1)), id);
    }

    #[test]
    fn a_login_waits_for_fifteen_minutes() {
        let mut logins = Logins::default();
        let id = open(&mut logins, 1, at(0));
        assert!(logins.get(&id, at(14)).is_some());
        assert!(logins.get(&id, at(15)).is_none());
        assert!(logins.is_empty());
    }

    #[test]
    fn only_the_machine_that_was_shown_the_url_can_wait_for_it() {
        let mut logins = Logins::default();
        let id = open(&mut logins, 1, at(0));
        assert!(logins.awaited(&id, &MachinePublic::from_bytes([9; 32]), at(0)).is_none());
    }

    #[test]
    fn the_login_unused_for_longest_makes_room() {
        let mut logins = Logins::default();
        let (first, second) = (open(&mut logins, 1, at(0)), open(&mut logins, 2, at(0)));
        for machine in 3..=1024 {
            open(&mut logins, machine, at(0));
        }
        assert_eq!(logins.len(), Logins::LIMIT);
        assert!(logins.get(&first, at(0)).is_some());
        open(&mut logins, 1025, at(0));
        assert_eq!(logins.len(), Logins::LIMIT);
        assert!(logins.get(&first, at(0)).is_some());
        assert!(logins.get(&second, at(0)).is_none());
        for machine in 2000..4000 {
            open(&mut logins, machine, at(0));
        }
        assert_eq!(
            (logins.len(), logins.by_machine.len(), logins.order.len(), logins.used.len()),
            (1024, 1024, 1024, 1024)
        );
    }
}
