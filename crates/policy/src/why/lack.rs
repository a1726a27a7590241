use super::who::Asked;
use super::{aliases, listed};
use crate::{Compiled, Effect, Lack, NearMiss, Ports, SshUser};

impl Compiled {
    /// What a rule lacks, each in a sentence that goes with the rule.
    pub(super) fn lacks_in_words(&self, miss: &NearMiss, from: &Asked, to: &Asked) -> Vec<String> {
        let rule = &self.policy().rules()[miss.rule];
        let words = |lack: &Lack| match (lack, &rule.effect) {
            (Lack::Source, _) => format!("{} is not among its sources: {}", from.label, aliases(&rule.sources)),
            (Lack::Destination, _) if rule.is_own_devices() => {
                format!("{} and {} are not devices of one user", from.label, to.label)
            }
            (Lack::Destination, _) => {
                format!("{} is not among its destinations: {}", to.label, aliases(&rule.destinations))
            }
            (Lack::Port, Effect::Ports(ports)) => {
                format!("it is for other ports: {}", listed(ports.iter().map(Ports::to_string)))
            }
            (Lack::Protocol, Effect::Ports(ports)) => {
                format!("it is for other protocols: {}", listed(ports.iter().map(Ports::to_string)))
            }
            (Lack::Capability, Effect::Capabilities(all)) => {
                format!("it gives other capabilities: {}", listed(all.0.keys().cloned()))
            }
            (Lack::Posture, _) => self.posture_in_words(&rule.postures, from),
            (Lack::Via, _) => {
                let tags = listed(rule.via.iter().map(ToString::to_string));
                format!("it goes by routers with {tags}, and none of them leads to {}", to.label)
            }
            (Lack::Account | Lack::User, _) => "it is for logins".to_owned(),
            (Lack::Port | Lack::Protocol, Effect::Capabilities(_)) => "it lets no packets through".to_owned(),
            (Lack::Capability, Effect::Ports(_)) => "it gives no capabilities".to_owned(),
        };
        miss.lacks.iter().map(words).collect()
    }

    /// The same for a rule of SSH.
    pub(super) fn ssh_lacks_in_words(&self, miss: &NearMiss, from: &Asked, account: &str) -> Vec<String> {
        let rule = &self.policy().ssh_rules()[miss.rule];
        let words = |lack: &Lack| match lack {
            Lack::Source => format!("{} is not among its sources: {}", from.label, aliases(&rule.sources)),
            Lack::Account => {
                format!("{account:?} is not among its accounts: {}", listed(rule.users.iter().map(account_text)))
            }
            Lack::Posture => self.posture_in_words(&rule.postures, from),
            Lack::User => format!("it asks for a check, and {} has no user who could confirm it", from.label),
            _ => format!("it is for other devices: {}", aliases(&rule.destinations)),
        };
        miss.lacks.iter().map(words).collect()
    }

    /// Of each posture, the first condition that the device doesn't fulfil.
    fn posture_in_words(&self, postures: &[std::sync::Arc<str>], from: &Asked) -> String {
        let Some(node) = self.node_of(&from.party) else {
            return format!("{} is no device, and the rule asks for a posture of one", from.label);
        };
        let failing = postures.iter().filter_map(|name| {
            let conditions = self.policy().posture(name)?;
            let condition = conditions.iter().find(|condition| !condition.holds(&node.posture))?;
            let is = match node.posture.get(&condition.key) {
                Some(value) => format!("is {value}"),
                None => "is not set".to_owned(),
            };
            Some(format!("{name} wants {condition}, which {is}"))
        });
        format!("{} has none of its postures: {}", from.label, listed(failing))
    }
}

fn account_text(user: &SshUser) -> String {
    match user {
        SshUser::Name(name) => name.clone(),
        SshUser::NonRoot => "autogroup:nonroot".to_owned(),
        SshUser::LocalPart(domain) => format!("localpart:*@{domain}"),
    }
}
