//! What hostile peers try on a whole relay: each is refused, bounded or cut off, and nobody else notices.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::{NodePrivate, NodePublic, SharedBox, SystemEntropy};
use derp::client::{Connection, ConnectionError, Event, Options};
use derp::server::MeshKey;
use packet::derp::{Frame, FrameDecoder, FrameKind, GoneReason, Limits, RawFrame};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::*;

/// A client that does what the real one would not.
pub(crate) struct RawClient {
    pub(crate) stream: TlsStream<TcpStream>,
    decoder: FrameDecoder,
    input: Bytes,
}

impl RawClient {
    /// TLS with a relay, and nothing more.
    pub(crate) async fn tls(relay: &TestRelay) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&relay.certificates.authority).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(relay.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        connector.connect(ServerName::try_from(HOST).unwrap(), tcp).await.unwrap()
    }

    pub(crate) fn over(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, decoder: FrameDecoder::new(Limits::RELAY), input: Bytes::new() }
    }

    /// A client that has started fast and heard the relay's key.
    async fn start(relay: &TestRelay) -> Self {
        let mut stream = Self::tls(relay).await;
        let request = format!(
            "GET /derp HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut client = Self::over(stream);
        client.expect_server_key(relay.key).await;
        client
    }

    /// A client that was taken.
    async fn join(relay: &TestRelay, key: &NodePrivate) -> Self {
        let mut client = Self::start(relay).await;
        client.introduce(relay, key).await;
        client.expect(FrameKind::SERVER_INFO).await;
        client
    }

    pub(crate) async fn expect_server_key(&mut self, key: NodePublic) {
        let frame = self.next().await.expect("the relay tells its key");
        assert_eq!(Frame::parse(frame.kind, &frame.body), Ok(Frame::ServerKey(key)));
    }

    pub(crate) async fn expect(&mut self, kind: FrameKind) {
        assert_eq!(self.next().await.map(|frame| frame.kind), Some(kind));
    }

    /// The frame of a client's info with this JSON in it.
    pub(crate) fn client_info(relay: &TestRelay, key: &NodePrivate, json: &str) -> Vec<u8> {
        let sealed = SharedBox::node(key, &relay.key).unwrap().seal(json.as_bytes(), &mut SystemEntropy);
        Frame::ClientInfo { key: key.public(), sealed: &sealed }.to_vec()
    }

    pub(crate) async fn introduce(&mut self, relay: &TestRelay, key: &NodePrivate) {
        self.send(&Self::client_info(relay, key, r#"{"version":2,"CanAckPings":true}"#)).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame; `None` when the relay closed the connection.
    async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.input).unwrap() {
                return Some(frame);
            }
            let mut buffer = vec![0; 16 << 10];
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("something comes") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input = Bytes::copy_from_slice(&buffer[..count]),
            }
        }
    }

    async fn expect_closed(&mut self) {
        assert_eq!(self.next().await.map(|frame| frame.kind), None);
    }
}

async fn refused(relay: &TestRelay, reason: &str) -> f64 {
    relay.metric(&format!("towline_relay_refused_connections_total{{reason=\"{reason}\"}}")).await
}

/// A relay still does what it is for.
async fn assert_well(relay: &TestRelay) {
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    send(&mut a, &b.key(), "still well").await;
    assert_eq!(&await_packet(&mut b).await.1[..], b"still well");
}

#[tokio::test]
async fn drp_02_a_forged_oversize_or_unusable_info_is_closed_and_nothing_relayed() {
    let relay = TestRelay::start();
    let mut victim = relay.newcomer().await;
    let key = new_key();
    let forged = {
        let sealed = SharedBox::node(&new_key(), &relay.key).unwrap().seal(b"{}", &mut SystemEntropy);
        Frame::ClientInfo { key: key.public(), sealed: &sealed }.to_vec()
    };
    let zero = Frame::ClientInfo { key: NodePublic::ZERO, sealed: &[7; 64] }.to_vec();
    let oversize = RawClient::client_info(&relay, &key, &format!("{{\"x\":\"{}\"}}", "y".repeat(5000)));
    let named = RawClient::client_info(&relay, &key, r#"{"AppName":"a\nb"}"#);
    let no_json = RawClient::client_info(&relay, &key, "[[[[");
    let other_frame = Frame::Ping([0; 8]).to_vec();
    for info in [forged, zero, oversize, named, no_json, other_frame] {
        let mut attacker = RawClient::start(&relay).await;
        // The packet goes out in the same write: it must not slip through behind the info.
        let packet = Frame::SendPacket { destination: victim.key(), packet: b"slipped through" }.to_vec();
        attacker.send(&[info, packet].concat()).await;
        attacker.expect_closed().await;
    }
    assert_eq!(refused(&relay, "Handshake").await, 6.0);
    assert_eq!(relay.metric("towline_relay_packets_total").await, 0.0);
    let mut friend = relay.newcomer().await;
    send(&mut friend, &victim.key(), "first").await;
    assert_eq!(await_packet(&mut victim).await, (friend.key(), Bytes::from_static(b"first")));
}

#[tokio::test]
async fn drp_02_a_client_that_proves_nothing_is_closed_in_time() {
    let relay = TestRelay::start_with(|config| config.limits.unproven_time = Duration::from_millis(300));
    let started = Instant::now();
    let mut silent = RawClient::start(&relay).await;
    silent.expect_closed().await;
    let mut http = RawClient::tls(&relay).await;
    assert!(tokio::time::timeout(PATIENCE, http.read_u8()).await.unwrap().is_err());
    let mut half_open = TcpStream::connect(relay.address).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, half_open.read_u8()).await.unwrap().is_err());
    assert!(started.elapsed() < Duration::from_secs(10));
    relay.await_metric("towline_relay_connections", |open| open == 0.0).await;
}

#[tokio::test]
async fn drp_03_a_frame_that_is_too_long_or_cut_ends_the_connection() {
    let relay = TestRelay::start();
    let header = |kind: u8, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
    let too_long =
        [header(0x04, 32 + (64 << 10) + 1), header(0x04, u32::MAX), header(0x7f, u32::MAX), header(0x02, 100)];
    let cut = [header(0x04, 31), header(0x07, 0), header(0x12, 7)].map(|header| [header, vec![0; 31]].concat());
    for bad in too_long.into_iter().chain(cut) {
        let mut attacker = RawClient::join(&relay, &new_key()).await;
        attacker.send(&bad).await;
        attacker.expect_closed().await;
    }
    assert_well(&relay).await;
}

#[tokio::test]
async fn drp_03_an_unknown_frame_is_skipped() {
    let relay = TestRelay::start();
    let mut client = RawClient::join(&relay, &new_key()).await;
    let unknown = [&[0x7f][..], &(64u32 << 10).to_be_bytes(), &vec![1; 64 << 10]].concat();
    client.send(&[unknown, Frame::Ping([3; 8]).to_vec()].concat()).await;
    let pong = client.next().await.unwrap();
    assert_eq!(Frame::parse(pong.kind, &pong.body), Ok(Frame::Pong([3; 8])));
}

#[tokio::test]
async fn drp_03_a_frame_that_only_relays_send_ends_the_connection() {
    let relay = TestRelay::start();
    let frames = [
        Frame::ServerKey(relay.key).to_vec(),
        Frame::RecvPacket { source: relay.key, packet: b"x" }.to_vec(),
        Frame::Health("").to_vec(),
    ];
    for frame in frames {
        let mut attacker = RawClient::join(&relay, &new_key()).await;
        attacker.send(&frame).await;
        attacker.expect_closed().await;
    }
}

#[tokio::test]
async fn drp_04_sending_to_nobody_is_answered_three_times_and_then_once_a_second() {
    let relay = TestRelay::start();
    let mut client = relay.newcomer().await;
    let nobody = new_key().public();
    let started = Instant::now();
    for _ in 0..1000 {
        while client.send(&nobody, disco_packet().into()) == Err(derp::client::SendError::Full) {
            client.flush().await.unwrap();
        }
    }
    client.ping([7; 8]).unwrap();
    let mut gone = 0;
    loop {
        let event = tokio::time::timeout(PATIENCE, client.next()).await.unwrap().unwrap();
        match event {
            Event::PeerGone { peer, reason } => {
                assert_eq!((peer, reason), (nobody, GoneReason::NotHere));
                gone += 1;
            }
            Event::Pong(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let most = 3 + started.elapsed().as_secs() as usize;
    assert!((3..=most).contains(&gone), "{gone} answers in {:?}", started.elapsed());
    assert_eq!(relay.metric("towline_relay_dropped_packets_total{reason=\"UnknownPeer\"}").await, 1000.0);
}

#[tokio::test]
async fn drp_04_data_to_nobody_is_not_answered() {
    let relay = TestRelay::start();
    let mut client = relay.newcomer().await;
    send(&mut client, &new_key().public(), "data").await;
    client.ping([7; 8]).unwrap();
    assert_eq!(client.next().await.unwrap(), Event::Pong([7; 8]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drp_05_beside_a_flood_others_lose_next_to_nothing() {
    let relay = TestRelay::start();
    let mut target = relay.newcomer().await;
    let target_key = target.key();
    let mut flooder = relay.newcomer().await;
    let flood = tokio::spawn(async move {
        loop {
            if flooder.send(&target_key, Bytes::from_static(&[0; 1400])).is_err() {
                flooder.flush().await.unwrap();
            }
        }
    });
    let sink = tokio::spawn(async move { while target.next().await.is_ok() {} });
    let mut pairs = Vec::new();
    for _ in 0..50 {
        let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
        pairs.push(tokio::spawn(async move {
            let mut lost = 0;
            for number in 0..40u8 {
                send(&mut a, &b.key(), vec![number; 200]).await;
                let arrived = tokio::time::timeout(Duration::from_secs(5), await_packet(&mut b)).await;
                lost += usize::from(arrived.is_err());
            }
            lost
        }));
    }
    let mut lost = 0;
    for pair in pairs {
        lost += pair.await.unwrap();
    }
    flood.abort();
    sink.abort();
    assert!(lost <= 50 * 40 / 100, "{lost} of 2000 packets were lost");
}

#[tokio::test]
async fn drp_05_a_client_sends_no_faster_than_its_limit() {
    let relay = TestRelay::start_with(|config| {
        config.limits.client_rate = NonZeroU64::new(200_000);
        config.limits.client_burst = 100_000;
    });
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    let b_key = b.key();
    let started = Instant::now();
    let sending = tokio::spawn(async move {
        for _ in 0..300 {
            send(&mut a, &b_key, vec![0; 1000]).await;
        }
        a
    });
    for _ in 0..300 {
        await_packet(&mut b).await;
    }
    // 311 kB, of which 100 pass at once, up to 32 are paid for after they passed, and the rest takes 200 kB a second;
    // nothing is lost.
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn drp_06_a_client_that_does_not_read_is_closed_and_its_sender_does_not_wait() {
    let relay = TestRelay::start_with(|config| config.limits.write_timeout = Duration::from_millis(300));
    let lazy_key = new_key();
    let mut lazy = RawClient::join(&relay, &lazy_key).await;
    let mut sender = relay.newcomer().await;
    let mut other = relay.newcomer().await;
    // The lazy client has sent something, so that its peer hears of its end.
    lazy.send(&Frame::SendPacket { destination: sender.key(), packet: b"hello" }.to_vec()).await;
    await_packet(&mut sender).await;
    let packet = Bytes::from(vec![0; 60_000]);
    let stalled = tokio::time::timeout(PATIENCE, async {
        loop {
            sender.send(&lazy_key.public(), packet.clone()).unwrap();
            sender.send(&other.key(), Bytes::from_static(b"on time")).unwrap();
            sender.flush().await.unwrap();
            assert_eq!(&await_packet(&mut other).await.1[..], b"on time");
            let event = tokio::time::timeout(Duration::from_millis(1), sender.next()).await;
            if let Ok(event) = event {
                break event.unwrap();
            }
        }
    });
    let expected = Event::PeerGone { peer: lazy_key.public(), reason: GoneReason::Disconnected };
    assert_eq!(stalled.await.unwrap(), expected);
    assert_eq!(relay.metric("towline_relay_stalled_clients_total").await, 1.0);
}

#[tokio::test]
async fn drp_07_the_same_key_from_two_places_has_one_winner_and_a_health_frame() {
    let relay = TestRelay::start();
    let key = new_key();
    let (mut old, mut new) = (relay.connect(&key).await, relay.connect(&key).await);
    let mut peer = relay.newcomer().await;
    for number in 0..20u8 {
        for connection in [&mut old, &mut new] {
            send(connection, &peer.key(), vec![number]).await;
            await_packet(&mut peer).await;
        }
        send(&mut peer, &key.public(), vec![number]).await;
        assert_eq!(&await_packet(&mut new).await.1[..], [number]);
    }
    let health = |event| match event {
        Event::Health(problem) => Some(problem),
        Event::Packet { .. } => panic!("the old connection gets no packets"),
        _ => None,
    };
    assert!(await_event(&mut old, health).await.unwrap().contains("more than once"));
    drop(new);
    assert_eq!(await_event(&mut old, health).await, None);
    send(&mut peer, &key.public(), "now here").await;
    assert_eq!(&await_packet(&mut old).await.1[..], b"now here");
}

#[tokio::test]
async fn drp_08_mesh_verbs_without_the_mesh_key_end_the_connection() {
    let meshed = |config: &mut derp::server::Config| {
        let key = MeshKey::from_text(&"ab".repeat(32)).unwrap();
        config.mesh = Some(derp::server::MeshConfig { key, relays: Vec::new() });
    };
    for relay in [TestRelay::start(), TestRelay::start_with(meshed)] {
        let verbs = [
            Frame::WatchConns.to_vec(),
            Frame::ClosePeer(relay.key).to_vec(),
            Frame::ForwardPacket { source: relay.key, destination: relay.key, packet: b"x" }.to_vec(),
        ];
        for verb in verbs {
            let mut attacker = RawClient::join(&relay, &new_key()).await;
            attacker.send(&verb).await;
            attacker.expect_closed().await;
        }
        let mut wrong = RawClient::start(&relay).await;
        wrong
            .send(&RawClient::client_info(&relay, &new_key(), &format!("{{\"meshKey\":\"{}\"}}", "cd".repeat(32))))
            .await;
        wrong.expect_closed().await;
        assert_well(&relay).await;
    }
}

#[tokio::test]
async fn drp_10_idle_connections_of_one_source_are_limited_and_free_again() {
    let relay = TestRelay::start_with(|config| {
        config.limits.connections_per_source = 8;
        config.limits.unproven_time = Duration::from_secs(5);
    });
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(relay.address).await.unwrap());
    }
    relay.await_metric("towline_relay_connections", |open| open == 8.0).await;
    for _ in 0..100 {
        let mut turned_away = TcpStream::connect(relay.address).await.unwrap();
        assert!(tokio::time::timeout(PATIENCE, turned_away.read_u8()).await.unwrap().is_err());
    }
    assert_eq!(refused(&relay, "SourceLimit").await, 100.0);
    drop(idle);
    relay.await_metric("towline_relay_connections", |open| open == 0.0).await;
    assert_well(&relay).await;
}

#[tokio::test]
async fn drp_10_a_source_opens_no_more_connections_a_second_than_its_share() {
    let relay = TestRelay::start_with(|config| config.limits.accepts_per_source = 5);
    let mut turned_away = 0.0;
    // Two seconds may begin while forty connections are opened.
    for _ in 0..40 {
        drop(TcpStream::connect(relay.address).await.unwrap());
        turned_away = refused(&relay, "SourceLimit").await;
    }
    assert!(turned_away >= 25.0, "{turned_away}");
}

#[tokio::test]
async fn drp_10_junk_instead_of_tls_http_or_a_websocket_ends_the_connection() {
    let relay = TestRelay::start();
    let mut tcp = TcpStream::connect(relay.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap();
    for junk in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        &[b'A'; 20_000],
        b"GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: a\r\n\r\n",
    ] {
        let mut stream = RawClient::tls(&relay).await;
        stream.write_all(junk).await.unwrap();
        let mut answer = Vec::new();
        let mut byte = [0; 1024];
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte)).await {
            answer.extend_from_slice(&byte[..count]);
        }
        let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        assert!(status.is_empty() || status.contains(" 400") || status.contains(" 431"), "{status}");
    }
    assert_well(&relay).await;
}

#[tokio::test]
async fn drp_11_a_restart_under_load_loses_no_packet_that_the_relay_has_taken() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    let b_key = b.key();
    let sending = tokio::spawn(async move {
        let mut sent = 0u32;
        let mut told = false;
        // The client moves as soon as it is told: what it sent before arrives.
        while !told {
            send(&mut a, &b_key, sent.to_be_bytes().to_vec()).await;
            sent += 1;
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(1), a.next()).await {
                told = matches!(event.unwrap(), Event::Restarting { .. });
            }
        }
        (sent, a)
    });
    for expected in 0..50u32 {
        assert_eq!(await_packet(&mut b).await.1[..], expected.to_be_bytes());
    }
    relay.shutdown.request();
    let mut arrived = 50u32;
    let mut told = false;
    let end = loop {
        match tokio::time::timeout(PATIENCE, b.next()).await.unwrap() {
            Ok(Event::Packet { packet, .. }) => {
                assert_eq!(packet[..], arrived.to_be_bytes());
                arrived += 1;
            }
            Ok(Event::Restarting { .. }) => told = true,
            Ok(other) => panic!("{other:?}"),
            Err(end) => break end,
        }
    };
    let (sent, _a) = sending.await.unwrap();
    assert!(told && matches!(end, ConnectionError::Closed));
    assert_eq!(arrived, sent);
    relay.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_is_turned_away_is_told_what_to_look_at() {
    let relay = TestRelay::start();
    let options = Options { app_name: "x".repeat(33), ..Options::default() };
    let dialer = relay.certificates.dialer();
    let error = Connection::open(&dialer, &relay.relay(), &new_key(), &options).await.unwrap_err();
    assert!(error.to_string().contains("does it admit this node?"), "{error}");
}
