/// Bytes that are not the packet they were taken for.
///
/// The only thing to do with such a packet is to drop and count it, so the error names the format and the rule that was
/// broken, and carries nothing of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {format}: {rule}")]
pub struct Malformed {
    /// The format that the bytes were read as.
    pub format: &'static str,
    /// The rule that they break.
    pub rule: &'static str,
}

impl Malformed {
    pub(crate) const fn new(format: &'static str, rule: &'static str) -> Self {
        Self { format, rule }
    }
}
