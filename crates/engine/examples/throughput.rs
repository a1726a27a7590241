//! What moving packets between two engines costs: CPU seconds per gigabyte, by thread.
//!
//! Both engines run in this process, over UDP on loopback, with devices in memory: no TUN, no kernel TCP. What is left
//! is cutting, sealing, the UDP sockets, opening, judging and joining.
//!
//! ```text
//! cargo run --release -p engine --example throughput [-- <gigabytes> [<bytes of data in a packet>]]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::{NodePrivate, SystemEntropy};
use dial::{Resolve, Roots};
use engine::{Config, Engine, Events, PacketQueue, QueueDevice, SuperPacket};
use filter::{AddressRange, Filter, Local, Rule};
use futures_util::future::BoxFuture;
use mesh::{PeerView, Routes, View};
use packet::ip::{Ipv4Repr, Protocol};
use packet::udp::UdpRepr;
use tailcfg::{DerpMap, NodeId};

/// Bytes that may be on their way: what a TCP window would be.
const WINDOW: usize = 1 << 20;
const MTU: u16 = 1280;

#[derive(Debug)]
struct Nobody;

impl Resolve for Nobody {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

struct Node {
    engine: Engine,
    events: Events,
    queue: PacketQueue,
    address: Ipv4Addr,
    endpoints: Vec<SocketAddr>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let gigabytes: f64 = arguments.next().map_or(Ok(4.0), |text| text.parse())?;
    let small: Option<usize> = arguments.next().map(|text| text.parse()).transpose()?;
    let (one, mut other) = (Node::start(1).await?, Node::start(2).await?);
    one.show(&other)?;
    other.show(&one)?;

    let packet = match small {
        None => tcp_super_packet(one.address, other.address).ok_or("the packet is TCP")?,
        Some(size) => SuperPacket::whole(udp(one.address, other.address, size)),
    };
    let length = data(&packet);
    // The first packets are lost while the nodes look for each other.
    while tokio::time::timeout(Duration::from_millis(100), other.queue.receive()).await.is_err() {
        one.queue.send(packet.clone()).await.map_err(|_| "the engine has stopped")?;
    }
    while tokio::time::timeout(Duration::from_millis(300), other.queue.receive()).await.is_ok() {}

    let before = cpu_times()?;
    let started = Instant::now();
    let total = (gigabytes * 1e9) as usize;
    let (mut sent, mut received, mut arrivals) = (0, 0, 0u64);
    let mut lost = 0;
    while received + lost < total {
        while sent - received - lost < WINDOW && sent < total + WINDOW {
            one.queue.send(packet.clone()).await.map_err(|_| "the engine has stopped")?;
            sent += length;
        }
        match tokio::time::timeout(Duration::from_millis(200), other.queue.receive()).await {
            Ok(Some(arrived)) => {
                received += data(&arrived);
                arrivals += 1;
                while let Some(arrived) = other.queue.try_receive() {
                    received += data(&arrived);
                    arrivals += 1;
                }
            }
            Ok(None) => return Err("the engine has stopped".into()),
            Err(_) => lost = sent - received,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let moved = received as f64 / 1e9;
    println!(
        "{moved:.2} GB in {seconds:.2} s: {:.2} Gb/s, {arrivals} packets to the device, {lost} bytes lost",
        moved * 8.0 / seconds
    );
    for (thread, spent) in cpu_times()? {
        let spent = spent - before.get(&thread).copied().unwrap_or_default();
        if spent > 0.0 {
            let packets = received as f64 / length.min(usize::from(MTU) - 40) as f64;
            println!("  {thread:<14} {:.2} s/GB  {:.2} us a packet", spent / moved, spent * 1e6 / packets);
        }
    }
    println!("{:#?}", other.engine.status().await?.counters);
    Ok(())
}

impl Node {
    async fn start(host: u8) -> Result<Self, Box<dyn std::error::Error>> {
        let key = NodePrivate::generate(&mut SystemEntropy);
        let (device, queue) = QueueDevice::new(true);
        let (engine, events) = Engine::start(Config::new(key, Roots::none(), Arc::new(Nobody)), device)?;
        engine.set_interfaces(vec![Ipv4Addr::LOCALHOST.into()]);
        let port = engine.status().await?.v4_port.ok_or("there is no IPv4")?;
        let endpoints = vec![(Ipv4Addr::LOCALHOST, port).into()];
        Ok(Self { engine, events, queue, address: Ipv4Addr::new(100, 64, 0, host), endpoints })
    }

    fn show(&self, peer: &Self) -> Result<(), Box<dyn std::error::Error>> {
        let _events = &self.events;
        let prefix = ipnet::IpNet::from(IpAddr::from(peer.address));
        let rules: Vec<Rule> = serde_json::from_value(serde_json::json!([
            {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}
        ]))?;
        let local = Local::new([AddressRange::from(IpAddr::from(self.address))]);
        let view = PeerView {
            id: NodeId(1),
            name: "peer".to_owned(),
            disco: peer.engine.disco_key(),
            home: None,
            endpoints: peer.endpoints.clone(),
            addresses: vec![peer.address.into()],
            allowed: vec![prefix],
            capabilities: Arc::new(BTreeSet::new()),
            jailed: false,
            wireguard_only: false,
            masquerade_v4: None,
            masquerade_v6: None,
        };
        let key = peer.engine.node_key();
        self.engine.set_view(View {
            addresses: vec![self.address.into()],
            peers: BTreeMap::from([(key, view)]),
            routes: Routes::new([(prefix, key)]),
            filter: Arc::new(Filter::compile(&rules, local)?),
            shields_up: false,
            relays: Arc::new(DerpMap::default()),
            mtu: MTU,
        });
        Ok(())
    }
}

fn tcp_super_packet(source: Ipv4Addr, destination: Ipv4Addr) -> Option<SuperPacket> {
    let segment = MTU - 40;
    let data = usize::from(segment) * 48;
    let mut tcp = vec![0; 20 + data];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
    (tcp[12], tcp[13]) = (0x50, 0x10);
    let mut bytes = Ipv4Repr::new(source, destination, Protocol::TCP).header(tcp.len()).to_vec();
    bytes.extend_from_slice(&tcp);
    SuperPacket::tcp_segments(bytes, segment)
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, size: usize) -> Vec<u8> {
    UdpRepr { source_port: 5000, destination_port: 5001 }.packet(source.into(), destination.into(), &vec![0; size])
}

/// Bytes of data in a packet: what does not depend on how segments were joined.
fn data(packet: &SuperPacket) -> usize {
    let headers = if packet.bytes().get(9) == Some(&Protocol::TCP.0) { 40 } else { 28 };
    packet.bytes().len().saturating_sub(headers)
}

/// CPU seconds of each kind of thread, by name.
fn cpu_times() -> io::Result<BTreeMap<String, f64>> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let text = std::fs::read_to_string(task.join("schedstat"))?;
        let name = std::fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let nanoseconds: f64 = text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        *times.entry(name).or_insert(0.0) += nanoseconds / 1e9;
    }
    Ok(times)
}
