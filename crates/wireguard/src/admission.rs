use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crypto::Entropy;
use crypto::tunnel::{Cookie, CookieSecret};

use crate::Source;
use crate::limits::{COOKIE_LIFETIME, HANDSHAKES_PER_SOURCE, SOURCES, UNPROVEN_BURST, UNPROVEN_HANDSHAKES};
use crate::source::Origin;

/// Which handshake messages are worth a Diffie-Hellman, and the cookies by which a source earns one under load.
///
/// Load is judged by source first: one that sends too much is asked for a cookie before it has drawn on what all
/// unproven sources share. So a flood from one place, or of one place's address, is that place's trouble alone. Only a
/// flood from made-up addresses exhausts the common share; then newcomers need a cookie, which costs them one round,
/// and those who show one have a rate of their own that made-up addresses can't touch. Answers to this side's own
/// initiations name an index that nobody can guess, so the common share is not for them.
#[derive(Debug)]
pub(crate) struct Admission {
    secret: CookieSecret,
    /// The secret before, good for cookies that were given out shortly before it was replaced.
    previous: Option<CookieSecret>,
    renewed: Instant,
    unproven: Bucket,
    sources: BTreeMap<Origin, Rates>,
    swept: Instant,
}

/// What a handshake message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anybody can send one.
    Initiation,
    /// Answers an initiation that is under way.
    Response,
}

/// What becomes of a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Worth looking at.
    Admit,
    /// The source has to show a cookie first.
    AskForCookie,
    /// Too much, cookie or not.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct Rates {
    unproven: Bucket,
    proven: Bucket,
}

impl Admission {
    pub(crate) fn new(now: Instant, entropy: &mut dyn Entropy) -> Self {
        Self {
            secret: CookieSecret::generate(entropy),
            previous: None,
            renewed: now,
            unproven: Bucket::full(now),
            sources: BTreeMap::new(),
            swept: now,
        }
    }

    /// Judges a message that is addressed to this node. `covered` is what `mac2` authenticates.
    pub(crate) fn judge(
        &mut self,
        kind: Kind,
        source: &Source,
        (covered, mac2): (&[u8], &[u8; 16]),
        now: Instant,
    ) -> Verdict {
        let proven = *mac2 != [0; 16] && self.proves(source, covered, mac2, now);
        let origin = source.origin();
        if !self.sources.contains_key(&origin) && !self.has_room(now) {
            return if proven { Verdict::Refuse } else { Verdict::AskForCookie };
        }
        let known = self.sources.get(&origin).copied();
        let mut rates = known.unwrap_or(Rates { unproven: Bucket::full(now), proven: Bucket::full(now) });
        if proven {
            if !rates.proven.take(PER_SOURCE, now) {
                return Verdict::Refuse;
            }
        } else {
            let in_share = |admission: &mut Self| kind == Kind::Response || admission.unproven.take(UNPROVEN, now);
            if !rates.unproven.take(PER_SOURCE, now) || !in_share(self) {
                return Verdict::AskForCookie;
            }
        }
        self.sources.insert(origin, rates);
        Verdict::Admit
    }

    /// The cookie for a source, as of now.
    pub(crate) fn cookie(&mut self, source: &Source, now: Instant, entropy: &mut dyn Entropy) -> Cookie {
        let age = now.saturating_duration_since(self.renewed);
        if age >= COOKIE_LIFETIME {
            let old = std::mem::replace(&mut self.secret, CookieSecret::generate(entropy));
            self.previous = (age < 2 * COOKIE_LIFETIME).then_some(old);
            self.renewed = now;
        }
        self.secret.cookie(&source.cookie_bytes())
    }

    fn proves(&self, source: &Source, covered: &[u8], mac2: &[u8; 16], now: Instant) -> bool {
        let bytes = source.cookie_bytes();
        let age = now.saturating_duration_since(self.renewed);
        let shows = |secret: &CookieSecret| secret.cookie(&bytes).verify(covered, mac2);
        (age < 2 * COOKIE_LIFETIME && shows(&self.secret))
            || (age < COOKIE_LIFETIME && self.previous.as_ref().is_some_and(shows))
    }

    /// Makes room for a source by dropping those whose rates have recovered, at most four times a second.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.sources.len() < SOURCES {
            return true;
        }
        if now.saturating_duration_since(self.swept) >= Duration::from_millis(250) {
            self.swept = now;
            self.sources.retain(|_, rates| !(rates.unproven.is_full(now) && rates.proven.is_full(now)));
        }
        self.sources.len() < SOURCES
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    interval: Duration,
    burst: u32,
}

const PER_SOURCE: Rate = Rate::per_second(HANDSHAKES_PER_SOURCE, HANDSHAKES_PER_SOURCE);
const UNPROVEN: Rate = Rate::per_second(UNPROVEN_HANDSHAKES, UNPROVEN_BURST);

impl Rate {
    const fn per_second(rate: u32, burst: u32) -> Self {
        Self { interval: Duration::from_nanos(1_000_000_000 / rate as u64), burst }
    }
}

/// A token bucket, kept as the moment at which it will be full.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.max(now);
        let admits = full_at.duration_since(now) <= rate.interval * (rate.burst - 1);
        if admits {
            self.full_at = full_at + rate.interval;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use crypto::SystemEntropy;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admission() -> (Admission, Instant) {
        let now = Instant::now();
        (Admission::new(now, &mut SystemEntropy), now)
    }

    fn host(number: u32) -> Source {
        Source::Direct(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 41641))
    }

    fn unproven(admission: &mut Admission, source: &Source, now: Instant) -> Verdict {
        admission.judge(Kind::Initiation, source, (b"message", &[0; 16]), now)
    }

    fn proven(admission: &mut Admission, source: &Source, now: Instant) -> Verdict {
        let mac2 = admission.cookie(source, now, &mut SystemEntropy).mac2(b"message");
        admission.judge(Kind::Initiation, source, (b"message", &mac2), now)
    }

    fn admitted(verdicts: impl IntoIterator<Item = Verdict>) -> usize {
        verdicts.into_iter().filter(|verdict| *verdict == Verdict::Admit).count()
    }

    #[test]
    fn a_source_has_20_handshakes_a_second_at_the_limit_one_past_it_and_at_100_times_it() {
        for (sent, expected) in [(20, 20), (21, 20), (2000, 20)] {
            let (mut admission, now) = admission();
            assert_eq!(admitted((0..sent).map(|_| unproven(&mut admission, &host(1), now))), expected);
            assert_eq!(admitted((0..sent).map(|_| unproven(&mut admission, &host(1), now + SECOND))), expected);
        }
    }

    #[test]
    fn a_proven_source_has_as_many_again_and_is_then_refused() {
        let (mut admission, now) = admission();
        assert_eq!(admitted((0..21).map(|_| unproven(&mut admission, &host(1), now))), 20);
        assert_eq!(admitted((0..2000).map(|_| proven(&mut admission, &host(1), now))), 20);
        assert_eq!(proven(&mut admission, &host(1), now), Verdict::Refuse);
        assert_eq!(unproven(&mut admission, &host(1), now), Verdict::AskForCookie);
    }

    #[test]
    fn one_flooder_does_not_force_anybody_else_into_cookie_mode() {
        let (mut admission, now) = admission();
        for step in 0..100_000u32 {
            let now = now + Duration::from_micros(10) * step;
            unproven(&mut admission, &host(1), now);
            if step % 1000 == 0 {
                assert_eq!(unproven(&mut admission, &host(2 + step / 1000), now), Verdict::Admit);
            }
        }
    }

    #[test]
    fn a_flood_from_made_up_sources_is_bounded_and_leaves_those_with_a_cookie_their_rate() {
        let (mut admission, now) = admission();
        let mut looked_at = 0;
        for step in 0..200_000u32 {
            let now = now + Duration::from_micros(10) * step;
            looked_at += admitted([unproven(&mut admission, &host(1000 + step), now)]);
            if step % 10_000 == 0 {
                assert_eq!(proven(&mut admission, &host(1), now), Verdict::Admit);
            }
            assert!(admission.sources.len() <= SOURCES);
        }
        let now = now + SECOND * 2;
        assert_eq!(unproven(&mut admission, &host(2), now), Verdict::Admit);
        assert_eq!(unproven(&mut admission, &host(3), now), Verdict::AskForCookie);
        let answer = admission.judge(Kind::Response, &host(3), (b"message", &[0; 16]), now);
        assert_eq!(answer, Verdict::Admit, "the common share is not for answers");
        assert!((1990..=2001).contains(&looked_at), "{looked_at} in two seconds");
    }

    #[test]
    fn the_table_of_sources_is_bounded_even_when_all_are_proven() {
        let (mut admission, now) = admission();
        let first = (0..SOURCES as u32).map(|number| proven(&mut admission, &host(number), now)).collect::<Vec<_>>();
        assert_eq!(admitted(first), SOURCES);
        assert_eq!(proven(&mut admission, &host(1 << 20), now), Verdict::Refuse);
        assert_eq!(unproven(&mut admission, &host(1 << 20), now), Verdict::AskForCookie);
        assert_eq!(proven(&mut admission, &host(1 << 20), now + SECOND), Verdict::Admit);
        assert_eq!(admission.sources.len(), 1);
    }

    #[test]
    fn a_cookie_is_good_from_its_own_address_and_port_only() {
        let (mut admission, now) = admission();
        let at = |port| Source::Direct(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let mac2 = admission.cookie(&at(1), now, &mut SystemEntropy).mac2(b"message");
        assert!(admission.proves(&at(1), b"message", &mac2, now));
        assert!(!admission.proves(&at(2), b"message", &mac2, now));
        assert!(!admission.proves(&host(1), b"message", &mac2, now));
        assert!(!admission.proves(&at(1), b"another", &mac2, now));
    }

    #[test]
    fn a_cookie_outlives_the_renewal_of_its_secret_and_not_its_own_two_minutes_twice() {
        let (mut admission, now) = admission();
        let mac2 = admission.cookie(&host(1), now + SECOND * 119, &mut SystemEntropy).mac2(b"message");
        let good = |admission: &Admission, at: u32| admission.proves(&host(1), b"message", &mac2, now + SECOND * at);
        assert!(good(&admission, 239));
        admission.cookie(&host(2), now + SECOND * 121, &mut SystemEntropy);
        assert!(good(&admission, 239));
        assert!(!good(&admission, 241));
        admission.cookie(&host(2), now + SECOND * 242, &mut SystemEntropy);
        assert!(!good(&admission, 243));
    }
}
