//! What moving packets between two engines costs: CPU seconds per gigabyte, by thread.
//!
//! Both engines run in this process, over UDP on loopback, with devices in memory: no TUN, no kernel TCP. What is left
//! is cutting, sealing, the UDP sockets, opening, judging and joining.
//!
//! ```text
//! cargo run --release -p engine --example throughput [-- <gigabytes> [<bytes of data in a packet>]]
//! ```

#[path = "pair/node.rs"]
mod node;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use engine::{QueueDevice, SuperPacket};
use packet::ip::{Ipv4Repr, Protocol};
use packet::udp::UdpRepr;

use node::{Failure, MTU, Node, cpu_times};

/// Bytes that may be on their way: what a TCP window would be.
const WINDOW: usize = 1 << 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let gigabytes: f64 = arguments.next().map_or(Ok(4.0), |text| text.parse())?;
    let small: Option<usize> = arguments.next().map(|text| text.parse()).transpose()?;
    let ((device, sending), (other_device, mut receiving)) = (QueueDevice::new(true), QueueDevice::new(true));
    let one = Node::start(Ipv4Addr::new(100, 64, 0, 1), device).await?;
    let other = Node::start(Ipv4Addr::new(100, 64, 0, 2), other_device).await?;
    one.show(&other)?;
    other.show(&one)?;

    let packet = match small {
        None => tcp_super_packet(one.address, other.address).ok_or("the packet is TCP")?,
        Some(size) => SuperPacket::whole(udp(one.address, other.address, size)),
    };
    let length = data(&packet);
    // The first packets are lost while the nodes look for each other.
    while tokio::time::timeout(Duration::from_millis(100), receiving.receive()).await.is_err() {
        sending.send(packet.clone()).await.map_err(|_| "the engine has stopped")?;
    }
    while tokio::time::timeout(Duration::from_millis(300), receiving.receive()).await.is_ok() {}

    let before = cpu_times()?;
    let started = Instant::now();
    let total = (gigabytes * 1e9) as usize;
    let (mut sent, mut received, mut arrivals) = (0, 0, 0u64);
    let mut lost = 0;
    while received + lost < total {
        while sent - received - lost < WINDOW && sent < total + WINDOW {
            sending.send(packet.clone()).await.map_err(|_| "the engine has stopped")?;
            sent += length;
        }
        match tokio::time::timeout(Duration::from_millis(200), receiving.receive()).await {
            Ok(Some(arrived)) => {
                received += data(&arrived);
                arrivals += 1;
                while let Some(arrived) = receiving.try_receive() {
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
