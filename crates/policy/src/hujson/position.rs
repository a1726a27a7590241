use std::fmt;

/// How many bytes lie between two places whose characters are counted beforehand: programs send a whole policy on one line,
/// and a column must not cost a walk from the line's start.
const STRIDE: usize = 512;

/// A place in a text, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// Where each line of a text begins, and how many characters come before.
#[derive(Clone, Debug)]
pub(super) struct LineIndex {
    starts: Vec<u32>,
    /// The characters before each multiple of [`STRIDE`].
    characters: Vec<u32>,
}

impl LineIndex {
    pub(super) fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at as u32 + 1);
        let mut characters = Vec::with_capacity(bytes.len() / STRIDE + 1);
        let mut counted = 0;
        for chunk in bytes.chunks(STRIDE) {
            characters.push(counted);
            counted += count(chunk);
        }
        Self { starts: std::iter::once(0).chain(breaks).collect(), characters }
    }

    pub(super) fn position(&self, text: &str, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start as usize <= offset);
        let start = self.starts[line - 1] as usize;
        let column = self.characters_before(text, offset) - self.characters_before(text, start);
        Position { line: line as u32, column: column + 1 }
    }

    fn characters_before(&self, text: &str, offset: usize) -> u32 {
        let bytes = &text.as_bytes()[..offset.min(text.len())];
        let known = (bytes.len() / STRIDE).min(self.characters.len().saturating_sub(1));
        let before = self.characters.get(known).copied().unwrap_or_default();
        before + count(&bytes[known * STRIDE..])
    }
}

/// How many characters begin in a piece of UTF-8.
fn count(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_wherever_on_a_line_they_are() {
        let line = "aé🚀\u{301}".repeat(600);
        let text = format!("first\n{line}\nlast");
        let index = LineIndex::new(&text);
        for (at, (offset, _)) in line.char_indices().enumerate() {
            assert_eq!(index.position(&text, 6 + offset), Position { line: 2, column: at as u32 + 1 });
        }
        assert_eq!(index.position(&text, text.len()), Position { line: 3, column: 5 });
        assert_eq!(LineIndex::new("").position("", 0), Position { line: 1, column: 1 });
    }
}
