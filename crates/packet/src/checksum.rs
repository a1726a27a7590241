//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

use crate::ip::Protocol;

/// A ones' complement sum in progress.
///
/// Parts may be added in any split, odd lengths included: the sum is that of their concatenation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum {
    sum: u64,
    odd: bool,
}

impl Checksum {
    /// A sum of nothing.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// A sum that starts with the pseudo header of a transport protocol over IPv4 or IPv6.
    ///
    /// The two addresses must be of one family; `length` is that of the transport header and its payload.
    pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: Protocol, length: usize) -> Self {
        let sum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::new().with(&source.octets()).with(&destination.octets())
            }
            (source, destination) => Self::new().with(&mapped(source)).with(&mapped(destination)),
        };
        sum.with(&(length as u32).to_be_bytes()).with(&[0, protocol.0])
    }

    /// Adds bytes to the sum.
    ///
    /// Words are added as the machine loads them: a ones' complement sum only needs its bytes swapped once at the end,
    /// and the plain loop over 32-bit words becomes vector instructions.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(4);
        let mut sum = 0u64;
        for word in words.by_ref() {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut last = [0; 4];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        sum += u64::from(u32::from_ne_bytes(last));
        let part = if self.odd { u64::from(fold(sum).swap_bytes()) } else { sum };
        Self { sum: u64::from(fold(self.sum)) + part, odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The checksum to write into a header whose checksum field counted as zero.
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.sum))
    }

    /// Whether the bytes added so far, their checksum field included, sum to a right checksum.
    pub fn is_right(self) -> bool {
        self.finish() == 0
    }
}

/// The checksum of one run of bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    Checksum::new().with(bytes).finish()
}

/// What a checksum becomes when the bytes `old`, which begin at an even offset, turn into `new` (RFC 1624, equation 3).
///
/// The two must be of one even length.
pub fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    debug_assert!(old.len() == new.len() && old.len().is_multiple_of(2));
    let removed = Checksum::new().with(old).finish();
    let added = !Checksum::new().with(new).finish();
    let sum = u32::from(!checksum) + u32::from(removed) + u32::from(added);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds big-endian words one by one, as RFC 1071 words it.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed_there() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_real_ipv4_header_sums_to_its_checksum() {
        let header = hex::decode("45000073000040004011b861c0a80001c0a800c7").unwrap();
        assert!(Checksum::new().with(&header).is_right());
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_plain_one(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), reference(&bytes));
        }

        #[test]
        fn any_split_gives_the_same_sum(bytes in proptest::collection::vec(any::<u8>(), 0..200), a in 0usize..200, b in 0usize..200) {
            let (a, b) = (a.min(b).min(bytes.len()), a.max(b).min(bytes.len()));
            let split = Checksum::new().with(&bytes[..a]).with(&bytes[a..b]).with(&bytes[b..]).finish();
            prop_assert_eq!(split, reference(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 40..60), new in any::<[u8; 16]>(), at in 0usize..12) {
            let before = checksum(&bytes);
            let old: [u8; 16] = bytes[2 * at..2 * at + 16].try_into().unwrap();
            bytes[2 * at..2 * at + 16].copy_from_slice(&new);
            let updated = update(before, &old, &new);
            // Ones' complement has two zeros; both are right.
            prop_assert!(updated == checksum(&bytes) || (updated == 0xffff && checksum(&bytes) == 0) || (updated == 0 && checksum(&bytes) == 0xffff));
        }
    }
}
