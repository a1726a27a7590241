//! How a daemon begins: what the node was, and what the caller wants of it.

use std::sync::Arc;

use jiff::Timestamp;
use mesh::{BackendState, Mesh, Names};
use tailcfg::RegionId;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::machine::MachineNetwork;
use super::{CONTROL_EVENTS, Daemon, NOTIFICATIONS, Notice};
use crate::config::{AuthKey, Config, DeviceConfig};
use crate::control::{Dialer, Login, Report, SessionNumber};
use crate::control_pings::Pinger;
use crate::hostinfo::Machine;
use crate::identity::Identity;
use crate::node::NodeError;
use crate::snapshot::{Ledgers, Snapshot};
use crate::user_space::UserSpace;

/// What a daemon hands to its handles.
pub(crate) struct Started {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) bus: broadcast::Sender<Arc<Notice>>,
    pub(crate) user_space: Option<UserSpace>,
    pub(crate) ends: CancellationToken,
}

impl Daemon {
    /// Reads the node's state, and takes the caller's wishes into it.
    pub(crate) async fn new(config: Config) -> Result<(Self, Started), NodeError> {
        let identity = identity_of(&config).await?;
        let host = Machine::read();
        let machine = MachineNetwork::new(&config, identity.preferences.netfilter_mode != 0)?;
        let ledgers = Ledgers::default();
        let dialer = dialer_of(&config, &machine, &ledgers);
        let mut mesh = Mesh::new(identity.preferences.clone(), Timestamp::now());
        let cache = Cache::new(config.netmap_cache.clone());
        if let Some(key) = identity.node_key.as_ref().map(crypto::NodePrivate::public) {
            cache.load_into(&mut mesh, &key);
        }
        let login = Login {
            auth_key: config.auth_key.as_ref().map(AuthKey::expose),
            fresh: false,
            ephemeral: config.ephemeral,
        };
        let user_space = (config.device == DeviceConfig::UserSpace).then(UserSpace::new);
        let names = Arc::new(mesh.names());
        let mesh = Arc::new(mesh);
        let snapshot = first_snapshot(&identity, &host, &ledgers, (&mesh, &names), user_space.is_none());
        let (snapshot, published) = watch::channel(Arc::new(snapshot));
        let bus = broadcast::Sender::new(NOTIFICATIONS);
        let ends = CancellationToken::new();
        let started =
            Started { snapshot: published, bus: bus.clone(), user_space: user_space.clone(), ends: ends.clone() };
        let daemon = Self {
            login_wanted: login.auth_key.is_some(),
            login,
            dialer,
            ledgers,
            host,
            identity,
            mesh,
            names,
            renewal: None,
            offered: None,
            auth_url: None,
            login_error: None,
            control_error: None,
            client: None,
            session: None,
            announces: false,
            sessions: SessionNumber::NONE,
            connected: false,
            control: mpsc::channel(CONTROL_EVENTS),
            report: watch::Sender::new(Report::default()),
            pinger: Pinger::default(),
            data_plane: None,
            data_plane_error: None,
            machine,
            user_space,
            live: false,
            home: RegionId::NONE,
            endpoints: Vec::new(),
            net_info: None,
            problems: Vec::new(),
            cache,
            snapshot,
            bus,
            ends,
            config,
        };
        Ok((daemon, started))
    }
}

/// What the node was, with the caller's wishes in it.
async fn identity_of(config: &Config) -> Result<Identity, NodeError> {
    let mut identity = Identity::load(config.store.as_ref()).await?;
    let before = identity.preferences.clone();
    config.wishes.apply(&mut identity.preferences);
    identity.preferences.check()?;
    if !before.control_url.is_empty() && before.control_url != identity.preferences.control_url {
        identity.node_key = None;
    }
    if config.auth_key.is_some() {
        identity.preferences.logged_out = false;
    }
    identity.save(config.store.as_ref()).await?;
    Ok(identity)
}

fn dialer_of(config: &Config, machine: &MachineNetwork, ledgers: &Ledgers) -> Dialer {
    let mut tls = config.roots.tls();
    // The upgrade to Noise is HTTP/1.1's; a server that was offered HTTP/2 would not do it.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Dialer {
        resolver: config.resolver.clone(),
        tls: Arc::new(tls),
        socket_setup: machine.socket_setup(),
        ledger: ledgers.control.clone(),
    }
}

/// What is shown of the node before anything has happened.
fn first_snapshot(
    identity: &Identity,
    host: &Machine,
    ledgers: &Ledgers,
    (mesh, names): (&Arc<Mesh>, &Arc<Names>),
    has_tun: bool,
) -> Snapshot {
    Snapshot {
        state: BackendState::NoState,
        auth_url: None,
        login_error: None,
        control_error: None,
        mesh: mesh.clone(),
        names: names.clone(),
        health: Vec::new(),
        open_health: Vec::new(),
        node_key: identity.node_key.as_ref().map(crypto::NodePrivate::public),
        home: RegionId::NONE,
        endpoints: Vec::new(),
        tun: has_tun,
        hostname: host.name(&identity.preferences),
        engine: None,
        ledgers: ledgers.clone(),
        profile: Arc::new(identity.login_profile()),
    }
}
