//! Logins that wait for a person: a device was shown a URL, and somebody has yet to open it.

mod request;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crypto::{Entropy, MachinePublic};
use jiff::{SignedDuration, Timestamp};
use tailcfg::NodeId;

pub use request::LoginRequest;

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

/// Where a device asked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginSource {
    /// Its address, for the person who is asked.
    pub address: IpAddr,
    /// Whom it is counted as: the address, or the network that one site has of IPv6.
    pub site: IpAddr,
    /// The network that the site is counted with where room is scarce: whoever has many sites has them side by side.
    pub network: IpAddr,
}

/// A device that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingLogin {
    /// The machine, proven by its channel.
    pub machine: MachinePublic,
    /// What it asked for.
    pub request: LoginRequest,
    /// Where it asked from.
    pub source: LoginSource,
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

/// A device's request that is held until its login ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    id: LoginId,
    number: u64,
}

impl Waiter {
    /// The login that it waits for.
    pub fn login(&self) -> &LoginId {
        &self.id
    }
}

/// What a request that waits for a login finds when it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// The login, as it stands.
    Login(LoginState),
    /// A newer request of the device waits in its place.
    Superseded,
    /// No login any more: the device needs another.
    Gone,
}

/// The logins of a server that wait, bounded in number, size and time, and of each site in number.
///
/// Anybody may have devices wait here, so what makes room is of whoever takes the most of it.
#[derive(Debug, Default)]
pub struct Logins {
    pending: BTreeMap<LoginId, Held>,
    by_machine: BTreeMap<MachinePublic, LoginId>,
    /// Counts what is done with logins, so that it is known which was not used for longest.
    clock: u64,
}

#[derive(Debug)]
struct Held {
    login: PendingLogin,
    used: u64,
    /// The newest request that waits for it.
    waiter: u64,
}

impl Held {
    fn is_alive(&self, now: Timestamp) -> bool {
        now.duration_since(self.login.opened) < Logins::LIFETIME
    }
}

impl Logins {
    /// How many logins wait at most. One of the networks that have the most makes room: the one not used for longest.
    pub const LIMIT: usize = 1024;

    /// How many logins of one site wait at most: its own that was not used for longest makes room.
    pub const LIMIT_OF_SITE: usize = 128;

    /// How long a login waits.
    pub const LIFETIME: SignedDuration = SignedDuration::from_mins(15);

    /// Opens a login for a device, or finds the one that is open for it.
    ///
    /// A machine waits for one login at a time: one that it has asked for before, with another node key, name or tags, is
    /// taken back, so that what a person confirms is what the device still wants.
    pub fn open(
        &mut self,
        machine: MachinePublic,
        request: LoginRequest,
        source: LoginSource,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> LoginId {
        self.expire(now);
        if let Some(id) = self.by_machine.get(&machine).cloned()
            && let Some(held) = self.pending.get(&id)
            && held.login.state == LoginState::Open
        {
            if held.login.request == request {
                self.touch(&id);
                return id;
            }
            self.finish(&id, LoginState::Failed("this device has asked for another login since".to_owned()));
        }
        self.make_room(source.site);
        let id = LoginId(random_text(32, entropy));
        let login = PendingLogin { machine, request, source, opened: now, state: LoginState::Open };
        self.pending.insert(id.clone(), Held { login, used: self.clock, waiter: 0 });
        self.by_machine.insert(machine, id.clone());
        self.touch(&id);
        id
    }

    /// The login with an id, unless its time is over.
    pub fn get(&mut self, id: &LoginId, now: Timestamp) -> Option<&PendingLogin> {
        self.expire(now);
        self.touch(id);
        self.pending.get(id).map(|held| &held.login)
    }

    /// Has a device's request wait for the login whose URL it was shown: only its own machine may, and one request at a
    /// time, so that each login has one held at most. The newest is the one that somebody still listens to.
    pub fn wait(&mut self, id: &LoginId, machine: &MachinePublic, now: Timestamp) -> Option<Waiter> {
        self.clock += 1;
        let number = self.clock;
        let own = |held: &&mut Held| held.login.machine == *machine && held.is_alive(now);
        let held = self.pending.get_mut(id).filter(own)?;
        (held.used, held.waiter) = (number, number);
        Some(Waiter { id: id.clone(), number })
    }

    /// What a request finds that waits.
    pub fn awaited(&self, waiter: &Waiter, now: Timestamp) -> Awaited {
        match self.pending.get(&waiter.id).filter(|held| held.is_alive(now)) {
            Some(held) if held.waiter == waiter.number => Awaited::Login(held.login.state.clone()),
            Some(_) => Awaited::Superseded,
            None => Awaited::Gone,
        }
    }

    /// Says how a login ended; one that has ended before stays as it is.
    pub fn finish(&mut self, id: &LoginId, state: LoginState) {
        if let Some(held) = self.pending.get_mut(id)
            && held.login.state == LoginState::Open
        {
            held.login.state = state;
        }
    }

    /// Whether a login of a machine waits, or has just ended.
    pub fn has_one_of(&self, machine: &MachinePublic, now: Timestamp) -> bool {
        self.by_machine.get(machine).and_then(|id| self.pending.get(id)).is_some_and(|held| held.is_alive(now))
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
        if let Some(held) = self.pending.get_mut(id) {
            held.used = self.clock;
        }
    }

    /// Makes room for one more login of a site.
    fn make_room(&mut self, site: IpAddr) {
        let of_site = |held: &Held| held.login.source.site == site;
        if self.pending.values().filter(|held| of_site(held)).count() >= Self::LIMIT_OF_SITE {
            self.evict(of_site);
        } else if self.pending.len() >= Self::LIMIT {
            let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
            for held in self.pending.values() {
                *counts.entry(held.login.source.network).or_default() += 1;
            }
            let most = counts.values().max().copied();
            self.evict(|held| counts.get(&held.login.source.network).copied() == most);
        }
    }

    /// Takes away the login among some that was not used for longest.
    fn evict(&mut self, among: impl Fn(&Held) -> bool) {
        let oldest = self.pending.iter().filter(|(_, held)| among(held)).min_by_key(|(_, held)| held.used);
        let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
        self.pending.remove(&id);
        self.by_machine.retain(|_, of_machine| *of_machine != id);
    }

    fn expire(&mut self, now: Timestamp) {
        let before = self.pending.len();
        self.pending.retain(|_, held| held.is_alive(now));
        let pending = &self.pending;
        if pending.len() < before {
            self.by_machine.retain(|_, id| pending.contains_key(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use crypto::{NodePublic, SystemEntropy};
    use tailcfg::{Hostinfo, RegisterRequest};

    use super::request::tests::largest;
    use super::*;

    fn machine(number: u16) -> MachinePublic {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        MachinePublic::from_bytes(bytes)
    }

    fn asks(request: &RegisterRequest) -> LoginRequest {
        LoginRequest::of(request).unwrap()
    }

    fn from(address: &str) -> LoginSource {
        let address = address.parse().unwrap();
        LoginSource { address, site: address, network: address }
    }

    fn open_from(logins: &mut Logins, number: u16, source: LoginSource) -> LoginId {
        logins.open(machine(number), asks(&RegisterRequest::default()), source, at(0), &mut SystemEntropy)
    }

    fn open(logins: &mut Logins, number: u16, now: Timestamp) -> LoginId {
        let request = asks(&RegisterRequest::default());
        logins.open(machine(number), request, from("192.0.2.1"), now, &mut SystemEntropy)
    }

    /// An address of its own for each number, each in a network of its own.
    fn far(number: u16) -> LoginSource {
        let [high, low] = number.to_be_bytes();
        from(&format!("198.{high}.{low}.1"))
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
        let mut request = RegisterRequest { hostinfo: Some(Hostinfo::default()), ..RegisterRequest::default() };
        let mut ask = |request: &RegisterRequest| {
            logins.open(machine(1), asks(request), from("192.0.2.1"), at(0), &mut SystemEntropy)
        };
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
        let waiter = logins.wait(&id, &machine(1), at(0)).unwrap();
        assert!(logins.get(&id, at(14)).is_some() && logins.has_one_of(&machine(1), at(14)));
        assert_eq!(logins.awaited(&waiter, at(14)), Awaited::Login(LoginState::Open));
        assert_eq!(logins.awaited(&waiter, at(15)), Awaited::Gone);
        assert!(!logins.has_one_of(&machine(1), at(15)) && logins.wait(&id, &machine(1), at(15)).is_none());
        assert!(logins.get(&id, at(15)).is_none());
        assert!(logins.is_empty() && logins.by_machine.is_empty());
    }

    #[test]
    fn only_the_machine_that_was_shown_the_url_can_wait_for_it() {
        let mut logins = Logins::default();
        let id = open(&mut logins, 1, at(0));
        assert!(logins.wait(&id, &machine(9), at(0)).is_none());
    }

    #[test]
    fn of_the_requests_that_wait_for_a_login_the_newest_has_its_place() {
        let mut logins = Logins::default();
        let id = open(&mut logins, 1, at(0));
        let [first, second] = [0; 2].map(|_| logins.wait(&id, &machine(1), at(0)).unwrap());
        assert_eq!(logins.awaited(&first, at(0)), Awaited::Superseded);
        assert_eq!(logins.awaited(&second, at(0)), Awaited::Login(LoginState::Open));
    }

    #[test]
    fn a_site_that_asks_without_end_takes_its_own_room_and_nobody_elses() {
        let mut logins = Logins::default();
        let victim = open_from(&mut logins, 0, from("203.0.113.1"));
        let first = open(&mut logins, 1, at(0));
        for number in 2..3000 {
            open(&mut logins, number, at(0));
        }
        assert!(logins.get(&victim, at(0)).is_some());
        assert!(logins.get(&first, at(0)).is_none());
        assert_eq!((logins.len(), logins.by_machine.len()), (1 + Logins::LIMIT_OF_SITE, 1 + Logins::LIMIT_OF_SITE));
    }

    #[test]
    fn many_sites_of_one_network_evict_each_other_and_nobody_else() {
        type Site = fn(u16) -> String;
        let of_ipv6: Site = |number| format!("2001:db8:1:{number:x}::");
        let of_ipv4: Site = |number| format!("192.0.2.{}", number % 256);
        let networks = [("2001:db8:1::", of_ipv6), ("192.0.2.0", of_ipv4)];
        for (network, address) in networks {
            let network = network.parse().unwrap();
            let mut logins = Logins::default();
            let victims: Vec<LoginId> = (0..64).map(|number| open_from(&mut logins, number, far(number))).collect();
            for number in 100..2000 {
                open_from(&mut logins, number, LoginSource { network, ..from(&address(number)) });
            }
            assert_eq!(logins.len(), Logins::LIMIT);
            assert!(victims.iter().all(|id| logins.get(id, at(0)).is_some()));
        }
    }

    #[test]
    fn where_nobody_has_more_than_others_the_login_unused_for_longest_makes_room() {
        let mut logins = Logins::default();
        let (first, second) = (open_from(&mut logins, 1, far(1)), open_from(&mut logins, 2, far(2)));
        for number in 3..=1024 {
            open_from(&mut logins, number, far(number));
        }
        assert_eq!(logins.len(), Logins::LIMIT);
        assert!(logins.get(&first, at(0)).is_some());
        open_from(&mut logins, 1025, far(1025));
        assert_eq!(logins.len(), Logins::LIMIT);
        assert!(logins.get(&first, at(0)).is_some());
        assert!(logins.get(&second, at(0)).is_none());
    }

    #[test]
    fn thousands_of_the_largest_registrations_take_ten_megabytes() {
        let mut logins = Logins::default();
        let request = asks(&largest());
        for number in 0..3000 {
            let id = logins.open(machine(number), request.clone(), far(number), at(0), &mut SystemEntropy);
            assert!(logins.wait(&id, &machine(number), at(0)).is_some());
        }
        let kept: usize = logins.pending.values().map(|held| held.login.request.weight()).sum();
        assert!(kept <= Logins::LIMIT * LoginRequest::LIMIT, "{kept} bytes");
        assert_eq!((logins.len(), logins.by_machine.len()), (Logins::LIMIT, Logins::LIMIT));
    }
}
