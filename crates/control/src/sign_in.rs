use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::SecretText;
use listen::site;
use tailcfg::UserId;
use tailnet::{PasswordHash, TailnetId};

use crate::password::{PasswordError, Passwords};
use crate::rate::RateLimit;

/// How many tailnets may have a user of one login name for a password to be tried against.
const SAME_NAME: usize = 4;

/// How many sources and names are remembered.
const REMEMBERED: usize = 4096;

/// Finds out who signs in by name and password, and how often somebody may try.
#[derive(Debug)]
pub(crate) struct SignIn {
    passwords: Passwords,
    by_source: RateLimit<IpAddr>,
    /// Somebody who guesses at a name uses up the tries of that name from where they are, not those of whose name it is.
    by_name: RateLimit<(String, IpAddr)>,
    /// Guessing from many places is bounded too, above what one place and the name's own user take together.
    by_name_anywhere: RateLimit<String>,
}

/// Why nobody was signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignInError {
    /// Name or password are wrong; which of them is not told.
    #[error("this name and password do not belong together")]
    Wrong,
    /// Too many tries.
    #[error("too many tries; wait {} s before the next", .0.as_secs().max(1))]
    TooOften(Duration),
    /// The server could not check.
    #[error(transparent)]
    Unchecked(#[from] PasswordError),
}

/// A user of a login name.
pub(crate) type Candidate = (TailnetId, UserId, Option<PasswordHash>);

impl SignIn {
    pub(crate) fn new(passwords: Passwords) -> Self {
        Self {
            passwords,
            by_source: RateLimit::new(10, Duration::from_secs(6), REMEMBERED),
            by_name: RateLimit::new(20, Duration::from_secs(15), REMEMBERED),
            by_name_anywhere: RateLimit::new(200, Duration::from_secs(2), REMEMBERED),
        }
    }

    /// The gate that passwords are hashed behind.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Finds out which of the users of a name has this password. `candidates` looks them up, once the try is allowed: that is
    /// counted by `now`.
    pub(crate) async fn check(
        &self,
        source: IpAddr,
        name: &str,
        password: SecretText,
        now: Instant,
        candidates: impl FnOnce(&str) -> Vec<Candidate>,
    ) -> Result<(TailnetId, UserId), SignInError> {
        let name = name.trim().to_ascii_lowercase();
        // Names that can't exist share one bucket, so that they cost no memory.
        let anywhere = if name.len() <= 254 { name.clone() } else { String::new() };
        let bucket = (anywhere.clone(), site(source));
        self.by_source.take(&site(source), now).map_err(SignInError::TooOften)?;
        self.by_name.take(&bucket, now).map_err(SignInError::TooOften)?;
        self.by_name_anywhere.take(&anywhere, now).map_err(SignInError::TooOften)?;
        let candidates = candidates(&name);
        let mut found = None;
        for (tailnet, user, hash) in candidates.into_iter().take(SAME_NAME) {
            let hash = hash.map(|hash| hash.0);
            if self.passwords.verify(password.clone(), hash).await? && found.is_none() {
                found = Some((tailnet, user));
            }
        }
        match found {
            Some(user) => {
                self.by_name.clear(&bucket);
                Ok(user)
            }
            None => {
                // A name that nobody has takes as long as one that somebody has.
                self.passwords.verify(password, None).await?;
                Err(SignInError::Wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    async fn sign_in() -> (SignIn, Vec<Candidate>) {
        let sign_in = SignIn::new(Passwords::new().unwrap());
        let hash = sign_in.passwords().hash(secret("correct horse")).await.unwrap();
        (sign_in, vec![(TailnetId(1), UserId(2), None), (TailnetId(3), UserId(4), Some(PasswordHash(hash)))])
    }

    #[tokio::test]
    async fn the_user_whose_password_it_is_signs_in() {
        let (sign_in, users) = sign_in().await;
        let source = "192.0.2.1".parse().unwrap();
        let found = sign_in.check(source, " Alice@Example.com", secret("correct horse"), Instant::now(), |name| {
            assert_eq!(name, "alice@example.com");
            users.clone()
        });
        assert_eq!(found.await, Ok((TailnetId(3), UserId(4))));
        let found =
            sign_in.check(source, "alice@example.com", secret("wrong horse"), Instant::now(), |_| users.clone()).await;
        assert_eq!(found, Err(SignInError::Wrong));
        let found =
            sign_in.check(source, "nobody@example.com", secret("wrong horse"), Instant::now(), |_| Vec::new()).await;
        assert_eq!(found, Err(SignInError::Wrong));
    }

    #[tokio::test]
    async fn tries_are_counted_by_source_and_by_name_before_anything_is_hashed() {
        let (sign_in, _) = sign_in().await;
        let now = Instant::now();
        let source: IpAddr = "2001:db8::1".parse().unwrap();
        while sign_in.by_source.take(&site(source), now).is_ok() {}
        let neighbour = "2001:db8::2".parse().unwrap();
        let found =
            sign_in.check(neighbour, "a@b", secret("x"), now, |_| unreachable!("no try is left")).await.unwrap_err();
        assert!(found.to_string().starts_with("too many tries; wait "), "{found}");

        let other: IpAddr = "192.0.2.9".parse().unwrap();
        while sign_in.by_name.take(&("a@b".to_owned(), other), now).is_ok() {}
        let found =
            sign_in.check(other, "A@b", secret("x"), now, |_| unreachable!("no try is left")).await.unwrap_err();
        assert!(matches!(found, SignInError::TooOften(_)));
        let mapped = "::ffff:192.0.2.9".parse().unwrap();
        let found = sign_in.check(mapped, "A@b", secret("x"), now, |_| unreachable!("it is the same place")).await;
        assert!(matches!(found, Err(SignInError::TooOften(_))));

        while sign_in.by_name_anywhere.take(&"c@d".to_owned(), now).is_ok() {}
        let third = "192.0.2.10".parse().unwrap();
        let found =
            sign_in.check(third, "c@d", secret("x"), now, |_| unreachable!("no try is left")).await.unwrap_err();
        assert!(matches!(found, SignInError::TooOften(_)));
    }

    #[tokio::test]
    async fn whoever_guesses_at_a_name_keeps_nobody_else_from_signing_in_under_it() {
        let (sign_in, users) = sign_in().await;
        let guesser: IpAddr = "198.51.100.7".parse().unwrap();
        let mut tries = 0;
        while sign_in.by_source.take(&site(guesser), Instant::now()).is_ok() {
            let bucket = ("alice@example.com".to_owned(), site(guesser));
            while sign_in.by_name.take(&bucket, Instant::now()).is_ok() {
                tries += 1;
            }
        }
        assert!(tries >= 20);
        let home = "192.0.2.1".parse().unwrap();
        let found =
            sign_in.check(home, "alice@example.com", secret("correct horse"), Instant::now(), |_| users.clone()).await;
        assert_eq!(found, Ok((TailnetId(3), UserId(4))));
    }
}
