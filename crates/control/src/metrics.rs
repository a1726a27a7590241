use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::Metrics;

/// What the coordination server counts.
#[derive(Debug, Clone)]
pub(crate) struct ControlMetrics {
    pub(crate) decisions: Counter,
    pub(crate) write_failures: Counter,
    pub(crate) registrations: Counter,
    pub(crate) certificates: Counter,
    pub(crate) streams: Gauge,
}

impl ControlMetrics {
    /// Adds them to the process's metrics.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| metrics.register(name, help, Counter::default());
        Self {
            decisions: counter("control_decisions", "Decisions that changed something and were written"),
            write_failures: counter("control_write_failures", "Decisions that could not be written"),
            registrations: counter("control_registrations", "Registrations of devices that were granted"),
            certificates: counter("control_certificates", "Certificates signed for devices"),
            streams: metrics.register("control_map_streams", "Devices that are connected", Gauge::default()),
        }
    }
}
