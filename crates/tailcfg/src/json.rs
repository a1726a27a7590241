//! Reading JSON of a stranger: how much of it, how deep and how long, is settled before anything is built from it.

use serde::Deserialize;

/// What a control message may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Objects and lists inside each other.
    pub depth: usize,
    /// Bytes of one string, as written.
    pub string: usize,
    /// Entries of one object or list.
    pub entries: usize,
    /// Entries of all objects and lists together: an object of one entry is seven bytes of text, and a hundred times as many
    /// in memory.
    pub values: usize,
}

impl Limits {
    /// A node's request to the server.
    pub const REQUEST: Self = Self { bytes: 1 << 20, depth: 64, string: 64 << 10, entries: 32_768, values: 32_768 };

    /// A server's answer that is no map.
    pub const ANSWER: Self = Self::REQUEST;

    /// A message of the map stream, inflated: room for about 40 000 peers.
    pub const MAP: Self = Self {
        bytes: crate::frame::INFLATED_LIMIT,
        depth: 64,
        string: 64 << 10,
        entries: 100_000,
        values: crate::frame::INFLATED_LIMIT / 8,
    };
}

/// Why a message was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Too many bytes.
    #[error("the message has {bytes} bytes, at most {limit} are read")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// Too many objects and lists inside each other.
    #[error("the message nests deeper than {limit} levels (byte {at})")]
    TooDeep {
        /// How many may be.
        limit: usize,
        /// Where.
        at: usize,
    },
    /// A string is too long.
    #[error("a text in the message is longer than {limit} bytes (byte {at})")]
    LongString {
        /// How long it may be.
        limit: usize,
        /// Where it starts.
        at: usize,
    },
    /// An object or list has too many entries.
    #[error("a list or object in the message has more than {limit} entries (byte {at})")]
    ManyEntries {
        /// How many may be.
        limit: usize,
        /// Where.
        at: usize,
    },
    /// All objects and lists together have too many entries.
    #[error("the message has more than {limit} values (byte {at})")]
    ManyValues {
        /// How many may be.
        limit: usize,
        /// Where.
        at: usize,
    },
    /// It is not JSON, or not of this shape.
    #[error("the message is not what the protocol says: {0}")]
    Shape(String),
}

/// Reads a message within limits.
pub fn read<'a, T: Deserialize<'a>>(json: &'a [u8], limits: Limits) -> Result<T, JsonError> {
    check(json, limits)?;
    serde_json::from_slice(json).map_err(|error| JsonError::Shape(error.to_string()))
}

/// Walks over a message once and stops at the first limit that it breaks.
///
/// Text that is not JSON passes here as long as it breaks no limit: the parser that follows says what is wrong with it.
pub fn check(json: &[u8], limits: Limits) -> Result<(), JsonError> {
    if json.len() > limits.bytes {
        return Err(JsonError::TooLong { bytes: json.len(), limit: limits.bytes });
    }
    let mut entries: Vec<usize> = Vec::new();
    let mut values = 0;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'{' | b'[' => {
                if entries.len() == limits.depth {
                    return Err(JsonError::TooDeep { limit: limits.depth, at });
                }
                entries.push(1);
                values += 1;
            }
            b'}' | b']' => drop(entries.pop()),
            b',' => {
                values += 1;
                if let Some(count) = entries.last_mut() {
                    *count += 1;
                    if *count > limits.entries {
                        return Err(JsonError::ManyEntries { limit: limits.entries, at });
                    }
                }
            }
            b'"' => at = string_end(json, at, limits.string)?,
            _ => {}
        }
        if values > limits.values {
            return Err(JsonError::ManyValues { limit: limits.values, at });
        }
        at += 1;
    }
    Ok(())
}

/// The place of the quote that ends the string whose opening quote is at `start`, or of the message's end.
fn string_end(json: &[u8], start: usize, limit: usize) -> Result<usize, JsonError> {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
        if at - start - 1 > limit {
            return Err(JsonError::LongString { limit, at: start });
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { bytes: 64, depth: 3, string: 5, entries: 4, values: 7 };

    #[test]
    fn each_limit_holds_at_its_edge_and_breaks_one_past_it() {
        assert_eq!(check(&[b' '; 64], SMALL), Ok(()));
        assert_eq!(check(&[b' '; 65], SMALL), Err(JsonError::TooLong { bytes: 65, limit: 64 }));
        assert_eq!(check(b"[[{}]]", SMALL), Ok(()));
        assert_eq!(check(b"[[{\"\":[]}]]", SMALL), Err(JsonError::TooDeep { limit: 3, at: 6 }));
        assert_eq!(check(b"[\"12345\"]", SMALL), Ok(()));
        assert_eq!(check(b"[\"123456\"]", SMALL), Err(JsonError::LongString { limit: 5, at: 1 }));
        assert_eq!(check(b"[1,2,3,4]", SMALL), Ok(()));
        assert_eq!(check(b"[1,2,3,4,5]", SMALL), Err(JsonError::ManyEntries { limit: 4, at: 8 }));
        assert_eq!(check(b"[[1,2,3],4,[5]]", SMALL), Ok(()));
        assert_eq!(check(b"[[1,2,3],4,[5,6]]", SMALL), Err(JsonError::ManyValues { limit: 7, at: 13 }));
    }

    #[test]
    fn what_is_inside_a_string_is_no_structure() {
        assert_eq!(check(br#"["[{,,"]"#, SMALL), Ok(()));
        assert_eq!(check(br#"["\"[[["]"#, SMALL), Ok(()));
        assert_eq!(check(br#"["\\",1]"#, SMALL), Ok(()));
    }

    #[test]
    fn unfinished_and_broken_text_passes_to_the_parser_which_says_so() {
        for text in ["{", "[\"abc", "[\"a\\", "}}}}", "", "nonsense"] {
            let error = read::<serde_json::Value>(text.as_bytes(), SMALL).unwrap_err();
            assert!(matches!(error, JsonError::Shape(_)), "{text}: {error}");
        }
    }

    #[test]
    fn a_bomb_of_brackets_or_entries_is_refused_before_it_is_built() {
        let deep = "[".repeat(10_000);
        assert!(matches!(check(deep.as_bytes(), Limits::REQUEST), Err(JsonError::TooDeep { .. })));
        let wide = format!("[{}0]", "0,".repeat(200_000));
        assert!(matches!(check(wide.as_bytes(), Limits::REQUEST), Err(JsonError::ManyEntries { .. })));
        let spread = format!("[{}[]]", "{\"\":0},".repeat(20_000));
        assert!(matches!(check(spread.as_bytes(), Limits::REQUEST), Err(JsonError::ManyValues { .. })));
    }
}
