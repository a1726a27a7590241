//! The public Internet, as `autogroup:internet` means it, and the tailnet's own addresses, as `*` means them.

use std::sync::LazyLock;

use filter::AddressRange;

/// All but private, shared (CGNAT) and link-local IPv4, and global unicast IPv6; as the hosted service writes it into
/// filters, word by word.
pub(crate) const TEXTS: [&str; 7] = [
    "0.0.0.0-9.255.255.255",
    "11.0.0.0-100.63.255.255",
    "100.128.0.0-169.253.255.255",
    "169.255.0.0-172.15.255.255",
    "172.32.0.0-192.167.255.255",
    "192.169.0.0-255.255.255.255",
    "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

/// What `*` is as a source: the tailnet's own addresses without the hole that ChromeOS uses for itself.
pub(crate) const TAILNET_TEXTS: [&str; 3] =
    ["100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48"];

static RANGES: LazyLock<Vec<AddressRange>> =
    LazyLock::new(|| TEXTS.iter().filter_map(|text| text.parse().ok()).collect());

static TAILNET: LazyLock<Vec<AddressRange>> =
    LazyLock::new(|| TAILNET_TEXTS.iter().filter_map(|text| text.parse().ok()).collect());

/// The ranges of [`TEXTS`], ascending.
pub(crate) fn ranges() -> &'static [AddressRange] {
    &RANGES
}

/// The ranges of [`TAILNET_TEXTS`], ascending.
pub(crate) fn tailnet() -> &'static [AddressRange] {
    &TAILNET
}

/// Whether every address of the range is on the public Internet.
pub(crate) fn contains(range: &AddressRange) -> bool {
    RANGES.iter().any(|public| public.covers(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_a_range() {
        assert_eq!(ranges().len(), TEXTS.len());
        assert_eq!(tailnet().len(), TAILNET_TEXTS.len());
    }

    #[test]
    fn private_networks_are_not_the_internet() {
        for private in ["10.0.0.0/8", "100.64.0.1", "192.168.1.0/24", "fd7a:115c:a1e0::/48", "0.0.0.0/0", "169.254.0.1"]
        {
            assert!(!contains(&private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.0/24", "2606:4700::/32", "1.1.1.1"] {
            assert!(contains(&public.parse().unwrap()), "{public}");
        }
    }
}
