use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use api::SecretText;
use clap::Args;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::bus::{Bus, Notify};
use super::prefs::{Changes, Prefs};
use super::settings::{self, Mention, SettingsArguments, Switch};
use super::state::{State, Status};
use super::{LocalApi, LocalApiError, Session, duration};
use crate::output::note;
use crate::{Failure, Output};

/// How often the daemon is asked while its stream is quiet: a state that was reached before the stream was opened is
/// never told there.
const LOOK: Duration = Duration::from_secs(2);
/// How much later than a status the daemon's stream may tell what led to it.
const SETTLE: Duration = Duration::from_millis(100);
/// What a file with a key may hold.
const KEY_LIMIT: u64 = 4096;

/// How this machine joins, and with what settings.
#[derive(Debug, Clone, Args)]
pub(super) struct JoinArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// The coordination server's URL
    #[arg(long, value_name = "URL")]
    login_server: Option<String>,
    /// A key to join by, or file:PATH of a file that holds one
    #[arg(long, alias = "authkey", value_name = "KEY")]
    auth_key: Option<SecretText>,
    /// Tags to ask for, such as tag:server,tag:web
    #[arg(long, value_name = "TAGS")]
    advertise_tags: Option<String>,
    /// How long to wait until the node runs, such as 30s; 0s waits for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    timeout: Duration,
    /// Show the login URL as a QR code (not offered yet)
    #[arg(long, default_value_t = false, switch())]
    qr: bool,
}

impl JoinArguments {
    /// How long to wait; `None` is for ever.
    pub(super) fn timeout(&self) -> Option<Duration> {
        Some(self.timeout).filter(|timeout| !timeout.is_zero())
    }

    pub(super) fn has_key(&self) -> bool {
        self.auth_key.is_some()
    }

    /// The key, read from its file when it names one.
    pub(super) fn key(&self) -> Result<Option<SecretText>, Failure> {
        let Some(key) = &self.auth_key else { return Ok(None) };
        let Some(path) = key.expose().strip_prefix("file:") else { return Ok(Some(key.clone())) };
        let file = std::fs::File::open(path).with_context(|| format!("reading the key in {path}"))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, KEY_LIMIT), &mut text)
            .with_context(|| format!("reading the key in {path}"))?;
        match text.trim() {
            "" => Err(Failure::usage(format!("the file {path} holds no key"))),
            key => Ok(Some(SecretText::new(key.to_owned()))),
        }
    }

    pub(super) fn refuse_unsupported(&self) -> Result<(), Failure> {
        if self.qr {
            return Err(Failure::usage("there are no QR codes yet: leave --qr out and open the URL that is shown"));
        }
        Ok(())
    }

    /// What the flags change; `prefs` and `status` are those in force.
    pub(super) fn changes(&self, prefs: &Prefs, status: &Status) -> Result<Changes, Failure> {
        let mut changes = self.settings.changes(prefs, status)?;
        if let Some(url) = &self.login_server {
            changes.insert("ControlURL".to_owned(), server_url(url)?.into());
        }
        if let Some(tags) = &self.advertise_tags {
            let tags = settings::parse_tags(tags)?;
            changes.insert("AdvertiseTags".to_owned(), if tags.is_empty() { Value::Null } else { tags.into() });
        }
        Ok(changes)
    }

    /// The settings that the flags mention, as they were typed.
    pub(super) fn mentioned(&self) -> Vec<Mention> {
        let mut mentions = self.settings.mentioned();
        let mut text = |flag, value: &Option<String>| {
            mentions.extend(value.clone().map(|value| Mention { flag, value: Some(value) }));
        };
        text("advertise-tags", &self.advertise_tags);
        text("login-server", &self.login_server);
        mentions.sort_by_key(|mention| mention.flag);
        mentions
    }
}

/// Checks the server's URL before the daemon tries it for ever.
fn server_url(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::usage(format!("--login-server {text:?} is no URL: such as https://control.example.com"));
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    match (url.scheme_str(), url.host()) {
        (Some("https" | "http"), Some(host)) if !host.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(wrong()),
    }
}

/// Logs in, as somebody else or to another tailnet; the account in use stays for `towline switch`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    join: JoinArguments,
    /// A short name for the account
    #[arg(long, value_name = "NAME")]
    nickname: Option<String>,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    let key = arguments.join.key()?;
    arguments.join.refuse_unsupported()?;
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    let old = Prefs::load(&api).await?;
    let mut changes = settings::defaults();
    changes.append(&mut arguments.join.changes(&Prefs::default(), &status)?);
    if !changes.contains_key("ControlURL") {
        let url = old.text("ControlURL");
        if url.is_empty() {
            return Err(Failure::usage(format!(
                "which coordination server? `{} login --login-server=https://control.example.com`",
                session.program()
            )));
        }
        changes.insert("ControlURL".to_owned(), url.into());
    }
    if let Some(nickname) = arguments.nickname {
        changes.insert("ProfileName".to_owned(), nickname.into());
    }
    changes.insert("WantRunning".to_owned(), true.into());
    changes.insert("LoggedOut".to_owned(), false.into());
    if status.is_logged_in() {
        add_account(&api, session.program()).await?;
    }
    let prefs = Prefs::load(&api).await?.with(&changes);
    prefs.check(&api).await?;
    let login = Login { key, log_in: true, replaces: None, timeout: arguments.join.timeout(), session };
    login.run(&api, &prefs, output).await
}

/// Lets the daemon begin with another account, and keep the one that it has.
async fn add_account(api: &LocalApi, program: &str) -> Result<(), Failure> {
    match api.command(Method::PUT, "profiles/", None).await {
        Err(LocalApiError::Refused { status: StatusCode::NOT_FOUND, .. } | LocalApiError::Unknown { .. }) => {
            Err(Failure::refused(format!(
                "this daemon keeps one account: `{program} up --force-reauth` logs in as somebody else, `{program} logout` first \
                 goes to another server"
            )))
        }
        done => Ok(done?),
    }
}

/// Starts the daemon's work and waits until it runs, telling the user where to log in.
pub(super) struct Login<'a> {
    /// The key to join by.
    pub(super) key: Option<SecretText>,
    /// Whether somebody has to log in.
    pub(super) log_in: bool,
    /// The key of the login in force, where another is to take its place: the node runs with it all the while.
    pub(super) replaces: Option<String>,
    /// How long to wait; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    /// Whom the command asks, and what it calls itself.
    pub(super) session: &'a Session,
}

impl Login<'_> {
    pub(super) async fn run<W: Write>(
        &self,
        api: &LocalApi,
        prefs: &Prefs,
        output: &mut Output<W>,
    ) -> Result<(), Failure> {
        let mut bus = api.watch(0).await?;
        prefs.start(api, self.key.as_ref().map(SecretText::expose)).await?;
        if self.log_in {
            api.command(Method::POST, "login-interactive", None).await?;
        }
        self.wait(api, prefs.text("ControlURL"), &mut bus, output).await
    }

    /// Waits until the node runs; `server` is the one that it is to reach.
    pub(super) async fn wait<W: Write>(
        &self,
        api: &LocalApi,
        server: &str,
        bus: &mut Bus,
        output: &mut Output<W>,
    ) -> Result<(), Failure> {
        let progress = self.follow(api, server, bus, output);
        let Some(limit) = self.timeout else { return progress.await };
        timeout(limit, progress).await.unwrap_or_else(|_| {
            Err(Failure::unreachable(format!(
                "timeout waiting for {} service to enter a Running state; check health with \"{} status\"",
                self.session.network(),
                self.session.program()
            )))
        })
    }

    async fn follow<W: Write>(
        &self,
        api: &LocalApi,
        server: &str,
        bus: &mut Bus,
        output: &mut Output<W>,
    ) -> Result<(), Failure> {
        let mut told = Told::default();
        let begun = Instant::now();
        let mut look_at = begun + if self.log_in { LOOK } else { SETTLE };
        loop {
            let notify = tokio::select! {
                // What is told comes before what is seen: a refusal is told once, and leaves nothing to be seen.
                biased;
                notify = bus.next() => notify?,
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + LOOK;
                    let status: Status = api.get("status?peers=false").await?;
                    let is_done = self.replaces.is_some() && self.is_through(&status);
                    if begun.elapsed() >= LOOK && !is_done {
                        told.wait(&status, server, self.replaces.is_some());
                    }
                    match timeout(SETTLE, bus.next()).await {
                        Ok(notify) => notify?,
                        Err(_) => seen(&status),
                    }
                }
            };
            if told.handle(&notify, output)? && self.is_through(&api.get("status?peers=false").await?) {
                return told.finish(output);
            }
        }
    }

    /// Whether a node that runs does so as who it is to be.
    fn is_through(&self, status: &Status) -> bool {
        let key = status.own.as_ref().map(|own| &own.public_key);
        let is_new = self.replaces.is_none() || self.replaces.as_ref() != key;
        is_new && status.auth_url.is_empty()
    }
}

/// What the status says, as the stream would have told it.
fn seen(status: &Status) -> Notify {
    let state = status.state().filter(|state| *state == State::Running && status.auth_url.is_empty());
    Notify {
        err_message: None,
        state: state.map(|state| state as i64),
        browse_to_url: Some(status.auth_url.clone()).filter(|url| !url.is_empty()),
    }
}

/// What is waited for, and what the daemon says of it.
fn waiting(what: &str, health: &[String]) -> String {
    let reasons: String = health.iter().map(|text| format!("\n\t{text}")).collect();
    let end = if reasons.is_empty() { "" } else { "\n\tIt is tried again until it works; Ctrl-C ends the wait." };
    format!("{what}{reasons}{end}")
}

/// What the user was told so far.
#[derive(Default)]
pub(super) struct Told {
    url: Option<String>,
    approval: bool,
    /// What the wait is for, as it was told last.
    waits_for: Option<String>,
}

impl Told {
    /// Says what takes so long: the server, as long as it has not shown where to log in.
    fn wait(&mut self, status: &Status, server: &str, anew: bool) {
        let is_away = self.url.is_none() && status.auth_url.is_empty();
        let reached =
            !anew && matches!(status.state(), Some(State::Running | State::NeedsMachineAuth | State::Stopped));
        if !is_away || reached {
            return;
        }
        // Who knows a tailnet has been told of it; what is missing then is a relay, or the machine's interface.
        let what = if status.current_tailnet.is_some() && !anew {
            "waiting until this machine is connected".to_owned()
        } else {
            format!("waiting for the coordination server {server}")
        };
        let text = waiting(&what, &status.health);
        if self.waits_for.as_ref() != Some(&text) {
            note(&text);
            self.waits_for = Some(text);
        }
    }

    /// Tells the user what matters of an event; true when the node runs.
    fn handle<W: Write>(&mut self, notify: &Notify, output: &mut Output<W>) -> Result<bool, Failure> {
        if let Some(message) = &notify.err_message {
            return Err(Failure::refused(format!("the login failed: {message}")));
        }
        if let Some(url) = notify.browse_to_url.as_ref().filter(|url| !url.is_empty() && self.url.as_ref() != Some(url))
        {
            self.url = Some(url.clone());
            if output.is_json() {
                output.print(&json!({"AuthURL": url, "BackendState": State::NeedsLogin.name()}), |_| String::new())?;
            } else {
                note(&format!("\nTo authenticate, visit:\n\n\t{url}\n"));
            }
        }
        match notify.state.and_then(State::numbered) {
            Some(State::NeedsMachineAuth) if !self.approval => {
                self.approval = true;
                if output.is_json() {
                    output.print(&json!({"BackendState": State::NeedsMachineAuth.name()}), |_| String::new())?;
                } else {
                    note(
                        "\nThis machine waits for an admin's approval: `towline devices authorize NAME`, or the server's console.\n",
                    );
                }
                Ok(false)
            }
            state => Ok(state == Some(State::Running)),
        }
    }

    /// Tells that the node runs.
    pub(super) fn finish<W: Write>(&self, output: &mut Output<W>) -> Result<(), Failure> {
        if output.is_json() {
            output.print(&json!({"BackendState": State::Running.name()}), |_| String::new())?;
        } else if self.url.is_some() || self.approval {
            note("Success.");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_no_url_is_refused_before_the_daemon_tries_it() {
        assert_eq!(server_url("https://c.example.com/").unwrap(), "https://c.example.com");
        for text in ["nonsense", "c.example.com", "ftp://c", "https://", ""] {
            assert!(server_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_wait_for_a_server_that_is_away_is_told_with_its_reason_and_again_when_that_changes() {
        let mut told = Told::default();
        let mut look = |status: Value| {
            let before = told.waits_for.clone();
            told.wait(&serde_json::from_value(status).unwrap(), "https://c", false);
            told.waits_for.clone().filter(|text| Some(text) != before.as_ref())
        };
        let away = json!({"BackendState": "Starting", "Health": ["https://c can't be reached: refused"]});
        let said = look(away.clone()).unwrap();
        assert!(
            said.starts_with("waiting for the coordination server https://c\n\thttps://c can't be reached"),
            "{said}"
        );
        assert_eq!(look(away), None);
        assert!(look(json!({"BackendState": "NeedsLogin", "Health": ["another reason"]})).is_some());
        let inside = look(json!({"BackendState": "Starting", "CurrentTailnet": {"Name": "t.net"}})).unwrap();
        assert_eq!(inside, "waiting until this machine is connected");
        assert_eq!(look(json!({"BackendState": "NeedsLogin", "AuthURL": "https://c/a/1"})), None);
    }

    #[test]
    fn a_login_url_is_told_once_and_an_error_ends_the_wait() {
        let mut bytes = Vec::new();
        let mut output = Output::new(crate::Format::Json, &mut bytes);
        let mut told = Told::default();
        let url = Notify { browse_to_url: Some("https://c/a/1".into()), ..Notify::default() };
        assert!(!told.handle(&url, &mut output).unwrap());
        assert!(!told.handle(&url, &mut output).unwrap());
        assert!(told.handle(&Notify { state: Some(6), ..Notify::default() }, &mut output).unwrap());
        told.finish(&mut output).unwrap();
        let error = Notify { err_message: Some("no".into()), ..Notify::default() };
        assert_eq!(told.handle(&error, &mut output).unwrap_err().to_string(), "the login failed: no");
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("https://c/a/1").count(), 1, "{text}");
        assert!(text.contains("\"Running\""), "{text}");
    }
}
