//! Two engines on real TUN devices, and a program's traffic through them.
//!
//! Makes two network namespaces of its own, a TUN in each (100.64.0.1 and 100.64.0.2), and two engines that talk over
//! loopback outside; then runs one command in each namespace, the first until the second ends. Linux, as root.
//!
//! ```text
//! cargo run --release -p engine --example tunnel -- 'iperf3 -s -1' 'iperf3 -c 100.64.0.1 -t 5'
//! ```

#[path = "pair/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use engine::Device;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags};

use node::{Failure, MTU, Node, cpu_times};

/// A TUN device with a virtio-net header and all offloads.
struct Tun {
    device: OwnedFd,
    woken: OwnedFd,
}

impl Tun {
    /// Makes `mesh0` in the namespace of the calling thread.
    fn open() -> io::Result<Self> {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
        /// Checksum, TSO for both families, USO for both families.
        const OFFLOADS: libc::c_ulong = 1 | 2 | 4 | 0x20 | 0x40;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut request = [0u8; 40];
        request[..5].copy_from_slice(b"mesh0");
        let kind = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request[16..18].copy_from_slice(&(kind as u16).to_ne_bytes());
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which has 40 bytes, at the address given.
        if unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: TUNSETOFFLOAD takes a number and no address.
        if unsafe { libc::ioctl(device.as_raw_fd(), TUNSETOFFLOAD as _, OFFLOADS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { device, woken: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }
}

impl Device for Tun {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let fds = &mut [PollFd::new(&self.device, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
            poll(fds, None)?;
            if !fds[1].revents().is_empty() {
                let _empty = rustix::io::read(&self.woken, &mut [0; 8]);
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.device, buffer)?)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.device, slices)?;
        Ok(())
    }

    fn wake(&self) {
        let _full = rustix::io::write(&self.woken, &1u64.to_ne_bytes());
    }

    fn takes_tcp(&self) -> bool {
        true
    }

    fn takes_udp(&self) -> bool {
        true
    }
}

/// A thread that lives in a network namespace of its own, and starts programs there.
struct Namespace {
    orders: mpsc::Sender<(String, mpsc::Sender<io::Result<Child>>)>,
}

impl Namespace {
    fn new(address: Ipv4Addr) -> Result<(Self, Tun), Failure> {
        let (orders, ordered) = mpsc::channel::<(String, mpsc::Sender<io::Result<Child>>)>();
        let (made, making) = mpsc::channel();
        std::thread::spawn(move || {
            let tun = enter_new_namespace().and_then(|()| Tun::open());
            let failed = tun.is_err();
            // Both ends live as long as `main` does.
            let _gone = made.send(tun);
            if failed {
                return;
            }
            for (command, reply) in ordered {
                let _gone = reply.send(Command::new("sh").arg("-c").arg(command).spawn());
            }
        });
        let tun = making.recv()??;
        let namespace = Self { orders };
        for command in [
            "ip link set lo up".to_owned(),
            format!("ip link set mesh0 mtu {MTU} txqueuelen 1000 up"),
            format!("ip addr add {address}/24 dev mesh0"),
        ] {
            if !namespace.start(&command)?.wait()?.success() {
                return Err(format!("{command}: failed").into());
            }
        }
        Ok((namespace, tun))
    }

    fn start(&self, command: &str) -> Result<Child, Failure> {
        let (reply, started) = mpsc::channel();
        self.orders.send((command.to_owned(), reply))?;
        Ok(started.recv()??)
    }
}

fn enter_new_namespace() -> io::Result<()> {
    // SAFETY: `unshare` takes no addresses; it moves this thread alone to a new network namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(serve), Some(use_it)) = (arguments.next(), arguments.next()) else {
        return Err("two commands are needed: one for 100.64.0.1, one for 100.64.0.2".into());
    };
    let (one, other) = (Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2));
    let ((server, server_tun), (client, client_tun)) = (Namespace::new(one)?, Namespace::new(other)?);
    let (one, other) = tokio::try_join!(Node::start(one, server_tun), Node::start(other, client_tun))?;
    one.show(&other)?;
    other.show(&one)?;
    other.engine.ping(one.engine.node_key(), engine::PingKind::Tsmp).await?;

    let before = cpu_times()?;
    let mut serving = server.start(&serve)?;
    // Programs that serve take a moment to listen.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcome = client.start(&use_it)?.wait()?;
    serving.kill()?;
    serving.wait()?;
    let after = cpu_times()?;
    let spent = |thread: &str| {
        let of = |times: &BTreeMap<String, f64>| times.get(thread).copied().unwrap_or_default();
        of(&after) - of(&before)
    };
    println!("the engines' threads: tx {:.2} s, rx {:.2} s", spent("mesh-tx"), spent("mesh-rx"));
    for node in [&one, &other] {
        let status = node.engine.status().await?;
        for peer in status.peers.values() {
            println!("{}: sent {} bytes, received {} bytes", node.address, peer.sent_bytes, peer.received_bytes);
        }
        println!("{:?}", status.counters);
    }
    let resident = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", resident.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
    one.engine.shutdown().await;
    other.engine.shutdown().await;
    if outcome.success() { Ok(()) } else { Err("the second command failed".into()) }
}
