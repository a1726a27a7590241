//! The UDP sockets of both families, and the system calls that move many datagrams at once.
//!
//! The only unsafe code of the crate: `sendmsg` with a segment size, and `recvmmsg` with the size that the kernel joined
//! by. No safe interface has these.

mod receive;
mod send;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Config;
use crate::counters::Live;

pub(crate) use receive::{DATAGRAMS, ReceiveBuffer, Received};
pub(crate) use send::Patience;

/// What the kernel is asked to keep in each direction: a train for each of a hundred peers.
const KERNEL_BUFFER: usize = 7 << 20;

/// One family's socket.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Socket,
    port: u16,
    /// Whether trains leave in one call; given up for good where the network card can't.
    gso: AtomicBool,
}

/// The sockets of both families.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) v4: Option<UdpSocket>,
    pub(crate) v6: Option<UdpSocket>,
    counters: Arc<Live>,
}

impl Sockets {
    /// Opens both at one port: at `port`, or else at one that the system chooses.
    pub(crate) fn open(port: u16, config: &Config, counters: &Arc<Live>) -> io::Result<Self> {
        let v4 = UdpSocket::open((Ipv4Addr::UNSPECIFIED, port).into(), config, counters);
        let chosen = v4.as_ref().map_or(port, |socket| socket.port);
        let at = |port: u16| UdpSocket::open((Ipv6Addr::UNSPECIFIED, port).into(), config, counters);
        // Another program may have just that port in the other family.
        let v6 = at(chosen).or_else(|error| if port == 0 { at(0) } else { Err(error) });
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(Self { v4: v4.ok(), v6: v6.ok(), counters: counters.clone() }),
        }
    }

    /// None, until others are opened at the same port.
    pub(crate) fn closed(counters: &Arc<Live>) -> Self {
        Self { v4: None, v6: None, counters: counters.clone() }
    }

    pub(crate) fn v4_port(&self) -> Option<u16> {
        self.v4.as_ref().map(|socket| socket.port)
    }

    pub(crate) fn v6_port(&self) -> Option<u16> {
        self.v6.as_ref().map(|socket| socket.port)
    }

    fn of(&self, address: &SocketAddr) -> Option<&UdpSocket> {
        if address.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}

impl UdpSocket {
    fn open(address: SocketAddr, config: &Config, counters: &Live) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if let Some(setup) = &config.socket_setup {
            setup(&socket, address)?;
        }
        send::enlarge_buffers(&socket);
        let gro = config.offloads.udp_gro && receive::enable_gro(&socket);
        let gso = config.offloads.udp_gso && send::has_gso(&socket);
        counters.udp_gro.store(gro, Relaxed);
        counters.udp_gso.store(gso, Relaxed);
        socket.bind(&SockAddr::from(address))?;
        let port = socket.local_addr()?.as_socket().map_or(0, |bound| bound.port());
        Ok(Self { socket, port, gso: AtomicBool::new(gso) })
    }
}
