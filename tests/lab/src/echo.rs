//! The small servers that live in boxes: one tells callers their address, one shows a page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Port of the echo protocol (RFC 862), TCP and UDP.
pub const ECHO_PORT: u16 = 7;

/// Most connections served at once; more are closed.
const MOST_CONNECTIONS: usize = 512;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(300);

/// Longest request head.
const LONGEST_HEAD: u64 = 16 * 1024;

/// Serves the echo box: port 80 answers with the caller's address (HTTP) or address and port (UDP), port 7 echoes TCP and UDP.
pub(crate) fn serve_caller_address() -> Result<()> {
    let bind =
        |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("listening at UDP port {port}"));
    let (datagrams, callers) = (bind(ECHO_PORT)?, bind(80)?);
    let streams = listen(ECHO_PORT)?;
    let requests = listen(80)?;
    thread::spawn(move || answer_datagrams(&datagrams, |packet, _| packet.to_vec()));
    thread::spawn(move || answer_datagrams(&callers, |_, caller| caller.to_string().into_bytes()));
    thread::spawn(move || accept(&streams, |stream, _| echo_stream(stream)));
    accept(&requests, |stream, caller| answer(stream, &format!("{}\n", caller.ip())));
    Ok(())
}

/// Serves HTTP on port 80 with `text` for every page.
pub(crate) fn serve_page(text: &str) -> Result<()> {
    let text = format!("{text}\n");
    accept(&listen(80)?, move |stream, _| answer(stream, &text));
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("listening at TCP port {port}"))
}

fn accept<F>(listener: &TcpListener, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> std::io::Result<()> + Send + Sync + 'static,
{
    let serve = Arc::new(serve);
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(caller) = stream.peer_addr() else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (serve, open) = (Arc::clone(&serve), Arc::clone(&open));
        thread::spawn(move || {
            let served = stream.set_read_timeout(Some(IDLE)).and_then(|()| serve(stream, caller));
            if let Err(error) = served {
                eprintln!("{caller}: {error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers every request on a connection with the same text.
fn answer(stream: TcpStream, text: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        let mut head = (&mut reader).take(LONGEST_HEAD);
        let mut close = false;
        let mut first = true;
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Ok(());
            }
            close |= first && line.contains("HTTP/1.0") || line.trim().eq_ignore_ascii_case("connection: close");
            first = false;
            if line.trim().is_empty() {
                break;
            }
        }
        let length = text.len();
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}")?;
        if close {
            return Ok(());
        }
    }
}

fn echo_stream(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = stream.try_clone()?;
    std::io::copy(&mut reader, &mut stream).map(drop)
}

fn answer_datagrams(socket: &UdpSocket, answer: impl Fn(&[u8], SocketAddr) -> Vec<u8>) {
    let mut packet = [0; 65536];
    loop {
        match socket.recv_from(&mut packet) {
            Ok((length, caller)) => {
                // A caller that is gone by now needs no answer.
                let _ = socket.send_to(&answer(&packet[..length], caller), caller);
            }
            Err(error) => eprintln!("UDP: {error}"),
        }
    }
}
