use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::Metrics;

/// The route of requests to paths that nothing is at.
pub(crate) const NO_ROUTE: &str = "none";

/// What the coordination server counts.
#[derive(Debug, Clone)]
pub(crate) struct ControlMetrics {
    pub(crate) decisions: Counter,
    pub(crate) write_failures: Counter,
    pub(crate) registrations: Counter,
    pub(crate) certificates: Counter,
    pub(crate) streams: Gauge,
    requests: Requests,
}

/// Requests by their route, a path as the program has it and never as a stranger wrote it: as many as there are routes.
#[derive(Debug, Clone, Default)]
struct Requests(Family<Route, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

impl ControlMetrics {
    /// Adds them to the process's metrics.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| metrics.register(name, help, Counter::default());
        let requests = Requests::default();
        metrics.register(
            "control_requests",
            "Requests by route, those of devices within Noise too",
            requests.0.clone(),
        );
        Self {
            decisions: counter("control_decisions", "Decisions that changed something and were written"),
            write_failures: counter("control_write_failures", "Decisions that could not be written"),
            registrations: counter("control_registrations", "Registrations of devices that were granted"),
            certificates: counter("control_certificates", "Certificates signed for devices"),
            streams: metrics.register("control_map_streams", "Devices that are connected", Gauge::default()),
            requests,
        }
    }

    /// Counts a request that was not routed by [`ControlMetrics::count_requests`].
    pub(crate) fn requested(&self, route: &str) {
        self.requests.count(route);
    }

    /// Counts every request that `router` is asked from now on.
    pub(crate) fn count_requests(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.requests.clone(), Requests::pass))
    }
}

impl Requests {
    fn count(&self, route: &str) {
        self.0.get_or_create(&Route { route: route.to_owned() }).inc();
    }

    async fn pass(State(requests): State<Self>, request: Request, next: Next) -> Response {
        requests.count(request.extensions().get().map_or(NO_ROUTE, MatchedPath::as_str));
        next.run(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn requests_are_counted_by_route_and_strangers_make_no_routes() {
        let metrics = Metrics::new();
        let control = ControlMetrics::register(&metrics);
        let devices = Router::new().route("/device/{device}", get(|| async {})).fallback(|| async {});
        let router = control.count_requests(Router::new().nest("/api/v2", devices).fallback(|| async {}));
        for path in ["/api/v2/device/1", "/api/v2/device/2", "/api/v2/what", "/what", "/ever"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        control.requested("/machine/map");
        let text = metrics.encode().unwrap();
        let count = |route: &str| format!("towline_control_requests_total{{route=\"{route}\"}}");
        assert!(text.contains(&format!("{} 2\n", count("/api/v2/device/{device}"))), "{text}");
        assert!(text.contains(&format!("{} 3\n", count(NO_ROUTE))), "{text}");
        assert!(text.contains(&format!("{} 1\n", count("/machine/map"))), "{text}");
        assert!(!text.contains("what") && !text.contains("ever"), "{text}");
    }
}
