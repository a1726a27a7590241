//! Go's JSON conventions, as serde reads and writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time as Go writes it: RFC 3339, where `0001-01-01T00:00:00Z` is the zero value and means "never" or
/// "not set".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// Seconds from 1970 back to the first instant of year 1.
    const ZERO_SECONDS: i64 = -62_135_596_800;

    /// The zero time.
    pub const ZERO: Self = Self(Timestamp::constant(Self::ZERO_SECONDS, 0));

    /// Whether this is the zero time.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The instant, or `None` for the zero time.
    pub fn get(self) -> Option<Timestamp> {
        (!self.is_zero()).then_some(self.0)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Option<Timestamp>> for Time {
    fn from(at: Option<Timestamp>) -> Self {
        at.map_or(Self::ZERO, Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    /// Reads `null` as the zero time, as Go does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self::ZERO) };
        text.parse().map(Self).map_err(|_| D::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

/// Reads `null` as the default value: Go leaves a field untouched there, and writes `null` for empty lists and maps.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value is its type's default, and therefore left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `[]byte`: standard base64 with padding, `null` when empty.
pub mod bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes base64, or `null` for no bytes.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if bytes.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(&STANDARD.encode(bytes)) }
    }

    /// Reads base64; `null` is no bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map_err(|_| D::Error::custom("bytes that are no base64"))
    }
}

/// An optional value with a text form, where Go writes the empty string for "none" (`netip.Addr` and its kin).
pub mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text, or an empty one.
    pub fn serialize<S: Serializer, T: Display>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    /// Reads the text; an empty one and `null` are none.
    pub fn deserialize<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| D::Error::custom(format!("{text:?} does not parse"))),
        }
    }
}

/// A list of `ip:port` in which one bad entry doesn't spoil the rest.
///
/// An entry that does not parse reads as [`UNREADABLE_ENDPOINT`], so that lists parallel to it keep their order; the
/// zone of a link-local address is dropped, it means nothing on another machine.
pub mod endpoints {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the list.
    pub fn serialize<S: Serializer>(endpoints: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
        endpoints.serialize(serializer)
    }

    /// Reads the list; `null` is empty.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(texts.iter().map(|text| super::endpoint(text)).collect())
    }

    /// The same for a list whose absence differs from emptiness.
    pub mod optional {
        use super::*;

        /// Writes the list, or `null`.
        pub fn serialize<S: Serializer>(endpoints: &Option<Vec<SocketAddr>>, serializer: S) -> Result<S::Ok, S::Error> {
            endpoints.serialize(serializer)
        }

        /// Reads the list, or `null`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<SocketAddr>>, D::Error> {
            let texts = Option::<Vec<String>>::deserialize(deserializer)?;
            Ok(texts.map(|texts| texts.iter().map(|text| super::super::endpoint(text)).collect()))
        }
    }
}

/// What an endpoint that does not parse reads as: no address, no port; whoever uses endpoints skips it.
pub const UNREADABLE_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn endpoint(text: &str) -> SocketAddr {
    let without_zone = match (text.find('%'), text.find(']')) {
        (Some(zone), Some(end)) if zone < end => format!("{}{}", &text[..zone], &text[end..]),
        _ => text.to_owned(),
    };
    SocketAddr::from_str(&without_zone).unwrap_or(UNREADABLE_ENDPOINT)
}

/// Reads a list and drops the entries that are not what they should be.
pub(crate) fn lenient_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let values = Option::<Vec<serde_json::Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(values.into_iter().filter_map(|value| T::deserialize(value).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_time_is_the_first_instant_of_year_one() {
        assert_eq!(serde_json::to_string(&Time::ZERO).unwrap(), "\"0001-01-01T00:00:00Z\"");
        assert!(serde_json::from_str::<Time>("\"0001-01-01T00:00:00Z\"").unwrap().is_zero());
        assert!(serde_json::from_str::<Time>("null").unwrap().is_zero());
        assert_eq!(Time::ZERO.get(), None);
    }

    #[test]
    fn a_time_keeps_its_nanoseconds_and_reads_any_offset() {
        let at: Time = serde_json::from_str("\"2026-01-02T03:04:05.12345678+02:00\"").unwrap();
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2026-01-02T01:04:05.12345678Z\"");
    }

    #[test]
    fn what_is_no_time_is_named_in_the_error() {
        let error = serde_json::from_str::<Time>("\"tomorrow\"").unwrap_err().to_string();
        assert!(error.contains("\"tomorrow\" is no RFC 3339 time"), "{error}");
    }

    #[test]
    fn a_bad_endpoint_keeps_its_place_and_the_others_their_value() {
        assert_eq!(endpoint("1.2.3.4:5"), "1.2.3.4:5".parse().unwrap());
        assert_eq!(endpoint("[fe80::1%eth0]:7"), "[fe80::1]:7".parse().unwrap());
        assert_eq!(endpoint(""), UNREADABLE_ENDPOINT);
        assert_eq!(endpoint("%]["), UNREADABLE_ENDPOINT);
    }
}
