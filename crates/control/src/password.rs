use std::sync::Arc;

use api::SecretText;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// What one hash costs: 19 MiB and two passes, the first choice of OWASP's password storage guide.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// How many hashes are made at once; each holds a core and its memory for tens of milliseconds.
const AT_ONCE: usize = 2;

/// How many may wait for their turn before new ones are refused.
const WAITING: usize = 64;

/// The shortest and longest password that is taken.
const LENGTHS: std::ops::RangeInclusive<usize> = 10..=256;

/// Why a password was not hashed or checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password has {} to {} characters", LENGTHS.start(), LENGTHS.end())]
    Length,
    /// Too many at once.
    #[error("too many logins at once; try again in a few seconds")]
    Busy,
    /// The hash function failed, which only lack of memory makes it.
    #[error("the password could not be hashed")]
    Failed,
}

/// Hashes and checks passwords, a bounded number at once, away from the threads that serve connections.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// A hash of a password that nobody has, so that an unknown name costs the time of a known one.
    decoy: Arc<str>,
    /// How many were hashed and checked.
    #[cfg(test)]
    made: Arc<std::sync::atomic::AtomicUsize>,
}

impl Passwords {
    /// Makes the one gate that all passwords of the server go through.
    pub(crate) fn new() -> Result<Self, PasswordError> {
        let decoy = hash(&SecretText::new(hex::encode(random::<32>())))?.into();
        let (running, waiting) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(WAITING)));
        Ok(Self {
            running,
            waiting,
            decoy,
            #[cfg(test)]
            made: Arc::default(),
        })
    }

    /// How many were hashed and checked so far.
    #[cfg(test)]
    pub(crate) fn made(&self) -> usize {
        self.made.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Hashes a new password; the text names algorithm, cost and salt.
    pub(crate) async fn hash(&self, password: SecretText) -> Result<String, PasswordError> {
        if !LENGTHS.contains(&password.expose().chars().count()) {
            return Err(PasswordError::Length);
        }
        self.run(move || hash(&password)).await?
    }

    /// Whether a password is the one that was hashed; without a hash it takes as long and is false.
    pub(crate) async fn verify(&self, password: SecretText, hashed: Option<String>) -> Result<bool, PasswordError> {
        // Longer ones were never hashed; they only cost time.
        if password.expose().len() > 4 * LENGTHS.end() {
            return Ok(false);
        }
        let (known, hashed) = (hashed.is_some(), hashed.unwrap_or_else(|| self.decoy.to_string()));
        let equal = self.run(move || verify(&password, &hashed)).await?;
        Ok(equal && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let _place = self.waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        #[cfg(test)]
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let turn = self.running.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        // The turn goes along: a caller that hangs up must not let another hash start beside this one.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)
    }
}

/// A password for a person who has none yet: 20 letters and digits that are hard to confuse, in groups.
pub(crate) fn generate() -> SecretText {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = random::<20>().map(|byte| char::from(LETTERS[usize::from(byte & 31)]));
    SecretText::new(letters.chunks(5).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| PasswordError::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &SecretText) -> Result<String, PasswordError> {
    let salt = SaltString::encode_b64(&random::<16>()).map_err(|_| PasswordError::Failed)?;
    let hashed = argon2()?.hash_password(password.expose().as_bytes(), &salt).map_err(|_| PasswordError::Failed)?;
    Ok(hashed.to_string())
}

fn verify(password: &SecretText, hashed: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hashed) else { return false };
    argon2().is_ok_and(|argon2| argon2.verify_password(password.expose().as_bytes(), &parsed).is_ok())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    crypto::Entropy::fill(&mut crypto::SystemEntropy, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn secret(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let passwords = Passwords::new().unwrap();
        let hashed = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        assert!(passwords.verify(secret("correct horse"), Some(hashed.clone())).await.unwrap());
        assert!(!passwords.verify(secret("correct horsf"), Some(hashed.clone())).await.unwrap());
        assert!(!passwords.verify(secret("correct horse"), None).await.unwrap());
        assert!(!passwords.verify(secret("correct horse"), Some("not a hash".to_owned())).await.unwrap());
        assert!(!passwords.verify(secret(&"x".repeat(1 << 20)), Some(hashed)).await.unwrap());
    }

    #[tokio::test]
    async fn a_short_password_is_refused() {
        let passwords = Passwords::new().unwrap();
        assert_eq!(passwords.hash(secret("123456789")).await, Err(PasswordError::Length));
        assert_eq!(PasswordError::Length.to_string(), "a password has 10 to 256 characters");
    }

    #[tokio::test]
    async fn more_than_can_wait_are_refused_at_once() {
        let passwords = Passwords::new().unwrap();
        let _all = passwords.waiting.clone().acquire_many_owned(WAITING as u32).await.unwrap();
        assert_eq!(passwords.verify(secret("x"), None).await, Err(PasswordError::Busy));
    }

    #[test]
    fn one_that_comes_while_two_are_made_waits_for_one_of_them_also_where_its_caller_hung_up() {
        // The two hold a thread each, so what is asked of the only one left is done in order.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(AT_ONCE + 1).build().unwrap();
        runtime.block_on(async {
            let passwords = Passwords::new().unwrap();
            let (mut callers, mut ends) = (Vec::new(), Vec::new());
            for _ in 0..AT_ONCE {
                let (began, begun) = tokio::sync::oneshot::channel();
                let (end, ended) = std::sync::mpsc::channel::<()>();
                let work = move || {
                    began.send(()).unwrap();
                    let _ = ended.recv();
                };
                let passwords = passwords.clone();
                callers.push(tokio::spawn(async move { passwords.run(work).await }));
                begun.await.unwrap();
                ends.push(end);
            }
            let mut third = std::pin::pin!(passwords.verify(secret("correct horse"), None));
            let mut waits = || third.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
            for hung_up in [false, true] {
                if hung_up {
                    callers[0].abort();
                    assert!((&mut callers[0]).await.unwrap_err().is_cancelled());
                }
                assert!(waits(), "hung up: {hung_up}");
                tokio::task::spawn_blocking(|| ()).await.unwrap();
                assert!(waits(), "it would be done if it had begun, hung up: {hung_up}");
            }
            ends[0].send(()).unwrap();
            assert_eq!(third.await, Ok(false));
        });
    }

    #[test]
    fn a_generated_password_is_long_and_readable() {
        let password = generate();
        assert_eq!(password.expose().len(), 23);
        assert_ne!(password.expose(), generate().expose());
    }
}
