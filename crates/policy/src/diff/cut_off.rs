use roaring::RoaringBitmap;

use crate::compiled::{NodeClasses, Side};
use crate::policy::Effect;
use crate::verify::device;
use crate::{Compiled, Owner, Party, UserId};

/// How many rules of a user's devices are looked at.
const MOST_WORK: u64 = 20_000_000;

/// What a new policy takes away from a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOff {
    /// The user's devices don't reach each other any more.
    pub own_devices: bool,
    /// The user's devices reach nothing at all any more.
    pub everything: bool,
}

impl CutOff {
    /// What the user is told of it.
    pub fn warning(&self, user: &str) -> String {
        match self.everything {
            true => {
                format!("this policy cuts {user} off: none of their devices could reach anything that they reach now")
            }
            false => format!("this policy parts the devices of {user}: they could not reach each other any more"),
        }
    }
}

/// What a user's devices reach.
#[derive(Default)]
struct Reached {
    own_devices: bool,
    anything: bool,
}

impl Compiled {
    /// Whether `next`, compiled for the same tailnet, leaves a user, who reaches something, with nothing to reach, or parts
    /// their own devices; `None` if it does neither.
    pub fn would_cut_off(&self, next: &Self, user: UserId) -> Option<CutOff> {
        let (had, has) = (self.reached_by(user), next.reached_by(user));
        let cut =
            CutOff { own_devices: had.own_devices && !has.own_devices, everything: had.anything && !has.anything };
        (cut.own_devices || cut.everything).then_some(cut)
    }

    fn reached_by(&self, user: UserId) -> Reached {
        let Some(known) = self.topology().users.get(&user) else { return Reached::default() };
        let nodes = self.nodes_of_user(user);
        let classes = NodeClasses::among(self, nodes.iter().copied());
        let mut parties: Vec<Party> = classes.distinct(nodes, self).into_iter().map(Party::Node).collect();
        if parties.is_empty() {
            parties.push(Party::Device(device(Owner::User(user)), Some(known.clone())));
        }
        let ports = self.port_rules();
        let (mut sources, mut destinations) = (Side::default(), Side::default());
        let (mut reached, mut left) = (Reached::default(), MOST_WORK);
        for party in parties {
            sources.add(&self.source_side(&party).within(&ports));
            destinations.add(&self.destination_side(&party).within(&ports));
            // Some device reaches another exactly where all as sources meet all as destinations.
            reached.own_devices = sources.meets(&destinations);
            reached.anything = reached.own_devices || sources.rules().iter().any(|rule| self.leads_anywhere(rule));
            let Some(rest) = left.checked_sub(1 + sources.size() + destinations.size()) else { break };
            left = rest;
            if reached.own_devices {
                break;
            }
        }
        reached
    }

    fn port_rules(&self) -> RoaringBitmap {
        let rules = self.policy().rules().iter().zip(0..);
        rules.filter(|(rule, _)| matches!(rule.effect, Effect::Ports(_))).map(|(_, at)| at).collect()
    }
}
