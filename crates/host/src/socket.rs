//! Options of sockets that need rights.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::sockopt;

use crate::failure::{Area, HostError};
use crate::routes::BYPASS_MARK;

/// Buffers in bytes that keep a fast flow from losing packets between the kernel and a data thread.
pub const DATA_SOCKET_BUFFER: usize = 7 * 1024 * 1024;

/// Marks a socket so that the policy rules send its packets past the tunnel, whatever routes the tunnel has.
///
/// # Errors
/// Without the capability NET_ADMIN: the node's own packets would then follow an exit node's route into the tunnel.
pub fn set_bypass_mark(socket: &impl AsFd) -> Result<(), HostError> {
    set_mark(socket, BYPASS_MARK)
}

/// Sets the mark that policy rules and the firewall see on a socket's packets.
///
/// # Errors
/// Without the capability NET_ADMIN.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> Result<(), HostError> {
    socket_ref(socket)
        .set_mark(mark)
        .map_err(|error| HostError::new(Area::Network, format!("mark a socket with {mark:#x}"), error))
}

/// Lets a socket send and receive by one interface only.
///
/// # Errors
/// When the interface does not exist, or a right is missing.
pub fn bind_to_interface(socket: &impl AsFd, interface: &str) -> Result<(), HostError> {
    socket_ref(socket)
        .bind_device(Some(interface.as_bytes()))
        .map_err(|error| HostError::new(Area::Network, format!("bind a socket to {interface}"), error))
}

/// Grows the buffers of a socket past the system's limit where that is allowed, and up to it elsewhere. Returns what
/// the kernel granted for receiving and for sending, in bytes (it counts its own bookkeeping in: twice what was asked).
///
/// # Errors
/// When the descriptor is no socket.
pub fn grow_buffers(socket: &impl AsFd, bytes: usize) -> io::Result<(usize, usize)> {
    match sockopt::set_socket_recv_buffer_size_force(socket, bytes) {
        Err(Errno::PERM) => sockopt::set_socket_recv_buffer_size(socket, bytes)?,
        set => set?,
    }
    match sockopt::set_socket_send_buffer_size_force(socket, bytes) {
        Err(Errno::PERM) => sockopt::set_socket_send_buffer_size(socket, bytes)?,
        set => set?,
    }
    Ok((sockopt::socket_recv_buffer_size(socket)?, sockopt::socket_send_buffer_size(socket)?))
}

fn socket_ref(socket: &impl AsFd) -> socket2::SockRef<'_> {
    socket2::SockRef::from(socket)
}
