//! Nanoseconds per packet to seal and to open, beside the bare cipher: `cargo bench -p wireguard`.
//!
//! Every figure is the median of rounds in which the contenders take turns, so that a busy machine hurts all alike.
//! Sealing copies the packet into its slot, as a splitter of segments does; opening is in place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::tunnel::Tai64n;
use crypto::{NodePrivate, SystemEntropy};
use packet::wireguard::{TRANSPORT_HEADER, TRANSPORT_OVERHEAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wireguard::{Event, Interface, Moment, RecvKey, SendKey, Source};

/// Segments of one GSO train at most.
const TRAIN: usize = 64;
const TRAINS: usize = 60;
const ROUNDS: usize = 41;
const SLOT: usize = 1536;

fn main() {
    println!("{:28}{:>10}{:>10}{:>12}{:>12}", "ns per packet, median", "seal", "open", "seal/bare", "open/bare");
    for size in [64, 1280, 1420] {
        compare(size);
    }
    handshakes();
}

fn compare(size: usize) {
    let packet = vec![0x5a; size];
    let (send, mut receive) = session();
    let bare = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("32 bytes are a key"));
    let mut slots = vec![[0; SLOT]; TRAIN];
    let mut lengths = [0; TRAIN];
    let mut counter = 0;
    let mut times = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        let mut round = [Duration::ZERO; 6];
        for _ in 0..TRAINS {
            let (seal, open) = bare_train(&bare, &mut counter, &packet, &mut slots);
            round[0] += seal;
            round[1] += open;

            let start = Instant::now();
            let mut train = send.begin(TRAIN as u32, start).expect("the session is fresh");
            for (slot, length) in slots.iter_mut().zip(&mut lengths) {
                *length = train.seal_from(slot, &packet, size).expect("slots have room");
            }
            drop(train);
            round[2] += start.elapsed();
            let start = Instant::now();
            let mut batch = receive.begin(start).expect("the session is fresh");
            for (slot, length) in slots.iter_mut().zip(&lengths) {
                batch.open(&mut slot[..*length]).expect("what was sealed opens");
            }
            drop(batch);
            round[3] += start.elapsed();

            let start = Instant::now();
            for (slot, length) in slots.iter_mut().zip(&mut lengths) {
                let mut train = send.begin(1, start).expect("the session is fresh");
                *length = train.seal_from(slot, &packet, size).expect("slots have room");
            }
            round[4] += start.elapsed();
            let start = Instant::now();
            for (slot, length) in slots.iter_mut().zip(&lengths) {
                let mut batch = receive.begin(start).expect("the session is fresh");
                batch.open(&mut slot[..*length]).expect("what was sealed opens");
            }
            round[5] += start.elapsed();
        }
        times.iter_mut().zip(round).for_each(|(all, time)| all.push(time));
    }
    let per_packet = times.map(|mut all| {
        all.sort();
        all[ROUNDS / 2].as_nanos() as f64 / (TRAIN * TRAINS) as f64
    });
    let [bare_seal, bare_open, ..] = per_packet;
    for (name, [seal, open]) in
        ["bare ring", "trains of 64", "one by one"].into_iter().zip(per_packet.as_chunks::<2>().0)
    {
        println!("{size:>5} B  {name:20}{seal:>10.0}{open:>10.0}{:>12.3}{:>12.3}", seal / bare_seal, open / bare_open);
    }
}

/// The cipher alone: copy, seal, tag; and open.
fn bare_train(key: &LessSafeKey, counter: &mut u64, packet: &[u8], slots: &mut [[u8; SLOT]]) -> (Duration, Duration) {
    let nonce = |counter: u64| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    };
    let first = *counter;
    let text = TRANSPORT_HEADER..TRANSPORT_HEADER + packet.len();
    let end = packet.len() + TRANSPORT_OVERHEAD;
    let start = Instant::now();
    for slot in slots.iter_mut() {
        slot[text.clone()].copy_from_slice(packet);
        let tag = key
            .seal_in_place_separate_tag(nonce(*counter), Aad::empty(), &mut slot[text.clone()])
            .expect("a packet is short");
        slot[text.end..end].copy_from_slice(tag.as_ref());
        *counter += 1;
    }
    let sealed = start.elapsed();
    let start = Instant::now();
    for (slot, counter) in slots.iter_mut().zip(first..) {
        key.open_in_place(nonce(counter), Aad::empty(), &mut slot[TRANSPORT_HEADER..end])
            .expect("what was sealed opens");
    }
    (sealed, start.elapsed())
}

fn here() -> Source {
    Source::Direct(([127, 0, 0, 1], 1).into())
}

fn moment() -> Moment {
    Moment { instant: Instant::now(), wall: Tai64n::from(std::time::SystemTime::now()) }
}

fn interface() -> Interface {
    Interface::new(NodePrivate::generate(&mut SystemEntropy), Instant::now(), &mut SystemEntropy)
}

/// The keys of a session from one interface to another.
fn session() -> (Arc<SendKey>, Box<RecvKey>) {
    let (mut alice, mut bob) = (interface(), interface());
    shake(&mut alice, &mut bob);
    let send = std::iter::from_fn(|| alice.poll_event()).find_map(|event| match event {
        Event::Send { key, .. } => Some(key),
        _ => None,
    });
    let receive = std::iter::from_fn(|| bob.poll_event()).find_map(|event| match event {
        Event::Receive { key, .. } => Some(key),
        _ => None,
    });
    send.zip(receive).expect("the handshake is complete")
}

/// A handshake, up to the initiator's keys.
fn shake(alice: &mut Interface, bob: &mut Interface) {
    alice.handle_wanted(*bob.public(), moment(), &mut SystemEntropy);
    let initiation = alice.poll_transmit().expect("an initiation goes out").message;
    let pending = bob.handle_datagram(here(), &initiation, Instant::now(), &mut SystemEntropy);
    let pending = pending.expect("it is genuine").expect("it is an initiation");
    bob.accept(pending, Instant::now(), &mut SystemEntropy).expect("it is new");
    let response = bob.poll_transmit().expect("a response goes out").message;
    alice.handle_datagram(here(), &response, Instant::now(), &mut SystemEntropy).expect("it is genuine");
}

fn handshakes() {
    const COUNT: u32 = 400;
    let mut pairs: Vec<_> = (0..COUNT).map(|_| (interface(), interface())).collect();
    let start = Instant::now();
    pairs.iter_mut().for_each(|(alice, bob)| shake(alice, bob));
    println!("a handshake, both sides together: {} µs", (start.elapsed() / COUNT).as_micros());
}
