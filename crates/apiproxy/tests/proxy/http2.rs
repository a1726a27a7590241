//! HTTP/2 in bytes (RFC 9113, RFC 7541), for what no library would send.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::world::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A field of a head, in the bytes of its name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// How a client begins: the preface and settings that ask for nothing.
pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A head, or trailers, in one frame or in two.
pub(crate) fn head(stream: u32, fields: &[Field], ends: bool, in_two: bool) -> Vec<u8> {
    let block: Vec<u8> =
        fields.iter().flat_map(|(name, value)| [&[0][..], &text(name), &text(value)].concat()).collect();
    let ends = if ends { END_STREAM } else { 0 };
    if !in_two {
        return frame(HEADERS, ends | END_HEADERS, stream, &block);
    }
    let (first, second) = block.split_at(block.len() / 2);
    [frame(HEADERS, ends, stream, first), frame(CONTINUATION, END_HEADERS, stream, second)].concat()
}

pub(crate) fn data(stream: u32, bytes: &[u8], ends: bool) -> Vec<u8> {
    frame(DATA, if ends { END_STREAM } else { 0 }, stream, bytes)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A string as it is, without Huffman's code (RFC 7541, section 5.2).
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    match bytes.len() {
        short @ 0..=126 => length.push(short as u8),
        mut long => {
            length.push(127);
            long -= 127;
            while long >= 128 {
                length.push(long as u8 | 128);
                long >>= 7;
            }
            length.push(long as u8);
        }
    }
    [length, bytes.to_vec()].concat()
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered, with 200 or something else.
    Answered { ok: bool, body: Vec<u8> },
    /// Reset, with this error.
    Reset(u32),
    /// The whole connection was ended.
    Closed,
}

/// Reads until this stream is over.
pub(crate) async fn outcome(from: &mut (impl AsyncRead + Unpin), stream: u32) -> Outcome {
    let (mut ok, mut body) = (false, Vec::new());
    loop {
        let Some((kind, flags, of, payload)) = next_frame(from).await else { return Outcome::Closed };
        match kind {
            GOAWAY => return Outcome::Closed,
            RST_STREAM if of == stream => {
                return Outcome::Reset(u32::from_be_bytes(payload.try_into().unwrap()));
            }
            // The first field of a first head is its status, and 200 is in the table that both begin with.
            HEADERS if of == stream => ok |= payload.first() == Some(&0x88),
            DATA if of == stream => body.extend(payload),
            _ => {}
        }
        if of == stream && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return Outcome::Answered { ok, body };
        }
    }
}

async fn next_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let reading = async {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}
