use std::collections::BTreeSet;

use tailcfg::NodeId;

/// Who must hear of what was committed or touched.
///
/// What each of them is told is worked out when their stream is ready for it ([`crate::Tailnet::delta`]): a slow reader
/// gets one merged message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// Whose maps may have changed.
    pub wake: Wake,
    /// Whose map streams must end now: the device is gone, or its key is another one.
    pub cut: BTreeSet<NodeId>,
    /// Whether the set of node keys that relays admit changed ([`crate::Tailnet::admitted_keys`]).
    pub admission: bool,
}

/// Whose maps may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// These.
    Some(BTreeSet<NodeId>),
    /// Everybody's.
    All,
}

impl Default for Wake {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Wake {
    /// Whether this node's map may have changed.
    pub fn concerns(&self, node: NodeId) -> bool {
        match self {
            Self::Some(nodes) => nodes.contains(&node),
            Self::All => true,
        }
    }

    /// Whether it is nobody's.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(nodes) if nodes.is_empty())
    }

    pub(crate) fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(mine), Self::Some(mut theirs)) => {
                if theirs.len() > mine.len() {
                    std::mem::swap(mine, &mut theirs);
                }
                // One by one is dear for many, and a merge for few.
                if theirs.len() * 8 > mine.len() { mine.append(&mut theirs) } else { mine.extend(theirs) }
            }
        }
    }
}

impl Effects {
    /// Adds what something else had for effects.
    pub fn join(&mut self, other: Self) {
        self.wake.join(other.wake);
        self.cut.extend(other.cut);
        self.admission |= other.admission;
    }

    /// Whether nobody must hear of anything.
    pub fn is_empty(&self) -> bool {
        self.wake.is_empty() && self.cut.is_empty() && !self.admission
    }
}
