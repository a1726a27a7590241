use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::Metrics;

/// What a proxy has carried, as metrics tell it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    flows: Counter,
    refused: Counter,
    open: Gauge,
    from_tailnet: Counter,
    to_tailnet: Counter,
}

/// A flow that is open for as long as this lives.
pub(crate) struct Open(Gauge);

impl Traffic {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| metrics.register(name, help, Counter::default());
        Self {
            flows: counter("proxy_flows", "Connections and UDP flows that were carried in user space"),
            refused: counter("proxy_refused_flows", "Connections and UDP flows that found no way on"),
            open: metrics.register("proxy_open_flows", "Connections and UDP flows that are open", Gauge::default()),
            from_tailnet: counter(
                "proxy_from_tailnet_bytes",
                "Bytes that came from the tailnet, of finished connections",
            ),
            to_tailnet: counter("proxy_to_tailnet_bytes", "Bytes that went to the tailnet, of finished connections"),
        }
    }

    pub(crate) fn opened(&self) -> Open {
        self.flows.inc();
        self.open.inc();
        Open(self.open.clone())
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn bytes(&self, from_tailnet: u64, to_tailnet: u64) {
        self.from_tailnet.inc_by(from_tailnet);
        self.to_tailnet.inc_by(to_tailnet);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
