use packet::checksum;
use packet::ip::Packet;
use packet::tcp::{Flags, Tcp};

const LEAST_IN_SEGMENT: u32 = 536;
const MOST_IN_SEGMENT: u32 = 1460;

/// What was sent so far.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The sequence number behind all that was ever sent.
    until: Option<u32>,
    /// The highest acknowledgment that came in.
    acknowledged: Option<u32>,
    /// The other side has no room. A byte sent now is a probe, which does not count as sent.
    no_room: bool,
    /// How much data a segment carries, as far as was seen.
    segment: u32,
}

impl Sent {
    /// Takes note of a packet, and corrects the sequence number of one that takes none.
    ///
    /// When smoltcp begins to send again from the last acknowledged byte, it also says in its acknowledgments that it is
    /// there. Whoever has received more drops those as old, and what they acknowledge is not learnt: two such ends wait for
    /// each other for ever. RFC 9293 (3.10.7.4) has an acknowledgment carry SND.NXT, which never goes back.
    pub(super) fn follow(&mut self, packet: &mut [u8]) {
        let Ok(parsed) = Packet::parse(packet) else { return };
        let upper = parsed.upper_layer();
        let Ok(tcp) = Tcp::parse(upper.payload) else { return };
        self.segment = self.segment.max((tcp.payload().len() as u32).min(MOST_IN_SEGMENT));
        let (at, sequence, length, flags) = (upper.offset, tcp.sequence(), tcp.sequence_length(), tcp.flags());
        let end = sequence.wrapping_add(length);
        let Some(until) = self.until.filter(|_| !flags.contains(Flags::SYN)) else {
            self.until = Some(end);
            return;
        };
        if is_before(until, end) {
            let probe = self.no_room && tcp.payload().len() == 1;
            self.until = Some(if probe { until } else { end });
        } else if length == 0 && flags.contains(Flags::ACK) && is_before(sequence, until) {
            let sum = u16::from_be_bytes([packet[at + 16], packet[at + 17]]);
            let sum = checksum::update(sum, &sequence.to_be_bytes(), &until.to_be_bytes());
            packet[at + 4..at + 8].copy_from_slice(&until.to_be_bytes());
            packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// Whether a SYN with this sequence number is all that was sent.
    pub(super) fn ends_with(&self, syn: u32) -> bool {
        self.until == Some(syn.wrapping_add(1))
    }

    /// The acknowledgments that `packet` would have been if each segment had one, all but the last.
    ///
    /// smoltcp lets its window grow by one segment for each acknowledgment, however much that covers; one for a coalesced
    /// super-packet would make slow start take minutes. What RFC 3465 counts in bytes is therefore told in steps, unless so
    /// much is under way that the window can't be what holds it back.
    pub(super) fn steps(&mut self, packet: &[u8], capacity: usize) -> Option<Steps> {
        let parsed = Packet::parse(packet).ok()?;
        let upper = parsed.upper_layer();
        let tcp = Tcp::parse(upper.payload).ok()?;
        let (now, flags) = (tcp.acknowledgment(), tcp.flags());
        if flags.0 & Flags::SYN.with(Flags::RST).0 != 0 || !flags.contains(Flags::ACK) {
            return None;
        }
        self.no_room = tcp.window() == 0;
        let until = self.until?;
        if is_before(until, now) {
            // The byte of a probe was taken after all, or the acknowledgment is of nothing that was sent.
            self.until = Some(now).filter(|now| now.wrapping_sub(until) == 1).or(self.until);
            return None;
        }
        let before = *self.acknowledged.get_or_insert(now);
        if !is_before(before, now) {
            return None;
        }
        self.acknowledged = Some(now);
        let (flight, segment) = (until.wrapping_sub(before) as usize, self.segment.max(LEAST_IN_SEGMENT));
        if now.wrapping_sub(before) <= segment || flight >= capacity / 4 * 3 {
            return None;
        }
        let mut bare = packet[..parsed.bytes().len() - tcp.payload().len()].to_vec();
        shorten(&mut bare);
        bare[upper.offset + 13] &= !Flags::FIN.with(Flags::PSH).0;
        Some(Steps { packet: bare, field: upper.offset + 8, at: before, step: segment, end: now })
    }
}

/// Acknowledgments on the way to one that covers more than a segment.
pub(super) struct Steps {
    packet: Vec<u8>,
    /// Where the packet has its acknowledgment number.
    field: usize,
    at: u32,
    step: u32,
    end: u32,
}

impl Steps {
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        self.at = self.at.wrapping_add(self.step);
        if !is_before(self.at, self.end) {
            return None;
        }
        self.packet[self.field..self.field + 4].copy_from_slice(&self.at.to_be_bytes());
        Some(&self.packet)
    }
}

/// Writes the length that a packet has into its IP header.
fn shorten(packet: &mut [u8]) {
    let length = packet.len() as u16;
    match packet[0] >> 4 {
        4 => packet[2..4].copy_from_slice(&length.to_be_bytes()),
        _ => packet[4..6].copy_from_slice(&(length - 40).to_be_bytes()),
    }
}

fn is_before(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}
