//! A TUN device in a network namespace of its own, and a driver that runs a stack on it.
//!
//! The driver shows how a data plane runs a stack: take everything that came in, let events do their work, fetch everything
//! that goes out, then sleep until a packet or a deadline comes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use netstack::{Checksums, Closed, Config, Connection, Destination, Event, Listen, Read, Stack, Transmit};

pub(crate) const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const STACK: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
pub(crate) const ECHO: u16 = 7;
pub(crate) const DISCARD: u16 = 9;
pub(crate) const CHARGEN: u16 = 19;

/// `struct virtio_net_hdr` without the number of buffers.
const HEADER: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;

/// The few calls that the standard library lacks. A pure crate names no library that does I/O, in its tests neither.
mod system {
    use std::ffi::{c_int, c_short, c_ulong, c_void};

    unsafe extern "C" {
        pub(super) fn unshare(flags: c_int) -> c_int;
        pub(super) fn ioctl(descriptor: c_int, request: c_ulong, argument: *const c_void) -> c_int;
        pub(super) fn poll(descriptors: *mut PollDescriptor, count: c_ulong, milliseconds: c_int) -> c_int;
    }

    pub(super) const CLONE_NEWNET: c_int = 0x4000_0000;
    pub(super) const FIONBIO: c_ulong = 0x5421;
    pub(super) const SIOCSIFFLAGS: c_ulong = 0x8914;
    pub(super) const SIOCSIFADDR: c_ulong = 0x8916;
    pub(super) const SIOCSIFNETMASK: c_ulong = 0x891c;
    pub(super) const SIOCSIFMTU: c_ulong = 0x8922;
    pub(super) const TUNSETIFF: c_ulong = 0x4004_54ca;
    pub(super) const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
    pub(super) const POLLIN: c_short = 1;

    #[repr(C)]
    pub(super) struct PollDescriptor {
        pub(super) descriptor: c_int,
        pub(super) wanted: c_short,
        pub(super) seen: c_short,
    }

    /// `struct ifreq`: a name, and a union of what there is to say of an interface.
    #[repr(C, align(8))]
    pub(super) struct InterfaceRequest {
        pub(super) name: [u8; 16],
        pub(super) value: [u8; 24],
    }
}

/// Leaves the network of the machine for an empty one, and makes a TUN device there.
pub(crate) fn open() -> File {
    const UP_AND_RUNNING: u16 = 0x1 | 0x40;
    const TUN_WITHOUT_INFORMATION_WITH_HEADER: u16 = 0x1 | 0x1000 | 0x4000;
    const CHECKSUM_AND_TSO4: usize = 1 | 2;
    // SAFETY: it takes a number, and changes nothing but this process's own network namespace.
    assert_eq!(unsafe { system::unshare(system::CLONE_NEWNET) }, 0, "no network namespace: run as root");
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    control(&tun, system::TUNSETIFF, &TUN_WITHOUT_INFORMATION_WITH_HEADER.to_ne_bytes());
    // SAFETY: this request takes its flags in place of an address.
    let set = unsafe {
        system::ioctl(tun.as_raw_fd(), system::TUNSETOFFLOAD, std::ptr::without_provenance(CHECKSUM_AND_TSO4))
    };
    assert_eq!(set, 0, "the kernel gives no offloads");

    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    control(&socket, system::SIOCSIFADDR, &socket_address(KERNEL));
    control(&socket, system::SIOCSIFNETMASK, &socket_address(Ipv4Addr::new(255, 255, 255, 0)));
    control(&socket, system::SIOCSIFMTU, &1280u32.to_ne_bytes());
    control(&socket, system::SIOCSIFFLAGS, &UP_AND_RUNNING.to_ne_bytes());
    let on: std::ffi::c_int = 1;
    // SAFETY: this request reads one int.
    let set = unsafe { system::ioctl(tun.as_raw_fd(), system::FIONBIO, std::ptr::from_ref(&on).cast()) };
    assert_eq!(set, 0, "the device can't be read without waiting");
    tun
}

/// `struct sockaddr_in` without a port.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    const INET: u16 = 2;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

/// Says something of the interface `towline0`.
fn control(through: &impl AsRawFd, request: std::ffi::c_ulong, value: &[u8]) {
    let mut argument = system::InterfaceRequest { name: [0; 16], value: [0; 24] };
    argument.name[..8].copy_from_slice(b"towline0");
    argument.value[..value.len()].copy_from_slice(value);
    // SAFETY: each of these requests reads, and may write, one `struct ifreq`, which lives on this stack.
    let done = unsafe { system::ioctl(through.as_raw_fd(), request, std::ptr::from_mut(&mut argument).cast()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// What another thread asks of the stack.
pub(crate) enum Order {
    /// Connect, send this much, and say how it ended.
    Send(SocketAddr, usize, std::sync::mpsc::Sender<Closed>),
}

pub(crate) struct Driver {
    tun: File,
    stack: Stack,
    orders: Receiver<Order>,
    /// What is to be written to a connection; `None` in place of a length is without end.
    work: HashMap<Connection, Work>,
    buffer: Vec<u8>,
    stopped: bool,
}

struct Work {
    port: u16,
    waiting: Vec<u8>,
    /// How much is still to be made up and sent.
    left: usize,
    ended: bool,
    tell: Option<std::sync::mpsc::Sender<Closed>>,
}

impl Driver {
    pub(crate) fn new(tun: File, orders: Receiver<Order>, offload: bool) -> Self {
        let mut config = Config::new(vec![IpAddr::V4(STACK)], 42);
        config.offload = offload;
        let mut stack = Stack::new(config, Instant::now());
        for port in [ECHO, DISCARD, CHARGEN] {
            stack.listen(Listen { to: Destination::Own, port: Some(port) }).unwrap();
        }
        Self { tun, stack, orders, work: HashMap::new(), buffer: vec![0; 1 << 16 | HEADER], stopped: false }
    }

    /// Serves until the sender of orders is gone.
    pub(crate) fn run(mut self) {
        while !self.stopped {
            let now = Instant::now();
            self.take_packets(now);
            self.take_orders();
            self.stack.handle_timeout(now);
            while let Some(event) = self.stack.poll_event() {
                self.handle(event, now);
            }
            while let Some(transmit) = self.stack.poll_transmit(now) {
                self.send(transmit);
            }
            self.wait(now);
        }
    }

    fn take_packets(&mut self, now: Instant) {
        // A bound, so that a fast sender does not keep answers from leaving.
        for _ in 0..64 {
            let Ok(length) = self.tun.read(&mut self.buffer) else { break };
            let (header, packet) = self.buffer[..length].split_at(HEADER);
            // A packet of this host has no checksum yet, and may be many segments: what arrives by cable has been checked.
            let checksums = if header[0] & NEEDS_CHECKSUM != 0 { Checksums::Verified } else { Checksums::ToVerify };
            self.stack.handle_packet(packet, checksums, now);
        }
    }

    fn take_orders(&mut self) {
        match self.orders.try_recv() {
            Ok(Order::Send(to, left, tell)) => {
                let connection = self.stack.dial(to).unwrap();
                let work = Work { port: CHARGEN, waiting: Vec::new(), left, ended: false, tell: Some(tell) };
                self.work.insert(connection, work);
            }
            Err(TryRecvError::Disconnected) => self.stopped = true,
            Err(TryRecvError::Empty) => {}
        }
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Incoming { connection, to, .. } => {
                self.stack.accept(connection, now).unwrap();
                let left = if to.port() == CHARGEN { 64 << 20 } else { 0 };
                let work = Work { port: to.port(), waiting: Vec::new(), left, ended: false, tell: None };
                self.work.insert(connection, work);
            }
            Event::Connected(connection) | Event::Readable(connection) | Event::Writable(connection) => {
                self.serve(connection, now);
            }
            Event::Closed { connection, reason } => {
                self.serve(connection, now);
                self.stack.release(connection, now);
                if let Some(tell) = self.work.remove(&connection).and_then(|work| work.tell) {
                    tell.send(reason).unwrap();
                }
            }
            _ => {}
        }
    }

    /// Moves what can be moved: until the stack has nothing to read, or no room to write.
    fn serve(&mut self, connection: Connection, now: Instant) {
        const MOST_WAITING: usize = 1 << 20;
        let Some(work) = self.work.get_mut(&connection) else { return };
        loop {
            // What can't be sent on is left where it is, which closes the window.
            let mut dry = work.ended;
            while !dry && work.waiting.len() < MOST_WAITING {
                match self.stack.read(connection, &mut self.buffer, now) {
                    Read::Bytes(length) if work.port == ECHO => work.waiting.extend_from_slice(&self.buffer[..length]),
                    Read::Bytes(_) => {}
                    Read::Pending | Read::Broken => dry = true,
                    Read::End => (work.ended, dry) = (true, true),
                }
            }
            if work.left > 0 && work.waiting.is_empty() {
                let length = work.left.min(MOST_WAITING);
                work.waiting.resize(length, b'.');
                work.left -= length;
            }
            let written = self.stack.write(connection, &work.waiting).unwrap_or(0);
            work.waiting.drain(..written);
            if !work.waiting.is_empty() || dry && work.left == 0 {
                break;
            }
        }
        if work.waiting.is_empty() && (work.ended || work.port == CHARGEN) {
            self.stack.shut_down(connection);
        }
    }

    fn send(&mut self, transmit: Transmit) {
        let mut bytes = vec![0; HEADER];
        if let Some(segment) = transmit.segment {
            let headers = 20 + 4 * u16::from(transmit.packet[32] >> 4);
            bytes[0] = NEEDS_CHECKSUM;
            bytes[1] = GSO_TCPV4;
            bytes[2..4].copy_from_slice(&headers.to_ne_bytes());
            bytes[4..6].copy_from_slice(&segment.to_ne_bytes());
            bytes[6..8].copy_from_slice(&20u16.to_ne_bytes());
            bytes[8..10].copy_from_slice(&16u16.to_ne_bytes());
        } else {
            bytes[1] = GSO_NONE;
        }
        bytes.extend_from_slice(&transmit.packet);
        // A full queue loses the packet, as any link does.
        let _ = self.tun.write(&bytes);
    }

    /// Waits for a packet or the stack's deadline; not for long, because orders come by another way.
    fn wait(&self, now: Instant) {
        const LONGEST: Duration = Duration::from_millis(20);
        let until = self.stack.poll_timeout().map_or(LONGEST, |at| at.saturating_duration_since(now).min(LONGEST));
        let milliseconds = until.as_micros().div_ceil(1000) as std::ffi::c_int;
        let descriptor = self.tun.as_raw_fd();
        let mut descriptors = [system::PollDescriptor { descriptor, wanted: system::POLLIN, seen: 0 }];
        // SAFETY: it reads and writes the one structure that it is given.
        let ready = unsafe { system::poll(descriptors.as_mut_ptr(), 1, milliseconds) };
        assert!(ready >= 0, "{}", std::io::Error::last_os_error());
    }
}
