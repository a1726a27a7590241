//! What machines ask, answered.

use std::sync::Arc;
use std::time::Instant;

use crypto::MachinePublic;
use http::StatusCode;
use listen::site;
use tailcfg::request::{AuditLog, Certificate, CertificateAnswer};
use tailcfg::{MapRequest, PingResponse, RegisterRequest, RegisterResponse, SshAction};
use tailnet::{
    Actor, Awaited, Command, HostUpdate, LoginRequest, LoginState, Proof, Refusal as TailnetRefusal, Registration,
    Reply, Report, Route, SecretText, TailnetId,
};

use super::{Coordination, Failure, NodeStream};
use crate::machine::{Caller, Coordinator, MapAnswer, Refusal, SshLogin};

/// The coordinator as machines are given it.
#[derive(Debug, Clone)]
pub(crate) struct Machines(pub(crate) Arc<Coordination>);

impl Coordinator for Machines {
    type Source = NodeStream;

    fn knows(&self, machine: &MachinePublic) -> bool {
        let this = &self.0;
        this.waits_for_login(machine)
            || this.server().tailnets().any(|tailnet| tailnet.nodes_of_machine(machine).next().is_some())
    }

    fn asked(&self, route: &'static str) {
        self.0.metrics.requested(route);
    }

    async fn register(&self, caller: Caller, request: RegisterRequest) -> Result<RegisterResponse, Refusal> {
        let this = &self.0;
        this.registrations.take(&site(caller.source.ip()), Instant::now()).map_err(|wait| Refusal {
            retry_after: Some(wait),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many registrations from this address; it is tried again")
        })?;
        let Some(waiter) = this.wait_for_login(&request.followup, &caller.machine) else {
            return this.register_anew(caller, request).await;
        };
        let (awaited, request) = match this.awaited(&waiter) {
            Awaited::Login(LoginState::Open) => {
                let kept = match LoginRequest::of(&request) {
                    Ok(kept) => kept,
                    Err(refusal) => return Ok(refused(&refusal)),
                };
                // Anybody may have requests wait: only the little that is needed afterwards waits with them.
                drop(request);
                (this.await_login(&waiter).await, kept.registration())
            }
            awaited => (awaited, request),
        };
        match awaited {
            Awaited::Login(LoginState::Joined { tailnet, .. }) => {
                this.register_in(tailnet, caller, request, Proof::None).await
            }
            Awaited::Login(LoginState::Failed(error)) => Ok(RegisterResponse { error, ..RegisterResponse::default() }),
            // Where the login is gone the device gets another when it asks again, as often as its site may.
            Awaited::Login(LoginState::Open) | Awaited::Superseded | Awaited::Gone => {
                Ok(this.ask_for_login(waiter.login()))
            }
        }
    }

    async fn map(&self, caller: Caller, request: MapRequest) -> Result<MapAnswer<NodeStream>, Refusal> {
        let this = &self.0;
        let (tailnet, node) = this.identify(&caller.machine, &request.node_key).map_err(Failure::Refused)?;
        this.polls.take(&node, Instant::now()).map_err(|wait| Refusal {
            retry_after: Some(wait),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "this device asks for its map too often")
        })?;
        let report = Report::of(&request);
        let noted = match request.hostinfo {
            Some(hostinfo) => this.update_host(tailnet, HostUpdate { node, hostinfo, version: request.version }).await,
            None => Ok(()),
        };
        // Where it is counts, and it must get its map, even if something that it says of itself is not taken.
        let effects = this.server_mut().tailnet_mut(tailnet).map(|tailnet| tailnet.touch(node, report));
        if let Some(effects) = effects.filter(|effects| !effects.is_empty()) {
            this.spread(tailnet, &effects);
        }
        match noted {
            Err(Failure::Refused(_) | Failure::Store(_)) if request.stream => {}
            noted => noted?,
        }
        if !request.stream {
            return Ok(MapAnswer::Noted);
        }
        let stream = NodeStream::open(Arc::clone(this), tailnet, node);
        stream.map(MapAnswer::Stream).ok_or_else(|| Failure::NoTailnet.into())
    }

    async fn certificate(&self, caller: Caller, request: Certificate) -> Result<CertificateAnswer, Refusal> {
        let this = &self.0;
        let (tailnet, node) = this.identify(&caller.machine, &request.node_key).map_err(Failure::Refused)?;
        let authority = this.authority(tailnet)?;
        let name = {
            let server = this.server();
            let tailnet = server.tailnet(tailnet).filter(|tailnet| tailnet.is_admitted(node));
            let name = tailnet.and_then(|tailnet| Some(tailnet.full_name(tailnet.node(node)?)));
            name.ok_or_else(|| {
                Refusal::new(StatusCode::FORBIDDEN, "this device takes no part in its tailnet right now: log in again")
            })?
        };
        this.certificates.take(&node, Instant::now()).map_err(|wait| {
            let minutes = wait.as_secs() / 60 + 1;
            let text = format!(
                "this device was given more certificates than it can need: keep the folder of its state, where they are \
                 kept; it can have the next one in {minutes} min"
            );
            Refusal { retry_after: Some(wait), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, text) }
        })?;
        let chain = authority.sign(&name, &request.csr, this.now()).map_err(Failure::Authority)?;
        tracing::info!(%node, "signed a certificate for a device");
        this.metrics.certificates.inc();
        Ok(CertificateAnswer { chain, root: authority.anchor_pem().to_owned() })
    }

    async fn pong(&self, caller: Caller, number: u64, response: Option<PingResponse>) -> Result<(), Refusal> {
        match self.0.pings.answer(number, &caller.machine, response) {
            true => Ok(()),
            false => Err(Refusal::new(StatusCode::NOT_FOUND, "nobody waits for this answer")),
        }
    }

    async fn ssh_action(&self, caller: Caller, login: SshLogin) -> Result<SshAction, Refusal> {
        self.0.check_ssh(&caller.machine, &login).await
    }

    async fn audit(&self, caller: Caller, entry: AuditLog) -> Result<(), Refusal> {
        let (_, node) = self.0.identify(&caller.machine, &entry.node_key).map_err(Failure::Refused)?;
        self.0.reports.take(&node, Instant::now()).map_err(|wait| Refusal {
            retry_after: Some(wait),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "this device reports too often; it is tried again")
        })?;
        // What a device writes there is its own: people's words, names, anything.
        let (action, details): (String, String) =
            (entry.action.chars().take(64).collect(), entry.details.chars().take(512).collect());
        tracing::info!(%node, disconnected = action == "DISCONNECT_NODE", "a device reports what its user did");
        tracing::debug!(%node, ?action, ?details, "what a device reports");
        Ok(())
    }
}

impl Coordination {
    /// Registers a device that waits for no login.
    async fn register_anew(
        self: &Arc<Self>,
        caller: Caller,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, Refusal> {
        let route = self.server().route(&request);
        match route {
            Ok(Route::Tailnet(tailnet)) => {
                let key = request.auth.as_ref().map(|auth| auth.auth_key.clone()).filter(|key| !key.is_empty());
                let proof = key.map_or(Proof::None, |key| Proof::AuthKey(SecretText::new(key)));
                self.register_in(tailnet, caller, request, proof).await
            }
            Ok(Route::Login) => Ok(self.ask_somebody(caller, LoginRequest::of(&request))),
            Err(refusal) => Ok(refused(&refusal)),
        }
    }

    async fn register_in(
        self: &Arc<Self>,
        tailnet: TailnetId,
        caller: Caller,
        request: RegisterRequest,
        proof: Proof,
    ) -> Result<RegisterResponse, Refusal> {
        let asked = LoginRequest::of(&request);
        let registration = Registration { machine: caller.machine, request, proof };
        let command = Command::Register(Box::new(registration));
        match self.execute(tailnet, command, Actor::Machine(caller.machine)).await {
            Ok(Reply::Registered(registered)) => {
                tracing::debug!(node = %registered.node, "a device is in");
                self.metrics.registrations.inc();
                Ok(registered.response())
            }
            Ok(Reply::KeyExpired) => Ok(RegisterResponse { node_key_expired: true, ..RegisterResponse::default() }),
            Ok(Reply::LoginNeeded) => Ok(self.ask_somebody(caller, asked)),
            Ok(_) => Ok(RegisterResponse::default()),
            Err(Failure::Refused(refusal)) => Ok(refused(&refusal)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Has a device wait for somebody to let it in, if anybody could.
    fn ask_somebody(&self, caller: Caller, asked: Result<LoginRequest, TailnetRefusal>) -> RegisterResponse {
        match asked {
            Ok(asked) => self.open_login(caller, asked),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn update_host(self: &Arc<Self>, tailnet: TailnetId, update: HostUpdate) -> Result<(), Failure> {
        let (node, machine) = {
            let server = self.server();
            let known = server.tailnet(tailnet).and_then(|tailnet| tailnet.node(update.node));
            let Some(known) = known else { return Ok(()) };
            // Most requests say nothing new; those need no turn.
            let kept = tailcfg::Hostinfo { net_info: None, ..update.hostinfo.clone() };
            if *known.hostinfo == kept && known.cap == update.version {
                return Ok(());
            }
            (known.id, known.machine_key)
        };
        let told = self.execute(tailnet, Command::UpdateHost(Box::new(update)), Actor::Machine(machine)).await;
        match &told {
            // It says it again.
            Err(Failure::Refused(refusal @ TailnetRefusal::DescribedTooOften { .. })) => {
                tracing::debug!(%node, %refusal, "what a device says of itself is not taken yet");
            }
            Err(Failure::Refused(refusal)) => {
                tracing::warn!(%node, %refusal, "what a device says of itself is not taken");
            }
            _ => {}
        }
        told.map(drop)
    }
}

/// A refusal as clients show it to their user.
fn refused(refusal: &TailnetRefusal) -> RegisterResponse {
    tracing::debug!(%refusal, "refused a registration");
    RegisterResponse { error: refusal.to_string(), ..RegisterResponse::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crypto::NodePublic;
    use tailcfg::{CapabilityVersion, Hostinfo, RegisterAuth};
    use tailnet::{NewAuthKey, NewTailnet};
    use telemetry::Metrics;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::authority::RootAuthority;
    use crate::config::ServerUrl;
    use crate::coordination::CoordinationConfig;
    use crate::store::Store;

    async fn load(folder: &Path) -> Arc<Coordination> {
        let config = CoordinationConfig {
            url: ServerUrl::parse("https://control.test").unwrap(),
            relays: tailcfg::DerpMap::default(),
            authority_folder: folder.join("authority"),
            stop: CancellationToken::new(),
        };
        let store = Store::open(&folder.join("control.db")).await.unwrap();
        Coordination::load(store, config, &Metrics::new()).await.unwrap()
    }

    fn caller() -> Caller {
        let machine = MachinePublic::from_bytes([1; 32]);
        Caller { machine, version: CapabilityVersion(130), source: "192.0.2.1:1".parse().unwrap() }
    }

    fn registration(auth_key: &str) -> RegisterRequest {
        RegisterRequest {
            version: CapabilityVersion(130),
            node_key: NodePublic::from_bytes([2; 32]),
            auth: Some(RegisterAuth { auth_key: auth_key.to_owned() }),
            hostinfo: Some(Hostinfo { hostname: "web".to_owned(), ..Hostinfo::default() }),
            ..RegisterRequest::default()
        }
    }

    async fn certificate(coordination: &Arc<Coordination>) -> String {
        ask_certificate(coordination).await.unwrap().chain
    }

    async fn ask_certificate(coordination: &Arc<Coordination>) -> Result<CertificateAnswer, Refusal> {
        let params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        let csr = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let request = Certificate { version: CapabilityVersion(130), node_key: NodePublic::from_bytes([2; 32]), csr };
        Machines(coordination.clone()).certificate(caller(), request).await
    }

    /// The names in a chain's first certificate, as text.
    fn shows(chain: &str, name: &str) -> bool {
        use rustls_pki_types::pem::PemObject;
        let leaf = rustls_pki_types::CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        leaf.windows(name.len()).any(|window| window == name.as_bytes())
    }

    /// A server with a tailnet and its owner.
    async fn founded(folder: &Path) -> (Arc<Coordination>, TailnetId, tailcfg::UserId) {
        let coordination = load(folder).await;
        let root = RootAuthority::create(&folder.join("authority"), coordination.now()).unwrap();
        let new = NewTailnet {
            name: "example.com".to_owned(),
            domain: "first.ts.net".parse().unwrap(),
            owner: "admin@example.com".parse().unwrap(),
            password: None,
        };
        let Reply::User(owner) = coordination.create_tailnet(new, root).await.unwrap() else { panic!("an owner") };
        let tailnet = coordination.server().tailnets().next().unwrap().id();
        (coordination, tailnet, owner)
    }

    /// A device of a tailnet's owner joins.
    async fn join(coordination: &Arc<Coordination>, tailnet: TailnetId, owner: tailcfg::UserId) {
        let key = NewAuthKey {
            reusable: false,
            ephemeral: false,
            preauthorized: true,
            tags: Vec::new(),
            lifetime: None,
            description: String::new(),
        };
        let made = coordination.execute(tailnet, Command::CreateAuthKey(key), Actor::User(owner)).await.unwrap();
        let Reply::Secret { text, .. } = made else { panic!("a key") };
        let machines = Machines(coordination.clone());
        assert_eq!(machines.register(caller(), registration(text.expose())).await.unwrap().error, "");
    }

    #[tokio::test]
    async fn a_device_that_was_refused_hears_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        let machines = Machines(coordination.clone());
        let asks = RegisterRequest { auth: None, ..registration("") };
        let followup = machines.register(caller(), asks.clone()).await.unwrap().auth_url;
        let id = tailnet::LoginId::from_text(followup.rsplit('/').next().unwrap());
        coordination.refuse_login(&id, tailnet, owner);
        let told = machines.register(caller(), RegisterRequest { followup, ..asks }).await.unwrap().error;
        assert_eq!(told, "admin@example.com refused this device in the browser");
    }

    #[tokio::test]
    async fn a_machine_is_known_while_it_waits_for_somebody_and_once_it_has_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        let machines = Machines(coordination.clone());
        let machine = caller().machine;
        assert!(!machines.knows(&machine));
        let url = machines.register(caller(), registration("")).await.unwrap().auth_url;
        assert!(machines.knows(&machine));
        let id = tailnet::LoginId::from_text(url.rsplit('/').next().unwrap());
        coordination.confirm_login(&id, tailnet, owner).await.unwrap();
        *coordination.logins.lock().unwrap() = tailnet::Logins::default();
        assert!(machines.knows(&machine));
    }

    #[tokio::test]
    async fn registrations_are_counted_by_site() {
        let folder = tempfile::tempdir().unwrap();
        let coordination = load(folder.path()).await;
        let machines = Machines(coordination.clone());
        let from = |address: &str| Caller { source: address.parse().unwrap(), ..caller() };
        let neighbour = from("[2001:db8::1]:1");
        // None comes back while the test runs.
        let later = Instant::now() + Duration::from_secs(3600);
        while coordination.registrations.take(&site(neighbour.source.ip()), later).is_ok() {}
        let refused = machines.register(from("[2001:db8::2]:1"), registration("")).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(machines.register(from("[2001:db8:0:1::2]:1"), registration("")).await.is_ok(), "another site");
    }

    #[tokio::test]
    async fn a_device_that_says_too_much_of_itself_is_told_so_at_once_and_nothing_of_it_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, ..) = founded(folder.path()).await;
        let mut asks = RegisterRequest { auth: None, ..registration("") };
        asks.hostinfo.as_mut().unwrap().rest.insert("Rest".to_owned(), "x".repeat(65_600).into());
        let told = Machines(coordination.clone()).register(caller(), asks).await.unwrap();
        assert!(told.error.starts_with("this device's host information has 65"), "{}", told.error);
        assert!(told.auth_url.is_empty() && coordination.logins.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_two_requests_that_wait_for_one_login_the_earlier_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        let machines = Machines(coordination.clone());
        let asks = RegisterRequest { auth: None, ..registration("") };
        let url = machines.register(caller(), asks.clone()).await.unwrap().auth_url;
        let asks = RegisterRequest { followup: url.clone(), ..asks };
        let second = machines.register(caller(), asks.clone());
        tokio::pin!(second);
        let told = tokio::select! {
            biased;
            told = machines.register(caller(), asks) => told.unwrap(),
            told = &mut second => panic!("nobody has decided: {told:?}"),
        };
        assert_eq!((told.auth_url.as_str(), told.error.as_str()), (url.as_str(), ""));
        let id = tailnet::LoginId::from_text(url.rsplit('/').next().unwrap());
        coordination.confirm_login(&id, tailnet, owner).await.unwrap();
        let told = second.await.unwrap();
        assert_eq!((told.auth_url.as_str(), told.error.as_str(), told.machine_authorized), ("", "", true));
    }

    #[tokio::test]
    async fn a_node_gets_certificates_for_its_new_name_once_its_tailnet_is_renamed_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        join(&coordination, tailnet, owner).await;
        assert!(shows(&certificate(&coordination).await, "web.first.ts.net"));

        let names = Command::SetNames { name: Some("corp".to_owned()), domain: Some("mesh.corp".parse().unwrap()) };
        coordination.execute(tailnet, names, Actor::Server).await.unwrap();
        assert!(shows(&certificate(&coordination).await, "web.mesh.corp"));
        let anchor = coordination.anchor(Some("mesh.corp")).unwrap();
        drop(coordination);
        let again = load(folder.path()).await;
        assert!(shows(&certificate(&again).await, "web.mesh.corp"));
        assert_eq!(again.anchor(Some("mesh.corp")).unwrap(), anchor, "what is trusted stays");
    }

    #[tokio::test]
    async fn a_device_that_asks_for_certificates_without_end_is_told_to_keep_them() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        join(&coordination, tailnet, owner).await;
        for _ in 0..48 {
            certificate(&coordination).await;
        }
        let refusal = ask_certificate(&coordination).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.retry_after.unwrap() <= std::time::Duration::from_secs(30 * 60));
        assert!(refusal.text.contains("keep the folder of its state, where they are kept"), "{refusal}");
    }

    #[tokio::test]
    async fn a_device_reports_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let (coordination, tailnet, owner) = founded(folder.path()).await;
        join(&coordination, tailnet, owner).await;
        let machines = Machines(coordination);
        let (node_key, action) = (NodePublic::from_bytes([2; 32]), "DISCONNECT_NODE".to_owned());
        let entry = AuditLog { node_key, action, ..AuditLog::default() };
        for _ in 0..30 {
            machines.audit(caller(), entry.clone()).await.unwrap();
        }
        let refusal = machines.audit(caller(), entry).await.unwrap_err();
        assert_eq!((refusal.status, refusal.retry_after.is_some()), (StatusCode::TOO_MANY_REQUESTS, true));
    }
}
