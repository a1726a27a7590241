use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::Socket;

use super::UdpSocket;
use super::send::set_option;

/// How many reads one call makes, each of up to 64 joined datagrams.
pub(crate) const DATAGRAMS: usize = 8;
/// Room for what the kernel joins into one read.
const ROOM: usize = 65_536;
/// Room for the control message with the size of the datagrams, and one that nobody asked for.
const CONTROL: usize = 64;
/// Room for an address of either family.
const NAME: usize = 32;

/// Room for what one call receives. The kernel touches no more of it than it fills.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    reads: [Read; DATAGRAMS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Read {
    length: usize,
    segment: usize,
    from: Option<SocketAddr>,
}

/// What one read gave: one or more datagrams of one sender.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Where it lies in the buffer.
    pub(crate) range: Range<usize>,
    /// Length of each datagram but the last.
    pub(crate) segment: usize,
    pub(crate) from: SocketAddr,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

#[repr(C, align(8))]
struct Name([u8; NAME]);

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; DATAGRAMS * ROOM].into(), reads: [Read::default(); DATAGRAMS] }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What the read with this number gave; `None` when it is not usable.
    pub(crate) fn received(&self, number: usize) -> Option<Received> {
        let Read { length, segment, from } = *self.reads.get(number)?;
        let start = number * ROOM;
        (length > 0).then_some(Received { range: start..start + length, segment, from: from? })
    }

    /// Puts a message that came another way at a place of the buffer; `None` when there is no room behind it.
    pub(crate) fn fill(&mut self, at: usize, message: &[u8]) -> Option<Range<usize>> {
        let range = at..at.checked_add(message.len())?;
        self.bytes.get_mut(range.clone())?.copy_from_slice(message);
        Some(range)
    }
}

impl UdpSocket {
    /// Receives what is there, without waiting: how many reads were filled.
    pub(crate) fn receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<usize> {
        let mut controls = [const { Control([0; CONTROL]) }; DATAGRAMS];
        let mut names = [const { Name([0; NAME]) }; DATAGRAMS];
        // SAFETY: C structures of integers and pointers; all zero are empty ones.
        let mut vectors: [libc::iovec; DATAGRAMS] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; DATAGRAMS] = unsafe { std::mem::zeroed() };
        for (number, room) in buffer.bytes.chunks_exact_mut(ROOM).enumerate() {
            vectors[number] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM };
            let header = &mut headers[number].msg_hdr;
            header.msg_name = (&raw mut names[number].0).cast();
            header.msg_namelen = NAME as libc::socklen_t;
            header.msg_iov = &raw mut vectors[number];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[number].0).cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: there are `DATAGRAMS` headers; each points to a name, a vector and a control buffer of its own in the
        // arrays above and a room of its own in `buffer`, all with their true lengths, and all outlive the call.
        let filled = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                DATAGRAMS as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        for number in 0..filled {
            let header = &headers[number];
            let length = header.msg_len as usize;
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let control = controls[number].0.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
            buffer.reads[number] = Read {
                length: if truncated { 0 } else { length },
                segment: joined_by(control).filter(|size| *size > 0).unwrap_or(length),
                from: address(&names[number].0),
            };
        }
        Ok(filled)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for datagrams of one sender joined (Linux 5.0).
pub(super) fn enable_gro(socket: &Socket) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// The address in what the kernel wrote as a `sockaddr_in` or `sockaddr_in6`.
fn address(name: &[u8; NAME]) -> Option<SocketAddr> {
    let [f0, f1, p0, p1, rest @ ..] = name;
    let port = u16::from_be_bytes([*p0, *p1]);
    match i32::from(u16::from_ne_bytes([*f0, *f1])) {
        libc::AF_INET => Some((*rest.first_chunk::<4>()?, port).into()),
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk()?;
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk()?);
            Some(SocketAddrV6::new((*octets).into(), port, u32::from_be_bytes(*flow), scope).into())
        }
        _ => None,
    }
}

/// The size of the datagrams that were joined, from the control messages of a read.
fn joined_by(mut control: &[u8]) -> Option<usize> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    while let Some((header, rest)) = control.split_at_checked(HEADER) {
        let length = usize::from_ne_bytes(header.get(..8)?.try_into().ok()?);
        let level = i32::from_ne_bytes(header.get(8..12)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(header.get(12..16)?.try_into().ok()?);
        let data = rest.get(..length.checked_sub(HEADER)?)?;
        if (level, kind) == (libc::SOL_UDP, libc::UDP_GRO) {
            let size = i32::from_ne_bytes(data.get(..4)?.try_into().ok()?);
            return usize::try_from(size).ok();
        }
        control = control.get(length.checked_next_multiple_of(8)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_joined_datagrams_is_found_behind_other_messages() {
        let message = |level: i32, kind: i32, data: &[u8]| {
            let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&level.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let other = message(libc::SOL_IP, 1, &[1, 2]);
        let size = message(libc::SOL_UDP, libc::UDP_GRO, &1312i32.to_ne_bytes());
        assert_eq!(joined_by(&[other.clone(), size].concat()), Some(1312));
        assert_eq!(joined_by(&other), None);
        assert_eq!(joined_by(&[9; 16]), None);
    }
}
