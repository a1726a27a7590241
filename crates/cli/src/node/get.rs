use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::Session;
use super::prefs::Prefs;
use super::settings::{self, Switch};
use super::state::Status;
use crate::tabbed::Tabbed;
use crate::{Failure, Output};

/// Shows the settings in force, by the names of the flags that set them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One setting, such as exit-node; all when not given
    setting: Option<String>,
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    let prefs = Prefs::load(&api).await?;
    let all = in_force(&prefs, &status);
    match arguments.setting.as_deref().filter(|setting| *setting != "all") {
        None => output.print(&all, table)?,
        Some(name) => {
            let value = all.get(name).ok_or_else(|| {
                Failure::usage(format!("there is no setting {name:?}; `{} get` lists all", session.program()))
            })?;
            output.print(value, plain)?;
        }
    }
    Ok(())
}

fn in_force(prefs: &Prefs, status: &Status) -> BTreeMap<&'static str, Value> {
    const SWITCHES: [(&str, bool); 10] = [
        ("accept-dns", true),
        ("accept-routes", false),
        ("advertise-connector", false),
        ("advertise-exit-node", false),
        ("exit-node-allow-lan-access", false),
        ("report-posture", false),
        ("shields-up", false),
        ("snat-subnet-routes", true),
        ("ssh", false),
        ("stateful-filtering", false),
    ];
    const TEXTS: [(&str, &str); 7] = [
        ("advertise-routes", ""),
        ("advertise-tags", ""),
        ("exit-node", ""),
        ("hostname", ""),
        ("login-server", ""),
        ("netfilter-mode", "on"),
        ("operator", ""),
    ];
    let mut all: BTreeMap<&'static str, Value> = BTreeMap::new();
    all.extend(SWITCHES.map(|(flag, default)| (flag, Value::from(default))));
    all.extend(TEXTS.map(|(flag, default)| (flag, Value::from(default))));
    for mention in settings::mentions(prefs, status) {
        let value = match (all.get(mention.flag), mention.value) {
            (Some(Value::Bool(_)), value) => Value::from(value.is_none()),
            (_, value) => Value::from(value.unwrap_or_default()),
        };
        all.insert(mention.flag, value);
    }
    let update = prefs.value("AutoUpdate");
    let port = prefs.value("RelayServerPort").as_u64().map(|port| port.to_string());
    all.insert("auto-update", update.get("Apply").and_then(Value::as_bool).unwrap_or_default().into());
    all.insert("update-check", update.get("Check").and_then(Value::as_bool).unwrap_or_default().into());
    all.insert("webclient", prefs.flag("RunWebClient").into());
    all.insert("nickname", prefs.text("ProfileName").into());
    all.insert("relay-server-port", port.unwrap_or_default().into());
    all.insert("relay-server-static-endpoints", prefs.list("RelayServerStaticEndpoints").join(",").into());
    all
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn table(all: &BTreeMap<&'static str, Value>) -> String {
    let mut table = Tabbed::default();
    table.line(["NAME".to_owned(), "VALUE".to_owned()]);
    for (name, value) in all {
        table.line([(*name).to_owned(), plain(value)]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_show_by_flag_with_their_defaults() {
        let prefs = serde_json::from_value(json!({"CorpDNS": false, "Hostname": "x", "NetfilterMode": 0})).unwrap();
        let all = in_force(&prefs, &Status::default());
        assert_eq!(
            (&all["accept-dns"], &all["hostname"], &all["netfilter-mode"]),
            (&json!(false), &json!("x"), &json!("off"))
        );
        assert_eq!((&all["snat-subnet-routes"], &all["exit-node"]), (&json!(true), &json!("")));
    }
}
