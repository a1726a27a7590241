//! STUN (RFC 8489), as much of it as mesh nodes and relays speak: binding requests of one exact form, and their answers.
//!
//! The request is 40 bytes: SOFTWARE `tailnode`, then FINGERPRINT. A relay answers no other, so that it is of no use to
//! who wants to bounce traffic off it; the answer has 32 bytes (IPv4) or 44 (IPv6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crypto::Entropy;

use crate::Malformed;

/// Length of the request that nodes send.
pub const REQUEST_LEN: usize = 40;

/// Length of the longest answer: an IPv6 address.
pub const RESPONSE_MAX_LEN: usize = 44;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const SOFTWARE: u16 = 0x8022;
const SOFTWARE_NAME: &[u8; 8] = b"tailnode";
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// What some servers sent before the number was assigned.
const XOR_MAPPED_ADDRESS_OLD: u16 = 0x8020;
const FORMAT: &str = "STUN message";

/// Tells the answers of several requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// Draws a new one.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 12];
        entropy.fill(&mut bytes);
        Self(bytes)
    }
}

/// Whether a datagram is STUN: two zero bits, the magic cookie, and the length that its header claims.
///
/// The length settles the one case of doubt: a WireGuard packet whose receiver index happens to be the cookie claims
/// a length of zero here, and is never as short as that.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.first_chunk::<HEADER>().is_some_and(|header| {
        header[0] & 0xc0 == 0
            && header[4..8] == COOKIE
            && usize::from(u16::from_be_bytes([header[2], header[3]])) == datagram.len() - HEADER
    })
}

/// The binding request that nodes send.
pub fn request(transaction: TransactionId) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    out[0..2].copy_from_slice(&BINDING_REQUEST);
    out[2..4].copy_from_slice(&((REQUEST_LEN - HEADER) as u16).to_be_bytes());
    out[4..8].copy_from_slice(&COOKIE);
    out[8..20].copy_from_slice(&transaction.0);
    out[20..22].copy_from_slice(&SOFTWARE.to_be_bytes());
    out[22..24].copy_from_slice(&(SOFTWARE_NAME.len() as u16).to_be_bytes());
    out[24..32].copy_from_slice(SOFTWARE_NAME);
    out[32..34].copy_from_slice(&FINGERPRINT.to_be_bytes());
    out[34..36].copy_from_slice(&4u16.to_be_bytes());
    let fingerprint = crc32(&out[..32]) ^ FINGERPRINT_XOR;
    out[36..40].copy_from_slice(&fingerprint.to_be_bytes());
    out
}

/// Reads a request as a relay does: it must be, byte for byte, the one that nodes send.
pub fn parse_request(datagram: &[u8]) -> Result<TransactionId, Malformed> {
    let datagram: &[u8; REQUEST_LEN] =
        datagram.try_into().map_err(|_| Malformed::new(FORMAT, "it has not the length of a node's request"))?;
    let mut transaction = TransactionId([0; 12]);
    transaction.0.copy_from_slice(&datagram[8..HEADER]);
    if *datagram == request(transaction) {
        Ok(transaction)
    } else {
        Err(Malformed::new(FORMAT, "it is not the request that nodes send"))
    }
}

/// The answer to a request that came from `source`.
pub fn response(transaction: TransactionId, source: SocketAddr) -> Vec<u8> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let mut address = match source.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    apply_mask(&mut address, &transaction);
    let mut out = Vec::with_capacity(RESPONSE_MAX_LEN);
    out.extend_from_slice(&BINDING_SUCCESS);
    out.extend_from_slice(&(8 + address.len() as u16).to_be_bytes());
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(&transaction.0);
    out.extend_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    out.extend_from_slice(&(4 + address.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, if source.is_ipv4() { 1 } else { 2 }]);
    out.extend_from_slice(&(source.port() ^ 0x2112).to_be_bytes());
    out.extend_from_slice(&address);
    out
}

/// Reads the answer of any server: which request it answers, and the address that the server saw.
pub fn parse_response(datagram: &[u8]) -> Result<(TransactionId, SocketAddr), Malformed> {
    if !is_stun(datagram) {
        return Err(Malformed::new(FORMAT, "it has no STUN header"));
    }
    if datagram[..2] != BINDING_SUCCESS {
        return Err(Malformed::new(FORMAT, "it is no answer to a binding request"));
    }
    let mut transaction = TransactionId([0; 12]);
    transaction.0.copy_from_slice(&datagram[8..HEADER]);
    let mut plain = None;
    for (kind, value) in (Attributes { rest: &datagram[HEADER..] }) {
        let masked = matches!(kind, XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_OLD);
        if !masked && kind != MAPPED_ADDRESS {
            continue;
        }
        match read_address(value, masked.then_some(&transaction)) {
            Some(address) if masked => return Ok((transaction, address)),
            address => plain = plain.or(address),
        }
    }
    let address = plain.ok_or(Malformed::new(FORMAT, "it tells no mapped address"))?;
    Ok((transaction, address))
}

/// Walks attributes: type and value of each, up to the first that does not fit.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[a, b, c, d], rest) = self.rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([a, b]), value))
    }
}

fn read_address(value: &[u8], mask: Option<&TransactionId>) -> Option<SocketAddr> {
    let (&[_, family, a, b], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([a, b]);
    let mut octets = [0; 16];
    let length = match family {
        1 => 4,
        2 => 16,
        _ => return None,
    };
    octets[..length].copy_from_slice(address.get(..length)?);
    if let Some(transaction) = mask {
        apply_mask(&mut octets[..length], transaction);
    }
    let address = match family {
        1 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        _ => Ipv6Addr::from(octets).to_canonical(),
    };
    Some(SocketAddr::new(address, if mask.is_some() { port ^ 0x2112 } else { port }))
}

fn apply_mask(address: &mut [u8], transaction: &TransactionId) {
    for (byte, mask) in address.iter_mut().zip(COOKIE.iter().chain(&transaction.0)) {
        *byte ^= mask;
    }
}

/// CRC-32 as Ethernet has it (ISO-HDLC).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSACTION: TransactionId = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

    #[test]
    fn the_request_is_the_40_bytes_that_stock_nodes_send() {
        let request = request(TRANSACTION);
        assert_eq!(
            hex::encode(&request[..36]),
            "000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004"
        );
        assert_eq!(parse_request(&request), Ok(TRANSACTION));
    }

    #[test]
    fn crc32_has_the_standard_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_request_of_any_other_form_is_refused() {
        let good = request(TRANSACTION);
        let mut other_software = good;
        other_software[24..32].copy_from_slice(b"someclie");
        let mut wrong_fingerprint = good;
        wrong_fingerprint[39] ^= 1;
        let mut fingerprint_first = good;
        fingerprint_first[20..28].copy_from_slice(&good[32..]);
        fingerprint_first[28..].copy_from_slice(&good[20..32]);
        for bad in [other_software, wrong_fingerprint, fingerprint_first] {
            assert_eq!(parse_request(&bad).unwrap_err().rule, "it is not the request that nodes send");
        }
        let mut bare = good[..20].to_vec();
        bare[3] = 0;
        let mut huge = good.to_vec();
        huge.resize(65_000, 0);
        for bad in [bare, huge, good[..39].to_vec(), Vec::new()] {
            assert_eq!(parse_request(&bad).unwrap_err().rule, "it has not the length of a node's request");
        }
    }

    #[test]
    fn an_answer_has_32_bytes_for_ipv4_and_44_for_ipv6() {
        let v4 = response(TRANSACTION, "203.0.113.20:41641".parse().unwrap());
        assert_eq!(
            hex::encode(&v4),
            "0101000c2112a4420102030405060708090a0b0c0020000800018 3bbea12d556".replace(' ', "")
        );
        let v6 = response(TRANSACTION, "[2001:db8::1]:1".parse().unwrap());
        assert_eq!((v4.len(), v6.len()), (32, RESPONSE_MAX_LEN));
        let mapped = response(TRANSACTION, "[::ffff:203.0.113.20]:41641".parse().unwrap());
        assert_eq!(mapped, v4);
    }

    #[test]
    fn the_answers_of_older_servers_are_read() {
        let answer = |kind: u16, value: &[u8]| {
            let mut out = BINDING_SUCCESS.to_vec();
            out.extend_from_slice(&(12 + value.len() as u16).to_be_bytes());
            out.extend_from_slice(&COOKIE);
            out.extend_from_slice(&TRANSACTION.0);
            // An attribute of unknown type and odd length goes before it.
            out.extend_from_slice(&[0x80, 0x22, 0, 3, b'x', b'y', b'z', 0]);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
            parse_response(&out)
        };
        let expected = Ok((TRANSACTION, "203.0.113.20:41641".parse().unwrap()));
        assert_eq!(answer(MAPPED_ADDRESS, &[0, 1, 0xa2, 0xa9, 203, 0, 113, 20]), expected);
        let masked = [0, 1, 0x83, 0xbb, 203 ^ 0x21, 0x12, 113 ^ 0xa4, 20 ^ 0x42];
        assert_eq!(answer(XOR_MAPPED_ADDRESS_OLD, &masked), expected);
        assert_eq!(answer(MAPPED_ADDRESS, &[0, 3, 0, 0, 0, 0, 0, 0]).unwrap_err().rule, "it tells no mapped address");
    }

    proptest! {
        #[test]
        fn every_answer_reads_back(transaction in any::<[u8; 12]>(), address in any::<std::net::IpAddr>(), port in any::<u16>()) {
            let source = SocketAddr::new(address.to_canonical(), port);
            let answer = response(TransactionId(transaction), source);
            prop_assert_eq!(parse_response(&answer), Ok((TransactionId(transaction), source)));
        }

        #[test]
        fn arbitrary_attributes_never_panic(attributes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut datagram = response(TRANSACTION, "[::1]:1".parse().unwrap());
            datagram.truncate(HEADER);
            datagram.extend_from_slice(&attributes);
            datagram[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
            let _ = parse_response(&datagram);
            let _ = parse_request(&datagram);
        }
    }
}
