use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::{State, UserSpace};

/// A UDP socket of the mesh: bound to an own address, or one forwarded flow.
pub struct UdpSocket {
    user_space: UserSpace,
    socket: netstack::UdpSocket,
    ready: Arc<Notify>,
}

impl UdpSocket {
    pub(super) fn new(user_space: UserSpace, state: &mut State, socket: netstack::UdpSocket) -> Self {
        let ready = Arc::new(Notify::new());
        state.datagrams.insert(socket, ready.clone());
        Self { user_space, socket, ready }
    }

    /// The next datagram; `None` once a flow was idle for too long.
    pub async fn receive(&self) -> Option<netstack::Datagram> {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.user_space.lock();
                if let Some(datagram) = state.stack.receive(self.socket) {
                    return Some(datagram);
                }
                if !state.datagrams.contains_key(&self.socket) {
                    return None;
                }
            }
            ready.await;
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// When it is too long for the link, or a flow's socket is to send to somebody else.
    pub fn send(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let sent = self.user_space.lock().stack.send(self.socket, to, payload, Instant::now());
        self.user_space.shared.work.notify_one();
        sent.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let mut state = self.user_space.lock();
        state.datagrams.remove(&self.socket);
        state.stack.close(self.socket);
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpSocket").field(&self.socket).finish()
    }
}
