use std::time::Duration;

use http::Method;
use tailcfg::CapabilityVersion;
use tailcfg::request::{CERTIFICATE_PATH, Certificate, CertificateAnswer};
use tokio::sync::oneshot;

use super::Daemon;
use crate::certificate::CertificateError;
use crate::control::ClientError;

/// How long the authority may take.
const ANSWER: Duration = Duration::from_secs(30);

impl Daemon {
    /// Has the tailnet's authority sign a certificate request, beside everything else.
    pub(super) fn sign(&self, csr: Vec<u8>, reply: oneshot::Sender<Result<CertificateAnswer, CertificateError>>) {
        let able = self.session.as_ref().and(self.client.as_ref()).zip(self.node_public());
        let Some(((_, client), node_key)) = able else {
            // Who asked may be gone, and needs no answer then.
            let _ = reply.send(Err(CertificateError::NotConnected));
            return;
        };
        let client = client.clone();
        tokio::spawn(async move {
            let request = Certificate { version: CapabilityVersion::OURS, node_key, csr };
            let answer = client.ask(Method::POST, CERTIFICATE_PATH, &request, ANSWER).await;
            let _ = reply.send(answer.map_err(refused));
        });
    }
}

fn refused(error: ClientError) -> CertificateError {
    let reason = match &error {
        ClientError::Refused { status: 404, .. } => "it knows no certificates for devices".to_owned(),
        error => error.to_string(),
    };
    CertificateError::Refused { reason, retry_after: error.retry_after() }
}
