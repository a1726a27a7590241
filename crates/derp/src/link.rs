//! Frames over a [`Wire`], both ways at once, driven by one task.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use crypto::NodePublic;
use packet::derp::{
    FRAME_HEADER_LEN, Frame, FrameDecoder, FrameError, FrameKind, Limits, RawFrame, forward_header, packet_header,
};

use crate::wire::Wire;

/// How many frames are handed to the wire in one write.
const MOST_FRAMES: usize = 32;

const PACKET_HEADER_LEN: usize = FRAME_HEADER_LEN + 32;
const FORWARD_HEADER_LEN: usize = FRAME_HEADER_LEN + 2 * 32;

/// A frame on its way out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A packet, whose header is written beside it.
    Packet {
        /// Type, length and the peer's key.
        header: [u8; PACKET_HEADER_LEN],
        /// The packet itself, shared with whom it came from.
        packet: Bytes,
    },
    /// A packet between clients of two relays.
    Forward {
        /// Type, length and both keys.
        header: Box<[u8; FORWARD_HEADER_LEN]>,
        /// The packet itself.
        packet: Bytes,
    },
    /// Any other frame, header and all.
    Whole(Bytes),
}

impl Outgoing {
    /// A packet of the given kind, to or from `peer`.
    pub(crate) fn packet(kind: FrameKind, peer: &NodePublic, packet: Bytes) -> Self {
        Self::Packet { header: packet_header(kind, peer, packet.len()), packet }
    }

    /// A packet for another relay's client.
    pub(crate) fn forward(source: &NodePublic, destination: &NodePublic, packet: Bytes) -> Self {
        Self::Forward { header: Box::new(forward_header(source, destination, packet.len())), packet }
    }

    /// Copies a packet out of the buffer that it was read into.
    pub(crate) fn detach(&mut self) {
        match self {
            Self::Packet { packet, .. } | Self::Forward { packet, .. } => *packet = Bytes::copy_from_slice(packet),
            Self::Whole(_) => {}
        }
    }

    /// Any other frame.
    pub(crate) fn frame(frame: &Frame<'_>) -> Self {
        Self::Whole(frame.to_vec().into())
    }

    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Packet { header, packet } => [header, packet],
            Self::Forward { header, packet } => [header.as_slice(), packet],
            Self::Whole(bytes) => [bytes, &[]],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The stream under it broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came over it is no DERP.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// One end of a DERP connection.
#[derive(Debug)]
pub(crate) struct Link {
    wire: Wire,
    decoder: FrameDecoder,
    input: Bytes,
    output: VecDeque<Outgoing>,
    /// How much of the first outgoing frame is written.
    front_written: usize,
    unflushed: bool,
}

impl Link {
    /// A link whose wire has already brought `input`.
    pub(crate) fn new(wire: Wire, input: Bytes, limits: Limits) -> Self {
        let decoder = FrameDecoder::new(limits);
        Self { wire, decoder, input, output: VecDeque::new(), front_written: 0, unflushed: false }
    }

    /// Changes what the other side may send.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.decoder.set_limits(limits);
    }

    /// The next frame of what was read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        let frame = self.decoder.next(&mut self.input)?;
        if self.input.is_empty() {
            // An empty slice would keep the shared buffer alive.
            self.input = Bytes::new();
        }
        Ok(frame)
    }

    /// Reads a piece of the stream, once all frames of the last are taken. `Ready(0)` means that the stream ended.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.input.is_empty(), "frames are taken before more is read");
        self.input = ready!(self.wire.poll_read(cx))?;
        Poll::Ready(Ok(self.input.len()))
    }

    /// Waits for a frame; `None` when the stream ended between two frames. Losing the future loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Option<RawFrame>, LinkError> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(Some(frame));
            }
            if std::future::poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return if self.decoder.is_between_frames() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// Adds a frame to what [`Link::poll_send`] writes.
    pub(crate) fn push(&mut self, frame: Outgoing) {
        self.output.push_back(frame);
    }

    /// How many frames are not yet written.
    pub(crate) fn waiting(&self) -> usize {
        self.output.len()
    }

    /// How many bytes the kernel has taken so far.
    pub(crate) fn written(&self) -> u64 {
        self.wire.written()
    }

    /// Writes what was pushed. `Ready` when all of it has reached the kernel.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let count = {
                let mut slices = [IoSlice::new(&[]); 2 * MOST_FRAMES];
                let used = gather(&self.output, self.front_written, &mut slices);
                ready!(self.wire.poll_write(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(count);
        }
        if self.unflushed {
            ready!(self.wire.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until everything pushed has reached the kernel.
    pub(crate) async fn send(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Closes the sending side once everything pushed is written.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.send().await?;
        std::future::poll_fn(|cx| self.wire.poll_shutdown(cx)).await
    }

    /// Gives back memory that only a busy link needs.
    pub(crate) fn shrink(&mut self) {
        if self.output.is_empty() {
            self.output = VecDeque::new();
        }
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.output.front() {
            let left = front.len() - self.front_written;
            if count < left {
                self.front_written += count;
                return;
            }
            count -= left;
            self.front_written = 0;
            self.output.pop_front();
        }
    }
}

/// Points `slices` at what is still to be written, and says how many were used.
fn gather<'a>(output: &'a VecDeque<Outgoing>, front_written: usize, slices: &mut [IoSlice<'a>]) -> usize {
    let mut used = 0;
    let mut skip = front_written;
    for part in output.iter().take(slices.len() / 2).flat_map(Outgoing::parts) {
        let mut part = part;
        let skipped = skip.min(part.len());
        part.advance(skipped);
        skip -= skipped;
        if !part.is_empty() {
            slices[used] = IoSlice::new(part);
            used += 1;
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_half_written_frame_is_gathered() {
        let key = NodePublic::from_bytes([7; 32]);
        let frames = VecDeque::from([
            Outgoing::packet(FrameKind::RECV_PACKET, &key, Bytes::from_static(b"first")),
            Outgoing::frame(&Frame::KeepAlive),
            Outgoing::packet(FrameKind::RECV_PACKET, &key, Bytes::new()),
        ]);
        let whole: Vec<u8> = frames.iter().flat_map(|frame| frame.parts().concat()).collect();
        for written in 0..frames[0].len() {
            let mut slices = [IoSlice::new(&[]); 2 * MOST_FRAMES];
            let used = gather(&frames, written, &mut slices);
            let rest: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(rest, whole[written..]);
        }
    }
}
