use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a mapping outlives its last packet.
const LIFETIME: Duration = Duration::from_secs(30);

/// What a router does to UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Nothing: the host behind it has the public address.
    None,
    /// One mapping for each socket; lets in only whom the socket has sent to, address and port.
    Easy,
    /// One mapping for each socket and remote; lets in only that remote.
    Hard,
    /// Drops it.
    Blocked,
}

/// A router and what is behind it.
pub(crate) struct Router {
    pub(crate) public: Ipv4Addr,
    pub(crate) nat: Nat,
    mappings: Vec<Mapping>,
    next_port: u16,
}

struct Mapping {
    inside: SocketAddr,
    outside: u16,
    /// The one remote of a mapping of a hard NAT.
    only: Option<SocketAddr>,
    sent_to: BTreeMap<SocketAddr, Instant>,
}

impl Router {
    pub(crate) fn new(public: Ipv4Addr, nat: Nat) -> Self {
        Self { public, nat, mappings: Vec::new(), next_port: 10_000 }
    }

    /// The source that the internet sees of a packet from inside; `None` if the router drops it.
    pub(crate) fn outbound(&mut self, inside: SocketAddr, remote: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let only = match self.nat {
            Nat::None => return Some(inside),
            Nat::Blocked => return None,
            Nat::Easy => None,
            Nat::Hard => Some(remote),
        };
        self.expire(now);
        let known = self.mappings.iter().position(|mapping| mapping.inside == inside && mapping.only == only);
        let index = known.unwrap_or_else(|| {
            self.next_port += 1;
            let outside = self.next_port;
            self.mappings.push(Mapping { inside, outside, only, sent_to: BTreeMap::new() });
            self.mappings.len() - 1
        });
        self.mappings[index].sent_to.insert(remote, now);
        Some(SocketAddr::new(IpAddr::V4(self.public), self.mappings[index].outside))
    }

    /// Where inside a packet from the internet goes; `None` if the router drops it.
    pub(crate) fn inbound(&mut self, remote: SocketAddr, outside: SocketAddr, now: Instant) -> Option<SocketAddr> {
        if self.nat == Nat::None {
            return Some(outside);
        }
        self.expire(now);
        let mapping = self.mappings.iter_mut().find(|mapping| mapping.outside == outside.port())?;
        let seen = mapping.sent_to.get_mut(&remote)?;
        *seen = now;
        Some(mapping.inside)
    }

    /// Forgets everything, as a router that was switched off and on: what comes next gets other ports.
    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
    }

    fn expire(&mut self, now: Instant) {
        for mapping in &mut self.mappings {
            mapping.sent_to.retain(|_, at| now < *at + LIFETIME);
        }
        self.mappings.retain(|mapping| !mapping.sent_to.is_empty());
    }
}
