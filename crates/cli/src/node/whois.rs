use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use tailcfg::UserProfile;
use tailcfg::go::nullable;

use super::local_api::query_value;
use super::settings::Switch;
use super::{LocalApiError, Session};
use crate::{Failure, Output};

/// Shows which machine and user an address belongs to, and what they may do here.
#[derive(Debug, Args)]
pub struct Arguments {
    /// An address, or an address and a port of a connection
    address: String,
    /// The connection's protocol; both when not given
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp"])]
    proto: Option<String>,
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WhoIs {
    #[serde(deserialize_with = "nullable")]
    node: Node,
    #[serde(deserialize_with = "nullable")]
    user_profile: UserProfile,
    #[serde(deserialize_with = "nullable")]
    cap_map: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    #[serde(rename = "StableID", deserialize_with = "nullable")]
    stable_id: String,
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    tags: Vec<String>,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let address = &arguments.address;
    let is_address = address.parse::<IpAddr>().is_ok() || address.parse::<SocketAddr>().is_ok();
    if !is_address && !address.starts_with("nodekey:") {
        return Err(Failure::usage(format!(
            "{address:?} is no address: such as 100.64.0.1, 100.64.0.1:443 or [fd7a:115c:a1e0::1]:443; `{} ip NAME` finds the address of a name",
            session.program()
        )));
    }
    let proto = arguments.proto.as_deref().unwrap_or_default();
    let path = format!("whois?proto={proto}&addr={}", query_value(address));
    let answer: Value = match session.api().await?.get(&path).await {
        Err(LocalApiError::Refused { status, .. }) if status == http::StatusCode::NOT_FOUND => {
            return Err(Failure::failed(format!("peer not found: nobody that this machine knows of has {address}")));
        }
        answer => answer?,
    };
    let who = WhoIs::deserialize(&answer)
        .map_err(|error| Failure::failed(format!("the daemon's answer can't be used: {error}")))?;
    output.print(&answer, |_| who.text())?;
    Ok(())
}

impl WhoIs {
    fn text(&self) -> String {
        let mut text = String::from("Machine:\n");
        let mut line = |label: &str, value: &str| text.push_str(&format!("  {:<14} {value}\n", format!("{label}:")));
        line("Name", self.node.name.trim_end_matches('.'));
        line("ID", &self.node.stable_id);
        line("Addresses", &format!("[{}]", self.node.addresses.join(" ")));
        if self.node.tags.is_empty() {
            text.push_str("User:\n");
            text.push_str(&format!("  Name:     {}\n", self.user_profile.login_name));
            text.push_str(&format!("  ID:       {}\n", self.user_profile.id));
        } else {
            line("Tags", &self.node.tags.join(", "));
        }
        if !self.cap_map.is_empty() {
            text.push_str("Capabilities:\n");
        }
        for (name, values) in &self.cap_map {
            match values.as_array().filter(|values| !values.is_empty()) {
                None => text.push_str(&format!("  - {name}\n")),
                Some(_) => {
                    let pretty = serde_json::to_string_pretty(values).unwrap_or_default();
                    let indented = pretty.lines().map(|line| format!("      {line}\n")).collect::<String>();
                    text.push_str(&format!("  - {name}:\n{indented}"));
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_users_machine_and_what_it_may_do_are_shown() {
        let who = WhoIs::deserialize(json!({
            "Node": {"StableID": "nX", "Name": "x.t.net.", "Addresses": ["100.64.0.9/32"], "Tags": null},
            "UserProfile": {"ID": 2, "LoginName": "a@b"},
            "CapMap": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["g1"]}}], "bare": null},
        }))
        .unwrap();
        assert_eq!(
            who.text(),
            "Machine:\n  Name:          x.t.net\n  ID:            nX\n  Addresses:     [100.64.0.9/32]\nUser:\n  Name:     a@b\n  ID:       2\nCapabilities:\n  - tailscale.com/cap/kubernetes:\n      [\n        {\n          \"impersonate\": {\n            \"groups\": [\n              \"g1\"\n            ]\n          }\n        }\n      ]\n  - bare\n"
        );
    }
}
