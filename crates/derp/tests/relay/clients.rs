//! What a client of the relay sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use derp::client::{ConnectError, Connection, ConnectionError, Event, Options, Proxy, Relay, RelayIdentity, SendError};
use packet::derp::GoneReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

#[tokio::test]
async fn two_clients_exchange_packets_of_every_size() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    assert_eq!(a.server_key(), relay.key);
    for size in [0, 1, 100, 1400, 16 << 10, 64 << 10] {
        let packet = Bytes::from(vec![size as u8; size]);
        send(&mut a, &b.key(), packet.clone()).await;
        assert_eq!(await_packet(&mut b).await, (a.key(), packet.clone()));
        send(&mut b, &a.key(), packet.clone()).await;
        assert_eq!(await_packet(&mut a).await, (b.key(), packet));
    }
    assert_eq!(a.send(&b.key(), Bytes::from(vec![0; (64 << 10) + 1])), Err(SendError::TooLong));
}

#[tokio::test]
async fn packets_arrive_in_order_and_none_is_lost_when_both_sides_keep_up() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    for round in 0..50u8 {
        for number in 0..20u8 {
            a.send(&b.key(), Bytes::from(vec![round, number])).unwrap();
        }
        a.flush().await.unwrap();
        for number in 0..20u8 {
            assert_eq!(&await_packet(&mut b).await.1[..], [round, number]);
        }
    }
    assert_eq!(relay.metric("towline_relay_packets_total").await, 1000.0);
}

#[tokio::test]
async fn a_ping_is_answered() {
    let relay = TestRelay::start();
    let mut client = relay.newcomer().await;
    client.ping(*b"12345678").unwrap();
    let pong = await_event(&mut client, |event| if let Event::Pong(data) = event { Some(data) } else { None }).await;
    assert_eq!(&pong, b"12345678");
}

#[tokio::test]
async fn who_got_packets_from_a_client_hears_when_it_leaves() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    let b_key = b.key();
    send(&mut b, &a.key(), "hello").await;
    await_packet(&mut a).await;
    b.close().await.unwrap();
    let gone = await_event(&mut a, |event| match event {
        Event::PeerGone { peer, reason } => Some((peer, reason)),
        _ => None,
    })
    .await;
    assert_eq!(gone, (b_key, GoneReason::Disconnected));
}

#[tokio::test]
async fn a_home_is_counted_until_it_moves_or_leaves() {
    let relay = TestRelay::start();
    let mut client = relay.newcomer().await;
    client.note_preferred(true).unwrap();
    client.flush().await.unwrap();
    relay.await_metric("towline_relay_home_clients", |homes| homes == 1.0).await;
    client.note_preferred(false).unwrap();
    client.flush().await.unwrap();
    relay.await_metric("towline_relay_home_clients", |homes| homes == 0.0).await;
    drop(client);
    relay.await_metric("towline_relay_clients", |clients| clients == 0.0).await;
}

#[tokio::test]
async fn a_silent_client_is_kept_alive() {
    let relay = TestRelay::start_with(|config| config.limits.keep_alive = Duration::from_millis(50));
    let mut client = relay.newcomer().await;
    for _ in 0..3 {
        await_event(&mut client, |event| (event == Event::KeepAlive).then_some(())).await;
    }
}

#[tokio::test]
async fn a_restart_is_announced_before_it_happens() {
    let relay = TestRelay::start();
    let mut client = relay.newcomer().await;
    relay.shutdown.request();
    let times = await_event(&mut client, |event| match event {
        Event::Restarting { reconnect_in, try_for } => Some((reconnect_in, try_for)),
        _ => None,
    })
    .await;
    assert!(times.0 <= Duration::from_millis(300) && times.1 > Duration::ZERO);
    assert!(matches!(await_end(&mut client).await, ConnectionError::Closed));
    relay.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_relay_that_restarts_has_the_same_key() {
    let relay = TestRelay::start();
    let again = TestRelay::start_with(|config| config.key_file = relay.directory().join("derp.key"));
    assert_eq!(again.key, relay.key);
}

#[tokio::test]
async fn a_pinned_certificate_is_believed_and_another_is_not() {
    let relay = TestRelay::start();
    let stranger = Certificates::new();
    let open = |sha256| {
        let pinned = Relay { identity: RelayIdentity::Sha256(sha256), ..relay.relay() };
        let dialer = stranger.dialer();
        async move { Connection::open(&dialer, &pinned, &new_key(), &Options::default()).await }
    };
    assert!(open(relay.certificates.sha256).await.is_ok());
    assert!(matches!(open([0; 32]).await, Err(ConnectError::Certificate { .. })));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_or_for_another_name_is_refused() {
    let relay = TestRelay::start();
    let stranger = Certificates::new().dialer();
    let error = Connection::open(&stranger, &relay.relay(), &new_key(), &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("signed by nobody who is trusted here"), "{error}");
    let other = Relay::named("other.test", relay.address.port());
    let dialer = relay.certificates.dialer();
    let error = Connection::open(&dialer, &other, &new_key(), &Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("other.test"), "{error}");
}

#[tokio::test]
async fn a_map_may_name_the_certificate_apart_from_the_host() {
    let relay = TestRelay::start();
    let front =
        Relay { identity: RelayIdentity::Name(HOST.to_owned()), ..Relay::named("front.test", relay.address.port()) };
    let dialer = relay.certificates.dialer();
    assert!(Connection::open(&dialer, &front, &new_key(), &Options::default()).await.is_ok());
}

#[tokio::test]
async fn a_socket_is_set_up_before_it_connects() {
    let relay = TestRelay::start();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let expected = relay.address;
    let dialer = relay.certificates.dialer().with_socket_setup(Arc::new(move |socket, address| {
        assert_eq!(address, expected);
        counted.fetch_add(1, Ordering::Relaxed);
        socket.set_tos_v4(0x10)
    }));
    Connection::open(&dialer, &relay.relay(), &new_key(), &Options::default()).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let refusing = dialer.with_socket_setup(Arc::new(|_, _| Err(std::io::ErrorKind::PermissionDenied.into())));
    let error = Connection::open(&refusing, &relay.relay(), &new_key(), &Options::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Connect(_)), "{error}");
}

/// A proxy that answers one CONNECT with `status` and then passes bytes; hands out what was asked.
async fn proxy(status: &'static str, target: std::net::SocketAddr) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(near.read_u8().await.unwrap());
        }
        near.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
        if status.starts_with("200") {
            let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
        String::from_utf8(request).unwrap()
    });
    (port, asked)
}

#[tokio::test]
async fn a_proxy_is_asked_to_connect() {
    let relay = TestRelay::start();
    let (port, asked) = proxy("200 Connection established", relay.address).await;
    let credentials = Some(("user".to_owned(), "pass".to_owned()));
    let dialer = relay.certificates.dialer().with_proxy(Proxy { host: "127.0.0.1".to_owned(), port, credentials });
    let mut client = Connection::open(&dialer, &relay.relay(), &new_key(), &Options::default()).await.unwrap();
    client.ping([1; 8]).unwrap();
    await_event(&mut client, |event| (event == Event::Pong([1; 8])).then_some(())).await;
    let asked = asked.await.unwrap();
    assert!(asked.starts_with(&format!("CONNECT {HOST}:{} HTTP/1.1\r\n", relay.address.port())), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{asked}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let relay = TestRelay::start();
    let (port, _asked) = proxy("407 Proxy Authentication Required", relay.address).await;
    let dialer =
        relay.certificates.dialer().with_proxy(Proxy { host: "127.0.0.1".to_owned(), port, credentials: None });
    let error = Connection::open(&dialer, &relay.relay(), &new_key(), &Options::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the proxy answers CONNECT with status 407");
}

#[tokio::test]
async fn a_host_that_is_no_relay_is_named() {
    let relay = TestRelay::start();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let dialer = relay.certificates.dialer();
    let error =
        Connection::open(&dialer, &Relay::named(HOST, port), &new_key(), &Options::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("the relay can't be reached"), "{error}");
    let plain = Relay::named(HOST, relay.http.port());
    let error = Connection::open(&dialer, &plain, &new_key(), &Options::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(_)), "{error}");
}

#[tokio::test]
async fn an_event_that_nobody_waited_for_is_not_lost() {
    let relay = TestRelay::start();
    let (mut a, mut b) = (relay.newcomer().await, relay.newcomer().await);
    send(&mut a, &b.key(), vec![1; 60_000]).await;
    // Each attempt is given up at once, most of them with a part of the frame read.
    let received = tokio::time::timeout(PATIENCE, async {
        loop {
            tokio::select! {
                biased;
                event = b.next() => return event.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    });
    let Event::Packet { packet, .. } = received.await.unwrap() else { panic!("a packet was sent") };
    assert_eq!(packet.len(), 60_000);
}
