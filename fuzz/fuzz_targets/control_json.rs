//! Any text as the control protocol's messages, in both directions: it is read within its limits or refused with a
//! reason, and what was read means the same when it is written and read again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tailcfg::frame::{self, FrameReader, FrameWriter, Packing};
use tailcfg::json::{self, Limits};
use tailcfg::{EarlyPayload, MapRequest, MapResponse, RegisterRequest, RegisterResponse, c2n, request};

/// Bounds that short texts break.
const TIGHT: Limits = Limits { bytes: 512, depth: 6, string: 40, entries: 12, values: 48 };

fuzz_target!(|data: &[u8]| {
    check_limits(data);
    check_frames(data);
    check::<RegisterRequest>(data, Limits::REQUEST);
    check::<RegisterResponse>(data, Limits::ANSWER);
    check::<MapRequest>(data, Limits::REQUEST);
    check::<MapResponse>(data, Limits::MAP);
    check::<request::SetDns>(data, Limits::REQUEST);
    check::<request::SetDeviceAttributes>(data, Limits::REQUEST);
    check::<request::AuditLog>(data, Limits::REQUEST);
    check::<request::UpdateHealth>(data, Limits::REQUEST);
    check::<request::Certificate>(data, Limits::REQUEST);
    check::<request::RelayAdmission>(data, Limits::REQUEST);
    check::<c2n::VipServices>(data, Limits::ANSWER);
    if let Ok(payload) = EarlyPayload::decode(data) {
        assert_eq!(EarlyPayload::decode(&serde_json::to_vec(&payload).expect("it can be written")), Ok(payload));
    }
});

fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8], limits: Limits) {
    match json::read::<T>(data, limits) {
        Ok(message) => {
            let written = serde_json::to_vec(&message).expect("what was read can be written");
            let again = serde_json::from_slice::<T>(&written);
            assert_eq!(again.ok().as_ref(), Some(&message), "written as {}", String::from_utf8_lossy(&written));
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// A text that passes is within each bound, counted on what the text says.
fn check_limits(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    if json::check(data, TIGHT).is_ok() {
        let (depth, values) = measure(&value);
        assert!(data.len() <= TIGHT.bytes && depth <= TIGHT.depth && values <= TIGHT.values && within(&value));
    }
}

/// How deep a value's objects and lists stand in each other, and how many entries they have together.
fn measure(value: &serde_json::Value) -> (usize, usize) {
    let below: Vec<(usize, usize)> = match value {
        serde_json::Value::Array(items) => items.iter().map(measure).collect(),
        serde_json::Value::Object(members) => members.values().map(measure).collect(),
        _ => return (0, 0),
    };
    let depth = below.iter().map(|(depth, _)| depth).max().map_or(0, |depth| *depth);
    (depth + 1, below.len() + below.iter().map(|(_, values)| values).sum::<usize>())
}

/// Whether no text and no list is longer than the tight bounds allow.
fn within(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.len() <= TIGHT.string,
        serde_json::Value::Array(items) => items.len() <= TIGHT.entries && items.iter().all(within),
        serde_json::Value::Object(members) => {
            members.len() <= TIGHT.entries
                && members.iter().all(|(name, value)| name.len() <= TIGHT.string && within(value))
        }
        _ => true,
    }
}

/// A stream of frames says the same in whatever pieces it arrives, and a message comes back as it was packed.
fn check_frames(data: &[u8]) {
    let Some((&pieces, stream)) = data.split_first() else { return };
    let whole = read_stream([stream].into_iter());
    assert_eq!(whole, read_stream(stream.chunks(usize::from(pieces) + 1)));
    if let Ok(inflated) = frame::inflate(data) {
        assert!(inflated.len() <= frame::INFLATED_LIMIT);
    }
    if pieces == 0 {
        let framed =
            FrameWriter::new().and_then(|mut writer| writer.frame(stream, Packing::Zstd)).expect("it is small");
        let (payloads, error) = read_stream([&framed[..]].into_iter());
        assert_eq!((payloads.len(), error), (1, None));
        assert_eq!(frame::inflate(&payloads[0]).expect("what was packed"), stream);
    }
}

fn read_stream<'d>(pieces: impl Iterator<Item = &'d [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
    let mut reader = FrameReader::default();
    let mut payloads = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_payload() {
                Ok(Some(payload)) => payloads.push(payload.to_vec()),
                Ok(None) => break,
                Err(error) => return (payloads, Some(error.to_string())),
            }
        }
    }
    (payloads, None)
}
