use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crypto::{DiscoPrivate, DiscoPublic, Entropy, NodePublic, SharedBox};
use packet::disco::{self, Envelope, Message, OpenError};

/// This node's disco key, and which nodes hold which of the others.
///
/// One disco key may belong to several nodes: a machine that is in two tailnets, or that has changed accounts, and is
/// shared with this node twice. What each pair of keys agrees on is computed when it is first needed.
pub(super) struct DiscoKeys {
    own: DiscoPrivate,
    public: DiscoPublic,
    holders: BTreeSet<(DiscoPublic, NodePublic)>,
    shared: BTreeMap<DiscoPublic, SharedBox>,
}

impl DiscoKeys {
    pub(super) fn new(own: DiscoPrivate) -> Self {
        Self { public: own.public(), own, holders: BTreeSet::new(), shared: BTreeMap::new() }
    }

    pub(super) fn public(&self) -> DiscoPublic {
        self.public
    }

    /// Notes who holds a key. The zero key stands for none: nobody holds it.
    pub(super) fn add(&mut self, key: DiscoPublic, node: NodePublic) {
        if !key.is_zero() {
            self.holders.insert((key, node));
        }
    }

    pub(super) fn remove(&mut self, key: DiscoPublic, node: NodePublic) {
        self.holders.remove(&(key, node));
        if self.holders_of(&key).next().is_none() {
            self.shared.remove(&key);
        }
    }

    pub(super) fn holds(&self, node: NodePublic, key: &DiscoPublic) -> bool {
        self.holders.contains(&(*key, node))
    }

    /// The nodes that hold a key: none for a key that the netmap does not know.
    pub(super) fn holders_of(&self, key: &DiscoPublic) -> impl Iterator<Item = NodePublic> + use<'_> {
        let all = (*key, NodePublic::ZERO)..=(*key, NodePublic::from_bytes([0xff; 32]));
        self.holders.range(all).map(|(_, node)| *node)
    }

    /// Opens a packet from a key that the netmap knows; `None` from any other.
    pub(super) fn open(&mut self, envelope: &Envelope<'_>) -> Option<Result<Message, OpenError>> {
        Some(envelope.open(self.shared(&envelope.sender)?))
    }

    /// Seals a message for the holder of a key that the netmap knows; `None` for any other.
    pub(super) fn seal(&mut self, to: &DiscoPublic, message: &Message, entropy: &mut dyn Entropy) -> Option<Vec<u8>> {
        let sender = self.public;
        Some(disco::seal(&sender, self.shared(to)?, message, entropy))
    }

    fn shared(&mut self, key: &DiscoPublic) -> Option<&SharedBox> {
        self.holders_of(key).next()?;
        match self.shared.entry(*key) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(free) => Some(free.insert(SharedBox::disco(&self.own, key)?)),
        }
    }
}
