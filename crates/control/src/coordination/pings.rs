use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crypto::{Entropy, MachinePublic, SystemEntropy};
use tailcfg::{NodeId, PingRequest, PingResponse};
use tailnet::TailnetId;
use tokio::sync::oneshot;

use super::Coordination;

/// Pings that were asked of devices and are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Pings(Mutex<HashMap<u64, Asked>>);

#[derive(Debug)]
struct Asked {
    machine: MachinePublic,
    answer: oneshot::Sender<Option<PingResponse>>,
}

/// A ping that somebody waits for: forgotten when this is dropped, also where the caller hangs up before the answer.
#[derive(Debug)]
struct Awaited<'a> {
    pings: &'a Pings,
    number: u64,
    answer: oneshot::Receiver<Option<PingResponse>>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.pings.locked().remove(&self.number);
    }
}

/// Why a ping came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PingError {
    /// The device has no stream.
    #[error("the device is not connected")]
    NotConnected,
    /// It did not answer.
    #[error("the device did not answer in time")]
    TimedOut,
}

/// What a device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingWhat {
    /// To show that it is there.
    Itself,
    /// To ping one of its peers by this kind of ping: `disco`, `TSMP`, `ICMP` or `peerapi`.
    Peer(IpAddr, &'static str),
}

impl Pings {
    fn ask(&self, machine: MachinePublic) -> Awaited<'_> {
        let (sender, answer) = oneshot::channel();
        // The number is in a URL that clients don't answer twice, and must not be guessed by others.
        let number = SystemEntropy.below(u64::MAX);
        self.locked().insert(number, Asked { machine, answer: sender });
        Awaited { pings: self, number, answer }
    }

    /// Takes an answer; false when nobody asked this machine that.
    pub(super) fn answer(&self, number: u64, machine: &MachinePublic, response: Option<PingResponse>) -> bool {
        let mut asked = self.locked();
        if asked.get(&number).is_none_or(|asked| asked.machine != *machine) {
            return false;
        }
        // Whoever asked may have stopped to wait.
        asked.remove(&number).is_some_and(|asked| asked.answer.send(response).is_ok())
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coordination {
    /// Asks a device to show that it is there, or to ping one of its peers.
    pub(crate) async fn ping(
        self: &Arc<Self>,
        tailnet: TailnetId,
        node: NodeId,
        what: PingWhat,
        patience: Duration,
    ) -> Result<Option<PingResponse>, PingError> {
        let machine = {
            let server = self.server();
            let node = server.tailnet(tailnet).and_then(|tailnet| tailnet.node(node));
            node.ok_or(PingError::NotConnected)?.machine_key
        };
        let mut awaited = self.pings.ask(machine);
        let (ip, types) = match what {
            PingWhat::Itself => (None, String::new()),
            PingWhat::Peer(ip, kind) => (Some(ip), kind.to_owned()),
        };
        let url = self.url.join(&format!("/machine/ping/{}", awaited.number));
        let request = PingRequest { url, url_is_noise: true, ip, types, ..PingRequest::default() };
        if !self.streams.ping(node, request) {
            return Err(PingError::NotConnected);
        }
        let answer = tokio::time::timeout(patience, &mut awaited.answer).await;
        answer.ok().and_then(Result::ok).ok_or(PingError::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_machine_that_was_asked_can_answer_and_only_once() {
        let (pings, machine) = (Pings::default(), MachinePublic::from_bytes([1; 32]));
        let mut awaited = pings.ask(machine);
        let number = awaited.number;
        assert!(!pings.answer(number, &MachinePublic::from_bytes([2; 32]), None));
        assert!(!pings.answer(number.wrapping_add(1), &machine, None));
        assert!(pings.answer(number, &machine, None));
        assert_eq!((&mut awaited.answer).await, Ok(None));
        assert!(!pings.answer(number, &machine, None));
    }

    #[test]
    fn a_caller_who_hangs_up_leaves_nothing_behind() {
        let pings = Pings::default();
        drop(pings.ask(MachinePublic::from_bytes([1; 32])));
        assert!(pings.locked().is_empty());
    }
}
