use std::time::Instant;

use crypto::tunnel::{Cookie, CookieCipher};
use packet::wireguard::CookieReply;

use crate::limits::COOKIE_LIFETIME;

/// The cookie that a loaded peer gave, and the message that a next one may answer.
#[derive(Debug, Default)]
pub(super) struct CookieJar {
    /// The first authenticator of the last handshake message, until a cookie has answered it.
    awaited: Option<[u8; 16]>,
    cookie: Option<(Cookie, Instant)>,
}

impl CookieJar {
    /// A handshake message with this authenticator was sent.
    pub(super) fn expect(&mut self, mac1: [u8; 16]) {
        self.awaited = Some(mac1);
    }

    /// Keeps the cookie of a reply to the last message. Each message is answered once.
    pub(super) fn take(&mut self, cipher: &CookieCipher, reply: &CookieReply<'_>, now: Instant) -> bool {
        let opened = self.awaited.as_ref().and_then(|mac1| cipher.open(&reply.nonce(), &reply.sealed_cookie(), mac1));
        let Some(cookie) = opened else { return false };
        self.awaited = None;
        self.cookie = Some((cookie, now));
        true
    }

    /// The cookie, while it is fresh.
    pub(super) fn cookie(&self, now: Instant) -> Option<&Cookie> {
        let (cookie, since) = self.cookie.as_ref()?;
        (now.saturating_duration_since(*since) < COOKIE_LIFETIME).then_some(cookie)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crypto::tunnel::CookieSecret;
    use crypto::{NodePublic, SystemEntropy};
    use packet::wireguard::{CookieReplyRepr, Message};

    use super::*;

    #[test]
    fn a_cookie_grows_stale_after_two_minutes() {
        let (cipher, now) = (CookieCipher::of(&NodePublic::from_bytes([1; 32])), Instant::now());
        let cookie = CookieSecret::generate(&mut SystemEntropy).cookie(b"here");
        let sealed_cookie = cipher.seal(&[2; 24], &cookie, &[3; 16]);
        let reply = CookieReplyRepr { receiver: 1, nonce: [2; 24], sealed_cookie }.emit();
        let Ok(Message::CookieReply(reply)) = Message::parse(&reply) else { panic!("a cookie reply was expected") };
        let mut jar = CookieJar::default();
        assert!(!jar.take(&cipher, &reply, now), "nothing was asked");
        jar.expect([3; 16]);
        assert!(jar.take(&cipher, &reply, now));
        assert!(jar.cookie(now + Duration::from_millis(119_999)).is_some());
        assert!(jar.cookie(now + COOKIE_LIFETIME).is_none());
    }
}
