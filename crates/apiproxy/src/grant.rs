use std::sync::Arc;

use http::request::Parts;
use tokio_util::sync::CancellationToken;

use crate::callers::Place;
use crate::gate::Pass;
use crate::leash::Leash;
use crate::metrics::ProxyMetrics;
use crate::upstream::{Upstream, UpstreamRequest};
use crate::uses::Use;
use crate::{Impersonated, Refusal};

/// Who sends a request, and on which connection.
pub(crate) struct Client {
    /// Its place, which also a session keeps that the connection has become.
    pub(crate) pass: Arc<Pass>,
    pub(crate) leash: Leash,
    /// Tells the connection, for as long as it lives, that it is in use.
    pub(crate) _use: Use,
}

/// A grant in use by one request or session: whom it acts as, the places that it takes, and what ends it.
pub(crate) struct Grant {
    pub(crate) held: Arc<Impersonated>,
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) metrics: ProxyMetrics,
    /// Ends what is still under way when the time for draining is over.
    pub(crate) stop: CancellationToken,
}

impl Grant {
    /// The caller's own connections to the API server.
    pub(crate) fn upstream(&self) -> &Upstream {
        self.place.upstream()
    }

    /// What the client asks, in the name of the one whom it acts as.
    pub(crate) fn request(&self, head: &Parts) -> Result<UpstreamRequest, Refusal> {
        UpstreamRequest::new(head, &self.held, self.upstream().cluster(), self.client.pass.source().ip())
    }

    /// Waits for the end of the grant, or of the proxy, and says which it was.
    pub(crate) async fn ended(&self) -> Refusal {
        tokio::select! {
            () = self.client.leash.cut(self.held.clone()) => {
                self.metrics.cut.inc();
                Refusal::Revoked
            }
            () = self.stop.cancelled() => Refusal::Stopping,
        }
    }
}
