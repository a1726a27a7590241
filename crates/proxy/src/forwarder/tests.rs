//! An egress with ports: what arrives at a pod, which is loopback here, goes in user space to another node of the tailnet.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use coordination::{Server, Side, introduce};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use node::{AuthKey, DeviceConfig, MemoryStore, Wishes};
use telemetry::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::*;
use crate::config::{Pod, Port, Target, Transport};
use crate::traffic::Traffic;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The device that the egress leads to.
const ROBBINSDALE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// Robbinsdale lets the proxy in, at any port.
const RULES: &str = r#"[{"SrcIPs":["100.64.0.2"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":0,"Last":65535}}]}]"#;

#[derive(Debug)]
struct NoNames;

impl node::Resolve for NoNames {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}

/// A node in user space with a coordination server of its own.
async fn node(number: u64) -> (Node, Server, u16) {
    let server = Server::start().await;
    server.script.lock().unwrap().number = number;
    let port = loopback::free_port().unwrap();
    let node = Node::start(node::Config {
        store: Arc::new(MemoryStore::default()),
        netmap_cache: None,
        device: DeviceConfig::UserSpace,
        wishes: Wishes { control_url: Some(server.url.parse().unwrap()), running: Some(true), ..Wishes::default() },
        auth_key: Some(AuthKey::new("tskey-auth-x")),
        ephemeral: true,
        port,
        mark_sockets: false,
        local_api: None,
        roots: node::Roots::none(),
        resolver: Arc::new(NoNames),
        app: String::new(),
    });
    (node.await.unwrap(), server, port)
}

/// An egress to robbinsdale that serves, and robbinsdale.
struct Scene {
    forwarder: Forwarder,
    proxy: Node,
    robbinsdale: Node,
    /// Where pods reach the egress: a port for TCP and UDP, of the pod and of robbinsdale.
    place: SocketAddr,
    relay: Relay,
    _servers: [Server; 2],
}

impl Scene {
    async fn set() -> Self {
        let ((robbinsdale, first, first_port), (proxy, second, second_port)) = tokio::join!(node(0), node(1));
        let sides = (Side { server: &first, port: first_port }, Side { server: &second, port: second_port });
        introduce(sides.0, sides.1, RULES).await;
        for node in [&robbinsdale, &proxy] {
            let mut watch = node.watch();
            let there = watch.wait_for(|now| now.mesh.netmap().is_some_and(|map| !map.peers().is_empty()));
            there.await.unwrap();
        }
        let place = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), loopback::free_port().unwrap());
        let (relay, health) = (Relay::new(Traffic::default()), Health::new());
        let (routes, offered) = watch::channel(Vec::new());
        let equipment = Equipment {
            relay: relay.clone(),
            backends: Backends::Asked(offered),
            routes,
            ready: health.condition("traffic"),
        };
        let mut forwarder = Forwarder::new(config(place), equipment);
        forwarder.begin(&proxy, &NodeConfig::of_proxy("http://control.example", "home-robbinsdale")).await.unwrap();
        forwarder.stands(&proxy.snapshot());
        assert!(health.unmet().is_empty(), "{:?}", health.unmet());
        Self { forwarder, proxy, robbinsdale, place, relay, _servers: [first, second] }
    }

    /// Has robbinsdale send back what clients send it.
    fn robbinsdale_echoes(&self) {
        let mut listener = self.robbinsdale.user_space().unwrap().listen(self.place.port()).unwrap();
        tokio::spawn(async move {
            while let Some(client) = listener.accept().await {
                assert_eq!(client.from().ip().to_string(), "100.64.0.2");
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(client.accept().await.unwrap());
                    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
            }
        });
    }

    async fn end(self) {
        self.proxy.stop().await;
        self.robbinsdale.stop().await;
    }
}

fn config(place: SocketAddr) -> Config {
    let port = |transport| Port { transport, number: place.port() };
    Config {
        pod: Pod { name: "p-0".to_owned(), uid: "pod-1".to_owned(), addresses: vec![place.ip()] },
        state_secret: "p-0".to_owned(),
        config_folder: "/nowhere".into(),
        purpose: Purpose::Egress {
            target: Target::Address(ROBBINSDALE.into()),
            ports: vec![port(Transport::Tcp), port(Transport::Udp)],
        },
        user_space: true,
        app: "test".to_owned(),
        certificates: None,
        metrics: None,
        api_server: None,
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Says something, and hears it come back.
async fn answers(connection: &mut TcpStream, words: &str) {
    let mut back = vec![0; words.len()];
    in_time(connection.write_all(words.as_bytes())).await.unwrap();
    in_time(connection.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, words.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_to_the_device_and_back_until_both_sides_are_done() {
    let scene = Scene::set().await;
    scene.robbinsdale_echoes();
    let text: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let (mut reader, mut writer) = TcpStream::connect(scene.place).await.unwrap().into_split();
    let mut back = Vec::new();
    let sent = async {
        writer.write_all(&text).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    in_time(async { tokio::join!(sent, async { reader.read_to_end(&mut back).await.unwrap() }) }).await;
    assert!(back == text, "{} bytes of {} came back", back.len(), text.len());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_go_to_the_device_and_back() {
    let scene = Scene::set().await;
    let device =
        scene.robbinsdale.user_space().unwrap().bind_udp(SocketAddr::new(ROBBINSDALE.into(), scene.place.port()));
    let device = device.unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut buffer = [0; 64];
    let work = async {
        // Datagrams may get lost, the first ones more than others: they are sent until one is answered.
        let mut again = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = again.tick() => drop(client.send_to(b"question", scene.place).await.unwrap()),
                asked = device.receive() => {
                    let asked = asked.unwrap();
                    assert_eq!(asked.payload, b"question");
                    device.send(asked.from, b"answer").unwrap();
                }
                answer = client.recv_from(&mut buffer) => return answer.unwrap(),
            }
        }
    };
    let (length, from) = in_time(work).await;
    assert_eq!((&buffer[..length], from), (&b"answer"[..], scene.place));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_that_the_device_refuses() {
    let scene = Scene::set().await;
    // The pod's kernel has the handshake already: what is left to say is a reset.
    let mut client = TcpStream::connect(scene.place).await.unwrap();
    let error = in_time(client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_that_ends_lets_nobody_else_in_and_what_is_open_goes_on_to_its_end() {
    let mut scene = Scene::set().await;
    scene.robbinsdale_echoes();
    let mut open = TcpStream::connect(scene.place).await.unwrap();
    answers(&mut open, "before").await;
    let mut forwarder = scene.forwarder;
    let ending = tokio::spawn(async move {
        forwarder.end(true).await;
        forwarder
    });
    in_time(scene.relay.draining.cancelled()).await;

    let late = async {
        let mut late = TcpStream::connect(scene.place).await?;
        // It came while the place was still being closed: it is turned away, and not answered.
        late.write_all(b"late").await?;
        late.read_u8().await
    };
    in_time(late).await.unwrap_err();
    answers(&mut open, "meanwhile").await;
    assert!(!ending.is_finished(), "a connection is open");
    open.shutdown().await.unwrap();
    assert_eq!(in_time(open.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    scene.forwarder = in_time(ending).await.unwrap();
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_forwards_is_waited_for_until_no_packet_passes_or_the_time_is_over() {
    let waits = async |mut counts: VecDeque<Option<u64>>, more: u64| {
        let begun = Instant::now();
        let mut count = 0;
        until_quiet(|| {
            count += more;
            counts.pop_front().unwrap_or(Some(count))
        })
        .await;
        begun.elapsed()
    };
    let busy_twice = waits([Some(1), Some(5), Some(9), Some(9)].into(), 0).await;
    assert!((QUIET * 3..QUIET * 4).contains(&busy_twice), "{busy_twice:?}");
    let busy = waits(VecDeque::new(), 1).await;
    assert!((DRAIN..DRAIN + QUIET).contains(&busy), "{busy:?}");
    assert_eq!(waits([None].into(), 0).await, Duration::ZERO, "there is no interface");
}
