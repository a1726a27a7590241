use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use filter::Protocol;
use roaring::RoaringBitmap;

use crate::compiled::{NodeClasses, Side};
use crate::policy::PostureValue;
use crate::{Alias, Autogroup, Compiled, NodeId, Party, SshDecision, internet};

/// How much the tests of one policy may cost: about one for each pair of kinds of devices that is looked at. It takes
/// seconds, where a tailnet of ten thousand devices needs a hundredth of it for a thousand tests.
const MOST_WORK: usize = 5_000_000;

/// What the rules that match one side cost a pair, beside the pair itself.
const RULES_OF_A_PAIR: u64 = 500;

/// What is said of a test that is not run to its end.
const TOO_MUCH: &str = "not tried: the tests of this policy ask about more devices than are tried; name fewer";

/// The attributes of the device that tries.
type Attributes = BTreeMap<String, PostureValue>;

/// Parties that no rule tells apart, and the users that they belong to.
struct Crowd {
    side: Side,
    logins: BTreeSet<Option<Arc<str>>>,
}

/// Everybody whom a text means, or why it means nobody.
type Crowds = Result<Rc<Vec<Crowd>>, String>;

/// What was found out for one test and helps the next.
pub(super) struct Trials<'c> {
    compiled: &'c Compiled,
    classes: NodeClasses,
    own_rules: RoaringBitmap,
    /// By text and whether as a source, with the attributes that are asked for.
    crowds: BTreeMap<(String, Option<Attributes>), Crowds>,
    ports: HashMap<(Protocol, u16), Rc<RoaringBitmap>>,
    /// What one login costs.
    login: usize,
    left: usize,
}

impl<'c> Trials<'c> {
    pub(super) fn new(compiled: &'c Compiled) -> Self {
        Self {
            compiled,
            classes: NodeClasses::new(compiled),
            own_rules: compiled.own_device_rules().clone(),
            crowds: BTreeMap::new(),
            ports: HashMap::new(),
            login: 1 + compiled.cost_of_a_login(),
            left: MOST_WORK,
        }
    }

    /// Whether a text is something that may try.
    pub(super) fn source(&mut self, (source, attributes): (&str, &Attributes)) -> Result<(), String> {
        self.crowds(source, Some(attributes)).map(|_| ())
    }

    /// Whether packets of one of these protocols to a port pass from everybody that a text means to everybody that another
    /// does (`wanted`), or from nobody to nobody. `autogroup:self` means each source's own devices.
    pub(super) fn holds(
        &mut self,
        (source, attributes): (&str, &Attributes),
        (target, protocols, port): (&str, &[Protocol], u16),
        wanted: bool,
    ) -> Result<bool, String> {
        let sources = self.crowds(source, Some(attributes))?;
        let alias = Alias::parse(target).map_err(|error| error.to_string())?;
        let to_own = alias == Alias::Auto(Autogroup::OwnDevices);
        let destinations = match alias {
            Alias::Auto(Autogroup::OwnDevices) => self.own_devices(source, attributes)?,
            Alias::Auto(Autogroup::Internet) => self.samples_of_the_internet()?,
            _ => self.crowds(target, None)?,
        };
        let mut open = RoaringBitmap::new();
        for protocol in protocols {
            open |= &*self.rules_of_ports(*protocol, port)?;
        }
        for source in sources.iter() {
            let by_own = source.side.within(&(&open & &self.own_rules));
            let by_others = source.side.within(&(&open - &self.own_rules));
            self.spend(1)?;
            if by_own.size() + by_others.size() == 0 {
                if wanted && destinations.iter().any(|destination| !to_own || share_a_user(source, destination)) {
                    return Ok(false);
                }
                continue;
            }
            for destination in destinations.iter() {
                if to_own && !share_a_user(source, destination) {
                    self.spend(1)?;
                    continue;
                }
                let rules = by_others.size().max(by_own.size()).min(destination.side.size()) / RULES_OF_A_PAIR;
                self.spend(1 + usize::try_from(rules).unwrap_or(usize::MAX))?;
                let others = by_others.meets(&destination.side);
                let own = !others && by_own.meets(&destination.side);
                let holds = match wanted {
                    true => others || (own && (to_own || is_one_user(source, destination))),
                    false => !(others || own && share_a_user(source, destination)),
                };
                if !holds {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The first answer, other than the wanted one, to a login as an account from anybody that a text means to anybody that
    /// another does.
    pub(super) fn unlike(
        &mut self,
        (source, attributes): (&str, &Attributes),
        target: &str,
        accounts: &[(&str, &'static str)],
    ) -> Result<Vec<(String, &'static str, &'static str)>, String> {
        let parties = self.parties(source)?;
        let sources: Vec<Party> =
            parties.into_iter().map(|party| self.compiled.with_attributes(party, attributes)).collect();
        let destinations = self.parties(target)?;
        let mut unlike = Vec::new();
        for (account, wanted) in accounts {
            if let Some(got) = self.first_unlike(&sources, &destinations, account, wanted)? {
                unlike.push(((*account).to_owned(), *wanted, got));
            }
        }
        Ok(unlike)
    }

    fn first_unlike(
        &mut self,
        sources: &[Party],
        destinations: &[Party],
        account: &str,
        wanted: &str,
    ) -> Result<Option<&'static str>, String> {
        for source in sources {
            for destination in destinations {
                self.spend(self.login)?;
                let got = match self.compiled.decide_ssh(source, destination, account) {
                    SshDecision::Accept { .. } => "Accept",
                    SshDecision::Check { .. } => "Check",
                    SshDecision::Refuse { .. } => "Drop",
                };
                if got != wanted {
                    return Ok(Some(got));
                }
            }
        }
        Ok(None)
    }

    /// Whom a text means: one of each class and user.
    fn parties(&mut self, text: &str) -> Result<Vec<Party>, String> {
        let mut parties = self.compiled.parties(text)?;
        self.spend(parties.len())?;
        let nodes: BTreeSet<NodeId> = parties
            .iter()
            .filter_map(|party| match party {
                Party::Node(id) => Some(*id),
                _ => None,
            })
            .collect();
        if !nodes.is_empty() {
            parties = self.classes.distinct(nodes, self.compiled).into_iter().map(Party::Node).collect();
        }
        Ok(parties)
    }

    /// The same as sides: as sources with these attributes, or as destinations.
    fn crowds(&mut self, text: &str, attributes: Option<&Attributes>) -> Crowds {
        let key = (text.to_owned(), attributes.cloned());
        if let Some(known) = self.crowds.get(&key) {
            return known.clone();
        }
        let found = self.gather(text, attributes);
        self.crowds.insert(key, found.clone());
        found
    }

    fn gather(&mut self, text: &str, attributes: Option<&Attributes>) -> Crowds {
        let parties = self.parties(text)?;
        let mut by_class: HashMap<u32, usize> = HashMap::new();
        let mut crowds: Vec<Crowd> = Vec::new();
        for party in parties {
            let class = match &party {
                Party::Node(id) => self.classes.of(*id),
                _ => None,
            };
            if let Some(at) = class.and_then(|class| by_class.get(&class)) {
                crowds[*at].logins.insert(self.compiled.login_of(&party).map(Into::into));
                continue;
            }
            let side = match attributes {
                Some(attributes) => {
                    let party = self.compiled.with_attributes(party, attributes);
                    self.compiled.source_side(&party)
                }
                None => self.compiled.destination_side(&party),
            };
            self.enter(side, &mut crowds)?;
            class.map(|class| by_class.insert(class, crowds.len() - 1));
        }
        Ok(Rc::new(crowds))
    }

    /// For each user of the sources a device such as theirs.
    fn own_devices(&mut self, source: &str, attributes: &Attributes) -> Crowds {
        let key = (format!("{source}\0{}", Autogroup::OwnDevices.name()), Some(attributes.clone()));
        if let Some(known) = self.crowds.get(&key) {
            return known.clone();
        }
        let mut crowds: Vec<Crowd> = Vec::new();
        for party in self.parties(source)? {
            let user = self.compiled.user_of_party(&party).ok_or("autogroup:self needs a user as src")?;
            let side = self.compiled.destination_side(&super::users_device(user));
            self.spend(1 + crowds.len() / 10)?;
            match crowds.iter_mut().find(|crowd| crowd.side.is_like(&side)) {
                Some(crowd) => {
                    crowd.logins.insert(side.login);
                }
                None => self.enter(side, &mut crowds)?,
            }
        }
        let found = Ok(Rc::new(crowds));
        self.crowds.insert(key, found.clone());
        found
    }

    fn samples_of_the_internet(&mut self) -> Crowds {
        let key = (Autogroup::Internet.name().to_owned(), None);
        if let Some(known) = self.crowds.get(&key) {
            return known.clone();
        }
        let mut crowds = Vec::new();
        for range in internet::ranges() {
            let side = self.compiled.destination_side(&Party::Address(range.last()));
            self.enter(side, &mut crowds)?;
        }
        let found = Ok(Rc::new(crowds));
        self.crowds.insert(key, found.clone());
        found
    }

    fn enter(&mut self, side: Side, crowds: &mut Vec<Crowd>) -> Result<(), String> {
        self.spend(10 + usize::try_from(side.size()).unwrap_or(usize::MAX) / 10)?;
        crowds.push(Crowd { logins: [side.login.clone()].into(), side });
        Ok(())
    }

    fn rules_of_ports(&mut self, protocol: Protocol, port: u16) -> Result<Rc<RoaringBitmap>, String> {
        if let Some(known) = self.ports.get(&(protocol, port)) {
            return Ok(known.clone());
        }
        self.spend(1 + self.compiled.policy().rules().len() / 5)?;
        let rules = Rc::new(self.compiled.rules_of_ports(protocol, port));
        self.ports.insert((protocol, port), rules.clone());
        Ok(rules)
    }

    fn spend(&mut self, work: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(work).ok_or(TOO_MUCH)?;
        Ok(())
    }
}

/// Whether every pair is of one and the same user.
fn is_one_user(source: &Crowd, destination: &Crowd) -> bool {
    source.logins.len() == 1 && source.logins == destination.logins && !source.logins.contains(&None)
}

/// Whether some pair is.
fn share_a_user(source: &Crowd, destination: &Crowd) -> bool {
    source.logins.iter().any(|login| login.is_some() && destination.logins.contains(login))
}
