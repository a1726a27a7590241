use std::io::Write;
use std::net::SocketAddr;

use clap::Args;
use serde_json::{Value, json};

use super::Session;
use super::prefs::{Changes, Prefs};
use super::settings::{SettingsArguments, Switch};
use super::state::Status;
use crate::{Failure, Output};

/// Changes the settings that are given, and no other.
#[derive(Debug, Clone, Default, Args)]
pub struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// A short name for the account in use
    #[arg(long, value_name = "NAME")]
    nickname: Option<String>,
    /// Install new versions by itself (the stock daemon does)
    #[arg(long, switch())]
    auto_update: Option<bool>,
    /// Tell of new versions (the stock daemon does)
    #[arg(long, switch())]
    update_check: Option<bool>,
    /// Serve the stock daemon's web page for this node to the tailnet
    #[arg(long, switch())]
    webclient: Option<bool>,
    /// The UDP port to relay for peers at, 0 for any; an empty text relays for none
    #[arg(long, value_name = "PORT")]
    relay_server_port: Option<String>,
    /// Addresses where peers reach that relay, such as 192.0.2.1:40000
    #[arg(long, value_name = "ADDRESSES")]
    relay_server_static_endpoints: Option<String>,
    /// Risks to accept without being asked; there are none to ask about, scripts of the stock command give it
    #[arg(long, value_name = "RISKS", hide = true)]
    accept_risk: Option<String>,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    let prefs = Prefs::load(&api).await?;
    let changes = arguments.changes(&prefs, &status)?;
    if changes.is_empty() {
        return Err(Failure::usage(format!("which setting? `{} set --help` lists them", session.program())));
    }
    prefs.with(&changes).check(&api).await?;
    let now = Prefs::change(&api, &changes).await?;
    // Silent, as the stock command is.
    let answer: Changes = changes.keys().map(|name| (name.clone(), now.value(name).clone())).collect();
    output.print(&answer, |_| String::new())?;
    Ok(())
}

impl Arguments {
    fn changes(&self, prefs: &Prefs, status: &Status) -> Result<Changes, Failure> {
        let mut changes = self.settings.changes(prefs, status)?;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                changes.insert(name.to_owned(), value);
            }
        };
        set("ProfileName", self.nickname.clone().map(Value::from));
        set("RunWebClient", self.webclient.map(Value::from));
        let mut update = Changes::new();
        update.extend(self.update_check.map(|check| ("Check".to_owned(), check.into())));
        update.extend(self.auto_update.map(|apply| ("Apply".to_owned(), apply.into())));
        set("AutoUpdate", Some(update).filter(|update| !update.is_empty()).map(Value::Object));
        set("RelayServerPort", self.relay_server_port.as_deref().map(relay_port).transpose()?);
        let endpoints = self.relay_server_static_endpoints.as_deref().map(relay_endpoints).transpose()?;
        set("RelayServerStaticEndpoints", endpoints);
        Ok(changes)
    }
}

fn relay_port(text: &str) -> Result<Value, Failure> {
    match text {
        "" => Ok(Value::Null),
        text => text.parse::<u16>().map(Value::from).map_err(|_| {
            Failure::usage(format!("--relay-server-port {text:?} is no port: 0 to 65535, or an empty text for none"))
        }),
    }
}

fn relay_endpoints(text: &str) -> Result<Value, Failure> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let endpoints: Result<Vec<String>, Failure> = parts
        .map(|part| match part.parse::<SocketAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(Failure::usage(format!("{part:?} is no address with a port, such as 192.0.2.1:40000"))),
        })
        .collect();
    Ok(json!(endpoints?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let arguments =
            Arguments { update_check: Some(false), relay_server_port: Some(String::new()), ..Default::default() };
        let changes = arguments.changes(&Prefs::default(), &Status::default()).unwrap();
        assert_eq!(Value::Object(changes), json!({"AutoUpdate": {"Check": false}, "RelayServerPort": null}));
    }

    #[test]
    fn ports_and_endpoints_that_are_none_are_refused() {
        assert!(relay_port("70000").is_err());
        assert!(relay_endpoints("192.0.2.1").is_err());
        assert_eq!(relay_endpoints("192.0.2.1:1, [2001:db8::1]:2").unwrap(), json!(["192.0.2.1:1", "[2001:db8::1]:2"]));
    }
}
