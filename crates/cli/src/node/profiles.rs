use std::io::Write;

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tailcfg::UserProfile;
use tailcfg::go::nullable;

use super::local_api::query_value;
use super::login::Login;
use super::prefs::Prefs;
use super::settings::Switch;
use super::state::Status;
use super::{LocalApi, Session};
use crate::output::note;
use crate::tabbed::Tabbed;
use crate::{Failure, Output};

/// Shows the accounts that this machine is logged in with, or uses another.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The account's id, tailnet, login name or nickname; `remove ID` forgets one
    #[arg(num_args = 0..=2, value_name = "ACCOUNT")]
    account: Vec<String>,
    /// List the accounts
    #[arg(long, default_value_t = false, switch())]
    list: bool,
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Profile {
    #[serde(rename = "ID", deserialize_with = "nullable")]
    id: String,
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    network_profile: Network,
    #[serde(deserialize_with = "nullable")]
    user_profile: UserProfile,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    #[serde(deserialize_with = "nullable")]
    domain_name: String,
    #[serde(deserialize_with = "nullable")]
    display_name: String,
}

impl Profile {
    fn tailnet(&self) -> &str {
        let network = &self.network_profile;
        if network.display_name.is_empty() { &network.domain_name } else { &network.display_name }
    }

    fn is(&self, wanted: &str) -> bool {
        [&self.id, &self.name, &self.user_profile.login_name, &self.network_profile.domain_name]
            .iter()
            .any(|name| name.as_str() == wanted)
            || self.tailnet() == wanted
    }
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let api = session.api().await?;
    let profiles: Option<Vec<Profile>> = api.get("profiles/").await?;
    let profiles = profiles.unwrap_or_default();
    let current: Option<Profile> = api.get("profiles/current").await?;
    let current = current.unwrap_or_default();
    match arguments.account.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] if arguments.list => list(&profiles, &current, output),
        [] => Err(Failure::usage(format!(
            "which account? `{0} switch --list` shows them, `{0} switch ID` uses one",
            session.program()
        ))),
        ["remove", wanted] => remove(&api, find(&profiles, wanted)?, output).await,
        [wanted] => switch(&api, session, find(&profiles, wanted)?, &current, output).await,
        _ => Err(Failure::usage("one account at a time")),
    }
}

fn find<'a>(profiles: &'a [Profile], wanted: &str) -> Result<&'a Profile, Failure> {
    let found: Vec<&Profile> = profiles.iter().filter(|profile| profile.is(wanted)).collect();
    match found.as_slice() {
        [profile] => Ok(profile),
        [] => Err(Failure::refused(format!("No profile named {wanted:?}; `towline switch --list` shows all"))),
        _ => Err(Failure::usage(format!("several accounts are called {wanted:?}: name one by its id"))),
    }
}

fn list<W: Write>(profiles: &[Profile], current: &Profile, output: &mut Output<W>) -> Result<(), Failure> {
    let mut table = Tabbed::default();
    table.line(["ID", "Tailnet", "Account"].map(str::to_owned));
    let mut answer: Vec<Value> = Vec::new();
    for profile in profiles {
        let selected = profile.id == current.id;
        let account = format!("{}{}", profile.name, if selected { "*" } else { "" });
        table.line([profile.id.clone(), profile.tailnet().to_owned(), account]);
        answer.push(json!({
            "id": profile.id, "nickname": profile.name, "tailnet": profile.tailnet(),
            "account": profile.user_profile.login_name, "selected": selected,
        }));
    }
    let lines: String = table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    Ok(output.print(&answer, |_| lines)?)
}

async fn switch<W: Write>(
    api: &LocalApi,
    session: &Session,
    wanted: &Profile,
    current: &Profile,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let answer = json!({"id": wanted.id, "account": wanted.user_profile.login_name});
    if wanted.id == current.id {
        return Ok(output.print(&answer, |_| format!("Already on account {:?}", wanted.name))?);
    }
    note(&format!("Switching to account {:?}", wanted.name));
    let mut bus = api.watch(0).await?;
    api.command(Method::POST, &format!("profiles/{}", query_value(&wanted.id)), None).await?;
    let status: Status = api.get("status?peers=false").await?;
    if status.state() == Some(super::state::State::Stopped) {
        return Ok(output.print(&answer, |_| "Success; the network is stopped, `towline up` starts it.".to_owned())?);
    }
    let timeout = Some(std::time::Duration::from_secs(10));
    let login = Login { key: None, log_in: false, replaces: None, timeout, session };
    login.wait(api, Prefs::load(api).await?.text("ControlURL"), &mut bus, output).await?;
    Ok(output.print(&answer, |_| "Success.".to_owned())?)
}

async fn remove<W: Write>(api: &LocalApi, profile: &Profile, output: &mut Output<W>) -> Result<(), Failure> {
    api.command(Method::DELETE, &format!("profiles/{}", query_value(&profile.id)), None).await?;
    let answer = json!({"id": profile.id, "account": profile.user_profile.login_name});
    Ok(output.print(&answer, |_| format!("Removed account {:?}", profile.name))?)
}
