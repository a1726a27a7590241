use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::login::{JoinArguments, Login, Told};
use super::prefs::{Changes, Prefs};
use super::settings::{self, Mention, Switch};
use super::state::{State, Status};
use super::{LocalApi, Session};
use crate::go_flags::STOCK_NAME;
use crate::output::note;
use crate::{Failure, Output};

/// Connects this machine to its tailnet.
///
/// Without flags nothing but that changes. With flags, they are the complete set of what differs from the defaults: a
/// setting in force that they don't mention is an error, unless --reset says to give it up.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    join: JoinArguments,
    /// Log in anew even if this machine is logged in; it loses its connections meanwhile
    #[arg(long, default_value_t = false, switch())]
    force_reauth: bool,
    /// Set everything that is not mentioned to its default
    #[arg(long, default_value_t = false, switch())]
    reset: bool,
    /// Print the login URL and the state as JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

/// What is to be done, as decided from the flags, the settings in force and the daemon's state.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Settings change, and the node goes on as who it is.
    Edit(Changes),
    /// The node starts with these changes, and logs in if it must.
    Start { changes: Changes, log_in: bool },
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let key = arguments.join.key()?;
    arguments.join.refuse_unsupported()?;
    let api = session.api().await?;
    let status: Status = api.get("status").await?;
    let prefs = Prefs::load(&api).await?;
    if status.state() == Some(State::InUseOtherUser) {
        return Err(Failure::refused("another user of this machine uses the daemon: they have to log out first"));
    }
    match plan(&arguments, &prefs, &status, session.program())? {
        Plan::Edit(changes) => {
            let timeout = arguments.join.timeout();
            let login = Login { key: None, log_in: false, replaces: None, timeout, session };
            edit(&api, &prefs, &changes, login, output).await?;
        }
        Plan::Start { changes, log_in } => {
            let prefs = prefs.with(&changes);
            prefs.check(&api).await?;
            let own = status.own.as_ref().filter(|_| log_in && status.is_logged_in());
            let replaces = own.map(|own| own.public_key.clone());
            let login = Login { key, log_in, replaces, timeout: arguments.join.timeout(), session };
            login.run(&api, &prefs, output).await?;
        }
    }
    if arguments.join.has_key() && !arguments.force_reauth && status.state() == Some(State::Running) {
        note(
            "This machine is logged in already, so the key was not used: with --force-reauth it logs in anew by the key.",
        );
    }
    warn_of_health(&api, output).await
}

fn plan(arguments: &Arguments, prefs: &Prefs, status: &Status, program: &str) -> Result<Plan, Failure> {
    let mut mentioned = arguments.join.changes(prefs, status)?;
    let is_simple = mentioned.is_empty() && !arguments.reset;
    let in_force = settings::mentions(prefs, status);
    let old_server = prefs.text("ControlURL");
    let new_server = mentioned.get("ControlURL").and_then(Value::as_str).unwrap_or(old_server).to_owned();
    // A daemon that never ran has settings that nobody chose.
    let is_fresh = old_server.is_empty();
    if !is_simple && !arguments.reset && !is_fresh {
        refuse_reverts(&arguments.join.mentioned(), &in_force, program)?;
    }
    if new_server.is_empty() {
        return Err(Failure::usage(format!(
            "which coordination server? `{program} up --login-server=https://control.example.com`"
        )));
    }
    let server_changes = !is_fresh && new_server != old_server;
    if server_changes && status.is_logged_in() && !arguments.force_reauth {
        return Err(Failure::usage(
            "can't change --login-server without --force-reauth, which logs in anew, at the other server",
        ));
    }
    if arguments.reset {
        let mut whole = settings::defaults();
        whole.append(&mut mentioned);
        mentioned = whole;
    }
    mentioned.insert("WantRunning".to_owned(), true.into());
    let other_tags = other_tags(&mentioned, prefs, status);
    // The stock command changes the setting and leaves the node with the tags that it has; scripts rely on its exit code.
    let refuses = status.is_logged_in() && !arguments.force_reauth && program != STOCK_NAME;
    if let Some(wanted) = other_tags.as_ref().filter(|_| refuses) {
        return Err(refuse_tags(status, wanted));
    }
    let joins = arguments.force_reauth || server_changes || other_tags.is_some();
    if !joins && goes_on(arguments, status, is_simple) {
        return Ok(Plan::Edit(mentioned));
    }
    mentioned.insert("LoggedOut".to_owned(), false.into());
    Ok(Plan::Start { changes: mentioned, log_in: arguments.force_reauth || !status.is_logged_in() })
}

/// Whether the node goes on as it is where no new login is wanted: a key is for one that may not be in.
fn goes_on(arguments: &Arguments, status: &Status, is_simple: bool) -> bool {
    match status.state() {
        Some(State::Running) => true,
        Some(State::Starting) => !arguments.join.has_key(),
        Some(State::Stopped) => !arguments.join.has_key() && is_simple,
        _ => false,
    }
}

/// The tags that are wanted, where they are other ones than were asked for before, and than the node has.
fn other_tags(changes: &Changes, prefs: &Prefs, status: &Status) -> Option<Vec<String>> {
    let tags = changes.get("AdvertiseTags").filter(|tags| **tags != normal_tags(prefs))?;
    let wanted = tag_list(tags);
    (!is_tagged(status, &wanted)).then_some(wanted)
}

fn tag_list(tags: &Value) -> Vec<String> {
    tags.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether the server has given the node these tags, whatever it asked for.
fn is_tagged(status: &Status, wanted: &[String]) -> bool {
    let has: BTreeSet<&String> = status.own.iter().flat_map(|own| &own.tags).collect();
    has == wanted.iter().collect()
}

/// Tags are given at a login: of a node that is in they would change in its settings only.
fn refuse_tags(status: &Status, wanted: &[String]) -> Failure {
    let named = |tags: &[String]| if tags.is_empty() { "no tags".to_owned() } else { tags.join(",") };
    let has = named(status.own.as_ref().map(|own| own.tags.as_slice()).unwrap_or_default());
    Failure::usage(format!(
        "this machine is logged in with {has}, and tags are given at a login: add --force-reauth to log in anew with {}, or \
         have an admin change them with `towline devices tag`",
        named(wanted)
    ))
}

/// The tags in force as flags give them: none is no list.
fn normal_tags(prefs: &Prefs) -> Value {
    match prefs.value("AdvertiseTags") {
        Value::Array(tags) if tags.is_empty() => Value::Null,
        tags => tags.clone(),
    }
}

/// Refuses to give up settings that are in force and not mentioned, and says what to type.
///
/// The login server is not among them: without the flag the node stays with the server that it has.
fn refuse_reverts(mentioned: &[Mention], in_force: &[Mention], program: &str) -> Result<(), Failure> {
    let is_mentioned = |flag: &str| mentioned.iter().any(|mention| mention.flag == flag);
    let operator = std::env::var("USER").unwrap_or_default();
    // An operator may leave out that it is they.
    let is_kept = |mention: &Mention| {
        mention.flag == "login-server"
            || (mention.flag == "operator" && mention.value.as_deref() == Some(operator.as_str()))
    };
    let missing: Vec<&Mention> = in_force.iter().filter(|mention| !is_mentioned(mention.flag)).collect();
    if missing.iter().all(|mention| is_kept(mention)) {
        return Ok(());
    }
    let mut command = format!("{program} up");
    for mention in mentioned.iter().chain(missing) {
        command.push_str(&format!(" {mention}"));
    }
    Err(Failure::usage(format!(
        "these flags leave out settings that are in force, and `{program} up` does not change a setting unasked. Either \
         add --reset to set what is left out to its default, or use `{program} set` to change single settings, or \
         mention all that differ from the default:\n\n\t{command}\n"
    )))
}

async fn edit<W: Write>(
    api: &LocalApi,
    prefs: &Prefs,
    changes: &Changes,
    login: Login<'_>,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    prefs.with(changes).check(api).await?;
    let mut bus = api.watch(0).await?;
    Prefs::change(api, changes).await?;
    let status: Status = api.get("status?peers=false").await?;
    if status.state() == Some(State::Running) && status.auth_url.is_empty() {
        return Told::default().finish(output);
    }
    // A new login that waits for somebody is what this command is waited for, too.
    login.wait(api, prefs.with(changes).text("ControlURL"), &mut bus, output).await
}

/// Says what keeps the node from working well although it runs.
async fn warn_of_health<W: Write>(api: &LocalApi, output: &Output<W>) -> Result<(), Failure> {
    let status: Status = api.get("status?peers=false").await?;
    if !output.is_json() && !status.health.is_empty() {
        let lines: String = status.health.iter().map(|text| format!("\n#     - {text}")).collect();
        note(&format!("# Health check:{lines}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn planned(flags: &str, prefs: Value, status: Value) -> Result<Plan, Failure> {
        let arguments = Program::parse_from(std::iter::once("up").chain(flags.split_whitespace())).arguments;
        let prefs: Prefs = serde_json::from_value(prefs).unwrap();
        plan(&arguments, &prefs, &serde_json::from_value(status).unwrap(), "towline")
    }

    fn running() -> Value {
        json!({"BackendState": "Running", "HaveNodeKey": true})
    }

    /// Settings of a node that has a name of its own and uses routes.
    fn in_force() -> Value {
        json!({"ControlURL": "https://c", "CorpDNS": true, "RouteAll": true, "Hostname": "alpha", "NetfilterMode": 2})
    }

    fn edited(plan: Plan) -> Value {
        match plan {
            Plan::Edit(changes) => Value::Object(changes),
            plan => panic!("{plan:?}"),
        }
    }

    #[test]
    fn without_flags_nothing_but_running_changes() {
        let stopped = json!({"BackendState": "Stopped", "HaveNodeKey": true});
        for status in [running(), stopped] {
            assert_eq!(edited(planned("", in_force(), status).unwrap()), json!({"WantRunning": true}));
        }
    }

    #[test]
    fn a_setting_left_out_is_refused_with_the_command_to_type() {
        let failure = planned("--shields-up", in_force(), running()).unwrap_err();
        assert_eq!(failure.code, crate::EXIT_USAGE);
        let text = failure.to_string();
        let wanted = "\ttowline up --shields-up --accept-routes --hostname=alpha --login-server=https://c\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn all_settings_mentioned_or_a_reset_go_through() {
        let plan = planned("--accept-routes --hostname=alpha --shields-up", in_force(), running()).unwrap();
        let wanted = json!({"RouteAll": true, "ShieldsUp": true, "Hostname": "alpha", "WantRunning": true});
        assert_eq!(edited(plan), wanted);
        let changes = edited(planned("--reset --hostname=beta", in_force(), running()).unwrap());
        assert_eq!((&changes["RouteAll"], &changes["Hostname"]), (&json!(false), &json!("beta")));
    }

    #[test]
    fn another_server_needs_a_new_login_that_is_asked_for() {
        let flags = "--login-server=https://d --accept-routes --hostname=alpha";
        let failure = planned(flags, in_force(), running()).unwrap_err();
        assert!(failure.to_string().contains("--force-reauth"), "{failure}");
        let plan = planned(&format!("{flags} --force-reauth"), in_force(), running()).unwrap();
        assert!(matches!(plan, Plan::Start { log_in: true, .. }), "{plan:?}");
    }

    #[test]
    fn a_new_node_needs_a_server() {
        let status = json!({"BackendState": "NeedsLogin"});
        let failure = planned("--hostname=x", json!({"ControlURL": ""}), status.clone()).unwrap_err();
        assert!(failure.to_string().contains("--login-server=https://"), "{failure}");
        let plan = planned("--login-server=https://c", json!({"ControlURL": "", "RouteAll": true}), status).unwrap();
        assert!(matches!(plan, Plan::Start { log_in: true, .. }), "{plan:?}");
    }

    #[test]
    fn other_tags_need_a_new_login() {
        let mut prefs = in_force();
        prefs["AdvertiseTags"] = json!(["tag:a"]);
        let mut status = running();
        status["Self"] = json!({"Tags": ["tag:c"]});
        let plan = |flags: &str| {
            let flags = format!("--accept-routes --hostname=alpha --advertise-tags={flags}");
            planned(&flags, prefs.clone(), status.clone())
        };
        // What was asked for before, and what the key has given.
        for same in ["a", "c"] {
            let planned = plan(same).unwrap();
            assert!(matches!(planned, Plan::Edit(_)), "{planned:?}");
        }
        let refused = plan("b").unwrap_err();
        let text = "this machine is logged in with tag:c, and tags are given at a login: add --force-reauth to log in anew with tag:b";
        assert!(refused.code == crate::EXIT_USAGE && refused.to_string().starts_with(text), "{refused}");
        let anew = plan("b --force-reauth").unwrap();
        assert!(matches!(anew, Plan::Start { log_in: true, .. }), "{anew:?}");
    }

    #[test]
    fn a_key_restarts_no_node_that_runs() {
        let flags = "--accept-routes --hostname=alpha --auth-key=k";
        assert!(matches!(planned(flags, in_force(), running()).unwrap(), Plan::Edit(_)));
        let starting = json!({"BackendState": "Starting", "HaveNodeKey": true});
        assert!(matches!(planned(flags, in_force(), starting).unwrap(), Plan::Start { log_in: false, .. }));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_in_words() {
        for flag in ["--qr", "--ssh"] {
            let arguments = Program::parse_from(["up", flag]).arguments;
            let refused = arguments.join.refuse_unsupported();
            let planned = plan(&arguments, &Prefs::default(), &Status::default(), "towline");
            assert!(refused.is_err() || planned.is_err(), "{flag}");
        }
    }
}
