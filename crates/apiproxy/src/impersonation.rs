use std::collections::BTreeSet;

use http::StatusCode;

use crate::capability::{BadRule, Granted, Recording, is_name};
use crate::{IdentifyError, Identity};

/// Whom the proxy may impersonate: the chart's lists, by name.
///
/// The proxy's own role in the cluster names the same groups, and the same users where there are any, so that a mistake here
/// gives nobody more than the role does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    groups: BTreeSet<String>,
    /// Anybody, when it is empty: a user without a group has only what RBAC gives to that very name.
    users: BTreeSet<String>,
}

impl Allowed {
    /// The groups with these names, and any user.
    pub fn groups(names: impl IntoIterator<Item = String>) -> Self {
        Self { groups: names.into_iter().collect(), users: BTreeSet::new() }
    }

    /// Only the users with these names; any, when there are none.
    #[must_use]
    pub fn and_users(self, names: impl IntoIterator<Item = String>) -> Self {
        Self { users: names.into_iter().collect(), ..self }
    }

    /// The names of the groups, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(String::as_str)
    }
}

/// A user and groups that a proven identity may act as in the cluster.
///
/// There is no way to make one but [`Impersonated::decide`], and no way to send a request to the API server but with one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Impersonated {
    user: String,
    groups: Vec<String>,
    recording: Recording,
}

/// Why a request is not sent on. Its text is for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody can be said to have sent it.
    #[error("{0}")]
    Unidentified(#[from] IdentifyError),
    /// The network map's answer names nobody.
    #[error("the tailnet has no {0} for the device that you come from")]
    Nameless(&'static str),
    /// The capability does not parse.
    #[error(
        "the tailnet policy grants you {capability} with a rule that can't be understood ({reason}); \
         nothing is allowed until an admin has corrected it"
    )]
    BadGrant {
        /// The capability.
        capability: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that the cluster gives to its own parts.
    #[error("your name {0:?} begins with \"system:\", which belongs to the cluster's own parts")]
    ReservedName(String),
    /// A user beyond the proxy's list.
    #[error(
        "this proxy may not act as {0:?}: whoever installed it lists its users in the chart's value apiServerProxy.users"
    )]
    UserNotAllowed(String),
    /// A group beyond the proxy's list.
    #[error(
        "the tailnet policy lets you act in the group {0:?}, but this proxy may not: \
         whoever installed it lists its groups in the chart's value apiServerProxy.groups"
    )]
    GroupNotAllowed(String),
    /// The request names somebody itself.
    #[error(
        "the request has a header {0:?}: this proxy decides from your tailnet identity whom you act as, \
         so leave out --as, --as-group, --as-uid and the like"
    )]
    ImpersonatesItself(String),
    /// A browser sent it on behalf of a page.
    #[error(
        "the request comes from a page in a browser (it has a header {0:?}): who you are follows from your device, \
         so a page that you only look at could act as you; use kubectl, or a program that sends no such header"
    )]
    FromAPage(&'static str),
    /// What would have to be recorded.
    #[error(
        "the tailnet policy enforces recording ({0}), and this proxy has no recorder: \
         it lets nothing through that would have to be recorded"
    )]
    RecordingEnforced(&'static str),
    /// The path is written in a way that two parsers could read differently.
    #[error("the path of the request is not in its plain form: {0}")]
    Path(&'static str),
    /// The request is not what a client of the API server sends.
    #[error("the request can't be sent on: {0}")]
    Malformed(&'static str),
    /// The caller has too much under way.
    #[error("you have {most} {what} open through this proxy, which is the most; close some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// All callers together have too much under way.
    #[error("this proxy has {most} {what} open, which is the most for all who use it together; try again later")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The API server can't be reached, or does not speak as it should.
    #[error("the cluster's API server can't be reached from the proxy: {0}")]
    Unreachable(String),
    /// The API server's answer makes no sense.
    #[error("the cluster's API server gave an answer that can't be passed on: {0}")]
    BadAnswer(&'static str),
    /// The grant has ended while the request was under way.
    #[error("the tailnet policy or your login has changed: what you were allowed when you asked no longer holds")]
    Revoked,
    /// The proxy stops.
    #[error("the proxy is stopping; try again")]
    Stopping,
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unidentified(_)
            | Self::Nameless(_)
            | Self::BadGrant { .. }
            | Self::ReservedName(_)
            | Self::UserNotAllowed(_)
            | Self::GroupNotAllowed(_)
            | Self::ImpersonatesItself(_)
            | Self::FromAPage(_)
            | Self::RecordingEnforced(_)
            | Self::Revoked => StatusCode::FORBIDDEN,
            Self::Path(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Self::Full { .. } | Self::Unreachable(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A short name of the reason, for counting.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unidentified(_) | Self::Nameless(_) => "unidentified",
            Self::BadGrant { .. } => "bad_grant",
            Self::ReservedName(_) => "reserved_name",
            Self::UserNotAllowed(_) => "user_not_allowed",
            Self::GroupNotAllowed(_) => "group_not_allowed",
            Self::ImpersonatesItself(_) => "impersonates_itself",
            Self::FromAPage(_) => "from_a_page",
            Self::RecordingEnforced(_) => "recording_enforced",
            Self::Path(_) => "path",
            Self::Malformed(_) => "malformed",
            Self::TooMany { .. } => "too_many",
            Self::Full { .. } => "full",
            Self::Unreachable(_) => "unreachable",
            Self::BadAnswer(_) => "bad_answer",
            Self::Revoked => "revoked",
            Self::Stopping => "stopping",
        }
    }
}

impl From<BadRule> for Refusal {
    fn from(BadRule { capability, reason }: BadRule) -> Self {
        Self::BadGrant { capability, reason }
    }
}

impl Impersonated {
    /// Whom an identity acts as: a user by login name, a node with tags by its own name.
    ///
    /// The groups are those that its grants name. A node with tags and no such grant is in the groups of its tags, as far
    /// as the proxy may impersonate them; nobody asked for those, so the others are left out.
    ///
    /// # Errors
    ///
    /// Whatever is missing, unclear or too much: nothing is guessed, and no group that a grant names is left out silently.
    pub fn decide(identity: &Identity, allowed: &Allowed) -> Result<Self, Refusal> {
        let granted = Granted::read(identity)?;
        let tagged = !identity.tags.is_empty();
        let (user, what) = match tagged {
            true => (identity.node.trim_end_matches('.'), "name"),
            false => (identity.login.as_str(), "user"),
        };
        // All devices with tags share this login, which names nobody.
        if !is_name(user) || user == "tagged-devices" {
            return Err(Refusal::Nameless(what));
        }
        if user.to_ascii_lowercase().starts_with("system:") {
            return Err(Refusal::ReservedName(user.to_owned()));
        }
        if !allowed.users.is_empty() && !allowed.users.contains(user) {
            return Err(Refusal::UserNotAllowed(user.to_owned()));
        }
        if let Some(group) = granted.groups.iter().find(|group| !allowed.groups.contains(*group)) {
            return Err(Refusal::GroupNotAllowed(group.clone()));
        }
        let groups = if tagged && granted.groups.is_empty() {
            let tags: BTreeSet<&String> = identity.tags.iter().collect();
            tags.into_iter().filter(|tag| allowed.groups.contains(*tag) && is_name(tag)).cloned().collect()
        } else {
            granted.groups.into_iter().collect()
        };
        Ok(Self { user: user.to_owned(), groups, recording: granted.recording })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The groups, in order, each once.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Refuses what would have to be recorded.
    pub(crate) fn check_recording(&self, is_session: bool) -> Result<(), Refusal> {
        match self.recording {
            Recording::Everything => Err(Refusal::RecordingEnforced("of every request")),
            Recording::Sessions if is_session => Err(Refusal::RecordingEnforced("of sessions")),
            Recording::Sessions | Recording::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CAPABILITY;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn allowed() -> Allowed {
        Allowed::groups(["tailnet-readers", "system:masters", "tag:ci"].map(str::to_owned))
    }

    fn identity(login: &str, tags: &[&str], groups: &[&str]) -> Identity {
        let rules: Vec<Value> = match groups {
            [] => Vec::new(),
            groups => vec![json!({"impersonate": {"groups": groups}})],
        };
        Identity {
            login: login.into(),
            node: "laptop.taila31de.ts.net.".into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            capabilities: [(CAPABILITY.to_owned(), rules)].into(),
        }
    }

    fn decide(login: &str, tags: &[&str], groups: &[&str]) -> Result<(String, Vec<String>), Refusal> {
        let decided = Impersonated::decide(&identity(login, tags, groups), &allowed())?;
        Ok((decided.user, decided.groups))
    }

    fn is(user: &str, groups: &[&str]) -> Result<(String, Vec<String>), Refusal> {
        Ok((user.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect()))
    }

    #[test]
    fn a_user_without_a_grant_is_the_user_and_in_no_group() {
        assert_eq!(decide("alice@example.com", &[], &[]), is("alice@example.com", &[]));
    }

    #[test]
    fn a_user_with_a_grant_is_in_its_groups() {
        assert_eq!(
            decide("alice@example.com", &[], &["tailnet-readers", "system:masters"]),
            is("alice@example.com", &["system:masters", "tailnet-readers"])
        );
    }

    #[test]
    fn a_node_with_tags_is_the_node_and_in_the_groups_of_its_tags_that_are_allowed() {
        let name = "laptop.taila31de.ts.net";
        assert_eq!(decide("tagged-devices", &["tag:other", "tag:ci"], &[]), is(name, &["tag:ci"]));
        assert_eq!(decide("tagged-devices", &["tag:ci"], &["tailnet-readers"]), is(name, &["tailnet-readers"]));
    }

    #[test]
    fn a_granted_group_beyond_the_list_is_refused_by_name() {
        let refusal = decide("alice@example.com", &[], &["tailnet-readers", "cluster-admins"]).unwrap_err();
        assert_eq!(refusal, Refusal::GroupNotAllowed("cluster-admins".into()));
        assert!(refusal.to_string().contains("apiServerProxy.groups"), "{refusal}");
    }

    #[test]
    fn a_list_of_users_leaves_everybody_else_out() {
        let only = allowed().and_users(["alice@example.com".to_owned()]);
        assert!(Impersonated::decide(&identity("alice@example.com", &[], &[]), &only).is_ok());
        let refused = Impersonated::decide(&identity("bob@example.com", &[], &[]), &only);
        assert_eq!(refused, Err(Refusal::UserNotAllowed("bob@example.com".into())));
    }

    #[test]
    fn names_of_the_clusters_own_parts_are_refused() {
        for login in ["system:admin", "System:masters", "system:serviceaccount:kube-system:x"] {
            assert_eq!(decide(login, &[], &[]), Err(Refusal::ReservedName(login.into())));
        }
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for login in ["", "tagged-devices", "al ice", "alice\r\nX: y", "alic\u{e9}@example.com", "a\0b"] {
            assert_eq!(decide(login, &[], &[]), Err(Refusal::Nameless("user")), "{login:?}");
        }
        let nameless = Identity { node: ".".into(), ..identity("x", &["tag:ci"], &[]) };
        assert_eq!(Impersonated::decide(&nameless, &allowed()), Err(Refusal::Nameless("name")));
    }

    #[test]
    fn enforced_recording_closes_sessions_and_with_events_everything() {
        let with = |rule: Value| {
            let mut identity = identity("alice@example.com", &[], &[]);
            identity.capabilities.insert(CAPABILITY.into(), vec![rule]);
            Impersonated::decide(&identity, &allowed()).unwrap()
        };
        let sessions = with(json!({"enforceRecorder": true}));
        assert!(sessions.check_recording(false).is_ok() && sessions.check_recording(true).is_err());
        let everything = with(json!({"enforceRecorder": true, "enableEvents": true}));
        assert!(everything.check_recording(false).is_err());
        let open = with(json!({"recorder": ["tag:rec"]}));
        assert!(open.check_recording(true).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_beyond_the_list_is_ever_impersonated(login in ".{0,20}", groups in proptest::collection::vec("[a-z:]{0,12}", 0..4), tags in proptest::collection::vec("tag:[a-z]{0,3}", 0..3)) {
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            if let Ok(decided) = Impersonated::decide(&identity(&login, &tags, &groups), &allowed()) {
                prop_assert!(!decided.user().starts_with("system:") && !decided.user().is_empty());
                prop_assert!(decided.groups().iter().all(|group| allowed().iter().any(|name| name == group)));
            }
        }
    }
}
