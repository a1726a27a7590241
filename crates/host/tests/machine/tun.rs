use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use host::{Offloads, RouterConfig, SUPER_PACKET_BYTES, Segmentation, Tun, TunConfig, VNET_HEADER_BYTES, VnetHeader};

use crate::namespace::Namespace;

fn open(namespace: &Namespace, config: TunConfig) -> Tun {
    namespace.run(|| Tun::open(config).unwrap())
}

fn addressed(namespace: &Namespace) -> Tun {
    let tun = open(namespace, TunConfig::new("tailscale0"));
    namespace.run(|| {
        let config = RouterConfig {
            interface: "tailscale0".to_owned(),
            addresses: ["100.64.0.1/32".parse().unwrap()].into(),
            routes: ["100.64.0.0/10".parse().unwrap()].into(),
            ..Default::default()
        };
        let applied = host::Router::new().unwrap().apply(&config).unwrap();
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    });
    tun
}

#[test]
fn an_interface_has_the_name_the_mtu_and_the_queue_that_were_asked_for() {
    let namespace = Namespace::new();
    let tun = open(&namespace, TunConfig { mtu: 1380, queue_length: 777, ..TunConfig::new("tailscale0") });
    let link = namespace.run(|| host::links().unwrap()).into_iter().find(|link| link.name == "tailscale0").unwrap();
    assert_eq!((link.index, link.mtu, link.queue_length, link.up), (tun.index(), 1380, 777, true));
    assert!(link.point_to_point);
    assert!(namespace.ip("link show tailscale0").contains("mtu 1380"));
    assert!(!namespace.ip("-6 addr show dev tailscale0").contains("fe80"), "no link-local address");
    drop(tun);
    assert!(!namespace.ip("link show").contains("tailscale0"));
}

#[test]
fn packets_come_out_of_the_interface_and_go_in() {
    let namespace = Namespace::new();
    let tun = addressed(&namespace);
    let socket = namespace.run(|| UdpSocket::bind("100.64.0.1:4000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"ping", "100.64.0.9:5000").unwrap();
    let mut buffer = vec![0; SUPER_PACKET_BYTES];
    let length = tun.read(&mut buffer).unwrap();
    assert_eq!(tun.try_read(&mut vec![0; SUPER_PACKET_BYTES]).unwrap(), None, "nothing more waits");
    let packet = &mut buffer[VNET_HEADER_BYTES..length];
    assert_eq!(&packet[28..], b"ping");

    // Back to where it came from: addresses and ports swapped; the sum of the header stays as it is.
    let (source, destination): ([u8; 4], [u8; 4]) =
        (packet[12..16].try_into().unwrap(), packet[16..20].try_into().unwrap());
    packet[12..16].copy_from_slice(&destination);
    packet[16..20].copy_from_slice(&source);
    let (from, to): ([u8; 2], [u8; 2]) = (packet[20..22].try_into().unwrap(), packet[22..24].try_into().unwrap());
    packet[20..22].copy_from_slice(&to);
    packet[22..24].copy_from_slice(&from);
    packet[26..28].copy_from_slice(&[0, 0]);
    let (head, tail) = packet.split_at(20);
    let header = VnetHeader::PLAIN.encode();
    tun.write(&[IoSlice::new(&header), IoSlice::new(head), IoSlice::new(tail)]).unwrap();
    let mut answer = [0; 16];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from.ip()), (&b"ping"[..], "100.64.0.9".parse::<IpAddr>().unwrap()));
}

#[test]
fn a_train_of_datagrams_comes_out_whole_when_the_kernel_cuts_udp() {
    let namespace = Namespace::new();
    let tun = addressed(&namespace);
    if tun.offloads() < Offloads::TcpUdp {
        eprintln!("this kernel does not leave UDP uncut: {:?}", tun.offloads());
        return;
    }
    let socket = namespace.run(|| UdpSocket::bind("100.64.0.1:4000").unwrap());
    set_segment(&socket, 1000);
    socket.send_to(&[7; 10_000], "100.64.0.9:5000").unwrap();
    let mut buffer = vec![0; SUPER_PACKET_BYTES];
    let length = tun.read(&mut buffer).unwrap();
    assert_eq!(length, VNET_HEADER_BYTES + 28 + 10_000);
    let header = VnetHeader::decode(buffer.first_chunk().unwrap()).unwrap();
    assert_eq!(header.segmentation, Segmentation::Udp { size: 1000 });
}

fn set_segment(socket: &UdpSocket, bytes: u16) {
    use std::os::fd::AsRawFd;
    const UDP_SEGMENT: i32 = 103;
    let value = i32::from(bytes);
    // SAFETY: the option's value is an int that outlives the call, and its size is passed.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            UDP_SEGMENT,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    assert_eq!(set, 0);
}

#[test]
fn a_reader_that_waits_is_freed_when_the_interface_is_removed() {
    let namespace = Namespace::new();
    let tun = addressed(&namespace);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| tun.read(&mut vec![0; SUPER_PACKET_BYTES]));
        namespace.run(|| tun.remove().unwrap());
        assert!(reader.join().unwrap().is_err());
        namespace.run(|| tun.remove().unwrap());
    });
}

#[test]
fn an_interface_that_another_holds_is_refused_with_a_next_step() {
    let namespace = Namespace::new();
    let _held = open(&namespace, TunConfig::new("tailscale0"));
    let error = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    assert!(error.to_string().contains("another process holds this interface"), "{error}");
}

#[test]
fn several_queues_are_opened_only_when_asked_for() {
    let namespace = Namespace::new();
    let config = TunConfig { multi_queue: true, ..TunConfig::new("tailscale0") };
    let tun = open(&namespace, config);
    assert_eq!(namespace.run(|| tun.queue().unwrap()).index(), tun.index());
    let single = open(&namespace, TunConfig::new("tailscale1"));
    assert!(namespace.run(|| single.queue().unwrap_err()).to_string().contains("`multi_queue`"));
}

#[test]
fn a_missing_device_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("net/tun");
    let namespace = Namespace::new();
    let config = TunConfig { device: device.clone(), ..TunConfig::new("tailscale0") };
    match namespace.run(|| Tun::open(config)) {
        Ok(tun) => assert_eq!(tun.name(), "tailscale0"),
        // A temporary folder is often on a file system that opens no devices.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}"),
    }
    assert!(device.exists());
}
