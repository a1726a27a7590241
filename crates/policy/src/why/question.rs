use filter::Protocol;
use ipnet::IpNet;

/// A question of a person: names are as they would write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who: a device's name, an address, or what a test may have as its source: a user, group, tag or autogroup.
    pub source: String,
    /// What about them.
    pub subject: Subject,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Whether packets pass.
    Packets {
        /// Where to, as [`Question::source`], or a service (`svc:…`).
        destination: String,
        /// By which protocol.
        protocol: Protocol,
        /// To which port; 0 where the protocol has none.
        port: u16,
    },
    /// Whether two devices know each other.
    Visibility {
        /// The other device.
        destination: String,
    },
    /// Whether an application lets the source do something.
    Capability {
        /// On which device.
        destination: String,
        /// The capability's name.
        name: String,
    },
    /// Whether the source may log in.
    Ssh {
        /// On which device.
        destination: String,
        /// As which account.
        account: String,
    },
    /// Whether a route of a device is approved at once; both default routes are those of an exit node.
    Route(IpNet),
    /// Whether a device may host a service (`svc:…`) at once.
    Service(String),
    /// Whether a device has a node attribute; of `ipPool`, from which networks its IPv4 address is.
    Attribute(String),
    /// Whether somebody may give a tag.
    Tag(String),
}

/// Why a question can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Nobody is called this.
    #[error("{0}; name a device, a user, a tag, a group or an address")]
    Unknown(String),
    /// The destination doesn't read.
    #[error("{0:?} is no destination; write NAME:PORT, such as db:5432 or [fd7a:115c:a1e0::1]:22")]
    Destination(String),
    /// Two names stand for more devices than are looked at.
    #[error("{0} devices or pairs of them are meant, more than the {1} that are looked at; name one device")]
    TooMany(usize, usize),
    /// The question is about devices that are there.
    #[error("{0:?} is no device of this tailnet; only of devices that are there can this be told")]
    NoDevice(String),
    /// The tag has no name that a tag may have, or isn't in the policy.
    #[error("{0}")]
    Tag(String),
}

impl Question {
    /// Reads a destination as people write it: with a port it is about packets, without one about who knows whom.
    ///
    /// # Errors
    /// It has neither form.
    pub fn new(source: &str, destination: &str, protocol: Option<Protocol>) -> Result<Self, QuestionError> {
        let unreadable = || QuestionError::Destination(destination.to_owned());
        let (name, port) = split_port(destination.trim()).ok_or_else(unreadable)?;
        let destination = name.to_owned();
        let subject = match (protocol, port) {
            (None, None) => Subject::Visibility { destination },
            (Some(protocol), None) if protocol.has_ports() => return Err(unreadable()),
            (Some(protocol), None) => Subject::Packets { destination, protocol, port: 0 },
            (None, Some(port)) => Subject::Packets { destination, protocol: Protocol::TCP, port },
            (Some(protocol), Some(port)) => Subject::Packets { destination, protocol, port },
        };
        Ok(Self { source: source.trim().to_owned(), subject })
    }
}

/// Splits `name:port`, where names may have colons too.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let bare =
        |name: &'static str| text.split_once(':').is_some_and(|(kind, rest)| kind == name && !rest.contains(':'));
    if text.is_empty() || text.parse::<std::net::IpAddr>().is_ok() {
        return (!text.is_empty()).then_some((text, None));
    }
    if ["tag", "group", "autogroup", "svc"].into_iter().any(bare) {
        return Some((text, None));
    }
    let Some((name, port)) = text.rsplit_once(':') else { return Some((text, None)) };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    port.parse().ok().filter(|port| *port > 0 && !name.is_empty()).map(|port| (name, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_name_with_a_port_or_without() {
        for (text, want) in [
            ("db", Some(("db", None))),
            ("db:5432", Some(("db", Some(5432)))),
            ("tag:db", Some(("tag:db", None))),
            ("tag:db:22", Some(("tag:db", Some(22)))),
            ("autogroup:internet:443", Some(("autogroup:internet", Some(443)))),
            ("fd7a:115c:a1e0::5", Some(("fd7a:115c:a1e0::5", None))),
            ("[fd7a:115c:a1e0::5]:22", Some(("fd7a:115c:a1e0::5", Some(22)))),
            ("10.0.0.1:80", Some(("10.0.0.1", Some(80)))),
            ("db:ssh", None),
            ("db:0", None),
            ("db:70000", None),
            (":22", None),
            ("", None),
        ] {
            assert_eq!(split_port(text), want, "{text}");
        }
    }

    #[test]
    fn a_protocol_with_ports_needs_one() {
        assert!(Question::new("a", "b", Some(Protocol::UDP)).is_err());
        assert!(Question::new("a", "b", Some(Protocol::ICMPV4)).is_ok());
    }
}
