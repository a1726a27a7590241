//! Half of a pair of engines in one process that talk over loopback, for the examples.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crypto::{NodePrivate, SystemEntropy};
use dial::{Resolve, Roots};
use engine::{Config, Device, Engine, Events};
use filter::{AddressRange, Filter, Local, Rule};
use futures_util::future::BoxFuture;
use mesh::{PeerView, Routes, View};
use tailcfg::{DerpMap, NodeId};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The largest packet that passes the mesh.
pub(crate) const MTU: u16 = 1280;

#[derive(Debug)]
struct Nobody;

impl Resolve for Nobody {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// An engine, and where its peer finds it.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    /// Held so that the engine has somebody to tell.
    _events: Events,
    pub(crate) address: Ipv4Addr,
    endpoints: Vec<SocketAddr>,
}

impl Node {
    pub(crate) async fn start(address: Ipv4Addr, device: impl Device) -> Result<Self, Failure> {
        let key = NodePrivate::generate(&mut SystemEntropy);
        let (engine, events) = Engine::start(Config::new(key, Roots::none(), Arc::new(Nobody)), device)?;
        engine.set_interfaces(vec![Ipv4Addr::LOCALHOST.into()]);
        let port = engine.status().await?.v4_port.ok_or("there is no IPv4")?;
        let endpoints = vec![(Ipv4Addr::LOCALHOST, port).into()];
        Ok(Self { engine, _events: events, address, endpoints })
    }

    /// Makes the other its one peer, which may send it anything.
    pub(crate) fn show(&self, peer: &Self) -> Result<(), Failure> {
        let prefix = ipnet::IpNet::from(IpAddr::from(peer.address));
        let rules: Vec<Rule> = serde_json::from_value(serde_json::json!([
            {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}
        ]))?;
        let local = Local::new([AddressRange::from(IpAddr::from(self.address))]);
        let view = PeerView {
            id: NodeId(1),
            name: "peer".to_owned(),
            disco: peer.engine.disco_key(),
            home: None,
            endpoints: peer.endpoints.clone(),
            addresses: vec![peer.address.into()],
            allowed: vec![prefix],
            capabilities: Arc::new(BTreeSet::new()),
            jailed: false,
            wireguard_only: false,
            masquerade_v4: None,
            masquerade_v6: None,
        };
        let key = peer.engine.node_key();
        self.engine.set_view(View {
            addresses: vec![self.address.into()],
            peers: BTreeMap::from([(key, view)]),
            routes: Routes::new([(prefix, key)]),
            filter: Arc::new(Filter::compile(&rules, local)?),
            shields_up: false,
            relays: Arc::new(DerpMap::default()),
            mtu: MTU,
        });
        Ok(())
    }
}

/// CPU seconds of each kind of thread of this process, by name.
pub(crate) fn cpu_times() -> io::Result<BTreeMap<String, f64>> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let text = std::fs::read_to_string(task.join("schedstat"))?;
        let name = std::fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let nanoseconds: f64 = text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        *times.entry(name).or_insert(0.0) += nanoseconds / 1e9;
    }
    Ok(times)
}
