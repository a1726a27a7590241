//! Relays of one region that forward to each other.

use bytes::Bytes;
use derp::client::{Connection, Event, Options};
use derp::server::{Config, MeshConfig, MeshKey};

use crate::support::*;

fn mesh_key() -> MeshKey {
    MeshKey::from_text(&"ab".repeat(32)).unwrap()
}

fn meshed(relays: Vec<derp::client::Relay>) -> impl FnOnce(&mut Config) {
    move |config| config.mesh = Some(MeshConfig { key: mesh_key(), relays })
}

/// A client that knows the mesh's secret.
async fn insider(relay: &TestRelay) -> Connection {
    let options = Options { mesh_key: Some(mesh_key()), ..Options::default() };
    Connection::open(&relay.certificates.dialer(), &relay.relay(), &new_key(), &options).await.unwrap()
}

#[tokio::test]
async fn a_watcher_hears_who_is_there_who_comes_and_who_goes() {
    let relay = TestRelay::start_with(meshed(Vec::new()));
    let early = relay.newcomer().await;
    let mut watcher = insider(&relay).await;
    watcher.watch().unwrap();
    let present = |event| if let Event::PeerPresent { peer, .. } = event { Some(peer) } else { None };
    assert_eq!(await_event(&mut watcher, present).await, early.key());
    let late = relay.newcomer().await;
    assert_eq!(await_event(&mut watcher, present).await, late.key());
    let early_key = early.key();
    drop(early);
    let gone = |event| if let Event::PeerGone { peer, .. } = event { Some(peer) } else { None };
    assert_eq!(await_event(&mut watcher, gone).await, early_key);
}

#[tokio::test]
async fn an_insider_may_forward_and_close() {
    let relay = TestRelay::start_with(meshed(Vec::new()));
    let mut client = relay.newcomer().await;
    let mut insider = insider(&relay).await;
    let elsewhere = new_key().public();
    insider.forward(&elsewhere, &client.key(), Bytes::from_static(b"from elsewhere")).unwrap();
    insider.flush().await.unwrap();
    assert_eq!(await_packet(&mut client).await, (elsewhere, Bytes::from_static(b"from elsewhere")));
    insider.close_peer(client.key()).unwrap();
    insider.flush().await.unwrap();
    await_end(&mut client).await;
}

#[tokio::test]
async fn clients_of_two_meshed_relays_reach_each_other() {
    let first = TestRelay::start_with(meshed(Vec::new()));
    // The second believes the first's authority, and is its own mesh partner too, which it notices.
    let roots = first.certificates.roots();
    let relays = vec![first.relay()];
    let second = TestRelay::start_with(move |config| {
        meshed(relays)(config);
        config.roots = roots;
    });
    let (mut a, mut b) = (first.newcomer().await, second.newcomer().await);
    // One way is enough to see the mesh work: the second relay sends to clients of the first.
    let arrived = tokio::time::timeout(PATIENCE, async {
        loop {
            send(&mut b, &a.key(), "across").await;
            let waited = tokio::time::timeout(std::time::Duration::from_millis(200), a.next()).await;
            if let Ok(event) = waited {
                return event.unwrap();
            }
        }
    });
    assert_eq!(arrived.await.unwrap(), Event::Packet { source: b.key(), packet: Bytes::from_static(b"across") });
}
