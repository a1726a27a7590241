//! An address and port in 18 bytes, as disco and DERP write them: IPv6 or IPv4-mapped address, then the port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Length of an address with its port.
pub(crate) const ENDPOINT_LEN: usize = 18;

pub(crate) fn read(bytes: &[u8; ENDPOINT_LEN]) -> SocketAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[..16]);
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}

pub(crate) fn write(endpoint: SocketAddr) -> [u8; ENDPOINT_LEN] {
    let address = match endpoint.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; ENDPOINT_LEN];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_endpoint_travels_mapped_and_comes_back_as_ipv4() {
        let endpoint = "203.0.113.20:41641".parse().unwrap();
        let bytes = write(endpoint);
        assert_eq!(hex::encode(bytes), "00000000000000000000ffffcb007114a2a9");
        assert_eq!(read(&bytes), endpoint);
    }

    #[test]
    fn an_ipv6_endpoint_comes_back_as_it_was() {
        let endpoint = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(read(&write(endpoint)), endpoint);
    }
}
