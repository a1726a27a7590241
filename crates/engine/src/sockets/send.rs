use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use socket2::{SockAddr, Socket};

use super::{KERNEL_BUFFER, Sockets, UdpSocket};
use crate::counters::count;

/// Whether a send may wait for room in the socket's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Traffic: the device's queue fills meanwhile, which slows its senders down.
    Wait,
    /// The control thread: what does not fit is repeated by the protocol.
    Drop,
}

/// A control message that holds one number, as the kernel lays it out.
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
    padding: [u8; 6],
}

impl Sockets {
    /// Sends messages that follow each other in `bytes`, all of length `message` but the last, which may be shorter.
    ///
    /// What the network refuses is counted and not repeated: so it is with datagrams.
    pub(crate) fn send_train(&self, to: &SocketAddr, bytes: &[u8], message: usize, patience: Patience) {
        let Some(socket) = self.of(to) else {
            count(&self.counters.socket_refused);
            return;
        };
        let to = SockAddr::from(*to);
        if bytes.len() > message && socket.gso.load(Relaxed) {
            match socket.send(&to, bytes, u16::try_from(message).ok(), patience) {
                Ok(()) => return,
                Err(error) => match error.raw_os_error() {
                    // The way out has a card that can't fill in checksums.
                    Some(libc::EIO) => {
                        socket.gso.store(false, Relaxed);
                        self.counters.udp_gso.store(false, Relaxed);
                        tracing::info!("UDP segmentation is not possible on this network and was turned off");
                    }
                    // The train is too large for the way, or its segments are: that need not be so for the next.
                    Some(libc::EINVAL | libc::EMSGSIZE) => {}
                    _ => {
                        count(&self.counters.socket_refused);
                        return;
                    }
                },
            }
        }
        for datagram in bytes.chunks(message.max(1)) {
            if socket.send(&to, datagram, None, patience).is_err() {
                count(&self.counters.socket_refused);
            }
        }
    }

    /// Sends one datagram from the control thread.
    pub(crate) fn send_one(&self, to: &SocketAddr, datagram: &[u8]) {
        self.send_train(to, datagram, datagram.len(), Patience::Drop);
    }
}

impl UdpSocket {
    fn send(&self, to: &SockAddr, bytes: &[u8], segment: Option<u16>, patience: Patience) -> io::Result<()> {
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = SegmentSize {
            header: libc::cmsghdr {
                cmsg_len: std::mem::offset_of!(SegmentSize, size) + size_of::<u16>(),
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            size: segment.unwrap_or_default(),
            padding: [0; 6],
        };
        // SAFETY: `msghdr` is a C structure of integers and pointers; all zero is an empty one.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if segment.is_some() {
            header.msg_control = (&raw mut control).cast();
            header.msg_controllen = size_of::<SegmentSize>();
        }
        let flags = match patience {
            Patience::Wait => libc::MSG_NOSIGNAL,
            Patience::Drop => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        };
        loop {
            // SAFETY: the header's pointers are to `to`, `vector`, `control` and `bytes`, which outlive the call, with
            // their lengths; the kernel only reads through them.
            let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const header, flags) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Whether the kernel has UDP segmentation (Linux 4.18).
pub(super) fn has_gso(socket: &Socket) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)
}

/// Asks for large buffers: past the system's limit where that is allowed, else up to it.
pub(super) fn enlarge_buffers(socket: &Socket) {
    let size = KERNEL_BUFFER as libc::c_int;
    let forced = set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size);
    if !forced && let Err(error) = socket.set_recv_buffer_size(KERNEL_BUFFER) {
        tracing::debug!(%error, "the receive buffer stays as it is");
    }
    let forced = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size);
    if !forced && let Err(error) = socket.set_send_buffer_size(KERNEL_BUFFER) {
        tracing::debug!(%error, "the send buffer stays as it is");
    }
}

pub(super) fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: the value's pointer and length are those of an integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    result == 0
}
