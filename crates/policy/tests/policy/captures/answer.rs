//! Comparisons of an answer with ours: what is wrong, if anything.

use std::collections::BTreeSet;
use std::net::IpAddr;

use filter::{CapMap, Rule};
use ipnet::IpNet;
use policy::{AllowedIps, SshAction, SshGrant};
use serde_json::{Value, json};

use super::capture::{Answer, PeerAnswer};

/// Sources and destinations in any order, rules in theirs.
pub(crate) fn wrong_filter(name: &str, answer: &Answer, ours: &[Rule]) -> Option<String> {
    let sorted = |rule: &Rule| {
        let mut rule = rule.clone();
        let mut sources = rule.sources.to_vec();
        sources.sort();
        rule.sources = sources.into();
        rule.destinations.sort_by_key(|destination| (destination.ip.clone(), destination.ports));
        rule.grants.iter_mut().for_each(|grant| grant.destinations.sort());
        rule
    };
    let theirs: Vec<Rule> = answer.filter.iter().flatten().map(sorted).collect();
    let ours: Vec<Rule> = ours.iter().map(sorted).collect();
    (values(&ours) != values(&theirs)).then(|| {
        format!(
            "{name}: filter {}, should be {}",
            serde_json::to_string(&ours).unwrap(),
            serde_json::to_string(&theirs).unwrap()
        )
    })
}

/// Capabilities' values as values: their texts may differ in blanks.
fn values(rules: &[Rule]) -> Vec<Value> {
    rules.iter().map(|rule| serde_json::from_str(&serde_json::to_string(rule).unwrap()).unwrap()).collect()
}

pub(crate) fn wrong_peers(name: &str, answer: &Answer, ours: &BTreeSet<String>) -> Option<String> {
    let theirs: BTreeSet<String> = answer.peers.iter().map(|peer| peer.name.clone()).collect();
    (*ours != theirs).then(|| format!("{name}: sees {ours:?}, should see {theirs:?}"))
}

pub(crate) fn wrong_allowed_ips(name: &str, peer: &PeerAnswer, ours: &AllowedIps) -> Option<String> {
    let allowed: BTreeSet<IpNet> = ours.allowed.iter().copied().collect();
    let primary: BTreeSet<IpNet> = ours.primary.iter().copied().collect();
    let theirs = (peer.allowed_ips.clone().unwrap_or_default(), peer.primary_routes.clone().unwrap_or_default());
    let wrong = (&allowed, &primary) != (&theirs.0, &theirs.1);
    wrong.then(|| format!("{name} of {}: {allowed:?} {primary:?}, should be {theirs:?}", peer.name))
}

pub(crate) fn wrong_own_allowed_ips(name: &str, answer: &Answer, ours: &[IpNet]) -> Option<String> {
    let ours: BTreeSet<IpNet> = ours.iter().copied().collect();
    let theirs = answer.own.allowed_ips.clone().unwrap_or_default();
    (ours != theirs).then(|| format!("{name} of itself: {ours:?}, should be {theirs:?}"))
}

/// What the policy gives, with what the service tells besides.
pub(crate) fn wrong_attributes(name: &str, answer: &Answer, besides: CapMap, ours: &CapMap) -> Option<String> {
    let theirs = &answer.own.attributes;
    let mut all = besides;
    all.merge(ours);
    (all != *theirs).then(|| format!("{name}: attributes {all:?}, should be {theirs:?}"))
}

pub(crate) fn wrong_peer_attributes(name: &str, peer: &PeerAnswer, ours: &CapMap) -> Option<String> {
    let theirs = peer.cap_map.clone().unwrap_or_default();
    (*ours != theirs).then(|| format!("{name} of {}: attributes {ours:?}, should be {theirs:?}", peer.name))
}

/// Principals in any order, rules in theirs.
pub(crate) fn wrong_ssh(name: &str, answer: &Answer, ours: &[SshGrant]) -> Option<String> {
    let theirs: Vec<Value> = answer.ssh.iter().flatten().map(recorded_ssh).collect();
    let ours: Vec<Value> = ours.iter().map(our_ssh).collect();
    (ours != theirs).then(|| format!("{name}: ssh {}, should be {}", json!(ours), json!(theirs)))
}

fn recorded_ssh(rule: &Value) -> Value {
    let principals = rule["principals"].as_array().unwrap().iter();
    let mut principals: Vec<IpAddr> = principals.map(|one| one["nodeIP"].as_str().unwrap().parse().unwrap()).collect();
    principals.sort();
    let action = if rule["action"]["accept"] == json!(true) { "accept" } else { "check" };
    if action == "check" {
        let url = rule["action"]["holdAndDelegate"].as_str().unwrap();
        assert!(url.ends_with("/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"), "{url}");
    }
    let accept_env = rule.get("acceptEnv").cloned().unwrap_or_else(|| json!([]));
    json!({"principals": principals, "users": rule["sshUsers"], "action": action, "acceptEnv": accept_env})
}

fn our_ssh(grant: &SshGrant) -> Value {
    let mut principals = grant.principals.to_vec();
    principals.sort();
    let action = if grant.action == SshAction::Accept { "accept" } else { "check" };
    json!({"principals": principals, "users": grant.users, "action": action, "acceptEnv": grant.accept_env})
}
