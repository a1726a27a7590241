use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::Metrics;

/// What the proxy counts.
#[derive(Debug, Clone)]
pub(crate) struct ProxyMetrics {
    pub(crate) requests: Family<Answered, Counter>,
    pub(crate) refused: Family<Reason, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) under_way: Gauge,
    pub(crate) upgraded: Gauge,
    pub(crate) cut: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answered {
    pub(crate) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    pub(crate) reason: &'static str,
}

impl ProxyMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.register("apiproxy_requests", "Requests answered, by status code", Family::default()),
            refused: metrics.register(
                "apiproxy_refused",
                "Requests that were not sent to the API server, by reason",
                Family::default(),
            ),
            connections: metrics.register(
                "apiproxy_connections",
                "Open connections from the tailnet",
                Gauge::default(),
            ),
            under_way: metrics.register("apiproxy_requests_under_way", "Requests under way", Gauge::default()),
            upgraded: metrics.register(
                "apiproxy_upgraded",
                "Open sessions of exec, attach, port-forward",
                Gauge::default(),
            ),
            cut: metrics.register("apiproxy_cut", "Streams that ended because their grant did", Counter::default()),
        }
    }
}
