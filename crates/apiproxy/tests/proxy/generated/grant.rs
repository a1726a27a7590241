//! Who sends a request, and what the tailnet's policy grants them.

use std::collections::BTreeSet;

use apiproxy::{CAPABILITY, Identity, LEGACY_CAPABILITY};
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Value, json};

/// The identity that a network map has: users and nodes with tags, with one rule, several, none, or rules that are no good.
pub(super) fn identity() -> impl Strategy<Value = Option<Identity>> {
    let login = prop_oneof![
        15 => Just("alice@example.com"),
        15 => Just("bob@example.com"),
        1 => Just("system:admin"),
        1 => Just("tagged-devices"),
        1 => Just(""),
        1 => Just("carol\r\nImpersonate-Group: a"),
    ];
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(vec!["tag:ci", "tag:other"], 1..=2)];
    let rules = proptest::collection::vec(rule(), 0..3);
    let capability =
        prop_oneof![4 => Just(CAPABILITY), 1 => Just(LEGACY_CAPABILITY), 1 => Just("example.com/cap/other")];
    let known = (login, tags, rules, capability).prop_map(|(login, tags, rules, capability)| Identity {
        login: login.to_owned(),
        node: "runner.taila31de.ts.net.".to_owned(),
        tags: tags.into_iter().map(str::to_owned).collect(),
        capabilities: [(capability.to_owned(), rules)].into(),
    });
    prop_oneof![1 => Just(None), 19 => known.prop_map(Some)]
}

fn rule() -> impl Strategy<Value = Value> {
    let good =
        subsequence(vec!["a", "b", "tag:ci"], 0..=3).prop_map(|groups| json!({"impersonate": {"groups": groups}}));
    prop_oneof![
        40 => good,
        2 => Just(json!({"recorder": ["tag:recorder"]})),
        1 => Just(json!({"enforceRecorder": true, "impersonate": {"groups": ["a"]}})),
        1 => Just(json!({"enforceRecorder": true, "enableEvents": true})),
        1 => Just(json!({"impersonate": {"groups": ["system:masters"]}})),
        1 => Just(json!({"impersonate": {"groups": "a"}})),
        1 => Just(json!(["a"])),
    ]
}

/// What a grant gives, worked out from what the guide says and not as the proxy does.
pub(super) struct Entitled {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
    pub(super) sessions: bool,
}

pub(super) fn entitled(identity: Option<&Identity>) -> Option<Entitled> {
    let identity = identity?;
    let tagged = !identity.tags.is_empty();
    let user = if tagged { "runner.taila31de.ts.net" } else { &identity.login };
    let of = |name: &str| identity.capabilities.get(name).filter(|rules| !rules.is_empty());
    let rules = of(CAPABILITY).or(of(LEGACY_CAPABILITY)).cloned().unwrap_or_default();
    let (mut groups, mut sessions) = (BTreeSet::new(), true);
    for rule in rules {
        let named = rule.as_object()?.get("impersonate").map(|impersonate| &impersonate["groups"]);
        for group in named.map(|groups| groups.as_array().cloned()).unwrap_or(Some(Vec::new()))? {
            groups.insert(group.as_str()?.to_owned());
        }
        let (enforces, all) = (rule["enforceRecorder"] == true, rule["enableEvents"] == true);
        if enforces && all || groups.contains("system:masters") {
            return None;
        }
        sessions &= !enforces;
    }
    if tagged && groups.is_empty() && identity.tags.iter().any(|tag| tag == "tag:ci") {
        groups.insert("tag:ci".to_owned());
    }
    let is_person = ["alice@example.com", "bob@example.com"].contains(&user);
    (tagged || is_person).then(|| Entitled { user: user.to_owned(), groups: groups.into_iter().collect(), sessions })
}
