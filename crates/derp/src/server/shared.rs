use std::sync::Arc;

use crypto::{NodePrivate, NodePublic};

use super::admission::Admission;
use super::config::Limits;
use super::hub::Hub;
use super::mesh::MeshKey;
use super::metrics::RelayMetrics;

/// What every connection of a relay has in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) key: NodePrivate,
    pub(crate) public: NodePublic,
    pub(crate) hub: Arc<Hub>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) mesh_key: Option<MeshKey>,
    pub(crate) limits: Limits,
    pub(crate) metrics: RelayMetrics,
    /// The JSON that `/bootstrap-dns` answers.
    pub(crate) bootstrap_dns: super::bootstrap_dns::BootstrapDns,
}
