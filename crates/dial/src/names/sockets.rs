use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// How long a name server may take to accept a connection, where the library does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// What is done to a socket before it asks a name server: a mark, a binding to an interface.
pub type NameSocketSetup = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

type Pending<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

/// The sockets that name servers are asked by.
#[derive(Clone, Default)]
pub(super) struct Sockets {
    tasks: TokioHandle,
    setup: Option<NameSocketSetup>,
}

impl Sockets {
    pub(super) fn new(setup: NameSocketSetup) -> Self {
        Self { tasks: TokioHandle::default(), setup: Some(setup) }
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("setup", &self.setup.is_some()).finish_non_exhaustive()
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Pending<Self::Tcp> {
        let setup = self.setup.clone();
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(local) = local {
                socket.bind(local)?;
            }
            socket.set_nodelay(true)?;
            if let Some(setup) = &setup {
                setup(socket.as_fd())?;
            }
            let stream = tokio::time::timeout(patience.unwrap_or(CONNECT), socket.connect(server)).await??;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(&self, local: SocketAddr, _: SocketAddr) -> Pending<UdpSocket> {
        let setup = self.setup.clone();
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            if let Some(setup) = &setup {
                setup(socket.as_fd())?;
            }
            Ok(socket)
        })
    }
}
