use std::net::SocketAddr;
use std::time::Duration;

use crate::address::nearness;

/// What is known of a direct path that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quality {
    pub(super) address: SocketAddr,
    pub(super) latency: Duration,
}

impl Quality {
    /// Whether this path is so much better than another that it is worth the change.
    ///
    /// Each path has a point for every percent that it is faster, and points for being near. One point over none is no
    /// reason to move: two paths of one latency would take turns.
    pub(super) fn beats(&self, other: &Self) -> bool {
        if self.address == other.address {
            return false;
        }
        let ours = self.advantage(other) + nearness(self.address.ip());
        let theirs = other.advantage(self) + nearness(other.address.ip());
        ours > theirs && !(ours <= 1 && theirs == 0)
    }

    /// How many percent this path is faster, 0 to 100.
    fn advantage(&self, other: &Self) -> u32 {
        if self.latency >= other.latency {
            return 0;
        }
        let share = self.latency.as_nanos() * 100 / other.latency.as_nanos();
        100 - u32::try_from(share).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_wins_by_speed_and_nearness_but_not_by_a_hair() {
        let quality = |address: &str, micros| Quality {
            address: address.parse().unwrap(),
            latency: Duration::from_micros(micros),
        };
        // (one path, the other, whether the one beats the other, whether the other beats the one)
        let table = [
            (("203.0.113.1:1", 10_000), ("203.0.113.1:1", 90_000), false, false),
            (("203.0.113.1:1", 10_000), ("203.0.113.2:1", 10_000), false, false),
            (("203.0.113.1:1", 9_950), ("203.0.113.2:1", 10_000), false, false),
            (("203.0.113.1:1", 9_800), ("203.0.113.2:1", 10_000), true, false),
            (("203.0.113.1:1", 9_800), ("203.0.113.1:2", 10_000), true, false),
            (("192.168.1.1:1", 10_000), ("203.0.113.2:1", 10_000), true, false),
            (("192.168.1.1:1", 12_000), ("203.0.113.2:1", 10_000), true, false),
            (("192.168.1.1:1", 13_000), ("203.0.113.2:1", 10_000), false, true),
            (("[2001:db8::1]:1", 10_900), ("203.0.113.2:1", 10_000), true, false),
            (("[2001:db8::1]:1", 12_000), ("203.0.113.2:1", 10_000), false, true),
            (("[fd00::1]:1", 10_000), ("192.168.1.1:1", 10_000), true, false),
            (("169.254.0.1:1", 10_000), ("192.168.1.1:1", 10_000), true, false),
            (("127.0.0.1:1", 10_000), ("169.254.0.1:1", 10_000), true, false),
            (("127.0.0.1:1", 100_000), ("203.0.113.2:1", 10_000), false, true),
            (("203.0.113.1:1", 0), ("203.0.113.2:1", 10_000), true, false),
            (("203.0.113.1:1", 0), ("203.0.113.2:1", 0), false, false),
        ];
        for ((one, one_micros), (other, other_micros), forth, back) in table {
            let (one, other) = (quality(one, one_micros), quality(other, other_micros));
            assert_eq!((one.beats(&other), other.beats(&one)), (forth, back), "{one:?} {other:?}");
        }
    }
}
