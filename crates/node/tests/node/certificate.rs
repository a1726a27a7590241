//! A node's certificate: asked for, kept, renewed, and given to the stock command line.

use std::time::Duration;

use node::{CertificateStanding, Config, Node, NodeCertificate};

use crate::daemon::{config, joined, stock};
use coordination::Server;

const NAME: &str = "laptop.example.ts.net";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits until a certificate stands as the check wants.
async fn until<T>(certificate: &NodeCertificate, check: impl Fn(&CertificateStanding) -> Option<T>) -> T {
    let mut watch = certificate.watch();
    let wait = async {
        loop {
            if let Some(found) = check(&watch.borrow_and_update()) {
                return found;
            }
            watch.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), wait).await;
    found.unwrap_or_else(|_| panic!("waited in vain: {certificate:?}"))
}

/// The first certificate of the chain, once there is one.
async fn valid(certificate: &NodeCertificate) -> Vec<u8> {
    until(certificate, |standing| match standing {
        CertificateStanding::Valid { name, key, .. } => {
            assert_eq!(name, NAME);
            Some(key.cert[0].to_vec())
        }
        CertificateStanding::Missing(_) => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_asked_for_once_and_used_again_after_a_restart_without_the_server() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    server.script.lock().unwrap().life = Some((HOUR, 90 * DAY));
    let node = joined(folder.path(), &server).await;
    let first = valid(&node.certificate()).await;
    // A second one who wants it gets what is there.
    assert_eq!(valid(&node.certificate()).await, first);
    assert_eq!(server.script.lock().unwrap().certificates.len(), 1);
    let asked = server.script.lock().unwrap().certificates[0].clone();
    assert_eq!(Some(asked.node_key), node.snapshot().node_key);
    node.stop().await;
    server.stop();
    let node = Node::start(Config { auth_key: None, ..config(folder.path(), &server.url) }).await.unwrap();
    assert_eq!(valid(&node.certificate()).await, first);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_its_end_with_another_key() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let seconds = Duration::from_secs;
    server.script.lock().unwrap().life = Some((seconds(10), seconds(20)));
    let node = joined(folder.path(), &server).await;
    let certificate = node.certificate();
    let first = valid(&certificate).await;
    server.until("it is renewed", |script| (script.certificates.len() == 2).then_some(())).await;
    let other = until(&certificate, |standing| match standing {
        CertificateStanding::Valid { key, .. } => Some(key.cert[0].to_vec()).filter(|now| *now != first),
        CertificateStanding::Missing(_) => None,
    });
    other.await;
    let script = server.script.lock().unwrap();
    assert_ne!(script.certificates[0].csr, script.certificates[1].csr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_and_tried_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    let node = joined(folder.path(), &server).await;
    let certificate = node.certificate();
    let reason = until(&certificate, |standing| match standing {
        CertificateStanding::Missing(reason) => Some(reason.clone()).filter(|reason| reason.contains("not today")),
        CertificateStanding::Valid { .. } => None,
    });
    assert!(reason.await.starts_with("the coordination server does not sign a certificate"));
    server.script.lock().unwrap().life = Some((HOUR, 90 * DAY));
    valid(&certificate).await;
    node.stop().await;
    let stopped = until(&certificate, |standing| match standing {
        CertificateStanding::Missing(reason) => Some(reason.clone()),
        CertificateStanding::Valid { .. } => None,
    });
    assert_eq!(stopped.await, "the node has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_command_line_gets_the_certificate_and_nobody_elses() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    server.script.lock().unwrap().life = Some((HOUR, 90 * DAY));
    let node = joined(folder.path(), &server).await;
    let (chain, key) = (folder.path().join("own.crt"), folder.path().join("own.key"));
    let [chain_flag, key_flag] =
        [("cert", &chain), ("key", &key)].map(|(flag, path)| format!("--{flag}-file={}", path.display()));
    let get = async |more: &[&str]| {
        stock(folder.path(), &[&["cert", chain_flag.as_str(), key_flag.as_str()], more].concat()).await
    };
    let (done, text) = get(&[NAME]).await;
    assert!(done, "{text}");
    let read = |path| std::fs::read_to_string(path).unwrap();
    assert!(read(&chain).starts_with("-----BEGIN CERTIFICATE-----"), "{}", read(&chain));
    assert!(read(&key).starts_with("-----BEGIN PRIVATE KEY-----"));
    let (done, text) = get(&["--min-validity", "240h", NAME]).await;
    assert!(done, "{text}");
    assert_eq!(server.script.lock().unwrap().certificates.len(), 1);
    let (done, text) = get(&["--min-validity", "24000h", NAME]).await;
    assert!(!done && text.contains("signs them for 90 days"), "{text}");
    let (done, text) = get(&["server.example.ts.net"]).await;
    assert!(!done && text.contains("this node's name is laptop.example.ts.net"), "{text}");
    node.stop().await;
}
