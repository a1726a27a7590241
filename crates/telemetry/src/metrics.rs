use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};

/// The process's metrics, in the OpenMetrics text format that Prometheus reads.
///
/// Clones share one registry. It starts with what the kernel knows of the process: memory, CPU time, open files.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// Makes a registry whose own metrics all start with `towline_`.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Adds a metric under `towline_<name>` and hands it back; `help` is a sentence without its full stop.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.sub_registry_with_prefix("towline").register(name, help, metric.clone());
        metric
    }

    /// Writes every metric as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(
            &mut text,
            &self.registry.lock().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads what the kernel knows of this process at each scrape.
#[derive(Debug)]
struct Process;

/// Bytes in a page of memory and ticks in a second of CPU time, as Linux reports them to user space on every machine that
/// we build for.
const PAGE: u64 = 4096;
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let metric = ConstGauge::<i64>::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(pages) = resident_pages() {
            gauge("process_resident_memory_bytes", "Memory of the process that is in RAM", pages * PAGE)?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            gauge("process_open_fds", "Open file descriptors of the process", files.count() as u64)?;
        }
        if let Some(ticks) = cpu_ticks() {
            let metric = ConstCounter::<f64>::new(ticks as f64 / TICKS_PER_SECOND);
            let help = "CPU time that the process has used, in seconds";
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// The second field of `/proc/self/statm`.
fn resident_pages() -> Option<u64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// User and system time of `/proc/self/stat`; the program's name before them may hold anything but ends at the last `)`.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn a_registered_counter_is_written_with_the_prefix() {
        let metrics = Metrics::new();
        let counter = metrics.register("joins", "Devices that joined", Counter::<u64>::default());
        counter.inc();
        let text = metrics.encode().unwrap();
        assert!(text.contains("towline_joins_total 1"), "{text}");
    }

    #[test]
    fn two_registrations_share_the_prefix_without_repeating_it() {
        let metrics = Metrics::new();
        metrics.register("joins", "Devices that joined", Counter::<u64>::default());
        metrics.register("leaves", "Devices that left", Counter::<u64>::default()).inc_by(2);
        let text = metrics.encode().unwrap();
        assert!(text.contains("towline_leaves_total 2"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_process_tells_its_memory_and_cpu_time() {
        let text = Metrics::new().encode().unwrap();
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<u64>().unwrap() > 100_000, "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
