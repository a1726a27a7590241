use std::sync::Arc;
use std::time::Duration;

use super::duration;
use super::names::note_domain;
use super::rules::{Context, Origin, Section};
use crate::fields::Fields;
use crate::hujson::Value;
use crate::problem::Problems;
use crate::{Alias, Autogroup, Tag};

/// How long a check holds where a rule doesn't say.
pub(crate) const DEFAULT_CHECK: Duration = Duration::from_secs(12 * 3600);

/// The longest that a check may hold.
const LONGEST_CHECK: Duration = Duration::from_secs(168 * 3600);

const SSH: [&str; 9] =
    ["action", "src", "dst", "users", "checkPeriod", "acceptEnv", "recorder", "enforceRecorder", "srcPosture"];

/// A rule of who may log in where by SSH.
#[derive(Clone, Debug)]
pub struct SshRule {
    /// Where it stands in the policy.
    pub origin: Origin,
    /// Whether a login has to be confirmed.
    pub action: SshAction,
    /// Who.
    pub sources: Vec<Alias>,
    /// The postures of which the source must have one; none means any device will do.
    pub postures: Vec<Arc<str>>,
    /// On which devices; those of a user are for that user alone, however they are named.
    pub destinations: Vec<Alias>,
    /// As whom.
    pub users: Vec<SshUser>,
    /// Patterns of environment variables that the client may set.
    pub accept_env: Vec<String>,
    /// Tags of the nodes that record the session.
    pub recorders: Vec<Tag>,
    /// Whether a session without a recorder is refused.
    pub enforce_recorder: bool,
}

impl SshRule {
    /// Whether some of its accounts are those that are called like the users who log in.
    pub fn has_local_part(&self) -> bool {
        self.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)))
    }

    /// Whether it is about devices of its sources' users, whatever these are called: accounts by the user's own name are given
    /// there too.
    pub(crate) fn is_about_own_devices(&self) -> bool {
        self.has_local_part() || self.destinations.contains(&Alias::Auto(Autogroup::OwnDevices))
    }
}

/// What happens at a login that a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshAction {
    /// It goes through.
    Accept,
    /// The user confirms who they are, unless they did within this time; zero asks every time.
    Check(Duration),
}

/// An account that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SshUser {
    /// The account of this name.
    Name(String),
    /// Every account but root.
    NonRoot,
    /// `localpart:*@domain`: the account named as the part of the user's login before the `@`.
    LocalPart(Arc<str>),
}

/// Reads `ssh`.
pub(super) fn read(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<SshRule> {
    let mut rules = Vec::new();
    for (index, value) in fields.list("ssh", problems).iter().enumerate() {
        let origin = Origin { section: Section::Ssh, index, destination: None, position: problems.position(value) };
        rules.extend(read_rule(value, origin, context, problems));
    }
    rules
}

fn read_rule(value: &Value, origin: Origin, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Option<SshRule> {
    let fields = Fields::read(value, &SSH, problems)?;
    let action = read_action(&fields, problems);
    let sources = read_sources(&fields, context, problems);
    let destinations = read_destinations(&fields, &sources, context, problems);
    let users = read_users(&fields, context, problems);
    let mut accept_env = Vec::new();
    for (text, value) in fields.strings("acceptEnv", problems) {
        match text.trim() {
            "" => problems.at::<()>(value, "acceptEnv values cannot be empty").unwrap_or_default(),
            text => accept_env.push(text.to_owned()),
        }
    }
    let postures =
        super::posture::read_names(fields.strings("srcPosture", problems), &context.names.postures, problems);
    Some(SshRule {
        origin,
        action: action?,
        sources: sources.into_iter().map(|(alias, _)| alias).collect(),
        postures,
        destinations,
        users,
        accept_env,
        recorders: read_recorders(&fields, context, problems),
        enforce_recorder: fields.boolean("enforceRecorder", problems).unwrap_or_default(),
    })
}

fn read_action(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<SshAction> {
    let place = fields.get("action").unwrap_or(fields.object());
    let action = fields.string("action", problems).map_or("", |(text, _)| text.trim());
    let period = read_period(fields, problems);
    match action {
        "accept" => {
            if let Some(place) = fields.get("checkPeriod") {
                return problems.at(place, "checkPeriod is only for rules with the action \"check\"");
            }
            Some(SshAction::Accept)
        }
        "check" => Some(SshAction::Check(period?)),
        "" => problems.at(place, "action must be specified"),
        _ => problems.at(place, format!("{action:?} is not a valid action; use \"accept\" or \"check\"")),
    }
}

fn read_period(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Duration> {
    let Some(value) = fields.get("checkPeriod") else {
        return Some(DEFAULT_CHECK);
    };
    let (text, _) = fields.string("checkPeriod", problems)?;
    if text.trim() == "always" {
        return Some(Duration::ZERO);
    }
    match duration::parse(text.trim()) {
        Err(error) => problems.at(value, format!("checkPeriod: {error}")),
        Ok(period @ (true, _)) => {
            problems.at(value, format!("checkPeriod {} must be a positive duration", duration::write(period)))
        }
        Ok(period @ (_, length)) if length > LONGEST_CHECK => {
            problems.at(value, format!("checkPeriod {} is above the max (168h)", duration::write(period)))
        }
        Ok((_, length)) => Some(length),
    }
}

fn read_sources<'v>(
    fields: &Fields<'v>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Vec<(Alias, &'v Value)> {
    let mut sources = Vec::new();
    for (text, value) in fields.strings("src", problems) {
        match context.alias(text, value, problems) {
            Err(error) => {
                problems.at::<()>(value, format!("src={error}"));
            }
            Ok(
                alias @ (Alias::User(_)
                | Alias::UsersOf(_)
                | Alias::Group(_)
                | Alias::Tag(_)
                | Alias::Auto(Autogroup::Member | Autogroup::Tagged | Autogroup::Role(_))),
            ) => sources.push((alias, value)),
            Ok(alias) => {
                problems.at::<()>(
                    value,
                    format!("invalid src \"{alias}\"; name users, groups, tags or autogroups of them"),
                );
            }
        }
    }
    sources
}

fn read_destinations(
    fields: &Fields<'_>,
    sources: &[(Alias, &Value)],
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Alias> {
    let tagged = |alias: &Alias| matches!(alias, Alias::Tag(_) | Alias::Auto(Autogroup::Tagged));
    let mut destinations = Vec::new();
    for (text, value) in fields.strings("dst", problems) {
        let alias = match context.alias(text, value, problems) {
            Ok(alias) => alias,
            Err(error) => {
                problems.at::<()>(value, format!("dst={error}"));
                continue;
            }
        };
        let refused = match &alias {
            Alias::Tag(_) | Alias::Auto(Autogroup::Tagged) => None,
            Alias::User(_) if !sources.iter().all(|(source, _)| *source == alias) => {
                Some(format!("dst \"{alias}\": a user's devices can only be reached by that same user"))
            }
            Alias::User(_) => None,
            Alias::Auto(Autogroup::OwnDevices | Autogroup::Member | Autogroup::Role(_))
                if sources.iter().any(|(source, _)| tagged(source)) =>
            {
                Some(format!("dst \"{alias}\": tags can't log in to the devices of users"))
            }
            Alias::Auto(Autogroup::OwnDevices | Autogroup::Member | Autogroup::Role(_)) => None,
            _ => Some(format!("invalid dst \"{alias}\"; name tags, autogroup:self or the same user as in src")),
        };
        match refused {
            Some(message) => {
                problems.at::<()>(value, message);
            }
            None => destinations.push(alias),
        }
    }
    destinations
}

fn read_users(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<SshUser> {
    let listed = fields.strings("users", problems);
    if listed.is_empty() {
        let place = fields.get("users").unwrap_or(fields.object());
        problems.at::<()>(place, "users must be specified");
    }
    let mut users = Vec::new();
    for (text, value) in listed {
        let name = text.trim();
        if name.is_empty() || name == "*" {
            problems.at::<()>(value, format!("user {name:?} is not valid"));
        } else if name == "autogroup:nonroot" {
            users.push(SshUser::NonRoot);
        } else if let Some(domain) = name.strip_prefix("localpart:*@") {
            let domain: Arc<str> = domain.into();
            note_domain(&domain, value, context.domains, problems);
            users.push(SshUser::LocalPart(domain));
        } else {
            if ["autogroup:", "group:", "tag:", "localpart:"].iter().any(|prefix| name.starts_with(prefix)) {
                let message = format!("user {name:?} is taken as the name of an account, which it probably isn't");
                context.warn(value, message, problems);
            }
            users.push(SshUser::Name(name.to_owned()));
        }
    }
    users
}

fn read_recorders(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<Tag> {
    let mut recorders = Vec::new();
    for (text, value) in fields.strings("recorder", problems) {
        match context.names.alias(text) {
            Ok(Alias::Tag(tag)) => recorders.push(tag),
            Ok(alias) => {
                problems.at::<()>(value, format!("recorder \"{alias}\": a recorder is named by its tag"));
            }
            Err(error) => {
                problems.at::<()>(value, format!("recorder={error}"));
            }
        }
    }
    recorders
}
