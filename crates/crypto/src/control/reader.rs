use super::transport::{MAX_RECORD, OpenHalf, RECORD_HEADER, RecordError, record_length};

/// Turns the bytes of a stream into text, record by record, in one buffer of [`MAX_RECORD`] bytes.
///
/// Read into [`RecordReader::space`], say how much came with [`RecordReader::advance`], and take [`RecordReader::text`]
/// away with [`RecordReader::consume`]. There is space only while there is no text.
#[derive(Debug)]
pub struct RecordReader {
    open: OpenHalf,
    buffer: Box<[u8; MAX_RECORD]>,
    /// Bytes of the current record that have been read.
    filled: usize,
    /// Bytes of the current record, header and all, as far as they are known.
    wanted: usize,
    text: std::ops::Range<usize>,
}

impl RecordReader {
    /// Reads what `open` opens.
    pub fn new(open: OpenHalf) -> Self {
        Self { open, buffer: Box::new([0; MAX_RECORD]), filled: 0, wanted: RECORD_HEADER, text: 0..0 }
    }

    /// Text that has been opened and not consumed.
    pub fn text(&self) -> &[u8] {
        &self.buffer[self.text.clone()]
    }

    /// Drops the first `count` bytes of the text.
    pub fn consume(&mut self, count: usize) {
        self.text.start = (self.text.start + count).min(self.text.end);
    }

    /// Whether the stream may end here: between two records.
    pub fn is_at_boundary(&self) -> bool {
        self.filled == 0
    }

    /// Where the next bytes of the stream belong: never more than the current record lacks.
    pub fn space(&mut self) -> &mut [u8] {
        if self.text.is_empty() { &mut self.buffer[self.filled..self.wanted] } else { &mut [] }
    }

    /// Takes note of `count` bytes read into the space, and opens the record once it is whole.
    pub fn advance(&mut self, count: usize) -> Result<(), RecordError> {
        self.filled = (self.filled + count).min(self.wanted);
        if self.filled < self.wanted {
            return Ok(());
        }
        if self.wanted == RECORD_HEADER {
            let header = [self.buffer[0], self.buffer[1], self.buffer[2]];
            self.wanted = RECORD_HEADER + record_length(&header)?;
            return Ok(());
        }
        let length = self.open.open(&mut self.buffer[RECORD_HEADER..self.wanted])?.len();
        self.text = RECORD_HEADER..RECORD_HEADER + length;
        (self.filled, self.wanted) = (0, RECORD_HEADER);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::transport::Transport;
    use super::*;

    fn pair() -> (super::super::SealHalf, RecordReader) {
        let key = Zeroizing::new([3; 32]);
        let (seal, open) = Transport::new(key.clone(), key).split();
        (seal, RecordReader::new(open))
    }

    #[test]
    fn text_comes_out_whole_however_the_stream_is_cut() {
        for piece in [1, 2, 3, 7, 4096] {
            let (mut seal, mut reader) = pair();
            let mut stream = Vec::new();
            for text in [&b"one"[..], b"", &[9; 4000]] {
                seal.seal(text, &mut stream).unwrap();
            }
            let (mut got, mut rest) = (Vec::new(), &stream[..]);
            while !rest.is_empty() {
                let space = reader.space();
                let count = space.len().min(piece).min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                reader.advance(count).unwrap();
                got.extend_from_slice(reader.text());
                reader.consume(reader.text().len());
            }
            assert!(reader.is_at_boundary());
            assert_eq!(got, [&b"one"[..], &[9; 4000]].concat());
        }
    }

    #[test]
    fn an_oversized_record_is_refused_by_its_header() {
        let (_, mut reader) = pair();
        reader.space().copy_from_slice(&[4, 0xff, 0xff]);
        let refused = reader.advance(3).unwrap_err();
        assert_eq!(refused, RecordError::Length(0xffff));
        assert_eq!(refused.to_string(), "a record of 65535 bytes is outside the limits");
    }
}
