use super::transport::{MAX_PLAINTEXT, RecordError, SealHalf};

/// Sealed bytes that may wait for the stream before writers have to.
const ROOM: usize = 64 << 10;

/// Turns text into the bytes of a stream, record by record, and keeps them until the stream has taken them.
///
/// While it [has room](RecordWriter::has_room), give it text with [`RecordWriter::write`]; send what is
/// [waiting](RecordWriter::waiting) and say how much went with [`RecordWriter::advance`].
#[derive(Debug)]
pub struct RecordWriter {
    seal: SealHalf,
    sealed: Vec<u8>,
    /// Bytes of what is sealed that the stream has taken.
    taken: usize,
}

impl RecordWriter {
    /// Writes what `seal` seals.
    pub fn new(seal: SealHalf) -> Self {
        Self { seal, sealed: Vec::new(), taken: 0 }
    }

    /// Seals the start of a text, at most 64 KiB of it, and returns how much that is.
    pub fn write(&mut self, text: &[u8]) -> Result<usize, RecordError> {
        let text = &text[..text.len().min(ROOM)];
        for piece in text.chunks(MAX_PLAINTEXT) {
            self.seal.seal(piece, &mut self.sealed)?;
        }
        Ok(text.len())
    }

    /// Takes note of `count` bytes that the stream has taken.
    pub fn advance(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.sealed.len());
        if self.taken == self.sealed.len() {
            self.sealed.clear();
            // An idle channel keeps little: a server has thousands of them.
            self.sealed.shrink_to(ROOM / 4);
            self.taken = 0;
        }
    }

    /// Sealed bytes that the stream has not taken yet.
    pub fn waiting(&self) -> &[u8] {
        &self.sealed[self.taken..]
    }

    /// Whether text may be written before what waits has gone.
    pub fn has_room(&self) -> bool {
        self.sealed.len() < ROOM
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::reader::RecordReader;
    use super::super::transport::Transport;
    use super::*;

    #[test]
    fn what_is_written_is_read_however_the_stream_takes_it() {
        for piece in [1, 100, 4096, 1 << 20] {
            let key = Zeroizing::new([3; 32]);
            let (seal, open) = Transport::new(key.clone(), key).split();
            let (mut writer, mut reader) = (RecordWriter::new(seal), RecordReader::new(open));
            let sent: Vec<u8> = (0..200_000_u32).map(|at| (at * 7) as u8).collect();
            let (mut rest, mut stream) = (&sent[..], Vec::new());
            while !rest.is_empty() || !writer.waiting().is_empty() {
                if writer.has_room() && !rest.is_empty() {
                    let count = writer.write(rest).unwrap();
                    assert!((1..=ROOM).contains(&count), "{count}");
                    rest = &rest[count..];
                }
                let taken = writer.waiting().len().min(piece);
                stream.extend_from_slice(&writer.waiting()[..taken]);
                writer.advance(taken);
                assert!(writer.waiting().len() <= 3 * ROOM, "what waits is bounded");
            }
            let (mut got, mut rest) = (Vec::new(), &stream[..]);
            while !rest.is_empty() {
                let space = reader.space();
                let count = space.len().min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                reader.advance(count).unwrap();
                got.extend_from_slice(reader.text());
                let length = reader.text().len();
                reader.consume(length);
            }
            assert!(got == sent);
        }
    }
}
