use std::io::Write;
use std::net::IpAddr;

use clap::Args;

use super::settings::Switch;
use super::state::Status;
use super::{Session, lookup};
use crate::{Failure, Output};

/// Shows the addresses of this machine or of a peer, one a line.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The peer's name or address; this machine when not given
    peer: Option<String>,
    /// Only the IPv4 address
    #[arg(short = '4', long = "4", default_value_t = false, switch())]
    v4: bool,
    /// Only the IPv6 address
    #[arg(short = '6', long = "6", default_value_t = false, switch())]
    v6: bool,
    /// Only one address
    #[arg(short = '1', long = "1", default_value_t = false, switch())]
    one: bool,
    /// Print nothing, and fail unless this machine has this address
    #[arg(long, value_name = "ADDRESS")]
    assert: Option<IpAddr>,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    if [arguments.v4, arguments.v6, arguments.one].iter().filter(|flag| **flag).count() > 1 {
        return Err(Failure::usage("-1, -4, and -6 are mutually exclusive"));
    }
    let status: Status = session.api().await?.get("status").await?;
    if let Some(wanted) = arguments.assert {
        if status.addresses.contains(&wanted) {
            return Ok(());
        }
        let found: Vec<String> = status.addresses.iter().map(IpAddr::to_string).collect();
        let text = format!("assertion failed: IP \"{wanted}\" not found among [{}]", found.join(" "));
        return Err(Failure::failed(text));
    }
    let all = match &arguments.peer {
        None if status.addresses.is_empty() => {
            let (network, state) = (session.network(), &status.backend_state);
            return Err(Failure::failed(format!(
                "no current {network} IPs; state: {state}. `{} up` connects this machine",
                session.program()
            )));
        }
        None => status.addresses.clone(),
        Some(peer) => addresses_of(peer, &status, session).await?,
    };
    let family = |address: &IpAddr| (!arguments.v4 || address.is_ipv4()) && (!arguments.v6 || address.is_ipv6());
    let mut shown: Vec<IpAddr> = all.into_iter().filter(family).collect();
    if arguments.one {
        shown.truncate(1);
    }
    if shown.is_empty() {
        let family = if arguments.v4 { "IPv4" } else { "IPv6" };
        return Err(Failure::failed(format!("no {} {family} address", session.network())));
    }
    output.print(&shown, |shown| shown.iter().map(|address| format!("{address}\n")).collect())?;
    Ok(())
}

async fn addresses_of(peer: &str, status: &Status, session: &Session) -> Result<Vec<IpAddr>, Failure> {
    let target = lookup::target(peer, status, session).await?;
    match status.at(target.address) {
        Some(node) => Ok(node.addresses.clone()),
        None => Err(Failure::failed(format!(
            "no peer or service found with IP {}: `towline status` shows all nodes",
            target.address
        ))),
    }
}
