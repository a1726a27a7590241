use std::fmt;

/// TAI64's label of the second in which Unix time began, with the ten leap seconds of that day.
const UNIX_EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds are cut to steps of 2^24 (17 ms): finer ones would tell a peer about this machine's clock and load.
const STEP: u32 = 1 << 24;

/// A moment as an initiation carries it: eight bytes of seconds and four of nanoseconds, big-endian (TAI64N).
///
/// A responder only asks whether one is later than the last it has seen of that peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The label of a moment given as seconds and nanoseconds of Unix time, coarsened to 17 ms.
    pub fn from_unix(seconds: u64, nanoseconds: u32) -> Self {
        let nanoseconds = nanoseconds - nanoseconds % STEP;
        Self::pack(UNIX_EPOCH.saturating_add(seconds), nanoseconds)
    }

    /// Takes the twelve bytes that a peer sent; any twelve are one.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The twelve bytes.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// The next later label.
    pub fn successor(&self) -> Self {
        let mut bytes = [0; 16];
        bytes[4..].copy_from_slice(&self.0);
        let mut out = [0; 12];
        out.copy_from_slice(&u128::from_be_bytes(bytes).saturating_add(1).to_be_bytes()[4..]);
        Self(out)
    }

    fn pack(seconds: u64, nanoseconds: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        Self(bytes)
    }
}

impl From<std::time::SystemTime> for Tai64n {
    /// A clock before 1970 reads as 1970.
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(since.as_secs(), since.subsec_nanos())
    }
}

impl fmt::Display for Tai64n {
    /// The form of the `tai64n` tools: `@` and 24 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_moment_has_its_known_label() {
        // The example of the TAI64 definition: 400000002a2b2c2d is 1992-06-02 08:07:09 TAI. Unix time lags by ten here.
        assert_eq!(Tai64n::from_unix(0x2a2b_2c2d - 10, 0).to_string(), "@400000002a2b2c2d00000000");
    }

    #[test]
    fn later_moments_compare_later_across_a_second() {
        let moments = [(5, 0), (5, STEP), (5, 999_999_999), (6, 0)].map(|(s, n)| Tai64n::from_unix(s, n));
        assert!(moments.is_sorted_by(|a, b| a < b));
        assert!(moments[2].successor() > moments[2] && moments[2].successor() < moments[3]);
    }

    #[test]
    fn fine_nanoseconds_do_not_leak() {
        assert_eq!(Tai64n::from_unix(5, 1), Tai64n::from_unix(5, STEP - 1));
    }
}
