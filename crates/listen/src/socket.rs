use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// How many connections the kernel keeps while the server is busy.
const BACKLOG: i32 = 1024;

/// EAFNOSUPPORT of Linux: the kernel has no such address family.
const NO_IPV6: i32 = 97;

/// An address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {protocol} {address}")]
pub struct ListenError {
    protocol: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Listens for TCP connections. `[::]` takes IPv4 too; needs a tokio runtime.
///
/// # Errors
/// When the address is taken, or is not this machine's.
pub fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = bind(address, Type::STREAM)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| ListenError { protocol: "TCP", address, source })
}

/// Receives UDP datagrams. `[::]` takes IPv4 too; needs a tokio runtime.
///
/// # Errors
/// When the address is taken, or is not this machine's.
pub fn udp(address: SocketAddr) -> Result<UdpSocket, ListenError> {
    let open = || UdpSocket::from_std(bind(address, Type::DGRAM)?.into());
    open().map_err(|source| ListenError { protocol: "UDP", address, source })
}

fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    match bind_exactly(address, kind) {
        Err(error) if error.raw_os_error() == Some(NO_IPV6) && address.ip().is_unspecified() => {
            tracing::info!(%address, "this machine has no IPv6: listening on IPv4 only");
            bind_exactly(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), kind)
        }
        bound => bound,
    }
}

fn bind_exactly(address: SocketAddr, kind: Type) -> io::Result<Socket> {
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = tcp(address).unwrap_err();
        assert_eq!(error.to_string(), format!("can't listen on TCP {address}"));
        assert!(error.source().unwrap().to_string().contains("in use"), "{:?}", error.source());
    }

    #[tokio::test]
    async fn the_unspecified_address_takes_ipv4_too() {
        let listener = tcp("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(("127.0.0.1", port)), listener.accept());
        assert_eq!(accepted.unwrap().1.port(), client.unwrap().local_addr().unwrap().port());
    }
}
