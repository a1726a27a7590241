//! Framing of the map stream: a little-endian length and a payload, JSON that is compressed by zstd when asked for.

use std::io::Read;

/// The longest payload that is read, as sent.
pub const PAYLOAD_LIMIT: usize = 16 << 20;

/// The longest message that is inflated.
pub const INFLATED_LIMIT: usize = 64 << 20;

/// How many times longer than its payload a message may be, beyond [`RATIO_SLACK`].
pub const RATIO_LIMIT: usize = 200;

/// What any message may inflate to, whatever its payload's length: repetition packs small messages very well.
pub const RATIO_SLACK: usize = 1 << 20;

/// The widest window that a payload may ask the decoder to keep, as a power of two: 64 MiB.
const WINDOW_LOG_LIMIT: u32 = 26;

/// Bytes of the length before each payload.
pub const HEAD: usize = 4;

/// Why a stream of frames can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame claims more than is read.
    #[error("a map message claims {claimed} bytes, at most {limit} are read", limit = PAYLOAD_LIMIT)]
    TooLong {
        /// What it claims.
        claimed: usize,
    },
    /// A message inflates to more than is read.
    #[error("a map message inflates to more than {limit} bytes", limit = INFLATED_LIMIT)]
    Inflated,
    /// A message inflates out of proportion.
    #[error("a map message of {payload} bytes inflates more than {limit}-fold", limit = RATIO_LIMIT)]
    Ratio {
        /// The payload's bytes.
        payload: usize,
    },
    /// A payload is not what zstd makes.
    #[error("a map message is no zstd: {0}")]
    Zstd(String),
    /// A message can't be sent: it is longer than a peer reads.
    #[error("a map message of {bytes} bytes is longer than the {limit} that a frame holds", limit = PAYLOAD_LIMIT)]
    Unsendable {
        /// Its bytes as they would be sent.
        bytes: usize,
    },
}

/// How payloads are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// JSON as it is.
    Plain,
    /// zstd, each message on its own.
    Zstd,
}

/// Packs messages into frames.
///
/// It holds about a megabyte of working memory once it has compressed something: keep one for each thread that writes
/// maps, not one for each connection.
pub struct FrameWriter {
    compressor: zstd::bulk::Compressor<'static>,
}

impl FrameWriter {
    /// The level that costs a server least per byte saved on maps, which are mostly keys and addresses.
    const LEVEL: i32 = 1;

    /// Makes a writer; fails only without memory.
    pub fn new() -> Result<Self, FrameError> {
        let compressor =
            zstd::bulk::Compressor::new(Self::LEVEL).map_err(|error| FrameError::Zstd(error.to_string()))?;
        Ok(Self { compressor })
    }

    /// Makes one frame of a message.
    pub fn frame(&mut self, json: &[u8], packing: Packing) -> Result<Vec<u8>, FrameError> {
        match packing {
            Packing::Plain => with_head(json),
            Packing::Zstd => {
                let packed = self.compressor.compress(json).map_err(|error| FrameError::Zstd(error.to_string()))?;
                with_head(&packed)
            }
        }
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameWriter")
    }
}

fn with_head(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let unsendable = FrameError::Unsendable { bytes: payload.len() };
    let length = u32::try_from(payload.len()).map_err(|_| unsendable.clone())?;
    if payload.len() > PAYLOAD_LIMIT {
        return Err(unsendable);
    }
    let mut out = Vec::with_capacity(HEAD + payload.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
    Ok(out)
}

/// Takes frames out of a stream that arrives in pieces.
///
/// It never holds more than one frame and the piece that came with its end: a length over the limit is refused when it
/// is read, before its payload is waited for.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffered: Vec<u8>,
    consumed: usize,
}

impl FrameReader {
    /// Adds what arrived. Take all frames out before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffered.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffered.extend_from_slice(bytes);
    }

    /// The next payload that is there as a whole.
    pub fn next_payload(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let pending = self.buffered.get(self.consumed..).unwrap_or_default();
        let Some((head, rest)) = pending.split_first_chunk::<HEAD>() else { return Ok(None) };
        let claimed = u32::from_le_bytes(*head);
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if length > PAYLOAD_LIMIT {
            return Err(FrameError::TooLong { claimed: length });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.consumed += HEAD + length;
        Ok(Some(payload))
    }
}

/// Inflates a payload, and stops as soon as it grows beyond the limits.
pub fn inflate(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let failed = |error: std::io::Error| FrameError::Zstd(error.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(failed)?;
    decoder.window_log_max(WINDOW_LOG_LIMIT).map_err(failed)?;
    let by_ratio = payload.len().saturating_mul(RATIO_LIMIT).saturating_add(RATIO_SLACK);
    let mut out = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = decoder.read(&mut piece).map_err(failed)?;
        if read == 0 {
            return Ok(out);
        }
        if out.len() + read > INFLATED_LIMIT {
            return Err(FrameError::Inflated);
        }
        if out.len() + read > by_ratio {
            return Err(FrameError::Ratio { payload: payload.len() });
        }
        out.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
            cut in 1_usize..64,
            zstd in any::<bool>(),
        ) {
            let mut writer = FrameWriter::new().unwrap();
            let packing = if zstd { Packing::Zstd } else { Packing::Plain };
            let stream: Vec<u8> = messages.iter().flat_map(|m| writer.frame(m, packing).unwrap()).collect();
            let (mut reader, mut read) = (FrameReader::default(), Vec::new());
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some(payload) = reader.next_payload().unwrap() {
                    read.push(if zstd { inflate(payload).unwrap() } else { payload.to_vec() });
                }
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn no_payload_makes_inflating_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate(&payload);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_payload_comes() {
        let mut reader = FrameReader::default();
        reader.push(&u32::try_from(PAYLOAD_LIMIT).unwrap().to_le_bytes());
        assert_eq!(reader.next_payload(), Ok(None));
        let mut reader = FrameReader::default();
        reader.push(&u32::try_from(PAYLOAD_LIMIT + 1).unwrap().to_le_bytes());
        let refused = reader.next_payload().unwrap_err();
        assert_eq!(refused, FrameError::TooLong { claimed: PAYLOAD_LIMIT + 1 });
        assert_eq!(refused.to_string(), "a map message claims 16777217 bytes, at most 16777216 are read");
    }

    #[test]
    fn a_bomb_is_given_up_while_it_inflates() {
        let bomb = zstd::bulk::compress(&vec![0; INFLATED_LIMIT + 1], 19).unwrap();
        let refused = inflate(&bomb).unwrap_err();
        assert_eq!(refused, FrameError::Ratio { payload: bomb.len() });
        let size = bomb.len();
        assert_eq!(refused.to_string(), format!("a map message of {size} bytes inflates more than 200-fold"));
        let small = zstd::bulk::compress(&vec![b' '; RATIO_SLACK], 19).unwrap();
        assert_eq!(inflate(&small).unwrap().len(), RATIO_SLACK);
    }

    #[test]
    fn a_message_inflates_to_the_limit_and_not_beyond() {
        // Noise in every eighth byte keeps the ratio low enough to reach the other limit.
        let mut seed = 1_u64;
        let mut noise = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 61 == 0 { (seed >> 40) as u8 } else { 0 }
        };
        let long: Vec<u8> = (0..=INFLATED_LIMIT).map(&mut noise).collect();
        let packed = zstd::bulk::compress(&long, 1).unwrap();
        let refused = inflate(&packed).unwrap_err();
        assert_eq!(refused, FrameError::Inflated);
        assert_eq!(refused.to_string(), "a map message inflates to more than 67108864 bytes");
        let packed = zstd::bulk::compress(&long[..INFLATED_LIMIT], 1).unwrap();
        assert_eq!(inflate(&packed).unwrap().len(), INFLATED_LIMIT);
    }

    #[test]
    fn a_cut_message_is_an_error_not_a_short_message() {
        let packed = zstd::bulk::compress(b"{\"KeepAlive\":true}", 1).unwrap();
        for at in 1..packed.len() {
            let refused = inflate(&packed[..at]).unwrap_err();
            assert!(matches!(refused, FrameError::Zstd(_)), "cut at {at}");
            assert!(refused.to_string().starts_with("a map message is no zstd: "), "cut at {at}: {refused}");
        }
    }

    #[test]
    fn a_message_that_no_peer_would_read_is_not_sent() {
        let mut writer = FrameWriter::new().unwrap();
        let longest = vec![b' '; PAYLOAD_LIMIT];
        assert_eq!(writer.frame(&longest, Packing::Plain).unwrap().len(), HEAD + PAYLOAD_LIMIT);
        let refused = writer.frame(&[longest, vec![b' ']].concat(), Packing::Plain).unwrap_err();
        assert_eq!(refused, FrameError::Unsendable { bytes: PAYLOAD_LIMIT + 1 });
        let says = "a map message of 16777217 bytes is longer than the 16777216 that a frame holds";
        assert_eq!(refused.to_string(), says);
    }
}
