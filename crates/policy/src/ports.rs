use std::fmt;

use filter::{PortRange, Protocol};

/// Protocols that a policy calls by name.
const NAMES: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipv4", 4),
    ("ip-in-ip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("sctp", 132),
    ("fc", 133),
];

/// Ports of one protocol, or of those that a rule has when it names none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The protocol; `None` is TCP, UDP and ICMP.
    pub protocol: Option<Protocol>,
    /// The ports, in the order of the policy.
    pub ranges: Vec<PortRange>,
}

/// Why a text names no protocol or ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// The range doesn't begin with a number.
    #[error("port range {0:?}: invalid first integer")]
    First(String),
    /// The range doesn't end with a number.
    #[error("port range {0:?}: invalid last integer")]
    Last(String),
    /// Port 0 means nothing.
    #[error("port range {0:?}: first port must be >0, or use '*' for wildcard")]
    Zero(String),
    /// The range ends before it begins.
    #[error("port range {0:?}: first port must not be greater than the last")]
    Reversed(String),
    /// No protocol has this name or number.
    #[error("protocol {0:?} is not known; use a name such as tcp, or a number from 1 to 255")]
    Protocol(String),
    /// The protocol has no ports.
    #[error("protocol {0:?} has no ports; use '*'")]
    NoPorts(String),
}

impl Ports {
    /// Reads an entry of a grant's `ip`: `*`, `443`, `tcp:80-90`, `icmp:*`.
    ///
    /// # Errors
    /// The protocol or the ports can't be read, or the protocol has no ports.
    pub fn parse(text: &str) -> Result<Self, PortsError> {
        match text.trim().split_once(':') {
            Some((protocol, ports)) => Self::of(Some(protocol), ports),
            None => Self::of(None, text),
        }
    }

    /// Reads ports of a protocol given by name or number.
    ///
    /// # Errors
    /// The protocol or the ports can't be read, or the protocol has no ports.
    pub fn of(protocol: Option<&str>, ports: &str) -> Result<Self, PortsError> {
        let number = protocol.map(parse_protocol).transpose()?;
        let ranges = parse_ranges(ports)?;
        if let (Some(name), Some(number)) = (protocol, number)
            && !number.has_ports()
            && ranges != [PortRange::ALL]
        {
            return Err(PortsError::NoPorts(name.to_owned()));
        }
        Ok(Self { protocol: number, ranges })
    }
}

/// As a policy spells them, `443` or `tcp:80-90`.
impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(formatter, "{protocol}:")?;
        }
        for (at, range) in self.ranges.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(formatter, "{comma}{range}")?;
        }
        Ok(())
    }
}

/// Reads a protocol's name or decimal number.
///
/// # Errors
/// There is no such protocol.
pub fn parse_protocol(text: &str) -> Result<Protocol, PortsError> {
    let text = text.trim();
    let unknown = || PortsError::Protocol(text.to_owned());
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(Protocol(*number));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).map(Protocol).ok_or_else(unknown)
}

/// Reads `*`, a port, a range, or several of these between commas.
fn parse_ranges(text: &str) -> Result<Vec<PortRange>, PortsError> {
    let text = text.trim();
    if text == "*" {
        return Ok(vec![PortRange::ALL]);
    }
    text.split(',').map(parse_range).collect()
}

fn parse_range(text: &str) -> Result<PortRange, PortsError> {
    let text = text.trim();
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = number(first).ok_or_else(|| PortsError::First(text.to_owned()))?;
    let last = number(last).ok_or_else(|| PortsError::Last(text.to_owned()))?;
    if first == 0 {
        return Err(PortsError::Zero(text.to_owned()));
    }
    if first > last {
        return Err(PortsError::Reversed(text.to_owned()));
    }
    Ok(PortRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<String> {
        Ports::parse(text).unwrap().ranges.iter().map(PortRange::to_string).collect()
    }

    #[test]
    fn ports_are_one_a_range_a_list_or_all() {
        assert_eq!(ranges("443"), ["443"]);
        assert_eq!(ranges("tcp:80-90,443"), ["80-90", "443"]);
        assert_eq!(ranges("*"), ["*"]);
        assert_eq!(Ports::parse("icmp:*").unwrap().protocol, Some(Protocol::ICMPV4));
        assert_eq!(Ports::parse("132:5").unwrap().protocol, Some(Protocol::SCTP));
    }

    #[test]
    fn ports_are_spelled_as_they_are_written() {
        for text in ["443", "tcp:80-90,443", "*", "icmp:*"] {
            assert_eq!(Ports::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn protocols_have_the_numbers_that_the_registry_gives_them() {
        for (name, number) in [
            ("icmp", 1),
            ("igmp", 2),
            ("ipv4", 4),
            ("ip-in-ip", 4),
            ("tcp", 6),
            ("egp", 8),
            ("igp", 9),
            ("udp", 17),
            ("gre", 47),
            ("esp", 50),
            ("ah", 51),
            ("ipv6-icmp", 58),
            ("sctp", 132),
            ("fc", 133),
            ("1", 1),
            ("255", 255),
        ] {
            assert_eq!(parse_protocol(name), Ok(Protocol(number)), "{name}");
            // Of those with ports, single ones can be named.
            let has_ports = [6, 17, 132].contains(&number);
            assert_eq!(Ports::of(Some(name), "80").is_ok(), has_ports, "{name}");
        }
    }

    #[test]
    fn wrong_ports_and_protocols_are_told() {
        for (text, message) in [
            ("ssh", "port range \"ssh\": invalid first integer"),
            ("80-x", "port range \"80-x\": invalid last integer"),
            ("0", "port range \"0\": first port must be >0, or use '*' for wildcard"),
            ("70000", "port range \"70000\": invalid first integer"),
            ("+80", "port range \"+80\": invalid first integer"),
            ("90-80", "port range \"90-80\": first port must not be greater than the last"),
            ("", "port range \"\": invalid first integer"),
            ("*:80", "protocol \"*\" is not known; use a name such as tcp, or a number from 1 to 255"),
            ("06:80", "protocol \"06\" is not known; use a name such as tcp, or a number from 1 to 255"),
            ("256:80", "protocol \"256\" is not known; use a name such as tcp, or a number from 1 to 255"),
            ("icmp:80", "protocol \"icmp\" has no ports; use '*'"),
        ] {
            assert_eq!(Ports::parse(text).unwrap_err().to_string(), message);
        }
    }
}
