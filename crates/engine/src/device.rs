use std::io::{self, IoSlice};

mod queue;
mod super_packet;

pub use queue::{PacketQueue, QueueDevice};
pub use super_packet::SuperPacket;

/// Length of the header before every packet of a [`Device`]: `struct virtio_net_hdr` without its `num_buffers`.
pub const VNET_HEADER: usize = 10;

/// Where packets of the mesh leave and enter the machine: a TUN device, or a user-space IP stack.
///
/// A *super-packet* is a virtio-net header of [`VNET_HEADER`] bytes in native byte order, and an IP packet of up to 65535
/// bytes. The header says whether the packet is to be cut into TCP segments or UDP datagrams, and whether its transport
/// checksum is left to be filled in: what Linux calls `IFF_VNET_HDR`.
///
/// One thread reads and another writes, both through `&self`.
pub trait Device: Send + Sync + 'static {
    /// Waits for the next super-packet, and returns its length with the header.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] after [`Device::wake`]. Any other error means that the device is gone.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes the next super-packet if there is one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when there is none; the next [`Device::read`] meets every other.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes one super-packet that lies in several places; the first slice is or begins with its header.
    ///
    /// # Errors
    ///
    /// Whatever the device says. The packet is dropped and counted; none of them is fatal.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()>;

    /// Makes a [`Device::read`] that waits, or else the next one, fail with [`io::ErrorKind::Interrupted`]. The device is
    /// good for reading afterwards.
    fn wake(&self);

    /// Whether it takes super-packets of TCP segments.
    fn takes_tcp(&self) -> bool;

    /// Whether it takes super-packets of UDP datagrams (Linux 6.2 and later).
    fn takes_udp(&self) -> bool;
}

impl<D: Device + ?Sized> Device for std::sync::Arc<D> {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read(buffer)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).try_read(buffer)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        (**self).write(slices)
    }

    fn wake(&self) {
        (**self).wake();
    }

    fn takes_tcp(&self) -> bool {
        (**self).takes_tcp()
    }

    fn takes_udp(&self) -> bool {
        (**self).takes_udp()
    }
}
