use ring::rand::SecureRandom;

/// A source of unpredictable bytes, handed to whatever needs them.
pub trait Entropy {
    /// Fills all of `out`.
    fn fill(&mut self, out: &mut [u8]);

    /// Draws 32 bytes: a key, a nonce, a token.
    fn bytes32(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.fill(&mut out);
        out
    }

    /// Draws a number below `bound`, near enough to uniform for jitter and indices; 0 when `bound` is 0.
    fn below(&mut self, bound: u64) -> u64 {
        let mut out = [0; 8];
        self.fill(&mut out);
        u64::from_le_bytes(out).checked_rem(bound).unwrap_or(0)
    }
}

/// The operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the kernel refuses random bytes: no key made after that could be trusted.
    fn fill(&mut self, out: &mut [u8]) {
        ring::rand::SystemRandom::new().fill(out).expect("the kernel always has randomness once booted");
    }
}
