use ring::aead::LessSafeKey;

use crate::noise::{self, Secret, TAG};

const RECORD: u8 = 4;

/// Bytes before a record's ciphertext: type and big-endian length.
pub const RECORD_HEADER: usize = 3;
/// The longest record, header and all.
pub const MAX_RECORD: usize = 4096;
/// The longest text in one record.
pub const MAX_PLAINTEXT: usize = MAX_RECORD - RECORD_HEADER - TAG;

/// Why a record, and with it the channel, is no good. The channel ends at the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The header names another type than a record.
    #[error("a frame of type {0} where a record was expected")]
    Type(u8),
    /// The header names a length above [`MAX_RECORD`] or below that of a tag.
    #[error("a record of {0} bytes is outside the limits")]
    Length(usize),
    /// The tag does not verify.
    #[error("a record does not verify: the channel was tampered with or lost bytes")]
    Verification,
    /// Every nonce of this direction is used up.
    #[error("the channel has sealed as many records as it may")]
    Exhausted,
}

/// Reads a record's header and returns how many bytes of ciphertext follow.
pub fn record_length(header: &[u8; RECORD_HEADER]) -> Result<usize, RecordError> {
    if header[0] != RECORD {
        return Err(RecordError::Type(header[0]));
    }
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    if !(TAG..=MAX_RECORD - RECORD_HEADER).contains(&length) {
        return Err(RecordError::Length(length));
    }
    Ok(length)
}

/// An open channel, both directions.
#[derive(Debug)]
pub struct Transport {
    seal: SealHalf,
    open: OpenHalf,
}

impl Transport {
    pub(super) fn new(send: Secret, receive: Secret) -> Self {
        Self {
            seal: SealHalf(Direction { key: noise::cipher(&send), next: 0 }),
            open: OpenHalf(Direction { key: noise::cipher(&receive), next: 0 }),
        }
    }

    /// Parts the directions, for a reader and a writer that go their own ways.
    pub fn split(self) -> (SealHalf, OpenHalf) {
        (self.seal, self.open)
    }
}

/// The direction that this side sends in.
#[derive(Debug)]
pub struct SealHalf(Direction);

impl SealHalf {
    /// Appends one record, header and all, that carries `plaintext` of at most [`MAX_PLAINTEXT`] bytes.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(RecordError::Length(plaintext.len()));
        }
        let nonce = self.0.nonce()?;
        out.push(RECORD);
        out.extend_from_slice(&((plaintext.len() + TAG) as u16).to_be_bytes());
        noise::seal(&self.0.key, nonce, &[], plaintext, out);
        Ok(())
    }
}

/// The direction that this side receives in.
#[derive(Debug)]
pub struct OpenHalf(Direction);

impl OpenHalf {
    /// Opens a record's ciphertext in place and returns the text within it.
    pub fn open<'a>(&mut self, ciphertext: &'a mut [u8]) -> Result<&'a mut [u8], RecordError> {
        let nonce = self.0.nonce()?;
        noise::open(&self.0.key, nonce, &[], ciphertext).ok_or(RecordError::Verification)
    }
}

struct Direction {
    key: LessSafeKey,
    next: u64,
}

impl Direction {
    /// Four zero bytes and the counter in big-endian: the protocol's own order, not Noise's.
    fn nonce(&mut self) -> Result<[u8; 12], RecordError> {
        if self.next == u64::MAX {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        Ok(nonce)
    }
}

impl std::fmt::Debug for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direction").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn the_nonce_counts_in_big_endian() {
        let mut direction = Direction { key: noise::cipher(&[0; 32]), next: 0x0102 };
        assert_eq!(direction.nonce(), Ok([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]));
    }

    #[test]
    fn a_channel_ends_before_its_nonces_repeat() {
        let mut half = SealHalf(Direction { key: noise::cipher(&[0; 32]), next: u64::MAX - 1 });
        assert_eq!(half.seal(b"last", &mut Vec::new()), Ok(()));
        assert_eq!(half.seal(b"one more", &mut Vec::new()), Err(RecordError::Exhausted));
    }

    #[test]
    fn a_replayed_record_does_not_open() {
        let key = Zeroizing::new([7; 32]);
        let (mut seal, _) = Transport::new(key.clone(), key.clone()).split();
        let (_, mut open) = Transport::new(key.clone(), key).split();
        let mut record = Vec::new();
        seal.seal(b"once", &mut record).unwrap();
        assert_eq!(open.open(&mut record.clone()[RECORD_HEADER..]).unwrap(), b"once");
        assert_eq!(open.open(&mut record[RECORD_HEADER..]), Err(RecordError::Verification));
    }

    #[test]
    fn lengths_outside_the_limits_are_refused_before_reading_on() {
        assert_eq!(record_length(&[4, 0, 15]), Err(RecordError::Length(15)));
        assert_eq!(record_length(&[4, 0, 16]), Ok(16));
        assert_eq!(record_length(&[4, 0x0f, 0xfd]), Ok(4093));
        assert_eq!(record_length(&[4, 0x0f, 0xfe]), Err(RecordError::Length(4094)));
        assert_eq!(record_length(&[3, 0, 16]), Err(RecordError::Type(3)));
        assert_eq!(
            SealHalf(Direction { key: noise::cipher(&[0; 32]), next: 0 })
                .seal(&[0; MAX_PLAINTEXT + 1], &mut Vec::new()),
            Err(RecordError::Length(MAX_PLAINTEXT + 1))
        );
    }
}
