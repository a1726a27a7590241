use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Marks;

/// How much later than promised something may be seen here and not be late.
///
/// The worlds of tests share their machine's few processors with compilers and other worlds: every process that takes part in
/// a change may have to wait for its turn. That adds to the protocol's time and does not grow with it, so it is no factor.
const MACHINE_ADDS: Duration = Duration::from_secs(5);

/// Within which time the walkthrough promises something of our programs.
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
/// Row 17: "in seconds".
pub(crate) const PROXY_BACK: Promise = Promise::new("the proxy's first byte", Duration::from_secs(10));

impl Promise {
    /// Promises something by its short name.
    pub const fn new(what: &'static str, within: Duration) -> Self {
        Self { what, within }
    }

    /// How long it may take here.
    pub fn limit(&self) -> Duration {
        self.within + MACHINE_ADDS
    }

    /// Notes how long it took beside what was promised.
    ///
    /// # Errors
    /// When the promise was broken.
    pub fn judge(&self, took: Duration, marks: &Marks) -> Result<()> {
        marks.tell(format!("{} after {:.1} s of {}", self.what, took.as_secs_f32(), self.within.as_secs()));
        let (what, limit) = (self.what, self.limit());
        ensure!(
            took <= limit,
            "{what}: promised within {} s, and it took {:.1} s; a busy machine explains {} s of that",
            self.within.as_secs(),
            took.as_secs_f32(),
            MACHINE_ADDS.as_secs(),
        );
        Ok(())
    }

    /// As [`Promise::judge`] where the promise is ours to keep; a stock program's time is only noted.
    pub fn judge_ours(&self, ours: bool, took: Duration, marks: &Marks) -> Result<()> {
        if ours {
            return self.judge(took, marks);
        }
        marks.tell(format!("{} after {:.1} s", self.what, took.as_secs_f32()));
        Ok(())
    }
}
