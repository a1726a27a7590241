//! Content with its digest, in memory or in a file.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ring::digest;

/// A SHA-256 digest, written `sha256:<64 hexadecimal digits>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(digest::digest(&digest::SHA256, bytes)))
    }

    /// Reads `sha256:<hex>`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self(hex.to_owned()))
            }
            _ => bail!("{text:?} is no digest: sha256: and 64 lower-case hexadecimal digits are expected"),
        }
    }

    /// The hexadecimal digits, which name the blob's file in a layout.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

/// Content with its digest and size in bytes.
#[derive(Clone, Debug)]
pub struct Blob {
    digest: Digest,
    size: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Blob {
    /// Takes bytes for a blob.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), size: bytes.len() as u64, content: Content::Bytes(bytes.into()) }
    }

    /// Takes the file at `path` for the blob with this digest and size; [`crate::Layout::verify`] checks that it is.
    pub(crate) fn stored(path: PathBuf, digest: Digest, size: u64) -> Self {
        Self { digest, size, content: Content::File(path) }
    }

    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Opens the content for reading from its start.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> Result<Box<dyn Read>> {
        match &self.content {
            Content::Bytes(bytes) => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
            Content::File(path) => {
                let file = File::open(path).with_context(|| format!("opening the blob {}", path.display()))?;
                Ok(Box::new(file))
            }
        }
    }

    /// Writes the content to `path`: a hard link where that can be, as a blob never changes.
    pub(crate) fn place(&self, path: &Path) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let placed = match &self.content {
            Content::Bytes(bytes) => fs::write(path, bytes),
            Content::File(from) => fs::hard_link(from, path).or_else(|_| fs::copy(from, path).map(drop)),
        };
        placed.with_context(|| format!("writing the blob {}", path.display()))
    }
}

/// Passes writes on and keeps the digest and the count of what went through.
pub(crate) struct Hashing<W> {
    inner: W,
    context: digest::Context,
    size: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, context: digest::Context::new(&digest::SHA256), size: 0 }
    }

    pub(crate) fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(hex::encode(self.context.finish())), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_printed_as_it_is_read() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(&digest.to_string()).unwrap(), digest);
    }

    #[test]
    fn a_digest_that_would_name_another_folder_is_refused() {
        assert!(Digest::parse("sha256:../../../../etc/passwd").is_err());
        assert!(Digest::parse(&format!("sha512:{}", "a".repeat(64))).is_err());
    }
}
