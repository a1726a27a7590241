use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use tailcfg::go::nullable;
use tailcfg::{Location, Time, UserId};

use super::Session;
use crate::Failure;

/// What the daemon is doing, as the LocalAPI names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    InUseOtherUser,
    NeedsLogin,
    NeedsMachineAuth,
    Stopped,
    Starting,
    Running,
}

impl State {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Unknown, "NoState"),
        (Self::InUseOtherUser, "InUseOtherUser"),
        (Self::NeedsLogin, "NeedsLogin"),
        (Self::NeedsMachineAuth, "NeedsMachineAuth"),
        (Self::Stopped, "Stopped"),
        (Self::Starting, "Starting"),
        (Self::Running, "Running"),
    ];

    /// The state of this number, as the stream of events has it.
    pub(super) fn numbered(number: i64) -> Option<Self> {
        let at = usize::try_from(number).ok()?;
        Self::NAMES.get(at).map(|(state, _)| *state)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| *name)
    }
}

/// The daemon's status, as far as commands decide by it; what is printed as JSON is the answer itself.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Status {
    #[serde(deserialize_with = "nullable")]
    pub(super) version: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) backend_state: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) have_node_key: bool,
    #[serde(rename = "AuthURL", deserialize_with = "nullable")]
    pub(super) auth_url: String,
    #[serde(rename = "TailscaleIPs", deserialize_with = "nullable")]
    pub(super) addresses: Vec<IpAddr>,
    #[serde(rename = "Self")]
    pub(super) own: Option<PeerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(super) health: Vec<String>,
    #[serde(rename = "MagicDNSSuffix", deserialize_with = "nullable")]
    pub(super) suffix: String,
    pub(super) current_tailnet: Option<CurrentTailnet>,
    #[serde(deserialize_with = "nullable")]
    pub(super) peer: BTreeMap<String, PeerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(super) user: BTreeMap<String, tailcfg::UserProfile>,
}

/// The tailnet that the daemon is in.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CurrentTailnet {
    #[serde(deserialize_with = "nullable")]
    pub(super) name: String,
}

/// What the daemon knows of a node.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PeerStatus {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    pub(super) id: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) public_key: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) host_name: String,
    #[serde(rename = "DNSName", deserialize_with = "nullable")]
    pub(super) dns_name: String,
    #[serde(rename = "OS", deserialize_with = "nullable")]
    pub(super) os: String,
    #[serde(rename = "UserID", deserialize_with = "nullable")]
    pub(super) user_id: UserId,
    #[serde(rename = "AltSharerUserID", deserialize_with = "nullable")]
    pub(super) sharer: UserId,
    #[serde(rename = "TailscaleIPs", deserialize_with = "nullable")]
    pub(super) addresses: Vec<IpAddr>,
    #[serde(deserialize_with = "nullable")]
    pub(super) tags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) cur_addr: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) relay: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) peer_relay: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) rx_bytes: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) tx_bytes: i64,
    pub(super) last_seen: Time,
    #[serde(deserialize_with = "nullable")]
    pub(super) online: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) exit_node: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) exit_node_option: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) active: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) sharee_node: bool,
    pub(super) location: Option<Location>,
}

impl Status {
    /// The daemon's state; `None` for one that this command does not know.
    pub(super) fn state(&self) -> Option<State> {
        State::NAMES.iter().find(|(_, name)| *name == self.backend_state).map(|(state, _)| *state)
    }

    /// Whether the node is in its tailnet, or on its way.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state(), Some(State::Running | State::Starting))
    }

    /// Why nothing can be asked of the tailnet now, in the stock command's words but for the network's name; `None` when
    /// it can.
    pub(super) fn obstacle(&self, network: &str) -> Option<String> {
        Some(match self.state() {
            Some(State::Running | State::Starting) => return None,
            Some(State::Stopped) => format!("{network} is stopped."),
            Some(State::NeedsLogin) if self.auth_url.is_empty() => "Logged out.".to_owned(),
            Some(State::NeedsLogin) => format!("Logged out.\nLog in at: {}", self.auth_url),
            Some(State::NeedsMachineAuth) => "Machine is not yet approved by tailnet admin.".to_owned(),
            _ => format!("unexpected state: {}", self.backend_state),
        })
    }

    /// Fails, with the next step, unless the node is in its tailnet.
    pub(super) fn require_running(&self, session: &Session) -> Result<(), Failure> {
        let Some(obstacle) = self.obstacle(session.network()) else { return Ok(()) };
        Err(Failure::failed(format!("{obstacle} {}", self.next_step(session.program()))))
    }

    /// What brings the node into its tailnet.
    pub(super) fn next_step(&self, program: &str) -> String {
        match self.state() {
            Some(State::Stopped) => format!("`{program} up` brings the network back"),
            Some(State::NeedsLogin) => format!("`{program} up` logs in"),
            // No command of the stock program does that.
            Some(State::NeedsMachineAuth) => "an admin does it with `towline devices authorize`".to_owned(),
            _ => format!("`{program} status` shows when it changes"),
        }
    }

    /// Whether somebody is logged in, running or not.
    pub(super) fn is_logged_in(&self) -> bool {
        self.have_node_key && !matches!(self.state(), Some(State::NeedsLogin | State::Unknown))
    }

    /// The node and its peers.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &PeerStatus> {
        self.own.iter().chain(self.peer.values())
    }

    /// The peers in the order in which they are shown: by name.
    pub(super) fn peers_by_name(&self) -> Vec<&PeerStatus> {
        let mut peers: Vec<&PeerStatus> = self.peer.values().collect();
        peers.sort_by_key(|peer| {
            let name = if peer.dns_name.is_empty() { &peer.host_name } else { &peer.dns_name };
            (name.clone(), peer.addresses.first().copied())
        });
        peers
    }

    /// A node by its MagicDNS name, short or whole, or by its host name where it has no other.
    pub(super) fn named(&self, name: &str) -> Option<&PeerStatus> {
        let wanted = name.trim_end_matches('.').to_ascii_lowercase();
        let whole = self.nodes().find(|node| node.dns_name.trim_end_matches('.').eq_ignore_ascii_case(&wanted));
        whole.or_else(|| self.nodes().find(|node| node.name(&self.suffix).eq_ignore_ascii_case(&wanted)))
    }

    /// A node by one of its addresses.
    pub(super) fn at(&self, address: IpAddr) -> Option<&PeerStatus> {
        self.nodes().find(|node| node.addresses.contains(&address))
    }
}

impl PeerStatus {
    /// The MagicDNS name, short within the tailnet; empty when there is none.
    pub(super) fn name(&self, suffix: &str) -> &str {
        let whole = self.dns_name.trim_end_matches('.');
        let own = whole.strip_suffix(suffix.trim_matches('.')).and_then(|short| short.strip_suffix('.'));
        own.filter(|_| !suffix.is_empty()).unwrap_or(whole)
    }

    /// The name to show: its own host name in brackets when nothing else is known.
    pub(super) fn shown_name(&self, suffix: &str) -> String {
        match self.name(suffix) {
            "" => format!("(\"{}\")", host_label(&self.host_name)),
            name => name.to_owned(),
        }
    }
}

/// A host name as a MagicDNS label would have it.
fn host_label(name: &str) -> String {
    let mut label = String::new();
    for letter in name.trim().chars() {
        match letter {
            'a'..='z' | '0'..='9' => label.push(letter),
            'A'..='Z' => label.push(letter.to_ascii_lowercase()),
            ' ' | '.' | '-' | '_' if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
    }
    label.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_within_the_tailnet_is_short_and_another_is_whole() {
        let peer = |name: &str| PeerStatus { dns_name: name.into(), ..PeerStatus::default() };
        assert_eq!(peer("a.tail.example.net.").name("tail.example.net"), "a");
        assert_eq!(peer("a.other.example.net.").name("tail.example.net"), "a.other.example.net");
        assert_eq!(peer("xtail.example.net.").name("tail.example.net"), "xtail.example.net");
        assert_eq!(peer("a.b.").name(""), "a.b");
    }

    #[test]
    fn nulls_and_absent_fields_read_as_nothing() {
        let status: Status = serde_json::from_str(r#"{"Peer":null,"Health":null,"Self":null,"User":null}"#).unwrap();
        assert_eq!(status, Status::default());
    }
}
