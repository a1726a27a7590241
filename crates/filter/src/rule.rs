use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{AddressRange, CapMap, RangeError};

/// One rule of a packet filter, field by field as the control protocol's JSON has it (`FilterRule`).
///
/// It either opens ports ([`Rule::destinations`]) or gives capabilities ([`Rule::grants`]), never both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who may: addresses, prefixes, ranges, `*`, or `cap:` and a capability of the source. Shared, because many rules
    /// of many nodes have the same sources.
    #[serde(rename = "SrcIPs", default, deserialize_with = "null_is_empty_list")]
    pub sources: Arc<[String]>,
    /// An obsolete companion of `SrcIPs`; any value makes the filter void.
    #[serde(rename = "SrcBits", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub source_bits: Vec<i64>,
    /// Where to.
    #[serde(rename = "DstPorts", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<DstPort>,
    /// IP protocol numbers; none means TCP, UDP and ICMP of both families.
    #[serde(rename = "IPProto", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<i64>,
    /// What the sources may do with this node beyond packets.
    #[serde(rename = "CapGrant", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<CapGrant>,
}

/// A destination of a [`Rule`]: addresses and a run of ports (`NetPortRange`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DstPort {
    /// An address, a prefix, a range or `*`.
    #[serde(rename = "IP")]
    pub ip: String,
    /// An obsolete prefix length; any value makes the filter void.
    #[serde(rename = "Bits", default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<i64>,
    /// The ports, both ends included.
    #[serde(rename = "Ports")]
    pub ports: PortRange,
}

/// A run of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    #[serde(rename = "First")]
    pub first: u16,
    /// The highest port.
    #[serde(rename = "Last")]
    pub last: u16,
}

/// Capabilities given on some of the node's own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapGrant {
    /// The destinations on which the capabilities hold.
    #[serde(rename = "Dsts", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<IpNet>,
    /// Names without values: the form before `CapMap`.
    #[serde(rename = "Caps", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Capabilities with their values.
    #[serde(rename = "CapMap", default, deserialize_with = "null_is_empty", skip_serializing_if = "CapMap::is_empty")]
    pub capabilities: CapMap,
}

/// One parsed entry of `SrcIPs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `*`: whoever it is.
    Anyone,
    /// An address, prefix or range.
    Addresses(AddressRange),
    /// `cap:name`: peers that have this node capability.
    Capability(String),
}

impl PortRange {
    /// All ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The run of one port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether the port lies in the run.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether these are all ports there are.
    pub const fn is_all(&self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_all(), self.first == self.last) {
            (true, _) => formatter.write_str("*"),
            (_, true) => write!(formatter, "{}", self.first),
            _ => write!(formatter, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Source {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        match text.strip_prefix("cap:") {
            Some("") => Err(RangeError::Malformed(text.to_owned())),
            Some(name) => Ok(Self::Capability(name.to_owned())),
            None if text == "*" => Ok(Self::Anyone),
            None => text.parse().map(Self::Addresses),
        }
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn null_is_empty_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[String]>, D::Error> {
    let list: Option<Vec<String>> = Option::deserialize(deserializer)?;
    Ok(list.unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_the_protocols_field_names() {
        let json = r#"{"SrcIPs":["100.64.0.1","*"],"DstPorts":[{"IP":"100.64.0.2","Ports":{"First":22,"Last":22}}],"IPProto":[6]}"#;
        let rule: Rule = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), json);
    }

    #[test]
    fn a_grant_keeps_its_values_and_tells_null_from_an_empty_list() {
        let json = r#"{"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.2/32"],"CapMap":{"example.com/a":[{"b": 1.0}],"example.com/b":null,"example.com/c":[]}}]}"#;
        let rule: Rule = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), json);
    }

    #[test]
    fn null_lists_are_empty() {
        let rule: Rule =
            serde_json::from_str(r#"{"SrcIPs":null,"DstPorts":null,"CapGrant":null,"IPProto":null}"#).unwrap();
        assert_eq!(rule, Rule::default());
    }

    #[test]
    fn ports_are_told_as_a_policy_spells_them() {
        let run = |first, last| PortRange { first, last };
        let texts = [PortRange::ALL, run(22, 22), run(0, 22), run(22, u16::MAX)].map(|ports| ports.to_string());
        assert_eq!(texts, ["*", "22", "0-22", "22-65535"]);
        assert_eq!([PortRange::ALL, run(0, 22), run(22, u16::MAX)].map(|ports| ports.is_all()), [true, false, false]);
        assert_eq!(PortRange::single(7), run(7, 7));
    }

    #[test]
    fn sources_parse_strictly() {
        assert_eq!("*".parse(), Ok(Source::Anyone));
        assert_eq!("cap:x".parse(), Ok(Source::Capability("x".to_owned())));
        assert!("cap:".parse::<Source>().is_err());
        assert!(" *".parse::<Source>().is_err());
        assert!("10.0.0.1/8".parse::<Source>().is_err());
    }
}
