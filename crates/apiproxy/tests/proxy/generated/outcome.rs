//! What comes of a request: what its client sees, and what arrives at the API server.

use apiproxy::Identity;
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::grant::{Entitled, entitled};
use super::request::Hostile;
use crate::http2::{self, Outcome};
use crate::recording::Arrived;
use crate::world::{World, head_of, rest, status};

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Answer(u16),
    Session,
    Closed,
    /// The proxy waits for the rest of a body that never comes.
    Waiting,
}

impl Seen {
    /// Whether it is what the API server of these tests says, which is never an error.
    fn is_of_the_api_server(self) -> bool {
        matches!(self, Self::Answer(200) | Self::Session)
    }
}

pub(super) async fn over_http1(world: &World, bytes: &[u8]) -> Seen {
    let mut stream = world.connect(&["http/1.1"]).await;
    // A proxy that has seen enough may have closed already.
    let _closed = stream.write_all(bytes).await;
    let mut answer = head_of(&mut stream).await;
    while status(&answer) == 100 {
        answer = head_of(&mut stream).await;
    }
    match status(&answer) {
        0 => Seen::Closed,
        101 => {
            stream.write_all(b"through").await.unwrap();
            stream.read_exact(&mut [0; 7]).await.unwrap();
            Seen::Session
        }
        code => {
            rest(&mut stream).await;
            Seen::Answer(code)
        }
    }
}

pub(super) async fn over_http2(world: &World, bytes: &[u8]) -> Seen {
    let mut stream = world.connect(&["h2"]).await;
    let _closed = stream.write_all(bytes).await;
    match http2::outcome(&mut stream, 1).await {
        Outcome::Answered { ok: true, .. } => Seen::Answer(200),
        Outcome::Answered { body, .. } => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            Seen::Answer(body["code"].as_u64().unwrap_or(400) as u16)
        }
        Outcome::Reset(_) | Outcome::Closed => Seen::Closed,
    }
}

/// How often what was seen, so that a proxy that refuses everything fails.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: usize,
    pub(super) bodies: usize,
    pub(super) sessions: usize,
    pub(super) refused: usize,
}

impl Tally {
    pub(super) fn check(
        &mut self,
        identity: Option<&Identity>,
        hostile: &Hostile,
        seen: Seen,
        arrived: &[Arrived],
    ) -> Result<(), TestCaseError> {
        let (entitled, framed) = (entitled(identity), hostile.has_framing_of_its_own());
        prop_assert!(arrived.len() <= 1, "two requests out of one");
        prop_assert!(!seen.is_of_the_api_server() || arrived.len() == 1, "{seen:?} out of nothing");
        prop_assert!(framed || seen.is_of_the_api_server() != arrived.is_empty(), "{seen:?}");
        let Some(arrived) = arrived.first() else {
            self.refused += 1;
            return Ok(());
        };
        prop_assert!(!hostile.names_somebody(), "who names somebody is refused");
        prop_assert!(entitled.is_some(), "nobody's request arrived");
        let Entitled { user, groups, sessions } = entitled.unwrap();
        prop_assert!(arrived.is(&user, &groups), "{user} in {groups:?}: {arrived:?}");
        let is_session = seen == Seen::Session || ["exec", "%65xec"].iter().any(|exec| arrived.target.contains(exec));
        prop_assert!(sessions || !is_session, "what has to be recorded is not");
        prop_assert_ne!(&arrived.target, "/smuggled");
        if seen == Seen::Answer(200) && !framed {
            prop_assert_eq!(&arrived.body[..], &hostile.body.bytes()[..], "the body is another");
        }
        self.answered += usize::from(seen == Seen::Answer(200));
        self.bodies += usize::from(!arrived.body.is_empty());
        self.sessions += usize::from(seen == Seen::Session);
        Ok(())
    }
}
