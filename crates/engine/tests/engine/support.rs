//! Nodes of a small network on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crypto::{NodePrivate, NodePublic, SystemEntropy};
use derp::server::{AdmissionConfig, CertificateFiles, Limits, Server};
use dial::{Resolve, Roots};
use engine::{Config, Engine, Event, Events, PacketQueue, PathChoice, QueueDevice, SuperPacket};
use filter::{AddressRange, Filter, Local, Rule};
use futures_util::future::BoxFuture;
use mesh::{PeerView, Routes, View};
use packet::ip::Packet;
use packet::udp::{Udp, UdpRepr};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tailcfg::{DerpHomeParams, DerpMap, DerpNode, DerpRegion, NodeId, RegionId};
use telemetry::Shutdown;
use tokio::task::JoinHandle;

/// Bounds every wait: what takes longer never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else { panic!("{what} never comes") };
    value
}

#[derive(Debug)]
struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// A relay on loopback, whose address can be taken again.
pub(crate) struct TestRelay {
    directory: tempfile::TempDir,
    pub(crate) roots: Roots,
    files: CertificateFiles,
    pub(crate) map: DerpMap,
    address: SocketAddr,
    stun: SocketAddr,
    running: Option<(Shutdown, JoinHandle<anyhow::Result<()>>)>,
}

const HOST: &str = "derp.test";

impl TestRelay {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![HOST.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let file = |name: &str, content: String| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let files =
            CertificateFiles { certificate: file("derp.crt", leaf.pem()), key: file("derp.key", key.serialize_pem()) };
        let roots = Roots::from_file(&file("ca.pem", issuer.pem())).unwrap();
        Self::serve(directory, roots, files, RegionId(1))
    }

    /// Another relay, in a region of its own; whoever believes this one believes it too.
    pub(crate) fn beside(&self, region: RegionId) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), self.roots.clone(), self.files.clone(), region)
    }

    fn serve(directory: tempfile::TempDir, roots: Roots, files: CertificateFiles, region: RegionId) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut relay =
            Self { directory, roots, files, map: DerpMap::default(), address: any, stun: any, running: None };
        relay.restart();
        let node = DerpNode {
            name: format!("{region}a"),
            region_id: region,
            host_name: HOST.to_owned(),
            derp_port: relay.address.port(),
            stun_port: relay.stun.port().into(),
            ipv6: "none".to_owned(),
            ..DerpNode::default()
        };
        let regions =
            BTreeMap::from([(region, DerpRegion { region_id: region, nodes: vec![node], ..DerpRegion::default() })]);
        relay.map = DerpMap { regions: Some(regions), ..DerpMap::default() };
        relay
    }

    /// The map of this relay and others, for a node to which all others are far.
    pub(crate) fn map_beside(&self, others: &[&Self]) -> DerpMap {
        let regions = |relay: &Self| relay.map.regions.clone().unwrap();
        let far: BTreeMap<RegionId, DerpRegion> = others.iter().flat_map(|other| regions(other)).collect();
        let region_score = far.keys().map(|region| (*region, 1e6)).collect();
        DerpMap {
            home_params: Some(DerpHomeParams { region_score }),
            regions: Some(regions(self).into_iter().chain(far).collect()),
            ..DerpMap::default()
        }
    }

    /// The map of the same relay without STUN: nodes learn no address of theirs.
    pub(crate) fn map_without_stun(&self) -> DerpMap {
        let mut map = self.map.clone();
        let regions = map.regions.as_mut().unwrap();
        regions.get_mut(&RegionId(1)).unwrap().nodes[0].stun_port = -1;
        map
    }

    /// Serves at the address that it had before, if it had one.
    pub(crate) fn restart(&mut self) {
        let config = derp::server::Config {
            listen: vec![self.address],
            http_listen: Vec::new(),
            stun_listen: vec![self.stun],
            admin_listen: None,
            certificate: self.files.clone(),
            key_file: self.directory.path().join("relay.key"),
            admission: AdmissionConfig::Open,
            mesh: None,
            bootstrap_dns: BTreeMap::new(),
            limits: Limits { restart_time: Duration::from_millis(100), ..Limits::default() },
            resolver: Arc::new(Loopback),
            roots: self.roots.clone(),
        };
        let server = Server::bind(config).unwrap();
        (self.address, self.stun) = (server.tls_addresses()[0], server.stun_addresses()[0]);
        let shutdown = Shutdown::new(Duration::from_secs(5));
        self.running = Some((shutdown.clone(), tokio::spawn(server.run(shutdown))));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.request();
            within("the relay's end", running).await.unwrap().unwrap();
        }
    }
}

/// An engine, its device's other end, and what its view is made of.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) events: Events,
    pub(crate) queue: PacketQueue,
    pub(crate) key: NodePublic,
    pub(crate) address: IpAddr,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Addresses that packets of it may carry.
    pub(crate) allowed: Vec<&'static str>,
    pub(crate) home: Option<path::RegionId>,
}

impl Node {
    /// The node 100.64.0.`host`, which lives on loopback.
    pub(crate) async fn start(host: u8, roots: Roots) -> Self {
        Self::start_with(host, roots, |_| {}).await
    }

    pub(crate) async fn start_with(host: u8, roots: Roots, change: impl FnOnce(&mut Config)) -> Self {
        let private = NodePrivate::generate(&mut SystemEntropy);
        let mut config = Config::new(private, roots, Arc::new(Loopback));
        change(&mut config);
        let (device, queue) = QueueDevice::new(true);
        let (engine, events) = Engine::start(config, device).unwrap();
        Self {
            key: engine.node_key(),
            engine,
            events,
            queue,
            address: Ipv4Addr::new(100, 64, 0, host).into(),
            endpoints: Vec::new(),
            allowed: Vec::new(),
            home: None,
        }
    }

    /// Has the node live on loopback, and be reached there.
    pub(crate) async fn listen(&mut self) {
        self.engine.set_interfaces(vec![Ipv4Addr::LOCALHOST.into()]);
        let port = self.engine.status().await.unwrap().v4_port.unwrap();
        self.endpoints = vec![(Ipv4Addr::LOCALHOST, port).into()];
    }

    fn as_peer(&self) -> PeerView {
        let own = ipnet::IpNet::from(self.address);
        let allowed = self.allowed.iter().map(|prefix| prefix.parse().unwrap());
        PeerView {
            id: NodeId(1),
            name: "peer".to_owned(),
            disco: self.engine.disco_key(),
            home: self.home,
            endpoints: self.endpoints.clone(),
            addresses: vec![self.address],
            allowed: std::iter::once(own).chain(allowed).collect(),
            capabilities: Arc::new(BTreeSet::new()),
            jailed: false,
            wireguard_only: false,
            masquerade_v4: None,
            masquerade_v6: None,
        }
    }

    /// Shows the node a network of these peers, who may use the UDP ports 1000 to 1999 and TCP port 80.
    pub(crate) async fn show(&self, peers: &[&Node], relays: &DerpMap) {
        self.show_with(peers, relays, |_| {}).await;
    }

    pub(crate) async fn show_with(&self, peers: &[&Node], relays: &DerpMap, change: impl FnOnce(&mut View)) {
        let rules: Vec<Rule> = serde_json::from_value(serde_json::json!([
            {"SrcIPs": ["*"], "IPProto": [17, 1], "DstPorts": [{"IP": "*", "Ports": {"First": 1000, "Last": 1999}}]},
            {"SrcIPs": ["*"], "IPProto": [6], "DstPorts": [{"IP": "*", "Ports": {"First": 80, "Last": 80}}]},
        ]))
        .unwrap();
        let local = Local::new([AddressRange::from(ipnet::IpNet::from(self.address))]);
        let views: BTreeMap<NodePublic, PeerView> = peers.iter().map(|peer| (peer.key, peer.as_peer())).collect();
        let routes: Vec<_> =
            views.iter().flat_map(|(key, peer)| peer.allowed.iter().map(|prefix| (*prefix, *key))).collect();
        let mut view = View {
            addresses: vec![self.address],
            peers: views,
            routes: Routes::new(routes),
            filter: Arc::new(Filter::compile(&rules, local).unwrap()),
            shields_up: false,
            relays: Arc::new(relays.clone()),
            mtu: 1280,
        };
        change(&mut view);
        self.engine.set_view(view);
        // An answer comes after what was ordered before.
        self.engine.status().await.unwrap();
    }

    pub(crate) fn datagram(&self, to: &Node, port: u16, payload: &[u8]) -> Vec<u8> {
        UdpRepr { source_port: 5000, destination_port: port }.packet(self.address, to.address, payload)
    }

    pub(crate) async fn send(&self, packet: Vec<u8>) {
        self.queue.send(SuperPacket::whole(packet)).await.unwrap();
    }

    /// Waits for a packet, with its checksum computed.
    pub(crate) async fn receive(&mut self) -> Vec<u8> {
        within("a packet", self.queue.receive()).await.unwrap().into_checked()
    }

    /// Waits for a UDP packet and gives what it holds.
    pub(crate) async fn payload(&mut self) -> Vec<u8> {
        let bytes = self.receive().await;
        let packet = Packet::parse(&bytes).unwrap();
        let udp = Udp::parse(packet.upper_layer().payload).unwrap();
        assert!(udp.checksum_is_right(packet.source(), packet.destination()));
        udp.payload().to_vec()
    }

    /// Waits until packets for a peer go a way that is wanted.
    pub(crate) async fn await_path(&mut self, peer: NodePublic, wanted: impl Fn(PathChoice) -> bool) -> PathChoice {
        let now = self.engine.peer(peer).await.unwrap().unwrap().path;
        if wanted(now) {
            return now;
        }
        within("the path", async {
            loop {
                match self.events.next().await.unwrap() {
                    Event::Path { peer: of, choice } if of == peer && wanted(choice) => return choice,
                    _ => {}
                }
            }
        })
        .await
    }

    /// Waits until the node has a home relay.
    pub(crate) async fn await_home(&mut self) {
        self.await_home_at(|_| true).await;
    }

    /// Waits until the node has a home relay that is wanted.
    pub(crate) async fn await_home_at(&mut self, wanted: impl Fn(path::RegionId) -> bool) {
        let home = within("a home", async {
            loop {
                match self.events.next().await.unwrap() {
                    Event::Home(region) if wanted(region) => return region,
                    _ => {}
                }
            }
        })
        .await;
        self.home = Some(home);
    }
}

/// Two nodes that know each other's addresses, and no relay.
pub(crate) async fn pair() -> (Node, Node) {
    let mut one = Node::start(1, Roots::none()).await;
    let mut other = Node::start(2, Roots::none()).await;
    one.listen().await;
    other.listen().await;
    one.show(&[&other], &DerpMap::default()).await;
    other.show(&[&one], &DerpMap::default()).await;
    (one, other)
}

/// How long one packet is waited for before the next is sent.
const TURN: Duration = Duration::from_millis(200);

/// Sends packets until one arrives: the first may be lost while a path is looked for. Tells how late the machine was
/// meanwhile: what a busy one adds to these turns it adds to the engine's times too.
pub(crate) async fn reach(from: &Node, to: &mut Node) -> Duration {
    let packet = from.datagram(to, 1234, b"hello");
    let late = within("the first packet", async {
        let mut late = Duration::ZERO;
        loop {
            let turn = Instant::now();
            from.send(packet.clone()).await;
            let arrived = tokio::time::timeout(TURN, to.queue.receive()).await.is_ok();
            late += turn.elapsed().saturating_sub(TURN);
            if arrived {
                break late;
            }
        }
    })
    .await;
    // What was sent more than once may come more than once.
    while tokio::time::timeout(Duration::from_millis(100), to.queue.receive()).await.is_ok() {}
    late
}

/// A wire in front of a node: who sends to its address reaches the node, and is answered through it.
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    /// Whether anything passes.
    pub(crate) open: Arc<AtomicBool>,
    /// Whether messages of a session pass twice.
    pub(crate) repeats: Arc<AtomicBool>,
    forwarding: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn between(node: &Node) -> Self {
        let port = node.engine.status().await.unwrap().v4_port.unwrap();
        let real = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (open, repeats) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (passes, twice) = (open.clone(), repeats.clone());
        let forwarding = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            let mut outside = None;
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let to = if from == real { outside } else { Some(real) };
                if from != real {
                    outside = Some(from);
                }
                let Some(to) = to.filter(|_| passes.load(Ordering::Relaxed)) else { continue };
                let times = if twice.load(Ordering::Relaxed) && buffer[0] == 4 { 2 } else { 1 };
                for _ in 0..times {
                    socket.send_to(&buffer[..length], to).await.unwrap();
                }
            }
        });
        Self { address, open, repeats, forwarding }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.forwarding.abort();
    }
}
