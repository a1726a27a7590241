use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// How many connections the kernel keeps while the relay is busy.
const BACKLOG: i32 = 1024;

/// Opens a TCP listener. `[::]` listens on IPv4 too.
pub(crate) fn tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = open(address, Type::STREAM)?;
    socket.listen(BACKLOG).with_context(|| format!("can't listen on TCP {address}"))?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// Opens a UDP socket. `[::]` receives IPv4 too.
pub(crate) fn udp(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    Ok(UdpSocket::from_std(open(address, Type::DGRAM)?.into())?)
}

fn open(address: SocketAddr, kind: Type) -> anyhow::Result<Socket> {
    let name = if kind == Type::STREAM { "TCP" } else { "UDP" };
    match bind(address, kind) {
        Err(error) if error.raw_os_error() == Some(NO_IPV6) && address.ip().is_unspecified() => {
            tracing::info!(%address, "this machine has no IPv6: listening on IPv4 only");
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            bind(address, kind).with_context(|| format!("can't open {name} {address}"))
        }
        bound => bound.with_context(|| format!("can't open {name} {address}")),
    }
}

/// EAFNOSUPPORT of Linux: the kernel has no such address family.
const NO_IPV6: i32 = 97;

fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
