use std::sync::Weak;
use std::time::Instant;

use engine::{PacketQueue, SuperPacket};

use super::{Shared, packed, take};

/// How many packets are fetched from the stack, or taken from the mesh, before the other side has its turn.
const TURN: usize = 64;

/// Moves packets between the stack and the data plane, until one of them is gone.
pub(super) fn start(shared: Weak<Shared>, queue: PacketQueue) {
    tokio::spawn(drive(shared, queue));
}

async fn drive(shared: Weak<Shared>, mut queue: PacketQueue) {
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let work = alive.work.notified();
        let (packets, wait) = fetch(&alive);
        let full = packets.len() >= TURN;
        for packet in packets {
            // While the data plane is busy the stack makes no more: its senders slow down.
            if queue.send(packet).await.is_err() {
                return;
            }
        }
        if full {
            receive(&alive, &mut queue, None);
            tokio::task::yield_now().await;
            continue;
        }
        let wait = async {
            match wait {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            packet = queue.receive() => match packet {
                Some(packet) => receive(&alive, &mut queue, Some(packet)),
                None => return,
            },
            () = work => {}
            () = wait => alive.lock().stack.handle_timeout(Instant::now()),
        }
    }
}

/// What the stack has to send, and when it wants to be called next.
fn fetch(shared: &Shared) -> (Vec<SuperPacket>, Option<Instant>) {
    let mut state = shared.lock();
    let now = Instant::now();
    state.tell();
    let mut packets = Vec::new();
    while packets.len() < TURN
        && let Some(transmit) = state.stack.poll_transmit(now)
    {
        packets.extend(packed(transmit));
    }
    state.tell();
    (packets, state.stack.poll_timeout())
}

/// Hands packets of the mesh to the stack, as many as there are, up to a turn.
fn receive(shared: &Shared, queue: &mut PacketQueue, first: Option<SuperPacket>) {
    let mut state = shared.lock();
    let now = Instant::now();
    let mut next = first.or_else(|| queue.try_receive());
    for _ in 0..TURN {
        let Some(packet) = next else { break };
        take(&mut state.stack, packet, now);
        next = queue.try_receive();
    }
    if let Some(packet) = next {
        take(&mut state.stack, packet, now);
    }
    state.tell();
}
