//! What an entry was made from, as a hash.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest;

/// The hash of everything that an entry is made from: two equal keys mean the same entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key(String);

impl Key {
    /// Starts a key; `recipe` names the way of making, and changes when that way does.
    pub fn of(recipe: &str) -> KeyBuilder {
        KeyBuilder(digest::Context::new(&digest::SHA256)).text("recipe", recipe)
    }
}

impl fmt::Display for Key {
    /// Sixteen hexadecimal digits, enough to name a file by.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A key in the making: inputs are added with labels, in an order that the caller keeps.
pub struct KeyBuilder(digest::Context);

impl KeyBuilder {
    /// Adds a text, such as a version or a flag.
    #[must_use]
    pub fn text(mut self, label: &str, text: &str) -> Self {
        self.add(label, text.as_bytes());
        self
    }

    /// Adds several texts.
    #[must_use]
    pub fn texts<'a>(mut self, label: &str, texts: impl IntoIterator<Item = &'a str>) -> Self {
        for text in texts {
            self.add(label, text.as_bytes());
        }
        self
    }

    /// Adds a file's content; a file that does not exist differs from an empty one.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let label = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match fs::read(path) {
            Ok(content) => self.add(&label, &content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.add("missing file", label.as_bytes()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
        Ok(self)
    }

    /// Adds the key of an entry that this one is made from.
    #[must_use]
    pub fn key(self, label: &str, key: &Key) -> Self {
        self.text(label, &key.0)
    }

    /// Ends the key.
    pub fn finish(self) -> Key {
        let digest = self.0.finish();
        Key(hex::encode(&digest.as_ref()[..8]))
    }

    /// Lengths stand before both parts, so that no two lists of inputs give the same bytes.
    fn add(&mut self, label: &str, value: &[u8]) {
        for part in [label.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_letter_from_one_input_to_the_next_changes_the_key() {
        let one = Key::of("go").text("a", "bc").text("d", "e").finish();
        let other = Key::of("go").text("a", "b").text("d", "ce").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn a_missing_file_differs_from_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.go");
        let missing = Key::of("go").file(&path).unwrap().finish();
        fs::write(&path, "").unwrap();
        assert_ne!(missing, Key::of("go").file(&path).unwrap().finish());
    }
}
