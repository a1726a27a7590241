use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};

use crate::Impersonated;
use crate::metrics::{Answered, ProxyMetrics};

/// A line of the access log, written when the request is over.
pub(crate) struct Access {
    pub(crate) user: Option<Arc<Impersonated>>,
    pub(crate) code: StatusCode,
    pub(crate) refusal: Option<String>,
    began: Instant,
    source: IpAddr,
    method: Method,
    path: String,
    metrics: ProxyMetrics,
}

impl Access {
    pub(crate) fn of<B>(request: &Request<B>, source: IpAddr, metrics: ProxyMetrics) -> Self {
        metrics.under_way.inc();
        Self {
            user: None,
            code: StatusCode::INTERNAL_SERVER_ERROR,
            refusal: None,
            began: Instant::now(),
            source,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            metrics,
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
        self.metrics.requests.get_or_create(&Answered { code: self.code.as_u16() }).inc();
        // An access log has to name people: that is what it is for.
        tracing::info!(
            target: "apiproxy::access",
            user = self.user.as_ref().map(|user| user.user()).unwrap_or("-"),
            source = %self.source,
            verb = %self.method,
            path = %self.path,
            code = self.code.as_u16(),
            duration_ms = self.began.elapsed().as_millis() as u64,
            refused = self.refusal.as_deref(),
            "request"
        );
    }
}
