use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use crypto::MachinePrivate;
use http::StatusCode;
use listen::ServerCertificate;
use telemetry::{Health, Metrics, Shutdown};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ServerUrl};
use crate::coordination::{Coordination, CoordinationConfig, Machines};
use crate::folder::DataFolder;
use crate::listener::{Limits, Listener};
use crate::machine::Entrance;
use crate::pages::{self, Pages};
use crate::password::Passwords;
use crate::rest::{Grants, PolicyDesk, Rest};
use crate::session::Sessions;
use crate::sign_in::SignIn;
use crate::store::Store;
use crate::web::{self, Web};

/// Runs the coordination server until the shutdown is requested.
///
/// # Errors
///
/// What it needs can't be had: its folder, keys, database, certificate or addresses. Once it runs, nothing ends it but the
/// shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let running = Running::start(config, shutdown).await?;
    running.finish().await
}

/// A coordination server that runs, and where.
#[derive(Debug)]
pub struct Running {
    /// Where TLS is served.
    pub https: Option<SocketAddr>,
    /// Where nodes and trusted proxies are served without TLS.
    pub http: Option<SocketAddr>,
    /// Where health and metrics are told.
    pub admin: Option<SocketAddr>,
    coordination: Arc<Coordination>,
    tasks: JoinSet<anyhow::Result<()>>,
    open: TaskTracker,
    shutdown: Shutdown,
    store: Store,
    /// Held for as long as the server runs.
    _folder: DataFolder,
}

impl Running {
    /// Starts to serve; when this returns, connections are accepted.
    pub async fn start(config: Config, shutdown: Shutdown) -> anyhow::Result<Self> {
        let folder = DataFolder::open(&config.data)?;
        let (metrics, health) = (Metrics::new(), Health::new());
        let (loaded, listening) = (health.condition("tailnets"), health.condition("listeners"));
        let writable = health.condition("database");
        let machine_key = folder.machine_key()?;
        let relay_token = config.relay_token.as_deref().map(relay_token).transpose()?;
        let certificate = config.certificate.clone().map(ServerCertificate::load).transpose()?;

        let store = Store::open(&folder.database()).await?;
        let coordination = coordination(&config, &folder, store.clone(), &metrics, &shutdown).await?;
        loaded.met();
        let sessions = Arc::new(Sessions::load(store.clone(), coordination.now()).await?);
        let sign_in = Arc::new(SignIn::new(Passwords::new()?));
        let open = TaskTracker::new();
        let router = Parts {
            url: config.url.clone(),
            coordination: coordination.clone(),
            sessions,
            sign_in,
            machine_key,
            relay_token,
            stop: shutdown.token(),
            open: open.clone(),
        }
        .router();

        let mut running = Self {
            https: None,
            http: None,
            admin: None,
            coordination,
            tasks: JoinSet::new(),
            open,
            shutdown,
            store,
            _folder: folder,
        };
        running.listen(&config, router, certificate, metrics, health).await?;
        listening.met();
        running.tasks.spawn(never_fails(running.coordination.clone().run_timers()));
        running.tasks.spawn(never_fails(running.coordination.clone().write_behind()));
        running.tasks.spawn(never_fails(running.store.clone().watch(writable, running.shutdown.token())));
        tracing::info!(url = %config.url, https = running.https.map(tracing::field::display), http = running.http.map(tracing::field::display), "the coordination server runs");
        Ok(running)
    }

    async fn listen(
        &mut self,
        config: &Config,
        router: Router,
        certificate: Option<Arc<ServerCertificate>>,
        metrics: Metrics,
        health: Health,
    ) -> anyhow::Result<()> {
        let listener = |router| Listener {
            router,
            proxies: Arc::new(config.proxies.clone()),
            limits: Limits::default(),
            shutdown: self.shutdown.clone(),
            open: self.open.clone(),
        };
        if let (Some(address), Some(certificate)) = (config.https, certificate) {
            let socket = listen::tcp(address)?;
            self.https = Some(socket.local_addr()?);
            let (listener, tls) = (listener(router.clone()), Arc::new(certificate.server_config()));
            self.tasks.spawn(async move { Ok(listener.serve(socket, Some(tls)).await?) });
            let (keep_current, stop) = (certificate.keep_current(|_| ()), self.shutdown.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = keep_current => {}
                    () = stop.requested() => {}
                }
                Ok(())
            });
        }
        if let Some(address) = config.http {
            let socket = listen::tcp(address)?;
            self.http = Some(socket.local_addr()?);
            let router = if config.url.is_https() { web::plain_only(router, config.url.to_string()) } else { router };
            let listener = listener(router);
            self.tasks.spawn(async move { Ok(listener.serve(socket, None).await?) });
        }
        if let Some(address) = config.admin {
            let socket = listen::tcp(address)?;
            self.admin = Some(socket.local_addr()?);
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(async move { Ok(telemetry::serve_admin(socket, metrics, health, shutdown).await?) });
        }
        Ok(())
    }

    /// Waits for the shutdown, then for what is still under way, and writes down what is left to write.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let mut failed = None;
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.map_err(anyhow::Error::from).and_then(|ended| ended);
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the server ended; the server stops");
                failed.get_or_insert(error);
            }
            // No part ends before the shutdown but by failing.
            self.shutdown.request();
        }
        self.open.close();
        if self.shutdown.drain(self.open.wait()).await.is_err() {
            tracing::warn!(connections = self.open.len(), "some connections did not end in time");
        }
        self.coordination.finish().await;
        self.store.close().await;
        failed.map_or(Ok(()), Err)
    }
}

async fn never_fails(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    work.await;
    Ok(())
}

/// The tailnets, as they were written.
async fn coordination(
    config: &Config,
    folder: &DataFolder,
    store: Store,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> anyhow::Result<Arc<Coordination>> {
    let needs = CoordinationConfig {
        url: config.url.clone(),
        relays: config.relays.clone(),
        authority_folder: folder.authority(),
        stop: shutdown.token(),
    };
    let coordination = Coordination::load(store, needs, metrics).await?;
    anyhow::ensure!(
        coordination.server().tailnets().next().is_some(),
        "the server in {:?} has no tailnet, because setting it up was cut off: run `towline control init` again",
        config.data
    );
    Ok(coordination)
}

/// What the routes are made from.
struct Parts {
    url: ServerUrl,
    coordination: Arc<Coordination>,
    sessions: Arc<Sessions>,
    sign_in: Arc<SignIn>,
    machine_key: MachinePrivate,
    relay_token: Option<[u8; 32]>,
    stop: CancellationToken,
    open: TaskTracker,
}

impl Parts {
    fn router(self) -> Router {
        let Self { url, coordination, sessions, sign_in, machine_key, relay_token, stop, open } = self;
        let pages = Pages {
            url: url.clone(),
            coordination: coordination.clone(),
            sessions: sessions.clone(),
            sign_in: sign_in.clone(),
        };
        let (grants, desk) = (Grants::default(), PolicyDesk::default());
        let rest = Rest { url, coordination: coordination.clone(), sessions, sign_in, grants, desk };
        let web = Web { coordination: coordination.clone(), relay_token };
        let entrance = Entrance::new(machine_key, Arc::new(Machines(coordination.clone())), open, stop);
        let lost = || async { (StatusCode::NOT_FOUND, "there is nothing here\n") };
        let router = web::router(Arc::new(web))
            .merge(entrance.routes())
            .merge(pages::router(Arc::new(pages)))
            .merge(api::router(Arc::new(rest)))
            .fallback(lost)
            .layer(axum::extract::DefaultBodyLimit::max(api::BODY_LIMIT));
        coordination.metrics().count_requests(router)
    }
}

/// The hash of the token that relays show.
fn relay_token(path: &Path) -> anyhow::Result<[u8; 32]> {
    let token = crate::files::read_private(path)?;
    let token = std::str::from_utf8(&token).unwrap_or_default().trim();
    anyhow::ensure!(
        token.len() >= 20,
        "the relays' token in {path:?} is shorter than 20 characters: make a longer one"
    );
    Ok(crypto::sha256(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use api::SecretText;
    use crypto::{MachinePublic, NodePublic};
    use jiff::SignedDuration;
    use tailcfg::{CapabilityVersion, Hostinfo, MapRequest, RegisterAuth, RegisterRequest};
    use tailnet::{Actor, Command, NewAuthKey, Reply};

    use super::*;
    use crate::init::{FirstTailnet, NewServer, init, relay_map};
    use crate::machine::{Caller, Coordinator, MapAnswer};
    use crate::origin::TrustedProxies;

    const VERSION: CapabilityVersion = CapabilityVersion(130);

    /// Starts a server in a folder, which has one tailnet once this was called.
    async fn start(data: PathBuf) -> Running {
        let (url, relays) =
            (ServerUrl::parse("http://control.test").unwrap(), relay_map(&["r.test".to_owned()]).unwrap());
        if !data.exists() {
            let tailnet = FirstTailnet {
                domain: "test.ts.net".parse().unwrap(),
                name: None,
                owner: "admin@example.com".parse().unwrap(),
                password: Some(SecretText::new("a long password for a short test".to_owned())),
            };
            let (data, url, relays) = (data.clone(), url.clone(), relays.clone());
            init(NewServer { data, url, certificate: None, relays, tailnet }).await.unwrap();
        }
        let proxies = TrustedProxies(Vec::new());
        let (https, http, admin) = (None, Some("127.0.0.1:0".parse().unwrap()), None);
        let config = Config { url, https, http, admin, certificate: None, proxies, relays, relay_token: None, data };
        Running::start(config, Shutdown::new(Duration::from_secs(2))).await.unwrap()
    }

    /// A device, told apart by a number.
    #[derive(Clone, Copy)]
    struct Guest(u8);

    impl Guest {
        fn caller(self) -> Caller {
            let machine = MachinePublic::from_bytes([self.0; 32]);
            Caller { machine, version: VERSION, source: "192.0.2.1:1".parse().unwrap() }
        }

        fn key(self) -> NodePublic {
            NodePublic::from_bytes([self.0 + 100; 32])
        }

        /// Joins by a key of the tailnet's owner.
        async fn join(self, running: &Running, ephemeral: bool) {
            let coordination = &running.coordination;
            let (tailnet, owner) = {
                let server = coordination.server();
                let tailnet = server.tailnets().next().unwrap();
                (tailnet.id(), tailnet.users().next().unwrap().id)
            };
            let (lifetime, tags, description) = (None, Vec::new(), String::new());
            let new = NewAuthKey { reusable: false, ephemeral, preauthorized: true, tags, lifetime, description };
            let made = coordination.execute(tailnet, Command::CreateAuthKey(new), Actor::User(owner)).await.unwrap();
            let Reply::Secret { text, .. } = made else { panic!("a key") };
            let request = RegisterRequest {
                version: VERSION,
                node_key: self.key(),
                auth: Some(RegisterAuth { auth_key: text.expose().to_owned() }),
                hostinfo: Some(Hostinfo { hostname: format!("device-{}", self.0), ..Hostinfo::default() }),
                ..RegisterRequest::default()
            };
            assert_eq!(Machines(coordination.clone()).register(self.caller(), request).await.unwrap().error, "");
        }

        /// Opens its map stream, which lives as long as what this answers.
        async fn open(self, running: &Running) -> impl Sized {
            let request = MapRequest { version: VERSION, node_key: self.key(), stream: true, ..MapRequest::default() };
            match Machines(running.coordination.clone()).map(self.caller(), request).await.unwrap() {
                MapAnswer::Stream(stream) => stream,
                MapAnswer::Noted => panic!("it asked for a stream"),
            }
        }

        fn is_there(self, running: &Running) -> bool {
            running.coordination.server().registry().node_by_key(&self.key()).is_some()
        }

        /// Waits until it is there no more.
        async fn gone(self, running: &Running) {
            let gone = running.coordination.until(|server| server.registry().node_by_key(&self.key()).is_none());
            tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it goes in time");
        }
    }

    #[tokio::test]
    async fn an_ephemeral_device_goes_for_good_once_it_has_been_away_for_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let running = start(folder.path().join("data")).await;
        let [first, second, here, lasting] = [Guest(1), Guest(2), Guest(3), Guest(4)];
        for device in [first, second, here] {
            device.join(&running, true).await;
        }
        lasting.join(&running, false).await;
        drop(lasting.open(&running).await);
        let (stream, later) = (here.open(&running).await, second.open(&running).await);
        drop(first.open(&running).await);

        let pass = |minutes| running.coordination.pass(SignedDuration::from_mins(minutes));
        pass(20);
        drop(later);
        pass(11);
        first.gone(&running).await;
        assert!(second.is_there(&running), "it has not been away for so long");
        pass(20);
        second.gone(&running).await;
        assert!(here.is_there(&running), "its stream is open");
        assert!(lasting.is_there(&running), "it is not ephemeral");

        drop(stream);
        running.shutdown.request();
        running.finish().await.unwrap();
        let running = start(folder.path().join("data")).await;
        for (device, stays) in [(first, false), (second, false), (here, true), (lasting, true)] {
            assert_eq!(device.is_there(&running), stays, "device-{}", device.0);
        }
        running.shutdown.request();
        running.finish().await.unwrap();
    }
}
