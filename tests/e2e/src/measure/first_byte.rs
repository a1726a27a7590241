use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::LabBox;

use super::let_be;
use crate::TAILNET_DOMAIN;

/// Where every node answers questions about names.
const MAGIC_DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 53);

/// How long to wait between two attempts, and for one answer of it.
const PAUSE: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(1);

/// Asks the web servers of these devices by name from a box, all at once, until each has sent its first byte; how long that
/// took since `began`, or why it did not within `limit`.
///
/// Sockets of this program in the network of the box: fifty programs a second would be what is measured.
pub(super) fn await_first_bytes(
    lab_box: &LabBox,
    devices: &[String],
    began: Instant,
    limit: Duration,
) -> Result<Vec<Result<Duration>>> {
    lab_box.in_network(|| {
        std::thread::scope(|scope| {
            let asking: Vec<_> =
                devices.iter().map(|device| scope.spawn(move || await_first_byte(device, began, limit))).collect();
            let answers = asking.into_iter().map(|asked| asked.join());
            answers.map(|answer| answer.unwrap_or_else(|_| bail!("the question broke off"))).collect()
        })
    })
}

fn await_first_byte(device: &str, began: Instant, limit: Duration) -> Result<Duration> {
    loop {
        match first_byte(device) {
            Ok(()) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() >= limit => {
                return Err(error).with_context(|| format!("{device}: not within {} s", limit.as_secs()));
            }
            Err(_) => let_be(PAUSE),
        }
    }
}

fn first_byte(device: &str) -> Result<()> {
    let address = resolve(&format!("{device}.{TAILNET_DOMAIN}"))?;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), ANSWER).context("connecting")?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {device}\r\nConnection: close\r\n\r\n").context("asking")?;
    let mut byte = [0];
    stream.read_exact(&mut byte).context("waiting for the first byte")
}

/// Asks for the IPv4 address of a name.
fn resolve(name: &str) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(MAGIC_DNS)?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send(&question(name)).context("asking for the name")?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).context("waiting for the name's address")?;
    address_in(&answer[..length])
}

/// A DNS question (RFC 1035) for the addresses of a name, with recursion.
fn question(name: &str) -> Vec<u8> {
    let mut question = vec![0x0f, 0x00, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

/// The first address in an answer to one question.
fn address_in(answer: &[u8]) -> Result<Ipv4Addr> {
    ensure!(answer.len() >= 12, "an answer of {} bytes", answer.len());
    let code = answer[3] & 0xf;
    ensure!(code == 0, "the name has no address (code {code})");
    let records = u16::from_be_bytes([answer[6], answer[7]]);
    // Past the question: its name, type and class.
    let mut rest = skip_name(&answer[12..])?.get(4..).context("the question is cut off")?;
    for _ in 0..records {
        rest = skip_name(rest)?;
        let head = rest.first_chunk::<10>().context("a record is cut off")?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let data = rest.get(10..10 + length).context("a record is cut off")?;
        if let ([0, 1], Ok(address)) = (&head[..2], <[u8; 4]>::try_from(data)) {
            return Ok(Ipv4Addr::from(address));
        }
        rest = &rest[10 + length..];
    }
    bail!("the name has no IPv4 address")
}

fn skip_name(mut text: &[u8]) -> Result<&[u8]> {
    loop {
        match text {
            [0, rest @ ..] => return Ok(rest),
            // A pointer to a name that was there before ends this one.
            [0xc0..=0xff, _, rest @ ..] => return Ok(rest),
            [length, rest @ ..] if rest.len() >= usize::from(*length) => text = &rest[usize::from(*length)..],
            _ => bail!("a name is cut off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_behind_question_and_alias() {
        let mut answer = question("web.example");
        answer[7] = 2;
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 100, 64, 0, 7]);
        assert_eq!(address_in(&answer).unwrap(), Ipv4Addr::new(100, 64, 0, 7));
        for length in 0..answer.len() {
            assert!(address_in(&answer[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_told() {
        let mut answer = question("web.example");
        answer[3] = 3;
        assert!(address_in(&answer).unwrap_err().to_string().contains("code 3"));
    }
}
