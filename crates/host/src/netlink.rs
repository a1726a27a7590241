//! A netlink socket: requests with an acknowledgement, listings, and transactions of nf_tables.
//!
//! Messages are encoded and decoded by `netlink-bindings`; the exchange is here because it needs what the companion
//! crate of that library does not do: a listing that another process's change interrupted is asked for again, a
//! transaction's acknowledgement is waited for on its last message only (older kernels acknowledge no bracket), and no
//! wait lasts for ever.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::traits::{NetlinkRequest, Protocol};
use netlink_bindings::utils::find_attr;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::failure::Reason;

/// The kernel writes listings in pieces of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
const HEADER: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a listing is asked for again when it changed while it was read.
const LISTING_ATTEMPTS: usize = 5;
const TRANSACTION_BYTES: usize = 1024 * 1024;

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const FLAG_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const FLAG_ACK: u16 = libc::NLM_F_ACK as u16;
const FLAG_CAPPED: u16 = libc::NLM_F_CAPPED as u16;
const FLAG_EXPLAINED: u16 = libc::NLM_F_ACK_TLVS as u16;
const FLAG_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
const EXPLANATION: u16 = 1;

/// A socket to one of the kernel's netlink protocols.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of a transaction, framed but without a sequence number.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

enum Reply {
    Payload { interrupted: bool },
    Acknowledged,
    Refused(Reason),
    Finished { interrupted: bool },
}

impl Netlink {
    /// Opens a socket for links, addresses, routes and rules: `NETLINK_ROUTE`, which is protocol 0.
    pub(crate) fn route() -> Result<Self, Reason> {
        Self::open(None)
    }

    /// Opens a socket for nf_tables.
    pub(crate) fn netfilter() -> Result<Self, Reason> {
        let opened = Self::open(Some(netlink::NETFILTER))?;
        // A transaction is one datagram. Without the right to it the default is enough for some hundred rules.
        let _ = sockopt::set_socket_send_buffer_size_force(&opened.socket, TRANSACTION_BYTES);
        Ok(opened)
    }

    fn open(protocol: Option<net::Protocol>) -> Result<Self, Reason> {
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        // Both only make answers better: the kernel's sentence beside an error, and listings filtered by the kernel.
        enable(&socket, libc::NETLINK_EXT_ACK);
        enable(&socket, libc::NETLINK_GET_STRICT_CHK);
        Ok(Self { socket, sequence: 1, buffer: vec![0; RECEIVE_BUFFER] })
    }

    /// Sends a request and waits until the kernel has done it.
    pub(crate) fn execute(&mut self, request: &impl NetlinkRequest) -> Result<(), Reason> {
        let sequence = self.send(request, FLAG_ACK)?;
        loop {
            match self.receive(sequence, &mut |_| ())? {
                Reply::Acknowledged | Reply::Finished { .. } => return Ok(()),
                Reply::Refused(reason) => return Err(reason),
                Reply::Payload { .. } => {}
            }
        }
    }

    /// Asks for a listing, or for one object; what `keep` makes of each is returned.
    pub(crate) fn list<R: NetlinkRequest, T>(
        &mut self,
        request: &R,
        mut keep: impl FnMut(R::ReplyType<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Reason> {
        for _ in 0..LISTING_ATTEMPTS {
            let sequence = self.send(request, FLAG_ACK)?;
            let mut found = Vec::new();
            let mut changed = false;
            loop {
                match self.receive(sequence, &mut |payload| found.extend(keep(R::decode_reply(payload))))? {
                    Reply::Payload { interrupted } => changed |= interrupted,
                    Reply::Refused(reason) => return Err(reason),
                    Reply::Acknowledged => break,
                    Reply::Finished { interrupted } => {
                        changed |= interrupted;
                        break;
                    }
                }
            }
            if !changed {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the listing kept changing while it was read").into())
    }

    /// Sends messages that nf_tables takes as one: `messages` begins and ends with the brackets of a batch. All of them
    /// take effect, or none.
    pub(crate) fn transact(&mut self, mut messages: Vec<Message>) -> Result<(), Reason> {
        let first = self.sequence;
        let count = messages.len();
        let last = first.wrapping_add(count.saturating_sub(2) as u32);
        let mut datagram = Vec::new();
        for (position, message) in messages.iter_mut().enumerate() {
            let flags = if position + 2 == count { FLAG_ACK } else { 0 };
            message.finish(self.next_sequence(), flags);
            datagram.extend_from_slice(&message.bytes);
        }
        self.write(&datagram)?;
        let mut refused = None;
        loop {
            // Each message may be refused by its own number. The first number also stands for the commit as a whole.
            match self.receive_between(first, last, &mut |_| ())? {
                (sequence, Reply::Refused(reason)) => {
                    refused.get_or_insert(reason);
                    if sequence == last || sequence == first {
                        break;
                    }
                }
                (sequence, Reply::Acknowledged) if sequence == last => break,
                _ => {}
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    fn send(&mut self, request: &impl NetlinkRequest, flags: u16) -> Result<u32, Reason> {
        let mut message = Message::new(request);
        let sequence = self.next_sequence();
        message.finish(sequence, flags);
        self.write(&message.bytes)?;
        Ok(sequence)
    }

    fn write(&self, datagram: &[u8]) -> Result<(), Reason> {
        match rustix::io::retry_on_intr(|| net::send(&self.socket, datagram, SendFlags::empty())) {
            Ok(sent) if sent == datagram.len() => Ok(()),
            Ok(_) => Err(io::Error::other("the kernel took a part of the request").into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn receive(&mut self, sequence: u32, payload: &mut dyn FnMut(&[u8])) -> Result<Reply, Reason> {
        Ok(self.receive_between(sequence, sequence, payload)?.1)
    }

    /// Reads one datagram. Of its messages with a number between `first` and `last`, payloads are handed out, and the
    /// last one decides what is returned: the kernel ends a datagram after the message that ends a listing.
    fn receive_between(
        &mut self,
        first: u32,
        last: u32,
        payload: &mut dyn FnMut(&[u8]),
    ) -> Result<(u32, Reply), Reason> {
        let mut answer: Option<(u32, Reply)> = None;
        while answer.is_none() {
            let (_, length) =
                rustix::io::retry_on_intr(|| net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC))?;
            if length > self.buffer.len() {
                return Err(io::Error::other("the kernel's answer is longer than the buffer").into());
            }
            let mut interrupted = false;
            for (header, body) in messages(&self.buffer[..length]) {
                if header.seq.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                interrupted |= header.flags & FLAG_INTERRUPTED != 0;
                let reply = match header.r#type {
                    ERROR => match refusal(&header, body) {
                        None => Reply::Acknowledged,
                        Some(reason) => Reply::Refused(reason),
                    },
                    DONE => match refusal(&header, body) {
                        None => Reply::Finished { interrupted },
                        Some(reason) => Reply::Refused(reason),
                    },
                    _ => {
                        payload(body);
                        Reply::Payload { interrupted }
                    }
                };
                // A refusal is never hidden by an acknowledgement that shares its datagram.
                if !matches!(answer, Some((_, Reply::Refused(_)))) {
                    answer = Some((header.seq, reply));
                }
            }
        }
        answer.ok_or_else(|| io::Error::other("no answer").into())
    }
}

impl Message {
    /// Frames a request.
    pub(crate) fn new(request: &impl NetlinkRequest) -> Self {
        let request_type = match request.protocol() {
            Protocol::Raw { request_type, .. } => request_type,
            // Generic netlink is not used here: no family of it is enabled in this crate's manifest.
            Protocol::Generic(_) => 0,
        };
        let payload = request.payload();
        let mut header = Nlmsghdr::new();
        header.len = (HEADER + payload.len()) as u32;
        header.r#type = request_type;
        header.flags = request.flags() | FLAG_REQUEST;
        let mut bytes = header.as_slice().to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self { bytes }
    }

    fn finish(&mut self, sequence: u32, flags: u16) {
        let header = Nlmsghdr::from_slice_mut(&mut self.bytes[..HEADER]);
        header.seq = sequence;
        header.flags |= flags;
    }
}

/// The messages of a datagram; one that claims more than is there ends it.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (Nlmsghdr, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = Nlmsghdr::new_from_slice(rest.get(..HEADER)?)?;
        let length = header.len as usize;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

/// What an error message says; nothing when it is an acknowledgement.
fn refusal(header: &Nlmsghdr, body: &[u8]) -> Option<Reason> {
    let code = i32::from_ne_bytes(*body.first_chunk::<4>()?);
    if code == 0 {
        return None;
    }
    let mut explained = None;
    if header.flags & FLAG_EXPLAINED != 0 {
        // The request is echoed whole or, when capped, by its header alone; attributes follow. A listing's end echoes none.
        let echoed = match header.r#type {
            DONE => 0,
            _ if header.flags & FLAG_CAPPED != 0 => HEADER,
            _ => body.get(4..8).and_then(|length| length.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize,
        };
        explained =
            body.get(4 + echoed.next_multiple_of(4)..).and_then(|attributes| find_attr(attributes, EXPLANATION));
    }
    let detail = explained.map(|text| {
        String::from_utf8_lossy(text).trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect::<String>()
    });
    Some(Reason { error: io::Error::from_raw_os_error(code.saturating_neg()), detail })
}

fn enable(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that outlives the call, and its size is passed.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut header = Nlmsghdr::new();
        header.len = (HEADER + body.len()) as u32;
        header.r#type = kind;
        header.flags = flags;
        let mut bytes = header.as_slice().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_refusal_carries_the_kernels_sentence() {
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER]);
        let text = b"Nexthop has invalid gateway\0";
        body.extend_from_slice(&(4 + text.len() as u16).to_ne_bytes());
        body.extend_from_slice(&EXPLANATION.to_ne_bytes());
        body.extend_from_slice(text);
        let bytes = message(ERROR, FLAG_CAPPED | FLAG_EXPLAINED, &body);
        let (header, body) = messages(&bytes).next().unwrap();
        let reason = refusal(&header, body).unwrap();
        assert_eq!(reason.errno(), Some(libc::EINVAL));
        assert_eq!(reason.detail.as_deref(), Some("Nexthop has invalid gateway"));
    }

    #[test]
    fn a_message_that_claims_more_than_is_there_ends_the_datagram() {
        let mut bytes = message(20, 0, &[1, 2, 3, 4]);
        bytes[0] = 200;
        assert_eq!(messages(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for (header, body) in messages(&bytes) {
                let _ = refusal(&header, body);
            }
        }
    }
}
