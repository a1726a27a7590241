mod batch;

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::{Entropy, NodePublic, SystemEntropy};
use filter::{Flow, FlowTable, Pass, Payload, Protocol, Standing, Verdict};
use packet::demux::{Carried, Datagram};
use packet::wireguard::TransportHeader;
use path::{RegionId, Via};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wireguard::{OpenError, RecvKey, Source};

use super::coalesce::{Coalescer, Group, MOST_JOINED};
use super::{VnetHeader, summarize};
use crate::control::{Note, Shared, Stranger};
use crate::counters::{count, count_many};
use crate::flows::{Recorder, Volume};
use crate::slots::PeerSlot;
use crate::sockets::{DATAGRAMS, ReceiveBuffer, Received, Sockets, UdpSocket};
use crate::{Device, VNET_HEADER};
use batch::{Batch, own_address};

/// Flows whose answers are let in.
const ANSWERED_FLOWS: usize = 8192;
/// How often the control thread hears that a peer was heard by one way.
const HEARD_INTERVAL: Duration = Duration::from_millis(500);
/// How often it hears that at most when a peer keeps changing its way.
const CHANGE_INTERVAL: Duration = Duration::from_millis(20);
/// Without traffic for this long, buffers go back to the system.
const IDLE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// What the control thread has for the thread that receives.
#[derive(Debug)]
pub(crate) enum RxOrder {
    /// Messages of a new session open with this key.
    Receive { key: Box<RecvKey>, slot: Arc<PeerSlot> },
    /// A session is over.
    End(u32),
}

/// A message that came by relay.
#[derive(Debug)]
pub(crate) struct FromRelay {
    pub(crate) region: RegionId,
    /// Who sent it, on the relay's word.
    pub(crate) node: NodePublic,
    pub(crate) message: Bytes,
}

/// The thread that takes messages from sockets and relays, and writes packets to the device.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    device: Arc<dyn Device>,
    sessions: HashMap<u32, Session>,
    answers: FlowTable,
    batch: Batch,
    recorder: Recorder,
    orders: VecDeque<RxOrder>,
    frames: VecDeque<FromRelay>,
    flows: VecDeque<Flow>,
}

struct Session {
    key: Box<RecvKey>,
    slot: Arc<PeerSlot>,
    told: Option<(Via, Instant)>,
}

/// Where a run of messages came from.
#[derive(Clone, Copy)]
enum Origin {
    Udp(SocketAddr),
    Relay(RegionId, NodePublic),
}

impl Origin {
    fn via(self) -> Via {
        match self {
            Self::Udp(address) => Via::Direct(address),
            Self::Relay(region, _) => Via::Relay(region),
        }
    }
}

impl Receiver {
    pub(crate) fn new(shared: Arc<Shared>, device: Arc<dyn Device>) -> Self {
        let offloads = shared.offloads;
        let joins_tcp = offloads.device_tcp && device.takes_tcp();
        let joins_udp = offloads.device_udp && device.takes_udp();
        let seed = u64::from_le_bytes(SystemEntropy.bytes32()[..8].try_into().unwrap_or_default());
        Self {
            batch: Batch { coalescer: Coalescer::new(joins_tcp, joins_udp), owners: Vec::new() },
            recorder: Recorder::new(shared.received_flows.clone()),
            sessions: HashMap::new(),
            answers: FlowTable::new(ANSWERED_FLOWS, seed),
            orders: VecDeque::new(),
            frames: VecDeque::new(),
            flows: VecDeque::new(),
            shared,
            device,
        }
    }

    /// Runs until the engine stops.
    pub(crate) fn run(mut self) {
        let mut buffer = ReceiveBuffer::new();
        let mut touched = false;
        while !self.shared.is_stopping() {
            let sockets = self.shared.sockets.load_full();
            let shared = self.shared.clone();
            let mut fds = vec![PollFd::new(&shared.wakeup, PollFlags::IN)];
            let both: Vec<&UdpSocket> = sockets.v4.iter().chain(&sockets.v6).collect();
            fds.extend(both.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)));
            // Once per call to poll these two small lists are made; a socket that is opened anew wakes this thread.
            if self.wait_and_receive(&mut fds, &both, &sockets, &mut buffer) {
                touched = true;
            } else if touched {
                buffer = ReceiveBuffer::new();
                touched = false;
            }
        }
    }

    /// Receives until the sockets are replaced or the engine stops; false when nothing came for a while.
    fn wait_and_receive(
        &mut self,
        fds: &mut [PollFd<'_>],
        both: &[&UdpSocket],
        sockets: &Arc<Sockets>,
        buffer: &mut ReceiveBuffer,
    ) -> bool {
        let mut received = false;
        while !self.shared.is_stopping() && Arc::ptr_eq(sockets, &self.shared.sockets.load()) {
            fds.iter_mut().for_each(PollFd::clear_revents);
            match poll(fds, Some(&IDLE)) {
                Ok(0) => return received,
                Ok(_) | Err(_) => received = true,
            }
            if !fds[0].revents().is_empty() {
                self.shared.wakeup.clear();
                self.take_orders();
                self.take_frames(buffer);
            }
            for (fd, socket) in fds[1..].iter().zip(both) {
                if !fd.revents().is_empty() {
                    self.drain(socket, buffer);
                }
            }
            self.recorder.flush();
        }
        true
    }

    fn drain(&mut self, socket: &UdpSocket, buffer: &mut ReceiveBuffer) {
        // A flood on one socket leaves the other its turn.
        for _ in 0..64 {
            let Ok(filled) = socket.receive(buffer) else { return };
            let now = Instant::now();
            self.take_orders();
            for number in 0..filled {
                if let Some(received) = buffer.received(number) {
                    let Received { range, segment, from } = received;
                    self.open_run(buffer.bytes_mut(), range, segment, Origin::Udp(from), now);
                }
            }
            self.deliver(buffer.bytes());
            if filled < DATAGRAMS {
                return;
            }
        }
    }

    fn take_frames(&mut self, buffer: &mut ReceiveBuffer) {
        let mut frames = std::mem::take(&mut self.frames);
        self.shared.frames.take(&mut frames);
        let now = Instant::now();
        let mut at = 0;
        for FromRelay { region, node, message } in frames.drain(..) {
            let range = match buffer.fill(at, &message) {
                Some(range) => range,
                None => {
                    self.deliver(buffer.bytes());
                    let Some(range) = buffer.fill(0, &message) else { continue };
                    range
                }
            };
            at = range.end;
            let length = range.len();
            self.open_run(buffer.bytes_mut(), range, length, Origin::Relay(region, node), now);
        }
        self.deliver(buffer.bytes());
        self.frames = frames;
    }

    fn take_orders(&mut self) {
        self.shared.rx_orders.take(&mut self.orders);
        while let Some(order) = self.orders.pop_front() {
            match order {
                RxOrder::Receive { key, slot } => {
                    self.sessions.insert(key.session(), Session { key, slot, told: None });
                }
                RxOrder::End(session) => {
                    self.sessions.remove(&session);
                }
            }
        }
    }

    /// Opens messages of one sender that follow each other, and keeps what they hold for delivery.
    fn open_run(&mut self, buffer: &mut [u8], range: Range<usize>, segment: usize, origin: Origin, now: Instant) {
        let counters = self.shared.counters.clone();
        let mut at = range.start;
        let message = |at: usize| at..(at + segment).min(range.end);
        while at < range.end {
            let Ok(header) = TransportHeader::parse(&buffer[message(at)]) else {
                self.pass_on(&buffer[message(at)], origin);
                at += segment;
                continue;
            };
            let session = self.sessions.get_mut(&header.receiver).filter(|session| match origin {
                Origin::Udp(_) => true,
                Origin::Relay(_, node) => session.slot.node == node,
            });
            let Some(session) = session else {
                count(&counters.unknown_session);
                at += segment;
                continue;
            };
            let own = own_address(&self.shared.table.load(), &session.slot.node);
            let owner = self.batch.owner(&session.slot);
            let Ok(mut opening) = session.key.begin(now) else {
                count(&counters.unknown_session);
                at += segment;
                continue;
            };
            let (mut opened_count, mut bytes, mut confirms) = (0, 0, false);
            while at < range.end {
                let place = message(at);
                match opening.open(&mut buffer[place.clone()]) {
                    Ok(opened) => {
                        (opened_count, bytes) = (opened_count + 1, bytes + place.len());
                        confirms |= opened.confirms;
                        let inner = place.start + opened.packet.start..place.start + opened.packet.end;
                        if !opened.is_keepalive() && !self.batch.push(owner, buffer, inner, &own) {
                            count(&counters.unreadable);
                        }
                    }
                    Err(OpenError::Replayed) => count(&counters.replayed),
                    Err(OpenError::OtherSession(_) | OpenError::Malformed(_)) => break,
                    Err(OpenError::Cipher(_) | OpenError::Counter) => count(&counters.forged),
                }
                at += segment;
            }
            drop(opening);
            if opened_count > 0 {
                session.slot.received_bytes.fetch_add(bytes as u64, Relaxed);
                session.slot.last_heard.store(self.shared.clock.tick(now), Relaxed);
                session.tell(&self.shared, origin.via(), now);
                let volume = Volume { packets: opened_count, bytes: bytes as u64 };
                self.recorder.physical(&session.slot.node, origin.via(), volume);
            }
            if confirms {
                self.shared.note(Note::Confirmed(header.receiver));
            }
        }
    }

    /// Hands what is no transport message to the control thread, unless it would only drop it.
    fn pass_on(&self, message: &[u8], origin: Origin) {
        let Origin::Udp(from) = origin else { return };
        let wanted = match Datagram::classify(message) {
            Datagram::Stun(_) => true,
            Datagram::Direct(Carried::WireGuard(_)) => true,
            Datagram::Direct(Carried::Disco(envelope)) => self.shared.table.load().knows_disco(&envelope.sender),
            Datagram::Relayed { .. } | Datagram::Unknown => false,
        };
        if wanted {
            self.shared.stranger(Stranger { source: Source::Direct(from), message: message.into() });
        }
    }

    /// Judges all groups and writes what is let in.
    fn deliver(&mut self, buffer: &[u8]) {
        if self.batch.coalescer.groups().is_empty() {
            self.batch.owners.clear();
            return;
        }
        let table = self.shared.table.load_full();
        for group in self.batch.coalescer.groups() {
            let slot = &self.batch.owners[group.owner];
            let first = &buffer[group.first.clone()];
            let Some(flow) = summarize(first) else {
                count_many(&self.shared.counters.unreadable, group.count);
                continue;
            };
            let Some(peer) = table.peer(&slot.node).filter(|peer| table.owns(&peer.slot.node, flow.source.ip())) else {
                count_many(&self.shared.counters.spoofed, group.count);
                continue;
            };
            if matches!(flow.protocol, Protocol::UDP | Protocol::SCTP) {
                self.shared.new_flows.take(&mut self.flows);
                self.flows.drain(..).for_each(|outbound| self.answers.record(&outbound));
            }
            let standing = Standing {
                shields_up: table.view.shields_up,
                jailed: peer.view.jailed,
                has_capability: &|name| peer.view.capabilities.contains(name),
            };
            let verdict = table.view.filter.judge(&flow, &mut self.answers, &standing);
            let volume = Volume { packets: group.count as u64, bytes: group.bytes as u64 };
            match verdict {
                Verdict::Accept(Pass::NodeMessage) => {
                    self.tell(slot, || Note::Tsmp { node: slot.node, packet: first.into() });
                }
                Verdict::Accept(_) if self.answers_a_ping(&flow, first) => {
                    self.tell(slot, || Note::Echo { node: slot.node, packet: first.into() });
                }
                Verdict::Accept(_) => {
                    self.recorder.mesh(&slot.node, &flow, volume, None);
                    if !write(&*self.device, &self.batch.coalescer, group, buffer) {
                        count_many(&self.shared.counters.device_refused, group.count);
                    }
                }
                Verdict::Drop(reason) => {
                    count_many(&self.shared.counters.filtered, group.count);
                    self.recorder.mesh(&slot.node, &flow, volume, Some(reason));
                    if flow.payload == Payload::TcpSyn {
                        self.tell(slot, || Note::Refused { node: slot.node, flow, reason });
                    }
                }
            }
        }
        self.batch.coalescer.clear();
        self.batch.owners.clear();
    }

    /// Tells the control thread what a peer caused, as far as it does not cause too much.
    fn tell(&self, slot: &PeerSlot, note: impl FnOnce() -> Note) {
        if slot.admits_word(self.shared.clock.tick(Instant::now())) {
            self.shared.note(note());
        } else {
            count(&self.shared.counters.control_full);
        }
    }

    /// Whether this is the answer to an ICMP ping of this engine's.
    fn answers_a_ping(&self, flow: &Flow, packet: &[u8]) -> bool {
        let identifier = self.shared.echo_identifier.load(Relaxed);
        if flow.payload != Payload::EchoReply || identifier == 0 {
            return false;
        }
        let at = if flow.source.is_ipv4() { usize::from(packet[0] & 15) * 4 } else { 40 };
        packet.get(at + 4..at + 6).is_some_and(|bytes| bytes == (identifier as u16).to_be_bytes())
    }
}

impl Session {
    /// Tells the control thread by which way a peer is heard, when that is news.
    fn tell(&mut self, shared: &Shared, via: Via, now: Instant) {
        let is_old = |(told, at): (Via, Instant)| {
            now.duration_since(at) >= if told == via { HEARD_INTERVAL } else { CHANGE_INTERVAL }
        };
        if self.told.is_none_or(is_old) {
            self.told = Some((via, now));
            shared.note(Note::Heard { node: self.slot.node, via });
        }
    }
}

/// Writes a group to the device: its headers, and its data from where it lies.
fn write(device: &dyn Device, coalescer: &Coalescer, group: &Group, buffer: &[u8]) -> bool {
    let Some(joined) = coalescer.joined(group, buffer) else {
        let header = VnetHeader::WHOLE.encode();
        return device.write(&[IoSlice::new(&header), IoSlice::new(&buffer[group.first.clone()])]).is_ok();
    };
    let mut head = [0; VNET_HEADER + 128];
    let headers = joined.headers();
    let end = VNET_HEADER + headers.len();
    head[..VNET_HEADER].copy_from_slice(&joined.vnet.encode());
    head[VNET_HEADER..end].copy_from_slice(headers);
    let mut slices = [IoSlice::new(&[]); MOST_JOINED + 1];
    slices[0] = IoSlice::new(&head[..end]);
    let mut used = 1;
    for (slice, range) in slices[1..].iter_mut().zip(coalescer.data(group)) {
        *slice = IoSlice::new(&buffer[range]);
        used += 1;
    }
    device.write(&slices[..used]).is_ok()
}
