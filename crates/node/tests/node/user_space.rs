//! Two nodes in user space, each with a coordination server of its own that knows the other, on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Server, peer};
use node::{AuthKey, Config, DeviceConfig, MemoryStore, Node, UserSpace, Wishes};
use tailcfg::{FilterRule, MapResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Debug)]
struct NoNames;

impl node::Resolve for NoNames {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
    ) -> futures_util::future::BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// A node with its server, and the UDP port that it was given.
struct Side {
    node: Node,
    server: Server,
    port: u16,
}

impl Side {
    async fn start(number: u64) -> Self {
        let server = Server::start().await;
        server.script.lock().unwrap().number = number;
        let port = loopback::free_port().unwrap();
        let node = Node::start(Config {
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
        Self { node: node.await.unwrap(), server, port }
    }

    /// How the other side is to see this one, once it has told its disco key.
    async fn seen(&self, number: u64) -> tailcfg::Node {
        let told = self.server.until("the disco key is told", |script| {
            script.maps.iter().find(|map| !map.disco_key.is_zero()).map(|map| (map.node_key, map.disco_key))
        });
        let (key, disco_key) = told.await;
        let endpoints = vec![SocketAddr::new(own_address(), self.port)];
        tailcfg::Node { key, disco_key, endpoints, ..peer(number + 1, "peer") }
    }

    fn user_space(&self) -> UserSpace {
        self.node.user_space().unwrap().clone()
    }
}

/// The address by which this machine would go out; a machine on no network is at home on loopback.
fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Connecting a datagram socket asks for a route and sends nothing.
    match socket.connect("203.0.113.1:9") {
        Ok(()) => socket.local_addr().unwrap().ip(),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

async fn pair(rule: &str) -> (Side, Side) {
    let (one, other) = tokio::join!(Side::start(0), Side::start(1));
    let (as_one, as_other) = tokio::join!(one.seen(0), other.seen(1));
    let rules: Vec<FilterRule> = serde_json::from_str(rule).unwrap();
    one.server.send(MapResponse {
        peers_changed: vec![as_other],
        packet_filter: Some(rules),
        ..MapResponse::default()
    });
    other.server.send(MapResponse { peers_changed: vec![as_one], ..MapResponse::default() });
    for side in [&one, &other] {
        let mut watch = side.node.watch();
        let there = watch.wait_for(|now| now.mesh.netmap().is_some_and(|map| !map.peers().is_empty()));
        there.await.unwrap();
    }
    (one, other)
}

const PORT_80: &str = r#"[{"SrcIPs":["100.64.0.2"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":80}}],
    "IPProto":[6,17]}]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_listens_and_another_dials_through_the_mesh() {
    let (one, other) = pair(PORT_80).await;
    let mut listener = one.user_space().listen(80).unwrap();
    assert!(one.user_space().listen(80).is_err());
    let serving = tokio::spawn(async move {
        let client = listener.accept().await.unwrap();
        assert_eq!(client.from().ip().to_string(), "100.64.0.2");
        let mut stream = client.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
        all.len()
    });
    let work = async {
        let mut stream = other.user_space().dial("100.64.0.1:80".parse().unwrap()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let text: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let mut back = Vec::new();
        let sent = async {
            writer.write_all(&text).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(sent, async { reader.read_to_end(&mut back).await.unwrap() });
        assert!(back == text);
    };
    tokio::time::timeout(Duration::from_secs(30), work).await.unwrap();
    assert_eq!(serving.await.unwrap(), 300_000);
    for side in [one, other] {
        side.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_hears_of_it_and_the_filter_keeps_others_out() {
    let (one, other) = pair(PORT_80).await;
    let mut listener = one.user_space().listen(80).unwrap();
    let mut closed = one.user_space().listen(81).unwrap();
    tokio::spawn(async move { listener.accept().await.unwrap().refuse() });
    let dial = |port: u16| {
        let user_space = other.user_space();
        async move { user_space.dial(SocketAddr::from(([100, 64, 0, 1], port))).await }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), dial(80)).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let kept_out = tokio::time::timeout(Duration::from_secs(2), async {
        tokio::select! {
            client = closed.accept() => panic!("the filter let {client:?} in"),
            dialed = dial(81) => dialed,
        }
    });
    assert!(!matches!(kept_out.await, Ok(Ok(_))));
    for side in [one, other] {
        side.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_pass_both_ways() {
    let (one, other) = pair(PORT_80).await;
    let server = one.user_space().bind_udp("100.64.0.1:80".parse().unwrap()).unwrap();
    let client = other.user_space().bind_udp("100.64.0.2:0".parse().unwrap()).unwrap();
    let work = async {
        // Datagrams may get lost, the first ones more than others: they are sent until one is answered.
        let mut again = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = again.tick() => client.send("100.64.0.1:80".parse().unwrap(), b"hello").unwrap(),
                asked = server.receive() => server.send(asked.unwrap().from, b"back").unwrap(),
                answer = client.receive() => return answer.unwrap(),
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), work).await.unwrap();
    assert_eq!(answer.payload, b"back");
    for side in [one, other] {
        side.node.stop().await;
    }
}
