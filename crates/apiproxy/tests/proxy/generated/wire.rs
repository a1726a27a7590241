//! A request in bytes, as each version of HTTP has it.

use super::request::{Body, Hostile, Http1, Http2, SMUGGLED, field};
use crate::http2::{self, Field};

/// The bytes of a request over HTTP/1.1. The last Connection header ends the connection, but where a session is asked for.
pub(super) fn http1_bytes(hostile: &Hostile, http1: &Http1) -> Vec<u8> {
    let end = http1.line_end.as_bytes();
    let mut lines = vec![format!("{} {} {}", hostile.method, hostile.target, http1.version).into_bytes()];
    let mut add = |(name, value): &Field| lines.push([name, &b": "[..], value].concat());
    add(&field("Host", "x"));
    hostile.fields.iter().for_each(&mut add);
    match http1.upgrade {
        Some((protocol, connection, _)) => {
            add(&field("uPgRaDe", protocol));
            add(&field("Connection", connection));
        }
        None => add(&field("Connection", "close")),
    }
    let body = match http1.upgrade {
        Some((_, _, false)) => &Body::None,
        _ => &hostile.body,
    };
    match body {
        Body::None => {}
        Body::Whole(bytes) => add(&field("Content-Length", &bytes.len().to_string())),
        Body::Pieces(..) => add(&field("Transfer-Encoding", "chunked")),
    }
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [line, end].concat()).collect();
    bytes.extend(end);
    match body {
        Body::None => {}
        Body::Whole(whole) => bytes.extend(whole),
        Body::Pieces(pieces, trailers) => bytes.extend(chunked(pieces, trailers)),
    }
    if http1.behind {
        bytes.extend(SMUGGLED.as_bytes());
    }
    bytes
}

fn chunked(pieces: &[Vec<u8>], trailers: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n");
    for (name, value) in trailers {
        bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
    }
    [bytes, b"\r\n".to_vec()].concat()
}

pub(super) fn http2_bytes(hostile: &Hostile, http2: &Http2) -> Vec<u8> {
    let lower = |(name, value): &Field| match http2.lower_case {
        true => (name.to_ascii_lowercase(), value.clone()),
        false => (name.clone(), value.clone()),
    };
    let mut pseudo = vec![field(":method", hostile.method), field(":scheme", "https")];
    pseudo.extend([field(":authority", "x"), field(":path", &hostile.target)]);
    // What is odd takes the place of what is not, or comes beside it.
    for (index, odd) in http2.pseudo.iter().enumerate() {
        if index == 0 {
            pseudo.retain(|(name, _)| *name != odd.0);
        }
        pseudo.push(odd.clone());
    }
    let mut regular: Vec<Field> = hostile.fields.iter().map(lower).collect();
    if let Body::Whole(bytes) = &hostile.body {
        regular.push(field("content-length", &bytes.len().to_string()));
    }
    let fields = if http2.pseudo_last { [regular, pseudo].concat() } else { [pseudo, regular].concat() };
    let ends = matches!(hostile.body, Body::None);
    let mut bytes = [http2::preface(), http2::head(1, &fields, ends, http2.in_two)].concat();
    match &hostile.body {
        Body::None => {}
        Body::Whole(whole) => bytes.extend(http2::data(1, whole, true)),
        Body::Pieces(pieces, trailers) => {
            let last = trailers.is_empty();
            pieces.iter().for_each(|piece| bytes.extend(http2::data(1, piece, false)));
            bytes.extend(if last { http2::data(1, b"", true) } else { http2::head(1, trailers, true, false) });
        }
    }
    bytes
}
