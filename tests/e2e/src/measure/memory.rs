use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use lab::{Daemon, LabBox, Usage};

/// How often memory is looked at; what is taken and given back in between is not seen.
const INTERVAL: Duration = Duration::from_millis(200);

/// Megabytes, a million bytes each.
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The largest that was seen, in MB: of the working set, and of what was resident.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Peak {
    pub(super) working_set: f64,
    pub(super) resident: f64,
}

impl Peak {
    /// The larger of two, of each kind.
    pub(super) fn or(self, other: Self) -> Self {
        Self { working_set: self.working_set.max(other.working_set), resident: self.resident.max(other.resident) }
    }
}

/// Looks at memory now and then, on a thread of its own, until it is asked for the peaks.
pub(super) struct MemoryWatch {
    stop: Sender<()>,
    watcher: JoinHandle<BTreeMap<String, Peak>>,
}

impl MemoryWatch {
    /// Watches daemons, by the names of their boxes.
    pub(super) fn daemons(daemons: Vec<Daemon>) -> Self {
        Self::start(move |seen| {
            for daemon in &daemons {
                if let Ok(usage) = daemon.usage() {
                    seen(daemon.lab_box().name(), usage);
                }
            }
        })
    }

    /// Watches all pods of these nodes, those that come later too, by their `metadata.uid`.
    pub(super) fn pods(nodes: Vec<LabBox>) -> Self {
        Self::start(move |seen| {
            for (uid, usage) in nodes.iter().filter_map(|node| node.pods_usage().ok()).flatten() {
                seen(&uid, usage);
            }
        })
    }

    fn start(look: impl Fn(&mut dyn FnMut(&str, Usage)) + Send + 'static) -> Self {
        let (stop, stopped) = channel();
        let watcher = std::thread::spawn(move || {
            let mut peaks = BTreeMap::new();
            loop {
                look(&mut |name, usage| {
                    let peak: &mut Peak = peaks.entry(name.to_owned()).or_default();
                    let now = Peak {
                        working_set: megabytes(usage.working_set_bytes),
                        resident: megabytes(usage.resident_bytes),
                    };
                    *peak = peak.or(now);
                });
                match stopped.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return peaks,
                }
            }
        });
        Self { stop, watcher }
    }

    /// Stops, and tells the peak of each.
    pub(super) fn peaks(self) -> Result<BTreeMap<String, Peak>> {
        drop(self.stop);
        self.watcher.join().map_err(|_| anyhow!("the watch over memory broke off"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_largest_that_was_seen_is_the_peak() {
        let (looked, looks) = channel();
        let count = AtomicU64::new(0);
        let watch = MemoryWatch::start(move |seen| {
            let sizes = [(1_000_000, 7_000_000), (3_000_000, 5_000_000), (2_000_000, 6_000_000)];
            let (working_set_bytes, resident_bytes) = sizes[count.fetch_add(1, Ordering::Relaxed).min(2) as usize];
            seen("one", Usage { working_set_bytes, resident_bytes, ..Usage::default() });
            let _ = looked.send(());
        });
        (0..3).for_each(|_| looks.recv().unwrap());
        assert_eq!(
            watch.peaks().unwrap(),
            BTreeMap::from([("one".to_owned(), Peak { working_set: 3.0, resident: 7.0 })])
        );
    }
}
