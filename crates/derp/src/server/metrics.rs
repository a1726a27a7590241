use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::Metrics;

/// What a relay counts.
///
/// The counters of packets are shared by all connections: a connection adds up what one read brought and adds that.
#[derive(Debug, Clone)]
pub(crate) struct RelayMetrics {
    /// Connections that have not become clients: at their handshake, or asking for a page.
    pub(crate) connections: Gauge,
    /// Clients that have proven their key and were admitted.
    pub(crate) clients: Gauge,
    /// Clients for which this relay is home.
    pub(crate) homes: Gauge,
    /// Connections that were turned away, by reason.
    pub(crate) refused: Family<RefusedLabels, Counter>,
    /// Packets from clients, and their bytes.
    pub(crate) packets: Counter,
    pub(crate) bytes: Counter,
    /// Packets that reached nobody, by reason.
    pub(crate) dropped: Family<DroppedLabels, Counter>,
    /// Clients whose connection ended because they did not read.
    pub(crate) stalled: Counter,
    /// STUN requests, by what came of them.
    pub(crate) stun: Family<StunLabels, Counter>,
    /// Keys in the admission set.
    pub(crate) admitted: Gauge,
    /// When the coordination server last answered, in seconds since 1970.
    pub(crate) admission_contact: Gauge,
    /// Attempts to follow the admission set that failed.
    pub(crate) admission_failures: Counter,
    /// Attempts to load a changed certificate that failed.
    pub(crate) certificate_failures: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    pub(crate) reason: RefusedReason,
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RefusedReason {
    SourceLimit,
    RelayLimit,
    Tls,
    Handshake,
    Admission,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DroppedLabels {
    pub(crate) reason: DroppedReason,
}

/// Why a packet reached nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum DroppedReason {
    UnknownPeer,
    QueueFull,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StunLabels {
    pub(crate) result: StunResult,
}

/// What came of a STUN request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StunResult {
    Answered,
    Malformed,
    Limited,
    Unsent,
}

impl RelayMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            connections: metrics.register(
                "relay_connections",
                "Open connections that have not become clients",
                Gauge::default(),
            ),
            clients: metrics.register("relay_clients", "Admitted clients", Gauge::default()),
            homes: metrics.register("relay_home_clients", "Clients whose home this relay is", Gauge::default()),
            refused: metrics.register("relay_refused_connections", "Connections turned away", Family::default()),
            packets: metrics.register("relay_packets", "Packets from clients", Counter::default()),
            bytes: metrics.register("relay_bytes", "Bytes of packets from clients", Counter::default()),
            dropped: metrics.register("relay_dropped_packets", "Packets that reached nobody", Family::default()),
            stalled: metrics.register(
                "relay_stalled_clients",
                "Clients cut because they did not read",
                Counter::default(),
            ),
            stun: metrics.register("relay_stun_requests", "STUN requests by result", Family::default()),
            admitted: metrics.register("relay_admitted_keys", "Keys in the admission set", Gauge::default()),
            admission_contact: metrics.register(
                "relay_admission_contact_timestamp_seconds",
                "When the coordination server last said whom to admit",
                Gauge::default(),
            ),
            admission_failures: metrics.register(
                "relay_admission_failures",
                "Failed attempts to learn or keep whom to admit",
                Counter::default(),
            ),
            certificate_failures: metrics.register(
                "relay_certificate_failures",
                "Failed attempts to load a changed certificate",
                Counter::default(),
            ),
        }
    }

    pub(crate) fn refuse(&self, reason: RefusedReason) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    pub(crate) fn drop_packets(&self, reason: DroppedReason, count: u64) {
        if count > 0 {
            self.dropped.get_or_create(&DroppedLabels { reason }).inc_by(count);
        }
    }

    pub(crate) fn count_stun(&self, result: StunResult) {
        self.stun.get_or_create(&StunLabels { result }).inc();
    }
}
