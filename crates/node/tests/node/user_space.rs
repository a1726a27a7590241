//! Two nodes in user space, each with a coordination server of its own that knows the other, on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coordination::{Server, introduce};
use node::{AuthKey, Config, DeviceConfig, MemoryStore, Node, UserSpace, Wishes};
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

    fn introduced(&self) -> coordination::Side<'_> {
        coordination::Side { server: &self.server, port: self.port }
    }

    fn user_space(&self) -> UserSpace {
        self.node.user_space().unwrap().clone()
    }
}

async fn pair(rule: &str) -> (Side, Side) {
    let (one, other) = tokio::join!(Side::start(0), Side::start(1));
    introduce(one.introduced(), other.introduced(), rule).await;
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
