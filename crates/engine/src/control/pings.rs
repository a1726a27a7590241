use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crypto::NodePublic;
use path::Via;
use path::paths::UserPing;
use tokio::sync::oneshot;

use crate::{PingError, Pong};

/// How long an answer is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Pings that wait for an answer.
const MOST: usize = 256;

type Reply = oneshot::Sender<Result<Pong, PingError>>;

/// Users' pings that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Pings {
    waiting: BTreeMap<Token, Waiting>,
}

/// What an answer is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    Disco(UserPing),
    Tsmp([u8; 8]),
    /// The sequence number.
    Icmp(u16),
}

#[derive(Debug)]
struct Waiting {
    node: NodePublic,
    sent: Instant,
    reply: Reply,
}

impl Pings {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    pub(super) fn wait(&mut self, token: Token, node: NodePublic, sent: Instant, reply: Reply) {
        self.waiting.insert(token, Waiting { node, sent, reply });
    }

    /// Takes the outcome of a disco ping, which times itself.
    pub(super) fn settle_disco(&mut self, ping: UserPing, outcome: Result<Pong, PingError>) {
        if let Some(waiting) = self.waiting.remove(&Token::Disco(ping)) {
            // Who asked may have gone.
            let _gone = waiting.reply.send(outcome);
        }
    }

    /// Takes an answer through the tunnel; the first from the peer that was pinged counts.
    pub(super) fn settle(
        &mut self,
        token: Token,
        node: &NodePublic,
        address: IpAddr,
        (via, peer_api_port): (Option<Via>, Option<u16>),
        now: Instant,
    ) {
        if self.waiting.get(&token).is_none_or(|waiting| waiting.node != *node) {
            return;
        }
        if let Some(waiting) = self.waiting.remove(&token) {
            let latency = now.saturating_duration_since(waiting.sent);
            let pong = Pong { latency, via, address: Some(address), observed: None, peer_api_port };
            let _gone = waiting.reply.send(Ok(pong));
        }
    }

    /// When the next ping through the tunnel is given up. Disco pings end by themselves.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timed = |(token, _): &(&Token, &Waiting)| !matches!(token, Token::Disco(_));
        self.waiting.iter().filter(timed).map(|(_, waiting)| waiting.sent + PATIENCE).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due =
            |token: &Token, waiting: &Waiting| !matches!(token, Token::Disco(_)) && waiting.sent + PATIENCE <= now;
        let over: Vec<Token> =
            self.waiting.iter().filter(|(token, waiting)| due(token, waiting)).map(|(token, _)| *token).collect();
        for token in over {
            if let Some(waiting) = self.waiting.remove(&token) {
                let _gone = waiting.reply.send(Err(PingError::TimedOut(PATIENCE)));
            }
        }
    }

    /// Whether answers to ICMP pings are to be looked for.
    pub(super) fn has_icmp(&self) -> bool {
        self.waiting.keys().any(|token| matches!(token, Token::Icmp(_)))
    }
}
