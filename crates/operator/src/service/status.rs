use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kubeapi::condition::{self, proxy as reason};
use kubeapi::{TargetProblem, class, condition::event};
use serde_json::{Value, json};

use super::validate::target_annotation;
use super::{Observed, Plan, Wanted};
use crate::event::Note;
use crate::proxy::{Progress, Proxy, Target, Traffic};

/// What went wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What happened, in a sentence.
    pub message: String,
    /// Whether the same may work later without any change.
    pub passing: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Traffic can flow.
    Ready,
    /// Something is still to come.
    Pending,
    /// The proxy is there, and what it leads to is not.
    TargetMissing,
    /// The devices are there, and routes of them are not used or not forwarded.
    RoutesNotServed,
    /// It failed.
    Failed,
    /// It can't be.
    Invalid,
    /// It is none of ours.
    NotOurs,
}

/// What to say about a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// How it ended.
    pub outcome: Outcome,
    /// The status to apply, when it differs from what is there.
    pub apply: Option<Value>,
    /// Events, one a transition.
    pub events: Vec<Note>,
}

/// Says how far a Service is, from what was observed.
pub fn status(observed: &Observed, wanted: &Wanted, plan: &Plan, trouble: Option<&Trouble>, now: Timestamp) -> Status {
    let (outcome, message) = judge(observed, wanted, trouble);
    let service = &observed.service;
    let before = service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let old = condition::find(before, condition::PROXY_READY);
    let (ready, name) = match outcome {
        Outcome::Ready => (true, reason::CREATED),
        Outcome::Pending | Outcome::RoutesNotServed => (false, reason::PENDING),
        Outcome::TargetMissing => (false, reason::TARGET_MISSING),
        Outcome::Failed => (false, reason::FAILED),
        Outcome::Invalid => (false, reason::INVALID),
        Outcome::NotOurs => {
            return not_ours(old.is_some() && service.metadata.deletion_timestamp.is_none() && !plan.tear_down);
        }
    };
    let new =
        condition::next(before, condition::PROXY_READY, ready, name, &message, service.metadata.generation, &Time(now));
    let ingress = ingress(observed, outcome);
    let changed = old != Some(&new) || ingress != shown(observed);
    let mut events = Vec::new();
    if old.is_none_or(|old| old.reason != new.reason || old.message != new.message) {
        match outcome {
            Outcome::Invalid => events.push(Note::warning(event::INVALID_SERVICE, &message)),
            Outcome::Failed | Outcome::TargetMissing => events.push(Note::warning(name, &message)),
            Outcome::Ready if not_in_force(trouble).is_some() => {
                events.push(Note::warning(event::NOT_IN_FORCE, &message))
            }
            Outcome::Ready => events.push(Note::normal(reason::CREATED, &message)),
            Outcome::Pending | Outcome::RoutesNotServed | Outcome::NotOurs => {}
        }
    }
    Status { outcome, apply: changed.then(|| body(&new, &ingress)), events }
}

fn judge(observed: &Observed, wanted: &Wanted, trouble: Option<&Trouble>) -> (Outcome, String) {
    match wanted {
        Wanted::Nothing => (Outcome::NotOurs, String::new()),
        Wanted::Never(problems) => (Outcome::Invalid, problems.join("; ")),
        Wanted::Later(reason) => (Outcome::Pending, reason.clone()),
        Wanted::Proxy(proxy) => match (observed.proxy.progress(), missing_target(observed, proxy), trouble) {
            // What runs, runs: trouble with the server does not end it.
            (Progress::Ready, None, _) => (Outcome::Ready, ready_message(observed, trouble)),
            (_, _, Some(trouble)) if !trouble.passing => (Outcome::Failed, trouble.message.clone()),
            (_, Some(message), _) => (Outcome::TargetMissing, message),
            (_, None, Some(trouble)) => (Outcome::Pending, trouble.message.clone()),
            (Progress::Waiting(reason), None, None) => (Outcome::Pending, reason.to_owned()),
        },
    }
}

/// Why nothing leads to the target of an egress, as its proxy tells, and what to do.
fn missing_target(observed: &Observed, proxy: &Proxy) -> Option<String> {
    let Traffic::Egress { target, .. } = &proxy.traffic else { return None };
    let problem = observed.proxy.misses(target)?;
    let device = observed.proxy.said().device_fqdn.unwrap_or_default();
    Some(match problem {
        TargetProblem::Unknown => {
            let what = match target {
                Target::Name(name) => name.as_str().to_owned(),
                Target::Address(address) => format!("with the address {address}"),
            };
            format!(
                "the tailnet has no device {what} that the proxy {device} may see: correct the annotation {}, or let the \
                 policy allow the proxy to reach it",
                target_annotation(&observed.service)
            )
        }
        TargetProblem::RoutesNotAccepted => format!(
            "{target} is behind a router, and the proxy {device} takes no routes: set tailscale.acceptRoutes in its \
             ProxyClass"
        ),
        TargetProblem::OtherFamily => format!(
            "the proxy {device} has no address of the family that {target} has: lead to an address of the other family"
        ),
    })
}

/// What is to be said of something that runs, and not as it should: a change of it was refused.
pub(crate) fn not_in_force(trouble: Option<&Trouble>) -> Option<String> {
    trouble.filter(|trouble| !trouble.passing).map(|trouble| format!("a change is not in force: {}", trouble.message))
}

fn ready_message(observed: &Observed, trouble: Option<&Trouble>) -> String {
    let name = observed.proxy.said().device_fqdn.unwrap_or_default();
    let ready = format!("traffic flows through the device {name}");
    not_in_force(trouble).map_or(ready.clone(), |but| format!("{ready}; {but}"))
}

/// What `status.loadBalancer.ingress` should be; nothing for a Service of another type.
fn ingress(observed: &Observed, outcome: Outcome) -> Vec<Value> {
    let Some(spec) = observed.service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer")) else {
        return Vec::new();
    };
    let ours = spec.load_balancer_class.as_deref().is_none_or(|name| name == class::LOAD_BALANCER);
    // A device that was ready keeps its address while its pod restarts, and while the Service asks for what can't be:
    // clients would only lose it for nothing.
    let said = observed.proxy.said();
    let keeps = !shown(observed).is_empty();
    let Some(name) = said.device_fqdn.as_ref().filter(|_| ours && (outcome == Outcome::Ready || keeps)) else {
        return Vec::new();
    };
    let family = spec.cluster_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    let same = |address: &&IpAddr| family.is_none_or(|family| family.is_ipv4() == address.is_ipv4());
    let addresses = said.device_ips.iter().filter(same).map(|address| json!({"ip": address}));
    std::iter::once(json!({"hostname": name})).chain(addresses).collect()
}

/// What is there now, without what the API server adds by itself.
fn shown(observed: &Observed) -> Vec<Value> {
    let status = observed.service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref()).unwrap_or_default();
    balancer
        .iter()
        .map(|entry| match (&entry.hostname, &entry.ip) {
            (Some(hostname), None) => json!({"hostname": hostname}),
            (None, Some(ip)) => json!({"ip": ip}),
            (hostname, ip) => json!({"hostname": hostname, "ip": ip}),
        })
        .collect()
}

fn body(condition: &Condition, ingress: &[Value]) -> Value {
    let mut status = json!({"conditions": [condition]});
    if !ingress.is_empty() {
        status["loadBalancer"] = json!({"ingress": ingress});
    }
    status
}

/// A Service that was ours: what we said about it goes.
fn not_ours(something_is_left: bool) -> Status {
    Status { outcome: Outcome::NotOurs, apply: something_is_left.then(|| json!({})), events: Vec::new() }
}
