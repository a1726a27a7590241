use bytes::Bytes;
use crypto::MachinePublic;
use tailcfg::request::{AuditLog, Certificate, CertificateAnswer};
use tailcfg::{MapRequest, PingResponse, RegisterRequest, RegisterResponse, SshAction};

use super::{Caller, Coordinator, MapAnswer, MapSource, Refusal, SshLogin};

/// A coordinator that grants nothing: for tests of what stands before it.
#[derive(Debug, Default)]
pub(crate) struct Nobody {
    /// Whether it knows every machine, or none.
    pub(crate) knows: bool,
}

/// The map stream that it never opens.
#[derive(Debug)]
pub(crate) struct Silence;

impl MapSource for Silence {
    async fn next(&mut self) -> Option<Bytes> {
        None
    }
}

fn refusal() -> Refusal {
    Refusal::unsupported("anything")
}

impl Coordinator for Nobody {
    type Source = Silence;

    fn knows(&self, _: &MachinePublic) -> bool {
        self.knows
    }

    fn asked(&self, _: &'static str) {}

    async fn register(&self, _: Caller, _: RegisterRequest) -> Result<RegisterResponse, Refusal> {
        Err(refusal())
    }

    async fn map(&self, _: Caller, _: MapRequest) -> Result<MapAnswer<Silence>, Refusal> {
        Err(refusal())
    }

    async fn certificate(&self, _: Caller, _: Certificate) -> Result<CertificateAnswer, Refusal> {
        Err(refusal())
    }

    async fn pong(&self, _: Caller, _: u64, _: Option<PingResponse>) -> Result<(), Refusal> {
        Err(refusal())
    }

    async fn ssh_action(&self, _: Caller, _: SshLogin) -> Result<SshAction, Refusal> {
        Err(refusal())
    }

    async fn audit(&self, _: Caller, _: AuditLog) -> Result<(), Refusal> {
        Err(refusal())
    }
}
