//! When two programs want the same file: a few corrections, then the user is told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const CORRECTIONS: usize = 3;
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// Counts how often somebody else overwrote a file of ours.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    losses: VecDeque<Instant>,
}

/// What to do about a file that was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContestVerdict {
    /// Write it again: a network change makes other programs write it once.
    WriteAgain,
    /// Leave it, and tell the user that another program insists: writing on would never end.
    GiveUp,
}

impl Contest {
    /// Somebody overwrote the file.
    pub fn overwritten(&mut self, now: Instant) -> ContestVerdict {
        self.losses.retain(|at| now.saturating_duration_since(*at) < WITHIN);
        if self.losses.len() >= CORRECTIONS {
            return ContestVerdict::GiveUp;
        }
        self.losses.push_back(now);
        ContestVerdict::WriteAgain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_time_within_ten_minutes_is_given_up_and_tried_again_later() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        for second in 0..3 {
            assert_eq!(contest.overwritten(start + Duration::from_secs(second)), ContestVerdict::WriteAgain);
        }
        assert_eq!(contest.overwritten(start + Duration::from_secs(3)), ContestVerdict::GiveUp);
        assert_eq!(contest.overwritten(start + WITHIN + Duration::from_secs(1)), ContestVerdict::WriteAgain);
    }
}
