use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::NodePublic;
use engine::Event as EngineEvent;
use jiff::Timestamp;
use mesh::{Mesh, Preferences};
use serde_json::{Value, json};
use tailcfg::request::CertificateAnswer;
use tailcfg::{DnsConfig, EndpointType, Hostinfo, MapResponse, NetInfo, RegionId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::certificate::CertificateError;
use crate::config::{AuthKey, Config};
use crate::control::{Client, ControlEvent, ControlUrl, Dialer, Login, Report, Session, SessionEvent, SessionNumber};
use crate::control_pings::Pinger;
use crate::hostinfo::Machine;
use crate::identity::Identity;
use crate::node::NodeError;
use crate::snapshot::{Ledgers, Snapshot};
use crate::user_space::UserSpace;

mod cache;
mod certificate;
mod data_plane;
mod login;
mod machine;
mod notice;
mod publish;
mod renewal;
mod start;
mod wishes;

use cache::Cache;
use data_plane::DataPlane;
use machine::MachineNetwork;
pub(crate) use notice::{Notice, network_map, notice_of};
use renewal::{OfferedKey, Renewal};

/// How many events of the control session may wait.
const CONTROL_EVENTS: usize = 16;
/// How many notifications a slow listener may be behind before it is told everything anew.
const NOTIFICATIONS: usize = 256;
/// How long after a change the map is kept: one write for many changes.
const KEEP_AFTER: Duration = Duration::from_secs(5);

/// What somebody wants of the daemon.
#[derive(Debug)]
pub(crate) enum Command {
    EditPreferences(Value, oneshot::Sender<Result<Preferences, NodeError>>),
    Start {
        preferences: Option<Value>,
        key: Option<AuthKey>,
        reply: oneshot::Sender<Result<(), NodeError>>,
    },
    LogIn(oneshot::Sender<Result<(), NodeError>>),
    LogOut(oneshot::Sender<Result<(), NodeError>>),
    /// To have a certificate request signed by the tailnet's authority.
    Sign(Vec<u8>, oneshot::Sender<Result<CertificateAnswer, CertificateError>>),
}

/// The one task that owns a node's state and decides.
///
/// Whatever happens changes a field and then calls for [`Daemon::settle`], which makes the world follow: the session, the
/// data plane, the machine's network, what is published.
pub(crate) struct Daemon {
    config: Config,
    dialer: Dialer,
    ledgers: Ledgers,
    host: Machine,
    identity: Identity,
    mesh: Arc<Mesh>,
    names: Arc<mesh::Names>,
    /// What a new session logs in with.
    login: Login,
    /// Whether somebody asked to log in, so that a node without a key tries.
    login_wanted: bool,
    /// Another login than the one in force, while that one goes on.
    renewal: Option<Renewal>,
    /// The key of the last start, until whoever started says whether it is for a login that is there already.
    offered: Option<OfferedKey>,
    auth_url: Option<String>,
    login_error: Option<String>,
    control_error: Option<String>,
    client: Option<(ControlUrl, Arc<Client>)>,
    session: Option<Session>,
    /// Whether somebody who began waits to be told the state, be it the one of before.
    announces: bool,
    /// The number of the session that was begun last.
    sessions: SessionNumber,
    /// Whether the session's map stream is open.
    connected: bool,
    control: (mpsc::Sender<SessionEvent>, mpsc::Receiver<SessionEvent>),
    report: watch::Sender<Report>,
    pinger: Pinger,
    data_plane: Option<DataPlane>,
    data_plane_error: Option<String>,
    machine: MachineNetwork,
    user_space: Option<UserSpace>,
    /// Whether the data plane has reached a relay or a peer since it started.
    live: bool,
    home: RegionId,
    endpoints: Vec<SocketAddr>,
    net_info: Option<NetInfo>,
    problems: Vec<String>,
    cache: Cache,
    snapshot: watch::Sender<Arc<Snapshot>>,
    bus: broadcast::Sender<Arc<Notice>>,
    ends: CancellationToken,
}

impl Daemon {
    /// Runs until the node is told to end, and leaves the machine as it was.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let ends = self.ends.clone();
        self.settle().await;
        loop {
            let mut answer: Option<Box<dyn FnOnce() + Send>> = None;
            tokio::select! {
                () = ends.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => answer = Some(self.handle_command(command).await),
                    None => break,
                },
                Some(event) = self.control.1.recv() => self.handle_control(event).await,
                event = next_event(&mut self.data_plane) => self.handle_engine(event).await,
                change = self.machine.changed() => self.handle_network_change(change),
                () = at(self.mesh.poll_timeout()) => Arc::make_mut(&mut self.mesh).handle_timeout(Timestamp::now()),
                () = self.cache.due() => self.cache.keep(&self.mesh).await,
            }
            self.settle().await;
            if let Some(answer) = answer {
                answer();
            }
        }
        self.session = None;
        self.renewal = None;
        if let Some(plane) = self.data_plane.take() {
            plane.stop().await;
        }
        self.machine.restore();
        self.cache.keep(&self.mesh).await;
    }

    async fn handle_control(&mut self, (number, event): SessionEvent) {
        if self.renewal.as_ref().is_some_and(|renewal| renewal.is_session(number)) {
            return self.handle_renewal(event).await;
        }
        if self.session.as_ref().is_none_or(|session| session.number() != number) {
            // It is about a standing that is gone.
            return;
        }
        match event {
            ControlEvent::LoginUrl(url) => {
                // The login in force is none any more: there is nothing that another one could take the place of.
                self.renewal = None;
                self.control_error = None;
                self.show_login(url);
            }
            ControlEvent::LoggedIn { node_key, response, kept } => {
                if self.take_login(node_key, &response).await {
                    // A session that has ended meanwhile needs no answer.
                    let _ = kept.send(());
                }
            }
            ControlEvent::LoginFailed(reason) => {
                tracing::warn!(%reason, "logging in failed");
                self.login_wanted = false;
                self.login = Login { ephemeral: self.config.ephemeral, ..Login::default() };
                self.renewal = None;
                self.end_session();
                self.notify(Notice::open(json!({"ErrMessage": reason})));
                self.login_error = Some(reason);
            }
            ControlEvent::Map { first, message } => self.take_map(first, *message),
            ControlEvent::Connected(error) => {
                if let Some(plane) = &self.data_plane {
                    plane.engine.set_control_connected(error.is_none());
                }
                self.connected = error.is_none();
                self.control_error = error;
            }
        }
    }

    fn take_map(&mut self, first: bool, mut message: MapResponse) {
        if let Some(ping) = message.ping_request.take()
            && let Some((_, client)) = &self.client
        {
            self.pinger.handle(ping, client.clone(), self.snapshot.borrow().clone());
        }
        if !message.pop_browser_url.is_empty() {
            let url = std::mem::take(&mut message.pop_browser_url);
            // Nothing but a page of the web is shown: a file or a script would be the server's word run here.
            if url.starts_with("https://") || url.starts_with("http://") {
                self.notify(Notice::closed(json!({"BrowseToURL": url})));
            }
        }
        if message.keep_alive {
            return;
        }
        let mesh = Arc::make_mut(&mut self.mesh);
        let merged = if first {
            mesh.handle_first_map(message, Timestamp::now())
        } else {
            mesh.handle_map(message, Timestamp::now())
        };
        match merged {
            Ok(changed) if changed.any() => {
                self.cache.changed();
                if changed.node {
                    self.note_node_id();
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the map can't be used, asking for all of it again");
                if let Some(session) = &self.session {
                    session.resync();
                }
            }
        }
    }

    async fn handle_engine(&mut self, event: Option<EngineEvent>) {
        match event {
            Some(EngineEvent::Endpoints(endpoints)) => {
                self.endpoints = endpoints.iter().map(|endpoint| endpoint.address).collect();
                let told = endpoints.iter().map(|endpoint| (endpoint.address, kind(endpoint.kind))).collect();
                self.report.send_if_modified(|report| {
                    let changed = report.endpoints != told;
                    report.endpoints = told;
                    changed
                });
            }
            Some(EngineEvent::Home(region)) => {
                self.live = true;
                self.home = RegionId(region.get());
            }
            Some(EngineEvent::NetInfo(net_info)) => self.net_info = Some(*net_info),
            Some(EngineEvent::Handshake { .. }) => self.live = true,
            Some(EngineEvent::Path { .. }) => {}
            Some(EngineEvent::Health(problems)) => {
                self.problems = problems.into_iter().map(|problem| problem.text).collect();
            }
            Some(EngineEvent::DeviceFailed(reason)) => {
                tracing::error!(%reason, "the packet device failed, starting the data plane anew");
                self.drop_data_plane().await;
            }
            None => self.drop_data_plane().await,
        }
    }

    fn handle_network_change(&mut self, change: machine::NetworkChange) {
        tracing::debug!("the machine's network changed");
        Arc::make_mut(&mut self.mesh).set_attached(change.attached);
        if let Some(plane) = &self.data_plane {
            plane.engine.network_changed(change.addresses);
        }
    }

    async fn drop_data_plane(&mut self) {
        if let Some(plane) = self.data_plane.take() {
            plane.stop().await;
        }
        self.live = false;
        self.home = RegionId::NONE;
        self.endpoints.clear();
        self.problems.clear();
    }

    /// Makes everything follow from the state.
    async fn settle(&mut self) {
        self.settle_session();
        self.settle_data_plane().await;
        self.settle_report();
        self.publish();
    }

    /// Starts the data plane when there is a network to be shown, stops it when it is not wanted, and shows it the view.
    async fn settle_data_plane(&mut self) {
        let wanted = self.identity.preferences.want_running && !self.mesh.is_expired();
        let view = if wanted { self.mesh.view() } else { None };
        let Some((view, key)) = view.zip(self.identity.node_key.clone()) else {
            if self.data_plane.is_some() {
                self.drop_data_plane().await;
                self.machine.restore();
            }
            return;
        };
        if self.data_plane.as_ref().is_some_and(|plane| plane.key != key.public()) {
            self.drop_data_plane().await;
        }
        if self.data_plane.is_none() {
            match DataPlane::start(&self.config, key, &self.ledgers.relays, &mut self.machine, self.user_space.as_ref())
            {
                Ok(plane) => {
                    plane.engine.set_control_connected(self.session.is_some() && self.control_error.is_none());
                    let change = self.machine.look();
                    Arc::make_mut(&mut self.mesh).set_attached(change.attached);
                    plane.engine.set_interfaces(change.addresses);
                    self.data_plane_error = None;
                    self.data_plane = Some(plane);
                }
                Err(error) => {
                    if self.data_plane_error.as_ref() != Some(&error) {
                        tracing::error!(%error, "the data plane does not start");
                    }
                    self.data_plane_error = Some(error);
                    return;
                }
            }
        }
        let names = Arc::new(self.mesh.names());
        self.names = names.clone();
        let Some(plane) = &mut self.data_plane else { return };
        if let Some(user_space) = &self.user_space {
            user_space.set_addresses(view.addresses.clone());
        }
        plane.show(view);
        let dns: Arc<DnsConfig> = self.mesh.netmap().map(|netmap| netmap.dns().clone()).unwrap_or_default();
        self.machine.apply(&self.mesh.routing(), &self.mesh.system_dns(), &dns, names, plane.udp_port());
    }

    /// Tells the coordination server what is so now, where that changed.
    fn settle_report(&mut self) {
        let info = self.hostinfo();
        let disco = self.data_plane.as_ref().map(|plane| plane.engine.disco_key());
        self.report.send_if_modified(|report| {
            let disco = disco.unwrap_or(report.disco);
            let changed = report.hostinfo != info || report.disco != disco;
            report.hostinfo = info;
            report.disco = disco;
            changed
        });
    }

    fn hostinfo(&self) -> Hostinfo {
        let machine = self.identity.machine.public();
        let (preferences, user_space) = (&self.identity.preferences, self.user_space.is_some());
        self.host.hostinfo(preferences, &machine, self.net_info.as_ref(), user_space, &self.config.app)
    }

    fn node_public(&self) -> Option<NodePublic> {
        self.identity.node_key.as_ref().map(crypto::NodePrivate::public)
    }
}

/// The next event of the data plane, while there is one.
async fn next_event(plane: &mut Option<DataPlane>) -> Option<EngineEvent> {
    match plane {
        Some(plane) => plane.events.next().await,
        None => std::future::pending().await,
    }
}

/// Ends at a time; never without one. Long waits are cut, so that a clock that jumps is noticed.
async fn at(time: Option<Timestamp>) {
    let Some(time) = time else { return std::future::pending().await };
    let wait = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(wait.clamp(Duration::from_millis(10), Duration::from_secs(300))).await;
}

fn kind(kind: engine::EndpointKind) -> EndpointType {
    match kind {
        engine::EndpointKind::Local => EndpointType::Local,
        engine::EndpointKind::Stun => EndpointType::Stun,
        engine::EndpointKind::PortMapped => EndpointType::Portmapped,
        engine::EndpointKind::StunLocalPort => EndpointType::StunWithLocalPort,
        engine::EndpointKind::Explicit => EndpointType::Explicit,
    }
}
