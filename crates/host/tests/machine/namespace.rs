//! Network namespaces of a test's own, and traffic between them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use socket2::{Domain, Protocol, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace. It goes with the last thread and descriptor in it.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes one, with loopback up.
    pub(crate) fn new() -> Self {
        let file = thread::spawn(|| {
            // SAFETY: a network namespace is shared with no other thread's state; this thread ends at once.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("these tests change networks in namespaces of their own: run them as root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self(file.join().unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs something on a thread of its own inside.
    pub(crate) fn run<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread inside, for good.
    pub(crate) fn enter(&self) {
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// A second handle to the same namespace.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    /// Runs the Debian tree's `ip` inside and returns what it prints. It sees this machine's files, as arguments name some,
    /// but its libraries are the tree's.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let tree = debian_tree();
        let mut command = Command::new(tree.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(tree.join("usr/lib/x86_64-linux-gnu"));
        command.arg(tree.join("usr/bin/ip")).args(arguments.split_whitespace());
        succeeded(&format!("ip {arguments}"), self.run(|| command.output().unwrap()))
    }

    /// Joins this namespace's new interface `here` to the other's new interface `there`.
    pub(crate) fn join(&self, here: &str, other: &Self, there: &str) {
        let other = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add {here} type veth peer name {there} netns {other}"));
    }

    /// Sets a setting below `/proc/sys/net`.
    pub(crate) fn set(&self, setting: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{setting}"), value).unwrap());
    }

    /// What a setting below `/proc/sys/net` is.
    pub(crate) fn get(&self, setting: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap().trim().to_owned())
    }

    /// Runs a program of the Debian tree inside (`nft`, `iptables-nft`), with input.
    pub(crate) fn tree(&self, program: &[&str], input: &str) -> String {
        let tree = debian_tree();
        let mut command = Command::new("chroot");
        command.arg(tree).args(program).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = self.run(|| {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        succeeded(&format!("{program:?}"), output)
    }
}

fn succeeded(name: &str, output: Output) -> String {
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Debian tree of the project's cache, with programs that give a second opinion.
fn debian_tree() -> PathBuf {
    let cache = std::env::var_os("TOWLINE_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/towline"), PathBuf::from);
    let tree = cache.join("tree");
    assert!(tree.join("usr/sbin/nft").exists(), "{} is missing: run `cargo xtask fetch`", tree.display());
    tree.canonicalize().unwrap()
}

/// Answers every TCP connection and UDP datagram for this address with the address that it came from.
pub(crate) fn answer(namespace: &Namespace, address: SocketAddr) {
    let namespace = namespace.again();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        namespace.enter();
        let listener = TcpListener::bind(address).unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten() {
            let from = stream.peer_addr().unwrap();
            let _ = (&stream).write_all(from.ip().to_string().as_bytes());
        }
    });
    is_ready.recv().unwrap();
}

/// Connects by TCP and returns who the other side takes us for.
pub(crate) fn ask_tcp(namespace: &Namespace, address: SocketAddr) -> Result<String, std::io::Error> {
    ask_tcp_within(namespace, address, PATIENCE)
}

/// The same with a patience of the caller's own.
pub(crate) fn ask_tcp_within(
    namespace: &Namespace,
    address: SocketAddr,
    patience: Duration,
) -> Result<String, std::io::Error> {
    namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// Sends a datagram and returns who the other side takes us for.
pub(crate) fn ask_udp(namespace: &Namespace, address: SocketAddr) -> Result<String, std::io::Error> {
    namespace.run(|| {
        let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who am I?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

/// Whether an echo request is answered.
pub(crate) fn ping(namespace: &Namespace, address: Ipv4Addr) -> bool {
    namespace.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        // Type 8, code 0, a checksum that is the complement of everything else, identifier and sequence number.
        let mut request = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        let sum: u16 = 0x0800 + 0x1234 + 0x0001;
        request[2..4].copy_from_slice(&(!sum).to_be_bytes());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            socket.send_to(&request, &SocketAddr::new(IpAddr::V4(address), 0).into()).unwrap();
            let mut buffer = [0; 128];
            while let Ok(length) = (&socket).read(&mut buffer) {
                let reply = &buffer[..length];
                if length >= 28 && reply[12..16] == address.octets() && reply[20] == 0 && reply[24..28] == request[4..8]
                {
                    return true;
                }
            }
        }
        false
    })
}

/// Watches an interface and hands out the segment sizes that SYNs announce there, of both directions.
pub(crate) fn announced_segments(namespace: &Namespace, address: Ipv4Addr) -> impl FnOnce() -> u16 {
    const ALL_PACKETS: i32 = 0x0003;
    let socket = namespace.run(|| {
        let protocol = Protocol::from(i32::from((ALL_PACKETS as u16).to_be()));
        Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap()
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    move || {
        let mut buffer = [0; 2048];
        loop {
            let length = (&socket).read(&mut buffer).expect("a SYN passes");
            if let Some(size) = segment_size(&buffer[..length], address) {
                return size;
            }
        }
    }
}

/// The segment size that a SYN for `to` announces.
fn segment_size(packet: &[u8], to: Ipv4Addr) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || packet[9] != 6 || packet[16..20] != to.octets() {
        return None;
    }
    let tcp = &packet[header..];
    if tcp[13] & 0x12 != 0x02 {
        return None;
    }
    let mut options = &tcp[20..usize::from(tcp[12] >> 4) * 4];
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => return None,
            (1, _) => options = rest,
            (2, [4, high, low, ..]) => return Some(u16::from_be_bytes([*high, *low])),
            (_, [length, ..]) => options = &options[usize::from(*length).max(2)..],
            _ => return None,
        }
    }
    None
}
