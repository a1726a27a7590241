use crate::{Alias, Compiled, Node, NodeId, Owner, Party};

use super::{QuestionError, listed};

/// Somebody that a question names.
pub(super) struct Asked {
    pub(super) label: String,
    pub(super) party: Party,
}

impl Compiled {
    /// Who a name means: a device of this name, or what it means as the source of a test.
    pub(super) fn asked(&self, name: &str) -> Result<Vec<Asked>, QuestionError> {
        let name = name.trim();
        if let Some(id) = self.device_named(name) {
            return Ok(vec![self.ask(Party::Node(id))]);
        }
        let parties = self.parties(name).map_err(QuestionError::Unknown)?;
        Ok(parties.into_iter().map(|party| self.ask(party)).collect())
    }

    /// The same for a destination, which may also be a service.
    pub(super) fn asked_destination(&self, name: &str) -> Result<Vec<Asked>, QuestionError> {
        let Some(service) = self.topology().services.get(name.trim()) else { return self.asked(name) };
        Ok(service.addresses.iter().map(|address| self.ask(Party::Address(*address))).collect())
    }

    /// Devices of the tailnet only, one by one.
    pub(super) fn asked_devices(&self, name: &str) -> Result<Vec<Asked>, QuestionError> {
        let device = |asked: Asked| match asked.party {
            Party::Address(address) => {
                let (id, _) = self.node_by_address(address)?;
                Some(self.ask(Party::Node(id)))
            }
            Party::Node(_) => Some(asked),
            Party::Device(..) => None,
        };
        let devices: Vec<Asked> = self.asked(name)?.into_iter().filter_map(device).collect();
        if devices.is_empty() { Err(QuestionError::NoDevice(name.to_owned())) } else { Ok(devices) }
    }

    /// The device that is called this, or whose full name begins so.
    fn device_named(&self, name: &str) -> Option<NodeId> {
        let find = |wanted: &str| self.topology().nodes.iter().find(|(_, node)| &*node.name == wanted);
        let first_label = || name.split_once('.').map(|(label, _)| label).filter(|_| name.parse::<f64>().is_err());
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let is_host = matches!(Alias::parse(name), Ok(Alias::Host(host)) if self.policy().host(&host).is_some());
        let found = find(name).or_else(|| first_label().filter(|_| !is_address && !is_host).and_then(find));
        found.map(|(id, _)| *id)
    }

    fn ask(&self, party: Party) -> Asked {
        let label = match &party {
            Party::Node(id) => self.topology().nodes.get(id).map_or_else(String::new, |node| node.name.to_string()),
            Party::Address(address) => match self.node_by_address(*address) {
                Some((_, node)) => format!("{address} ({})", node.name),
                None => address.to_string(),
            },
            Party::Device(node, user) => match (user, &node.owner) {
                (Some(user), _) if user.login.is_empty() => "a device of such a user".to_owned(),
                (Some(user), _) => format!("a device of {}", user.login),
                (None, Owner::Tags(tags)) if tags.is_empty() => "a device with a tag".to_owned(),
                (None, Owner::Tags(tags)) => format!("a device with {}", listed(tags.iter().map(ToString::to_string))),
                (None, Owner::User(_)) => node.name.to_string(),
            },
        };
        Asked { label, party }
    }

    pub(super) fn names_of(&self, nodes: &[NodeId]) -> String {
        listed(nodes.iter().filter_map(|id| self.topology().nodes.get(id)).map(|node| node.name.to_string()))
    }

    /// The node of a party, which need not be in the tailnet.
    pub(super) fn node_of<'a>(&'a self, party: &'a Party) -> Option<&'a Node> {
        match party {
            Party::Node(id) => self.topology().nodes.get(id),
            Party::Device(node, _) => Some(node),
            Party::Address(address) => self.node_by_address(*address).map(|(_, node)| node),
        }
    }

    /// Whether an alias means a party by who it belongs to; those that this is asked of are no addresses.
    pub(crate) fn belongs_to(&self, alias: &Alias, party: &Party) -> bool {
        match party {
            Party::Device(_, Some(user)) => self.is_alias_of_user(alias, user),
            _ => self.node_of(party).is_some_and(|node| self.is_alias_of(alias, &node.owner)),
        }
    }
}
