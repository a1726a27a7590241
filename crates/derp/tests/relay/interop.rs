//! Stock peers: our client with a stock relay, stock clients with our relay.
//!
//! Both come as binaries from the cache that `cargo xtask fetch` fills.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use derp::client::{Connection, Event, Options, Relay, RelayIdentity};
use packet::derp::GoneReason;
use packet::stun;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

use crate::support::*;

/// A stock binary; its absence is a failure, not a reason to pass.
fn stock(name: &str) -> PathBuf {
    let cache = std::env::var_os("TOWLINE_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/towline"));
    let path = cache.join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask fetch`", path.display());
    path
}

/// Where `derpprobe` is: it may also be named by hand.
fn derpprobe() -> PathBuf {
    std::env::var_os("TOWLINE_DERPPROBE").map_or_else(|| stock("derpprobe"), PathBuf::from)
}

struct StockRelay {
    certificates: Certificates,
    port: u16,
    stun_port: u16,
    _process: Child,
}

impl StockRelay {
    async fn start(more: &[&str]) -> Self {
        let certificates = Certificates::new();
        let [port, stun_port] = std::array::from_fn(|_| loopback::free_port().unwrap());
        let directory = certificates.directory.path();
        let process = Command::new(stock("derper"))
            .args(["-a", &format!("127.0.0.1:{port}"), "-certmode", "manual", "-hostname", HOST, "-http-port", "-1"])
            .args(["-stun-port", &stun_port.to_string()])
            .arg("-certdir")
            .arg(directory)
            .arg("-c")
            .arg(directory.join("derper.json"))
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let waiting = async {
            while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                // tidy: sleep, the stock relay tells nobody that it listens
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("derper listens");
        Self { certificates, port, stun_port, _process: process }
    }

    fn relay(&self) -> Relay {
        Relay::named(HOST, self.port)
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.certificates.dialer(), &self.relay(), &new_key(), &Options::default()).await.unwrap()
    }
}

#[tokio::test]
async fn interop_our_clients_meet_at_a_stock_relay() {
    let relay = StockRelay::start(&[]).await;
    let (mut a, mut b) = (relay.connect().await, relay.connect().await);
    a.note_preferred(true).unwrap();
    for size in [1, 1400, 64 << 10] {
        let packet = Bytes::from(vec![0x5a; size]);
        send(&mut a, &b.key(), packet.clone()).await;
        assert_eq!(await_packet(&mut b).await, (a.key(), packet.clone()));
        send(&mut b, &a.key(), packet.clone()).await;
        assert_eq!(await_packet(&mut a).await, (b.key(), packet));
    }
    a.ping([5; 8]).unwrap();
    await_event(&mut a, |event| (event == Event::Pong([5; 8])).then_some(())).await;
    let gone = |event| match event {
        Event::PeerGone { peer, reason } => Some((peer, reason)),
        _ => None,
    };
    let nobody = new_key().public();
    send(&mut a, &nobody, disco_packet()).await;
    assert_eq!(await_event(&mut a, gone).await, (nobody, GoneReason::NotHere));
    let b_key = b.key();
    b.close().await.unwrap();
    assert_eq!(await_event(&mut a, gone).await, (b_key, GoneReason::Disconnected));
}

#[tokio::test]
async fn interop_a_stock_relay_is_pinned_by_its_certificate() {
    let relay = StockRelay::start(&[]).await;
    let pinned = Relay { identity: RelayIdentity::Sha256(relay.certificates.sha256), ..relay.relay() };
    let stranger = Certificates::new().dialer();
    assert!(Connection::open(&stranger, &pinned, &new_key(), &Options::default()).await.is_ok());
}

#[tokio::test]
async fn interop_a_stock_relay_answers_our_stun() {
    let relay = StockRelay::start(&[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let transaction = stun::TransactionId([3; 12]);
    socket.send_to(&stun::request(transaction), (Ipv4Addr::LOCALHOST, relay.stun_port)).await.unwrap();
    let mut answer = [0; 200];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(stun::parse_response(&answer[..length]), Ok((transaction, socket.local_addr().unwrap())));
}

#[tokio::test]
async fn interop_a_stock_relay_of_a_mesh_watches_and_forwards_with_ours() {
    let key = "ab".repeat(32);
    let mesh_key = derp::server::MeshKey::from_text(&key).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.key");
    std::fs::write(&file, &key).unwrap();
    let stock = StockRelay::start(&["-mesh-psk-file", file.to_str().unwrap()]).await;
    let (relays, roots) = (vec![stock.relay()], stock.certificates.roots());
    let ours = TestRelay::start_with(move |config| {
        config.mesh = Some(derp::server::MeshConfig { key: mesh_key, relays });
        config.roots = roots;
    });
    let (mut a, mut b) = (stock.connect().await, ours.newcomer().await);
    let arrived = tokio::time::timeout(PATIENCE, async {
        loop {
            send(&mut b, &a.key(), "across").await;
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(200), a.next()).await {
                return event.unwrap();
            }
        }
    });
    assert_eq!(arrived.await.unwrap(), Event::Packet { source: b.key(), packet: Bytes::from_static(b"across") });
}

async fn probe(address: SocketAddr, certificates: &Certificates, more: &[&str]) -> String {
    let output = Command::new(derpprobe())
        .args(["-url", &format!("https://{HOST}:{}/derp", address.port()), "-address", &address.to_string()])
        .arg("-ca")
        .arg(&certificates.authority)
        .args(more)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("derpprobe ends").unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_stock_clients_meet_at_our_relay() {
    let relay = TestRelay::start();
    let text = probe(relay.address, &relay.certificates, &["-duplicates"]).await;
    assert!(text.ends_with("duplicates told\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_the_same_probe_passes_with_a_stock_relay() {
    let relay = StockRelay::start(&[]).await;
    let text = probe((Ipv4Addr::LOCALHOST, relay.port).into(), &relay.certificates, &[]).await;
    assert!(text.ends_with("disconnected\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_a_stock_client_that_is_not_admitted_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "secret").unwrap();
    let relay = TestRelay::start_with(|config| {
        config.admission = derp::server::AdmissionConfig::Follow {
            url: derp::server::ServerUrl::parse_for_secret("http://127.0.0.1:9/").unwrap(),
            token_file,
            state_file: directory.path().join("admission.json"),
        };
    });
    let text = probe(relay.address, &relay.certificates, &["-refused"]).await;
    assert!(text.starts_with("refused:"), "{text}");
}
