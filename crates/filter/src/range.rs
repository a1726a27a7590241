use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// A run of addresses of one family, both ends included.
///
/// Its text is an address, a prefix without host bits, or `first-last`, as in the control protocol's filter rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address, nor a prefix, nor two addresses joined by `-`.
    #[error("{0:?} is not an IP address, a prefix or a range of addresses")]
    Malformed(String),
    /// A prefix such as `10.0.0.1/8`, whose address does not lie on the prefix's boundary.
    #[error("prefix {given} has host bits set; did you mean {masked}?")]
    HostBits {
        /// The prefix as it was written.
        given: IpNet,
        /// The same prefix with its host bits cleared.
        masked: IpNet,
    },
    /// The first address of a range is greater than the last, or of another family.
    #[error("{0:?} is not a range: its ends are of two families or in the wrong order")]
    Reversed(String),
}

impl AddressRange {
    /// The range from `first` to `last`; `None` unless both are of one family and in order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The range that holds one address.
    pub const fn single(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// Every address of the prefix.
    pub fn prefix(prefix: IpNet) -> Self {
        Self { first: prefix.network(), last: prefix.broadcast() }
    }

    /// Every IPv4 and every IPv6 address.
    pub const fn everything() -> [Self; 2] {
        [
            Self { first: IpAddr::V4(Ipv4Addr::UNSPECIFIED), last: IpAddr::V4(Ipv4Addr::BROADCAST) },
            Self { first: IpAddr::V6(Ipv6Addr::UNSPECIFIED), last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)) },
        ]
    }

    /// The lowest address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the range is a single address.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether every address of `other` lies in this range.
    pub fn covers(&self, other: &Self) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    /// The prefix that is exactly this range, if there is one.
    pub fn as_prefix(&self) -> Option<IpNet> {
        let prefixes = self.prefixes();
        match prefixes.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The fewest prefixes that together are this range, in order.
    pub fn prefixes(&self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
            (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
            // Constructors hold both ends to one family.
            _ => Vec::new(),
        }
    }
}

impl From<IpNet> for AddressRange {
    fn from(prefix: IpNet) -> Self {
        Self::prefix(prefix)
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self::single(address)
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let malformed = || RangeError::Malformed(text.to_owned());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::single(address));
        }
        if let Some((address, bits)) = text.split_once('/') {
            return parse_prefix(address, bits).ok_or_else(malformed)?.map(Self::prefix);
        }
        let (first, last) = text.split_once('-').ok_or_else(malformed)?;
        let first = first.parse().map_err(|_| malformed())?;
        let last = last.parse().map_err(|_| malformed())?;
        Self::new(first, last).ok_or_else(|| RangeError::Reversed(text.to_owned()))
    }
}

/// Parses both halves of `address/bits`: `None` if they are no prefix at all. Bits have one way to be written.
fn parse_prefix(address: &str, bits: &str) -> Option<Result<IpNet, RangeError>> {
    let address: IpAddr = address.parse().ok()?;
    let plain = bits.bytes().all(|digit| digit.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| plain)?;
    let given = match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, bits).ok()?),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new(address, bits).ok()?),
    };
    let masked = given.trunc();
    Some(if masked == given { Ok(given) } else { Err(RangeError::HostBits { given, masked }) })
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            return write!(formatter, "{}", self.first);
        }
        match self.as_prefix() {
            Some(prefix) => write!(formatter, "{prefix}"),
            None => write!(formatter, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_a_prefix_and_a_range_keep_their_text() {
        for text in ["100.64.0.1", "10.0.0.0/8", "100.64.0.0-100.115.91.255", "fd7a:115c:a1e0::/48", "::1", "::/0"] {
            assert_eq!(range(text).to_string(), text);
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused_and_told_the_right_one() {
        let error = "10.0.0.1/8".parse::<AddressRange>().unwrap_err();
        assert_eq!(error.to_string(), "prefix 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?");
    }

    #[test]
    fn texts_that_are_no_range_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.5-10.0.0.1",
            "1.2.3.4-::1",
            "1-2",
            "10.0.0.0/",
            "fe80::1%eth0",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn families_never_meet() {
        assert!(!range("0.0.0.0/0").overlaps(&range("::/0")));
        assert!(!range("::/0").contains(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn a_range_covers_what_lies_in_it_whole() {
        let prefix = range("10.0.0.0/24");
        for within in ["10.0.0.0/24", "10.0.0.0", "10.0.0.255", "10.0.0.3-10.0.0.9"] {
            assert!(prefix.covers(&range(within)), "{within}");
        }
        for beyond in ["10.0.0.0/23", "10.0.0.200-10.0.1.1", "9.9.9.9-10.0.0.1", "10.0.1.0", "::/0"] {
            assert!(!prefix.covers(&range(beyond)), "{beyond}");
        }
    }

    #[test]
    fn ranges_overlap_that_share_an_address() {
        let middle = range("10.0.0.10-10.0.0.20");
        for shared in ["10.0.0.20", "10.0.0.10", "10.0.0.0/8", "10.0.0.5-10.0.0.10", "10.0.0.20-10.0.0.30"] {
            assert!(middle.overlaps(&range(shared)) && range(shared).overlaps(&middle), "{shared}");
        }
        for apart in ["10.0.0.9", "10.0.0.21", "::/0"] {
            assert!(!middle.overlaps(&range(apart)) && !range(apart).overlaps(&middle), "{apart}");
        }
    }

    #[test]
    fn a_range_that_is_no_prefix_splits_into_the_fewest() {
        let prefixes: Vec<String> = range("10.0.0.1-10.0.0.4").prefixes().iter().map(IpNet::to_string).collect();
        assert_eq!(prefixes, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]);
    }
}
