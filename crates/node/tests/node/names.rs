//! A node that finds its coordination server by name, on a machine that changes networks.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use dial::{NameSettings, SystemResolver};
use node::{Config, Node};
use tokio::net::UdpSocket;

use crate::daemon::{config, peers, until};
use coordination::{Server, peer};

/// What stands for `/etc/resolv.conf`.
#[derive(Debug)]
struct File(PathBuf);

impl NameSettings for File {
    fn read(&self) -> io::Result<String> {
        fs::read_to_string(&self.0)
    }
}

/// A name server on loopback by which every name is this machine's.
async fn name_server() -> IpAddr {
    let process = std::process::id().to_be_bytes();
    // Name servers have one port, so that each needs an address that no other process took.
    for last in 1..=250 {
        let address = Ipv4Addr::new(127, 54, process[3], last);
        let Ok(socket) = UdpSocket::bind((address, 53)).await else { continue };
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let _ = socket.send_to(&answer(&question[..length]), from).await;
            }
        });
        return address.into();
    }
    panic!("these tests serve names at port 53 of loopback: run them as root");
}

/// The answer to a question: 127.0.0.1 where an IPv4 address is asked for, and nothing else.
fn answer(question: &[u8]) -> Vec<u8> {
    let end = question[12..].iter().position(|byte| *byte == 0).unwrap() + 13;
    let has_one = question[end..end + 2] == [0, 1];
    let counts = [0, 1, 0, u8::from(has_one), 0, 0, 0, 0];
    let record: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 127, 0, 0, 1];
    let record = if has_one { record } else { &[] };
    [&question[..2], &[0x81, 0x80], &counts, &question[12..end + 4], record].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_without_a_network_joins_once_there_is_one() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
    server.script.lock().unwrap().peers = vec![peer(2, "server")];
    let file = folder.path().join("resolv.conf");
    fs::write(&file, "# no network yet\n").unwrap();
    let url = server.url.replace("127.0.0.1", "control.example");
    let resolver = Arc::new(SystemResolver::of(File(file.clone())));
    let node = Node::start(Config { resolver, ..config(folder.path(), &url) }).await.unwrap();
    let told = until(&node, "the user is told", |now| now.control_error.clone()).await;
    assert!(told.contains("/etc/resolv.conf names no name server"), "{told}");
    fs::write(&file, format!("nameserver {}\n", name_server().await)).unwrap();
    until(&node, "the node is in", |now| (peers(now) == [2]).then_some(())).await;
    node.stop().await;
}
