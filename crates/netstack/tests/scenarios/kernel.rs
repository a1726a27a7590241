//! The stack against the kernel's own TCP, through a TUN device in a network namespace of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use netstack::Closed;

use crate::tun::{CHARGEN, DISCARD, Driver, ECHO, KERNEL, Order, STACK};

const INSIDE: &str = "NETSTACK_TEST_INSIDE";

/// Runs `body` in a process of its own, because a namespace belongs to a process; `name` is the test's.
fn with_stack(name: &str, offload: bool, body: impl FnOnce(Sender<Order>)) {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args([&format!("kernel::{name}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "failed in its namespace");
        return;
    }
    let tun = crate::tun::open();
    let (orders, receiver) = channel();
    let driver = Driver::new(tun, receiver, offload);
    let running = std::thread::spawn(move || driver.run());
    body(orders);
    running.join().unwrap();
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::new(IpAddr::V4(STACK), port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn rate(what: &str, bytes: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!("{what}: {bytes} bytes in {seconds:.3} s, {:.2} Gb/s", bytes as f64 * 8e-9 / seconds);
}

/// Sends to the echo service and reads it back at the same time.
fn echo(length: usize) {
    let mut stream = connect(ECHO);
    let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = data.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == data, "{} of {length} bytes came back, or wrong ones", received.len());
}

fn everything() {
    echo(1);
    echo(8 << 20);
    let many: Vec<_> = (0..20).map(|_| std::thread::spawn(|| echo(200_000))).collect();
    many.into_iter().for_each(|one| one.join().unwrap());
}

#[test]
fn the_kernel_and_the_stack_exchange_with_offloads() {
    with_stack("the_kernel_and_the_stack_exchange_with_offloads", true, |_orders| everything());
}

#[test]
fn the_kernel_and_the_stack_exchange_without_offloads() {
    with_stack("the_kernel_and_the_stack_exchange_without_offloads", false, |_orders| everything());
}

/// What both directions carry; the numbers of a release build are worth reading.
fn measure() {
    let mut stream = connect(CHARGEN);
    let (began, mut total, mut buffer) = (Instant::now(), 0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            length => total += length,
        }
    }
    rate("stack to kernel", total, began);
    assert_eq!(total, 64 << 20);

    let mut stream = connect(DISCARD);
    let began = Instant::now();
    for _ in 0..64 {
        stream.write_all(&buffer).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    rate("kernel to stack", 64 << 20, began);
}

#[test]
fn both_directions_are_measured_with_super_packets() {
    with_stack("both_directions_are_measured_with_super_packets", true, |_orders| measure());
}

#[test]
fn both_directions_are_measured_without_super_packets() {
    with_stack("both_directions_are_measured_without_super_packets", false, |_orders| measure());
}

#[test]
fn the_stack_dials_the_kernel_and_sees_how_it_ends() {
    with_stack("the_stack_dials_the_kernel_and_sees_how_it_ends", true, |orders| {
        let listener = TcpListener::bind((KERNEL, 0)).unwrap();
        let (tell, told) = channel();
        orders.send(Order::Send(listener.local_addr().unwrap(), 3 << 20, tell)).unwrap();
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), IpAddr::V4(STACK));
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 3 << 20);
        drop(stream);
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(Closed::Finished));

        let nobody = listener.local_addr().unwrap();
        drop(listener);
        let (tell, told) = channel();
        orders.send(Order::Send(nobody, 1, tell)).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(Closed::Refused));
    });
}

#[test]
fn the_kernel_is_refused_where_nobody_listens() {
    with_stack("the_kernel_is_refused_where_nobody_listens", true, |_orders| {
        let error = TcpStream::connect(SocketAddr::new(IpAddr::V4(STACK), 4444)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}
