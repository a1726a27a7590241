use std::sync::{Arc, Weak};

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Certificate, CertificateError, Kept};
use crate::node::Node;
use crate::store::{StateStore, StoreError};

/// What the store calls the certificate. The node has one name, so there is one.
const STORED: &str = "_certificate";

/// Gets certificates for a node, one at a time, and keeps the last.
#[derive(Debug)]
pub(crate) struct Certifier {
    /// The daemon's: once that has ended, the state is somebody else's to write.
    store: Weak<dyn StateStore>,
    turn: Mutex<()>,
}

impl Certifier {
    pub(crate) fn new(store: &Arc<dyn StateStore>) -> Self {
        Self { store: Arc::downgrade(store), turn: Mutex::new(()) }
    }

    /// The certificate that is kept for a name, while it is valid.
    pub(crate) async fn kept(&self, name: &str) -> Result<Option<Certificate>, CertificateError> {
        let Some(text) = self.store()?.read(STORED).await? else { return Ok(None) };
        let read = serde_json::from_slice::<Kept>(&text).map_err(|error| error.to_string());
        match read.and_then(|kept| Certificate::new(kept).map_err(|error| error.to_string())) {
            Ok(certificate) => Ok(Some(certificate).filter(|kept| kept.holds(name, Timestamp::now()))),
            Err(error) => {
                // It can be had anew, unlike anything else in the state.
                tracing::warn!(%error, "the certificate in the state is of no use");
                Ok(None)
            }
        }
    }

    /// A certificate for the node's name that is good `enough`: the one that is kept, or a new one.
    pub(crate) async fn obtain(
        &self,
        node: &Node,
        name: &str,
        enough: impl Fn(&Certificate) -> bool,
    ) -> Result<Certificate, CertificateError> {
        // Whoever waited for another's request finds its outcome.
        let _turn = self.turn.lock().await;
        if let Some(kept) = self.kept(name).await?.filter(|kept| enough(kept)) {
            return Ok(kept);
        }
        let key = KeyPair::generate()?;
        let request = CertificateParams::new(vec![name.to_owned()])?.serialize_request(&key)?;
        let answer = node.sign(request.der().to_vec()).await?;
        let key = Zeroizing::new(key.serialize_pem());
        let kept = Kept { name: name.to_owned(), chain: answer.chain, root: answer.root, key };
        let text = Zeroizing::new(serde_json::to_vec(&kept).map_err(|error| StoreError::Other(error.to_string()))?);
        let certificate = Certificate::new(kept)?;
        if !certificate.holds(name, Timestamp::now()) {
            let reason = "it is not valid now; do the clocks of this machine and of the server agree?";
            return Err(CertificateError::Unusable(reason.to_owned()));
        }
        if let Err(error) = self.store()?.write(&[(STORED.to_owned(), Some(text.to_vec()))].into()).await {
            tracing::warn!(%error, "the certificate is not kept: after a restart there will be another");
        }
        tracing::info!(until = %certificate.not_after(), "the tailnet's authority signed a certificate for this node");
        Ok(certificate)
    }

    fn store(&self) -> Result<Arc<dyn StateStore>, CertificateError> {
        self.store.upgrade().ok_or(CertificateError::Stopped)
    }
}
