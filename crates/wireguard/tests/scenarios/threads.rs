//! The keys in the hands of real threads, while the machine goes on with its timers.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use packet::wireguard::TransportHeader;

use crate::link::Pair;
use crate::node::MTU;

const PACKETS: u64 = 20_000;
const TRAIN: u32 = 50;

#[test]
fn two_threads_seal_and_one_opens_while_the_machine_runs_its_timers() {
    let mut pair = Pair::established();
    let (_, bob) = pair.keys();
    let send = pair.alice.send[&bob].clone();
    let (_, mut receive) = pair.bob.receive.pop_first().unwrap();
    let now = pair.clock.now();
    let (wire, arrivals) = mpsc::sync_channel::<Vec<u8>>(256);
    let delivered = std::thread::scope(|scope| {
        for half in 0..2 {
            let (send, wire) = (send.clone(), wire.clone());
            scope.spawn(move || {
                for first in (half * PACKETS / 2..(half + 1) * PACKETS / 2).step_by(TRAIN as usize) {
                    let mut train = send.begin(TRAIN, now).unwrap();
                    for number in first..first + u64::from(TRAIN) {
                        let mut slot = vec![0; 64];
                        let length = train.seal_from(&mut slot, &number.to_be_bytes(), MTU).unwrap();
                        slot.truncate(length);
                        wire.send(slot).unwrap();
                    }
                }
            });
        }
        drop(wire);
        let opener = scope.spawn(move || {
            let mut delivered = BTreeSet::new();
            while let Ok(mut datagram) = arrivals.recv() {
                let opened = receive.begin(now).unwrap().open(&mut datagram).unwrap();
                delivered.insert(u64::from_be_bytes(datagram[opened.packet][..8].try_into().unwrap()));
            }
            delivered
        });
        while !opener.is_finished() {
            pair.alice.timeout(&pair.clock);
            assert!(pair.alice.interface.status(&bob).is_some());
        }
        opener.join().unwrap()
    });
    assert_eq!(delivered, (0..PACKETS).collect());
    // What the threads did is what the timers see: Bob has data to answer.
    let due = pair.bob.interface.poll_timeout().unwrap();
    pair.clock.elapsed += pair.clock.until(due).max(Duration::from_secs(10));
    pair.bob.timeout(&pair.clock);
    let answers = pair.bob.take_out();
    assert!(answers.iter().any(|datagram| TransportHeader::parse(datagram).is_ok()));
}

#[test]
fn threads_whose_clocks_disagree_and_a_clock_that_steps_back_panic_nowhere() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    pair.run(125.0);
    for back in [1e-9, 60.0, 125.0].map(Duration::from_secs_f64) {
        let later = pair.clock.elapsed;
        pair.clock.elapsed = later - back;
        pair.alice_sends(b"from the past");
        pair.bob_sends(b"from the past");
        pair.alice.timeout(&pair.clock);
        pair.bob.timeout(&pair.clock);
        pair.bob.remove(&alice, &pair.clock);
        pair.alice.interface.handle_wanted(bob, pair.clock.moment(), &mut pair.alice.entropy);
        pair.exchange();
        pair.clock.elapsed = later;
        for _ in 0..20 {
            pair.alice_sends(b"and the present");
            pair.run(1.0);
        }
    }
    let before = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    pair.alice.interface.handle_confirmed(0, before);
    pair.alice_sends(b"still here");
    assert!(pair.bob.delivered.last().unwrap().starts_with(b"still here"));
}
