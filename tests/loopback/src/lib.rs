//! Ports on loopback, for programs of tests that have to be told theirs.
//!
//! What it does not do: hold a port until the program takes it. A test that binds a socket itself asks the kernel for port 0,
//! keeps the socket, and needs nothing of this.
//!
//! Invariants:
//! - A process is given no port twice.
//! - No port is among those that the kernel gives to whoever connects or asks for any. Asking it for one and letting that go
//!   again is what fails now and then: until the program has started, the next connection of anybody may come from it.

#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port that is given, and how many there are.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that nobody has, neither for TCP nor for UDP.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes of tests that run beside each other begin at different ones.
    let begin = std::process::id().wrapping_mul(31);
    let mut ports = (0..COUNT).map(|_| port(begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed))));
    ports.find(|port| is_free(*port)).ok_or_else(|| io::Error::other("no port of loopback is free"))
}

fn port(number: u32) -> u16 {
    let within = number % u32::from(COUNT);
    FIRST + u16::try_from(within).unwrap_or_default()
}

fn is_free(port: u16) -> bool {
    let place = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..100).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn none_is_one_that_the_kernel_gives_by_itself() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(port(u32::MAX) < lowest && FIRST + COUNT <= lowest, "the kernel gives ports from {lowest} on");
    }

    #[test]
    fn what_somebody_has_is_not_free() {
        let (stream, datagram) = (free_port().unwrap(), free_port().unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, stream)).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, datagram)).unwrap();
        assert!(!is_free(stream) && !is_free(datagram));
        drop((listener, socket));
        assert!(is_free(stream) && is_free(datagram));
    }
}
