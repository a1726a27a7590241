use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::Identity;

/// The capability that grants rights in Kubernetes.
pub const CAPABILITY: &str = "tailscale.com/cap/kubernetes";
/// What it was called first; read when the other is not there.
pub const LEGACY_CAPABILITY: &str = "https://tailscale.com/cap/kubernetes";

/// A rule of the capability, as the policy has it. Fields that are not known are left to those who know them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    impersonate: Option<Impersonate>,
    #[serde(default)]
    enforce_recorder: bool,
    #[serde(default)]
    enable_events: bool,
}

#[derive(Debug, Deserialize)]
struct Impersonate {
    #[serde(default)]
    groups: Vec<String>,
}

/// What all rules of the capability grant together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Granted {
    /// The groups of every rule.
    pub(crate) groups: BTreeSet<String>,
    pub(crate) recording: Recording,
}

/// What the policy wants recorded, without which it wants nothing to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) enum Recording {
    /// Nothing.
    #[default]
    None,
    /// Sessions in pods.
    Sessions,
    /// Every request.
    Everything,
}

/// A rule that does not parse: nothing is granted then, not even by the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRule {
    pub(crate) capability: &'static str,
    pub(crate) reason: String,
}

/// RBAC knows no such limit; a policy that names more groups than this is a mistake.
const MOST_GROUPS: usize = 64;
const LONGEST_GROUP: usize = 256;

impl Granted {
    pub(crate) fn read(identity: &Identity) -> Result<Self, BadRule> {
        let named = [CAPABILITY, LEGACY_CAPABILITY]
            .into_iter()
            .find_map(|name| Some((name, identity.capabilities.get(name).filter(|rules| !rules.is_empty())?)));
        let Some((capability, rules)) = named else { return Ok(Self::default()) };
        let bad = |reason: String| BadRule { capability, reason };
        let mut granted = Self::default();
        for value in rules {
            let rule = Self::rule(value).map_err(|error| bad(error.to_string()))?;
            granted.groups.extend(rule.impersonate.into_iter().flat_map(|impersonate| impersonate.groups));
            let recording = match (rule.enforce_recorder, rule.enable_events) {
                (false, _) => Recording::None,
                (true, false) => Recording::Sessions,
                (true, true) => Recording::Everything,
            };
            granted.recording = granted.recording.max(recording);
        }
        if granted.groups.len() > MOST_GROUPS {
            return Err(bad(format!("it names {} groups, {MOST_GROUPS} are the most", granted.groups.len())));
        }
        match granted.groups.iter().find(|group| !is_name(group)) {
            Some(group) => Err(bad(format!("{group:?} is no name of a group"))),
            None => Ok(granted),
        }
    }

    fn rule(value: &Value) -> Result<Rule, serde_json::Error> {
        // A struct could also be read from a list, which the protocol has no meaning for.
        if value.is_array() {
            return Err(serde::de::Error::custom("a rule is an object"));
        }
        Rule::deserialize(value)
    }
}

/// Whether something can be sent as the name of a user or group: visible ASCII without surprises for any parser.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_GROUP && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(capability: &str, rules: &[Value]) -> Identity {
        Identity {
            login: "alice@example.com".into(),
            node: "laptop.taila31de.ts.net.".into(),
            tags: Vec::new(),
            capabilities: [(capability.to_owned(), rules.to_vec())].into(),
        }
    }

    fn groups(granted: &Granted) -> Vec<&str> {
        granted.groups.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_groups_of_all_rules_are_joined() {
        let rules = [
            json!({"impersonate": {"groups": ["b", "a"]}}),
            json!({"impersonate": {"groups": ["a", "c"]}, "recorder": ["tag:rec"]}),
            json!({}),
        ];
        let granted = Granted::read(&identity(CAPABILITY, &rules)).unwrap();
        assert_eq!(groups(&granted), ["a", "b", "c"]);
        assert_eq!(granted.recording, Recording::None);
    }

    #[test]
    fn the_first_name_of_the_capability_still_counts_when_the_other_is_absent() {
        let rules = [json!({"impersonate": {"groups": ["a"]}})];
        let mut both = identity(LEGACY_CAPABILITY, &rules);
        assert_eq!(groups(&Granted::read(&both).unwrap()), ["a"]);
        both.capabilities.insert(CAPABILITY.into(), vec![json!({"impersonate": {"groups": ["b"]}})]);
        assert_eq!(groups(&Granted::read(&both).unwrap()), ["b"]);
    }

    #[test]
    fn one_rule_that_does_not_parse_spoils_all() {
        for bad in [
            json!("x"),
            json!(["x"]),
            json!([{"groups": ["a"]}, true, true]),
            json!({"impersonate": ["a"]}),
            json!({"impersonate": {"groups": "a"}}),
            json!({"impersonate": {"groups": [1]}}),
            json!({"impersonate": {"groups": [""]}}),
            json!({"impersonate": {"groups": ["two words"]}}),
            json!({"impersonate": {"groups": ["a\r\nImpersonate-User: b"]}}),
            json!({"enforceRecorder": "yes"}),
        ] {
            let rules = [json!({"impersonate": {"groups": ["a"]}}), bad.clone()];
            assert!(Granted::read(&identity(CAPABILITY, &rules)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_strictest_rule_about_recording_wins() {
        let sessions = json!({"recorder": ["tag:rec"], "enforceRecorder": true});
        let everything = json!({"enforceRecorder": true, "enableEvents": true});
        let of = |rules: &[Value]| Granted::read(&identity(CAPABILITY, rules)).unwrap().recording;
        assert_eq!(of(&[json!({"enableEvents": true})]), Recording::None);
        assert_eq!(of(&[json!({}), sessions.clone()]), Recording::Sessions);
        assert_eq!(of(&[everything, sessions]), Recording::Everything);
    }
}
