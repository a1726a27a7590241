//! Measures a relay: `load relay` serves one on loopback; `load idle ADDRESS CA COUNT` holds idle clients, and
//! `load flood ADDRESS CA PAIRS SECONDS` has pairs of clients send as fast as the relay takes it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use crypto::{NodePrivate, SystemEntropy};
use derp::client::{Connection, Dialer, Event, Options, Relay, SendError};
use derp::server::{AdmissionConfig, CertificateFiles, Config, Limits, Server};
use dial::{Resolve, Roots};
use futures_util::future::BoxFuture;
use telemetry::Shutdown;

#[derive(Debug)]
struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["relay"] => relay().await,
        ["idle", address, ca, count] => idle(target(address, ca)?, count.parse()?).await,
        ["flood", address, ca, pairs, seconds] => flood(target(address, ca)?, pairs.parse()?, seconds.parse()?).await,
        _ => anyhow::bail!("load relay | load idle ADDRESS CA COUNT | load flood ADDRESS CA PAIRS SECONDS"),
    }
}

type Target = (Dialer, Relay);

fn target(address: &str, ca: &str) -> anyhow::Result<Target> {
    let address: SocketAddr = address.parse().context("the relay's address")?;
    Ok((
        Dialer::new(Arc::new(Loopback), &Roots::from_file(&PathBuf::from(ca))?),
        Relay::named("derp.test", address.port()),
    ))
}

async fn relay() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(vec!["derp.test".to_owned()])?;
    let certificate =
        CertificateFiles { certificate: directory.path().join("tls.crt"), key: directory.path().join("tls.key") };
    std::fs::write(&certificate.certificate, made.cert.pem())?;
    std::fs::write(&certificate.key, made.signing_key.serialize_pem())?;
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let server = Server::bind(Config {
        listen: vec![any],
        http_listen: Vec::new(),
        stun_listen: Vec::new(),
        admin_listen: None,
        certificate: certificate.clone(),
        key_file: directory.path().join("derp.key"),
        admission: AdmissionConfig::Open,
        mesh: None,
        bootstrap_dns: Default::default(),
        limits: Limits {
            connections: 1_000_000,
            connections_per_source: 1_000_000,
            accepts_per_second: 1_000_000,
            accepts_per_source: 1_000_000,
            client_rate: None,
            ..Limits::default()
        },
        resolver: Arc::new(Loopback),
        roots: Roots::public(),
    })?;
    println!("{} {}", server.tls_addresses()[0], certificate.certificate.display());
    server.run(Shutdown::on_signals(Duration::from_secs(5))?).await
}

async fn open((dialer, relay): &Target) -> anyhow::Result<Connection> {
    let key = NodePrivate::generate(&mut SystemEntropy);
    Ok(Connection::open(dialer, relay, &key, &Options::default()).await?)
}

async fn idle(target: Target, count: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(open(&target).await?);
    }
    println!("{count} clients in {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_secs(20)).await;
    Ok(())
}

async fn flood(target: Target, pairs: usize, seconds: u64) -> anyhow::Result<()> {
    static RECEIVED: AtomicU64 = AtomicU64::new(0);
    static SENT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..pairs {
        let (mut a, mut b) = (open(&target).await?, open(&target).await?);
        let peer = b.key();
        tokio::spawn(async move {
            let packet = Bytes::from(vec![0; 1400]);
            loop {
                match a.send(&peer, packet.clone()) {
                    Ok(()) => {
                        SENT.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(SendError::Full) => a.flush().await.expect("the relay takes it"),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        tokio::spawn(async move {
            while let Ok(event) = b.next().await {
                if let Event::Packet { packet, .. } = event {
                    RECEIVED.fetch_add(packet.len() as u64, Ordering::Relaxed);
                }
            }
        });
    }
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (bytes, sent) = (RECEIVED.load(Ordering::Relaxed), SENT.load(Ordering::Relaxed));
    let rate = bytes as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} Mbit/s, {:.1} % lost", 100.0 * (1.0 - bytes as f64 / 1400.0 / sent as f64));
    Ok(())
}
