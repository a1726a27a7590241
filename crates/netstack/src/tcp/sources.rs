use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many of something each remote address has.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<IpAddr, usize>);

impl Sources {
    pub(super) fn of(&self, source: IpAddr) -> usize {
        self.0.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, source: IpAddr) {
        *self.0.entry(source).or_default() += 1;
    }

    pub(super) fn remove(&mut self, source: IpAddr) {
        if let Some(count) = self.0.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&source);
            }
        }
    }
}
