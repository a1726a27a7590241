use std::time::Duration;

use jiff::Timestamp;
use kubeapi::{ProxyState, Reissue};
use serde::Serialize;

use super::CredentialRecord;

/// How long a proxy may take to log in before its key is asked about.
const PATIENCE: Duration = Duration::from_secs(90);

/// The shortest time between two keys for one proxy, whatever it says.
const BETWEEN_KEYS: Duration = Duration::from_secs(30);

/// A proxy's way into the tailnet: what was written down, and what it says.
#[derive(Debug)]
pub struct Credential<'a> {
    /// What the operator wrote down.
    pub record: &'a CredentialRecord,
    /// What the proxy says.
    pub state: &'a ProxyState,
}

/// What to do about a proxy's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum CredentialStep {
    /// It is in: its key is of no more use.
    Registered,
    /// It has a key and may yet use it; look again after so many seconds.
    Wait(u64),
    /// It has a key and had time enough: ask the server whether the key still works.
    Ask,
    /// It needs a key.
    Mint(MintReason),
}

/// Why a proxy needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MintReason {
    /// It is new.
    New,
    /// The server did not take the one that it had.
    Refused,
    /// Its key expired before it was used.
    Expired,
    /// Its key was used, or taken away, and it is not in.
    Spent,
    /// It lost its state, and has no key any more.
    Lost,
}

/// What the server says about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHealth {
    /// It lets somebody in.
    Usable,
    /// It does not.
    Spent,
}

impl Credential<'_> {
    /// Decides what to do; `health` is the server's word about the key, once it was asked.
    pub fn step(&self, health: Option<KeyHealth>, now: Timestamp) -> CredentialStep {
        match (&self.state.reissue, &self.record.auth_key) {
            // It speaks of an earlier key: kubelet takes up to a minute to show it the new one.
            (Some(Reissue::Failed(failed)), Some(key)) if failed != key => CredentialStep::Wait(BETWEEN_KEYS.as_secs()),
            (Some(Reissue::NoKey), Some(_)) => CredentialStep::Wait(BETWEEN_KEYS.as_secs()),
            (Some(Reissue::Failed(_)), _) => self.in_time(MintReason::Refused, now),
            (Some(Reissue::NoKey), None) => self.in_time(self.without_key(), now),
            (None, _) if self.state.device_id.is_some() => CredentialStep::Registered,
            (None, None) => self.in_time(self.without_key(), now),
            (None, Some(_)) => self.unused(health, now),
        }
    }

    fn without_key(&self) -> MintReason {
        if self.record.device.is_some() { MintReason::Lost } else { MintReason::New }
    }

    /// It has a key and is not in.
    fn unused(&self, health: Option<KeyHealth>, now: Timestamp) -> CredentialStep {
        if self.record.expires.is_some_and(|expires| expires <= now) {
            return self.in_time(MintReason::Expired, now);
        }
        let age = self.record.minted.map_or(PATIENCE, |minted| elapsed(minted, now));
        match health {
            Some(KeyHealth::Spent) => self.in_time(MintReason::Spent, now),
            Some(KeyHealth::Usable) => CredentialStep::Wait(PATIENCE.as_secs()),
            None if age < PATIENCE => CredentialStep::Wait((PATIENCE - age).as_secs() + 1),
            None => CredentialStep::Ask,
        }
    }

    /// Two keys in a row only with some time between.
    fn in_time(&self, reason: MintReason, now: Timestamp) -> CredentialStep {
        match self.record.minted.map(|minted| elapsed(minted, now)) {
            Some(age) if age < BETWEEN_KEYS => CredentialStep::Wait((BETWEEN_KEYS - age).as_secs() + 1),
            _ => CredentialStep::Mint(reason),
        }
    }
}

/// How long ago it was; nothing when the clock was set back since.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn minted(seconds_ago: i64) -> CredentialRecord {
        CredentialRecord {
            attempt: 1,
            key_id: Some("k1".to_owned()),
            minted: Some(now() - jiff::SignedDuration::from_secs(seconds_ago)),
            auth_key: Some("tskey-auth-1".to_owned()),
            ..CredentialRecord::default()
        }
    }

    fn step(record: &CredentialRecord, state: &ProxyState, health: Option<KeyHealth>) -> CredentialStep {
        Credential { record, state }.step(health, now())
    }

    fn reissue(reissue: Reissue) -> ProxyState {
        ProxyState { reissue: Some(reissue), ..ProxyState::default() }
    }

    #[test]
    fn a_new_proxy_gets_a_key_and_time_to_use_it() {
        let nothing = ProxyState::default();
        assert_eq!(step(&CredentialRecord::default(), &nothing, None), CredentialStep::Mint(MintReason::New));
        assert_eq!(step(&minted(10), &nothing, None), CredentialStep::Wait(81));
        assert_eq!(step(&minted(100), &nothing, None), CredentialStep::Ask);
        assert_eq!(step(&minted(100), &nothing, Some(KeyHealth::Usable)), CredentialStep::Wait(90));
    }

    #[test]
    fn a_used_or_expired_key_is_replaced() {
        let nothing = ProxyState::default();
        assert_eq!(step(&minted(100), &nothing, Some(KeyHealth::Spent)), CredentialStep::Mint(MintReason::Spent));
        let mut expired = minted(100);
        expired.expires = Some(now());
        assert_eq!(step(&expired, &nothing, None), CredentialStep::Mint(MintReason::Expired));
    }

    #[test]
    fn a_key_that_the_server_refused_is_replaced_once() {
        let failed = reissue(Reissue::Failed("tskey-auth-1".to_owned()));
        assert_eq!(step(&minted(40), &failed, None), CredentialStep::Mint(MintReason::Refused));
        let mut replaced = minted(5);
        replaced.auth_key = Some("tskey-auth-2".to_owned());
        assert!(matches!(step(&replaced, &failed, None), CredentialStep::Wait(_)));
    }

    #[test]
    fn a_proxy_that_cries_for_keys_gets_one_every_half_minute() {
        let failed = reissue(Reissue::Failed("tskey-auth-1".to_owned()));
        assert_eq!(step(&minted(10), &failed, None), CredentialStep::Wait(21));
    }

    #[test]
    fn a_proxy_that_is_in_needs_none() {
        let state = ProxyState { device_id: Some("n1".to_owned()), ..ProxyState::default() };
        assert_eq!(step(&minted(10), &state, None), CredentialStep::Registered);
    }

    #[test]
    fn a_proxy_that_lost_its_state_gets_another_key() {
        let record = CredentialRecord { device: Some("n1".to_owned()), attempt: 1, ..CredentialRecord::default() };
        assert_eq!(step(&record, &ProxyState::default(), None), CredentialStep::Mint(MintReason::Lost));
        assert_eq!(step(&record, &reissue(Reissue::NoKey), None), CredentialStep::Mint(MintReason::Lost));
    }
}
