use std::net::IpAddr;

use super::Session;
use super::state::Status;
use crate::Failure;

/// What a name or address stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    /// Whether it is this machine.
    pub(super) is_own: bool,
}

/// Finds an address: as written, of a node by its MagicDNS name, or by the system's name servers.
pub(super) async fn target(wanted: &str, status: &Status, session: &Session) -> Result<Target, Failure> {
    if let Ok(address) = wanted.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Target { address, is_own: status.addresses.contains(&address) });
    }
    if let Some(node) = status.named(wanted) {
        let address = node.addresses.first().copied();
        let address =
            address.ok_or_else(|| Failure::failed(format!("the node {wanted:?} has no address in the tailnet")))?;
        return Ok(Target { address, is_own: status.addresses.contains(&address) });
    }
    let looked_up = session.connection().resolver().resolve(wanted).await;
    let addresses = looked_up.map_err(|error| unknown(wanted, &error.to_string()))?;
    let address = addresses.first().copied().ok_or_else(|| unknown(wanted, "the DNS has no address of that name"))?;
    Ok(Target { address, is_own: status.addresses.contains(&address) })
}

fn unknown(wanted: &str, reason: &str) -> Failure {
    Failure::failed(format!("no node of the tailnet is called {wanted:?} (`towline status` shows all), and {reason}"))
}
