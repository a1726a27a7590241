use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Marks, Took};

/// The most that a busy machine may explain, however late it was: then the test is to be played where there is less to do.
const LAG_MOST: Duration = Duration::from_secs(5);

/// Within which time the walkthrough promises something of our programs.
///
/// It may take longer by as much as the machine itself was late meanwhile, which is measured ([`crate::Stopwatch`]): waiting for
/// a processor adds to the protocol's time, and does not grow with it.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    what: &'static str,
    within: Duration,
}

/// Row 12.
pub(crate) const BY_RELAY: Promise = Promise::new("by relay", Duration::from_secs(3));
/// Row 12.
pub(crate) const DIRECT_AGAIN: Promise = Promise::new("directly again", Duration::from_secs(30));
/// Row 17.
pub(crate) const BY_OTHER_RELAY: Promise = Promise::new("by the other relay", Duration::from_secs(2));
/// Row 17: what goes on answers at once; a busy machine lets it wait for its turn.
pub(crate) const GOES_ON: Promise = Promise::new("an open connection answers", Duration::from_secs(5));
/// Row 17: "in seconds".
pub(crate) const PROXY_BACK: Promise = Promise::new("the proxy's first byte", Duration::from_secs(10));

impl Promise {
    /// Promises something by its short name.
    pub const fn new(what: &'static str, within: Duration) -> Self {
        Self { what, within }
    }

    /// How long it may take at most, on the busiest of machines.
    pub fn limit(&self) -> Duration {
        self.within + LAG_MOST
    }

    /// Notes how long it took beside what was promised and how late the machine was.
    ///
    /// # Errors
    /// When the promise was broken.
    pub fn judge(&self, took: Took, marks: &Marks) -> Result<()> {
        marks.tell(self.said(took));
        ensure!(
            took.time <= self.within + took.lag.min(LAG_MOST),
            "the promise was broken: {}; a late machine explains {} s at most",
            self.said(took),
            LAG_MOST.as_secs()
        );
        Ok(())
    }

    /// As [`Promise::judge`] where the promise is ours to keep; a stock program's time is only noted.
    pub fn judge_ours(&self, ours: bool, took: Took, marks: &Marks) -> Result<()> {
        if ours {
            return self.judge(took, marks);
        }
        marks.tell(format!("{} after {:.1} s", self.what, took.time.as_secs_f32()));
        Ok(())
    }

    fn said(&self, Took { time, lag }: Took) -> String {
        let [time, promised, lag] = [time, self.within, lag].map(|time| time.as_secs_f32());
        format!("{} after {time:.1} s of {promised:.0}, the machine {lag:.1} s late", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(time: u64, lag: u64) -> bool {
        let took = Took { time: Duration::from_secs(time), lag: Duration::from_secs(lag) };
        Promise::new("it", Duration::from_secs(3)).judge(took, &Marks::start()).is_ok()
    }

    #[test]
    fn a_late_machine_explains_as_much_as_it_was_late_and_five_seconds_at_most() {
        assert!(holds(3, 0) && !holds(4, 0));
        assert!(holds(4, 1) && !holds(5, 1));
        assert!(holds(8, 5) && !holds(9, 60));
    }

    #[test]
    fn all_three_times_are_told() {
        let took = Took { time: Duration::from_millis(3400), lag: Duration::from_millis(700) };
        let said = Promise::new("it", Duration::from_secs(3)).said(took);
        assert_eq!(said, "it after 3.4 s of 3, the machine 0.7 s late");
    }
}
