use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::json;

use super::Session;
use super::prefs::{Changes, Prefs};
use super::state::{State, Status};
use crate::output::note;
use crate::{Failure, Output};

/// Disconnects this machine from its tailnet.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Risks to accept without being asked; there are none to ask about, scripts of the stock command give it
    #[arg(long, value_name = "RISKS", hide = true)]
    accept_risk: Option<String>,
}

/// Ends this machine's key.
#[derive(Debug, Args)]
pub struct LogoutArguments {}

pub(super) async fn run<W: Write>(_: Arguments, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    if status.state() == Some(State::Stopped) {
        note(&format!("{} was already stopped.", session.network()));
    } else {
        let mut changes = Changes::new();
        changes.insert("WantRunning".to_owned(), false.into());
        Prefs::change(&api, &changes).await?;
    }
    // Silent, as the stock command is.
    output.print(&json!({"BackendState": State::Stopped.name()}), |_| String::new())?;
    Ok(())
}

pub(super) async fn log_out<W: Write>(
    _: LogoutArguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let api = session.api().await?;
    api.command(Method::POST, "logout", None).await?;
    output.print(&json!({"BackendState": State::NeedsLogin.name()}), |_| String::new())?;
    Ok(())
}
