mod places;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::SecretText;
use listen::site;
use tailcfg::UserId;
use tailnet::{PasswordHash, TailnetId};

use crate::password::{PasswordError, Passwords};
use crate::rate::RateLimit;
use places::KnownPlaces;

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
    /// That bound is not for places where somebody signed in under the name: guessers use it up as long as they like.
    known: KnownPlaces,
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

/// Whose a password may be that comes with a login name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    /// The users of the name.
    pub(crate) users: Vec<Candidate>,
    /// How many users the name has that most share, whichever it is: as often every password is tried, so that the time that
    /// it takes tells nothing of a name.
    pub(crate) most: usize,
}

impl Candidates {
    /// The users whose hash a password is compared with, and nobody as often as is missing.
    fn rounds(self) -> impl Iterator<Item = Option<Candidate>> {
        let count = self.most.max(self.users.len()).max(1);
        self.users.into_iter().map(Some).chain(std::iter::repeat_with(|| None)).take(count)
    }
}

impl SignIn {
    pub(crate) fn new(passwords: Passwords) -> Self {
        Self {
            passwords,
            by_source: RateLimit::new(10, Duration::from_secs(6), REMEMBERED),
            by_name: RateLimit::new(20, Duration::from_secs(15), REMEMBERED),
            by_name_anywhere: RateLimit::new(200, Duration::from_secs(2), REMEMBERED),
            known: KnownPlaces::new(REMEMBERED),
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
        candidates: impl FnOnce(&str) -> Candidates,
    ) -> Result<(TailnetId, UserId), SignInError> {
        let name = name.trim().to_ascii_lowercase();
        // Names that can't exist share one bucket, so that they cost no memory.
        let anywhere = if name.len() <= 254 { name.clone() } else { String::new() };
        let place = site(source);
        let bucket = (anywhere.clone(), place);
        self.by_source.take(&place, now).map_err(SignInError::TooOften)?;
        self.by_name.take(&bucket, now).map_err(SignInError::TooOften)?;
        if !self.known.knows(&anywhere, place) {
            self.by_name_anywhere.take(&anywhere, now).map_err(SignInError::TooOften)?;
        }
        let mut found = None;
        for candidate in candidates(&name).rounds() {
            let (who, hash) = candidate.map(|(tailnet, user, hash)| ((tailnet, user), hash)).unzip();
            let hash = hash.flatten().map(|hash| hash.0);
            // Every round is made, also once it is known whose the password is.
            if self.passwords.verify(password.clone(), hash).await? {
                found = found.or(who);
            }
        }
        let user = found.ok_or(SignInError::Wrong)?;
        self.by_name.clear(&bucket);
        self.known.remember(anywhere, place);
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    async fn sign_in() -> (SignIn, Candidates) {
        let sign_in = SignIn::new(Passwords::new().unwrap());
        let hash = sign_in.passwords().hash(secret("correct horse")).await.unwrap();
        let users = vec![(TailnetId(1), UserId(2), None), (TailnetId(3), UserId(4), Some(PasswordHash(hash)))];
        (sign_in, Candidates { users, most: 2 })
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
        let found = sign_in.check(source, "nobody@example.com", secret("wrong horse"), Instant::now(), nobody).await;
        assert_eq!(found, Err(SignInError::Wrong));
    }

    fn nobody(_: &str) -> Candidates {
        Candidates { users: Vec::new(), most: 2 }
    }

    #[tokio::test]
    async fn as_many_hashes_are_made_whoever_has_the_name_and_whoever_the_password_is() {
        let (sign_in, users) = sign_in().await;
        let one = |at: usize| Candidates { users: vec![users.users[at].clone()], most: 2 };
        let source = "192.0.2.1".parse().unwrap();
        for (case, password, candidates) in [
            ("nobody has the name", "wrong horse", nobody("")),
            ("one has it, without a password", "wrong horse", one(0)),
            ("one has it", "wrong horse", one(1)),
            ("one has it, and it is theirs", "correct horse", one(1)),
            ("two have it", "wrong horse", users.clone()),
            ("two have it, and it is one's", "correct horse", users.clone()),
        ] {
            let before = sign_in.passwords().made();
            let found = sign_in.check(source, case, secret(password), Instant::now(), |_| candidates).await;
            assert_eq!(found.is_ok(), password == "correct horse", "{case}: {found:?}");
            assert_eq!(sign_in.passwords().made() - before, 2, "{case}");
        }
    }

    #[tokio::test]
    async fn everybody_of_a_name_can_sign_in_however_many_they_are() {
        let (sign_in, users) = sign_in().await;
        let mut many = Candidates { users: Vec::new(), most: 1 };
        many.users.resize(6, (TailnetId(1), UserId(2), None));
        many.users.push(users.users[1].clone());
        let source = "192.0.2.1".parse().unwrap();
        let found = sign_in.check(source, "alice@example.com", secret("correct horse"), Instant::now(), |_| many).await;
        assert_eq!(found, Ok((TailnetId(3), UserId(4))));
    }

    #[tokio::test]
    async fn guesses_from_everywhere_keep_nobody_out_who_signed_in_from_where_they_are() {
        let (sign_in, users) = sign_in().await;
        let home = "192.0.2.1".parse().unwrap();
        let try_from = |source: IpAddr| {
            sign_in.check(source, "alice@example.com", secret("correct horse"), Instant::now(), |_| users.clone())
        };
        assert!(try_from(home).await.is_ok());
        // None comes back while the test runs.
        let later = Instant::now() + Duration::from_secs(3600);
        while sign_in.by_name_anywhere.take(&"alice@example.com".to_owned(), later).is_ok() {}
        let stranger = "198.51.100.7".parse().unwrap();
        assert!(matches!(try_from(stranger).await, Err(SignInError::TooOften(_))));
        assert_eq!(try_from(home).await, Ok((TailnetId(3), UserId(4))));
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
