use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Device, SuperPacket, VNET_HEADER};

/// Most packets, and most bytes, that wait in one direction.
const MOST_PACKETS: usize = 1024;
const MOST_BYTES: usize = 4 << 20;

/// A device in memory: its other end is a [`PacketQueue`], held by a user-space IP stack or a test.
#[derive(Debug)]
pub struct QueueDevice {
    queues: Arc<Queues>,
    takes_super_packets: bool,
}

/// The end of a [`QueueDevice`] that an IP stack holds.
///
/// Packets are dropped on neither side silently: [`PacketQueue::send`] waits for room, and the engine counts what it
/// could not put in.
#[derive(Debug)]
pub struct PacketQueue {
    queues: Arc<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    /// From the stack to the engine.
    out: Direction,
    /// From the engine to the stack.
    into: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    state: Mutex<State>,
    /// For the thread of the engine that reads.
    filled: Condvar,
    /// For the task of the stack, which reads or waits for room.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<SuperPacket>,
    bytes: usize,
    woken: bool,
    closed: bool,
}

impl QueueDevice {
    /// A device and its other end. `takes_super_packets` says whether the stack wants received TCP segments and UDP
    /// datagrams joined, or only packets as they were sent.
    pub fn new(takes_super_packets: bool) -> (Self, PacketQueue) {
        let queues = Arc::new(Queues::default());
        (Self { queues: queues.clone(), takes_super_packets }, PacketQueue { queues })
    }

    fn take(state: &mut State, buffer: &mut [u8]) -> Option<usize> {
        let SuperPacket { header, bytes } = state.packets.pop_front()?;
        state.bytes -= bytes.len();
        let length = VNET_HEADER + bytes.len();
        // Who sends more than a packet can be sends nothing.
        let Some(room) = buffer.get_mut(..length) else { return Some(0) };
        room[..VNET_HEADER].copy_from_slice(&header);
        room[VNET_HEADER..].copy_from_slice(&bytes);
        Some(length)
    }
}

impl Device for QueueDevice {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.queues.out.lock();
        loop {
            if std::mem::take(&mut state.woken) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if let Some(length) = Self::take(&mut state, buffer) {
                self.queues.out.moved.notify_one();
                return Ok(length);
            }
            state = self.queues.out.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = Self::take(&mut self.queues.out.lock(), buffer).ok_or(io::ErrorKind::WouldBlock)?;
        self.queues.out.moved.notify_one();
        Ok(length)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let mut header = [0; VNET_HEADER];
        let mut bytes = Vec::with_capacity(length.saturating_sub(VNET_HEADER));
        let mut filled = 0;
        for slice in slices {
            let (of_header, rest) = slice.split_at(slice.len().min(VNET_HEADER - filled));
            header[filled..filled + of_header.len()].copy_from_slice(of_header);
            filled += of_header.len();
            bytes.extend_from_slice(rest);
        }
        let packet = SuperPacket { header, bytes };
        let into = &self.queues.into;
        into.push(packet).map_err(|(kind, _)| io::Error::from(kind))?;
        into.moved.notify_one();
        Ok(())
    }

    fn wake(&self) {
        self.queues.out.lock().woken = true;
        self.queues.out.filled.notify_all();
    }

    fn takes_tcp(&self) -> bool {
        self.takes_super_packets
    }

    fn takes_udp(&self) -> bool {
        self.takes_super_packets
    }
}

impl Drop for QueueDevice {
    fn drop(&mut self) {
        self.queues.into.close();
        self.queues.out.close();
    }
}

impl PacketQueue {
    /// Sends a packet into the mesh, once there is room; gives it back when the engine is gone.
    ///
    /// # Errors
    ///
    /// With the packet, when the engine is gone.
    pub async fn send(&self, mut packet: SuperPacket) -> Result<(), SuperPacket> {
        loop {
            let moved = self.queues.out.moved.notified();
            match self.push(packet) {
                Ok(()) => return Ok(()),
                Err((io::ErrorKind::WouldBlock, back)) => packet = back,
                Err((_, back)) => return Err(back),
            }
            moved.await;
        }
    }

    /// Sends a packet into the mesh if there is room.
    ///
    /// # Errors
    ///
    /// With the packet, when there is none, or the engine is gone.
    pub fn try_send(&self, packet: SuperPacket) -> Result<(), SuperPacket> {
        self.push(packet).map_err(|(_, packet)| packet)
    }

    /// Waits for the next packet from the mesh; `None` once the device is gone and all is received.
    ///
    /// A future that is dropped before it is ready has lost nothing.
    pub async fn receive(&mut self) -> Option<SuperPacket> {
        loop {
            let moved = self.queues.into.moved.notified();
            let (packet, closed) = self.queues.into.pop();
            if packet.is_some() || closed {
                return packet;
            }
            moved.await;
        }
    }

    /// The next packet from the mesh, if there is one.
    pub fn try_receive(&mut self) -> Option<SuperPacket> {
        self.queues.into.pop().0
    }

    fn push(&self, packet: SuperPacket) -> Result<(), (io::ErrorKind, SuperPacket)> {
        self.queues.out.push(packet)?;
        self.queues.out.filled.notify_one();
        Ok(())
    }
}

impl Drop for PacketQueue {
    fn drop(&mut self) {
        self.queues.into.close();
    }
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, packet: SuperPacket) -> Result<(), (io::ErrorKind, SuperPacket)> {
        let mut state = self.lock();
        if state.closed {
            return Err((io::ErrorKind::BrokenPipe, packet));
        }
        if state.packets.len() >= MOST_PACKETS || state.bytes >= MOST_BYTES {
            return Err((io::ErrorKind::WouldBlock, packet));
        }
        state.bytes += packet.bytes.len();
        state.packets.push_back(packet);
        Ok(())
    }

    /// The next packet, and whether no more will come.
    fn pop(&self) -> (Option<SuperPacket>, bool) {
        let mut state = self.lock();
        let packet = state.packets.pop_front();
        state.bytes -= packet.as_ref().map_or(0, |packet| packet.bytes.len());
        (packet, state.closed)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_passes_in_both_directions() {
        let (device, mut stack) = QueueDevice::new(true);
        stack.try_send(SuperPacket::whole(vec![1, 2, 3])).unwrap();
        let mut buffer = [0xff; 64];
        assert_eq!(device.read(&mut buffer).unwrap(), VNET_HEADER + 3);
        assert_eq!(buffer[VNET_HEADER..VNET_HEADER + 3], [1, 2, 3]);
        device.write(&[IoSlice::new(&[0; VNET_HEADER]), IoSlice::new(&[4]), IoSlice::new(&[5, 6])]).unwrap();
        assert_eq!(stack.try_receive().unwrap().bytes(), [4, 5, 6]);
    }

    #[test]
    fn a_read_that_is_woken_can_be_repeated() {
        let (device, stack) = QueueDevice::new(true);
        device.wake();
        assert_eq!(device.read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::Interrupted);
        stack.try_send(SuperPacket::whole(vec![1])).unwrap();
        assert_eq!(device.read(&mut [0; 64]).unwrap(), VNET_HEADER + 1);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (_device, stack) = QueueDevice::new(true);
        for _ in 0..MOST_PACKETS {
            stack.try_send(SuperPacket::whole(vec![0])).unwrap();
        }
        assert!(stack.try_send(SuperPacket::whole(vec![0])).is_err());
    }

    #[tokio::test]
    async fn the_end_of_the_device_ends_the_stack() {
        let (device, mut stack) = QueueDevice::new(true);
        drop(device);
        assert_eq!(stack.receive().await, None);
        assert!(stack.send(SuperPacket::whole(vec![1])).await.is_err());
    }
}
