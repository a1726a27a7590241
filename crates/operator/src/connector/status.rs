use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubeapi::condition::{self, connector as reason, event};
use kubeapi::{ConnectorDevice, ConnectorStatus, ProxyState};
use serde_json::{Value, json};

use super::routes::Shortcoming;
use super::{Observed, Wanted};
use crate::event::Note;
use crate::proxy::Progress;
use crate::service::{Outcome, Trouble, not_in_force};

/// What to say about a Connector.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// How it ended.
    pub outcome: Outcome,
    /// The status to apply, when it differs from what is there.
    pub apply: Option<Value>,
    /// Events, one a transition.
    pub events: Vec<Note>,
}

/// Says how far a Connector is, from what was observed.
pub fn status(observed: &Observed, wanted: &Wanted, trouble: Option<&Trouble>, now: Timestamp) -> Status {
    let (outcome, message) = judge(observed, wanted, trouble);
    let connector = &observed.connector;
    let before = connector.status.clone().unwrap_or_default();
    let (ready, name) = match outcome {
        Outcome::Ready => (true, reason::CREATED),
        Outcome::Pending | Outcome::TargetMissing => (false, reason::CREATING),
        Outcome::RoutesNotServed => (false, reason::ROUTES_NOT_SERVED),
        Outcome::Failed => (false, reason::CREATION_FAILED),
        Outcome::Invalid => (false, reason::INVALID),
        Outcome::NotOurs => return Status { outcome, apply: None, events: Vec::new() },
    };
    let generation = connector.metadata.generation;
    let new =
        condition::next(&before.conditions, condition::CONNECTOR_READY, ready, name, &message, generation, &Time(now));
    let old = condition::find(&before.conditions, condition::CONNECTOR_READY);
    let mut events = Vec::new();
    if old.is_none_or(|old| old.reason != new.reason || old.message != new.message) {
        match outcome {
            Outcome::Invalid | Outcome::Failed | Outcome::RoutesNotServed => events.push(Note::warning(name, &message)),
            Outcome::Ready if not_in_force(trouble).is_some() => {
                events.push(Note::warning(event::NOT_IN_FORCE, &message));
            }
            Outcome::Ready => events.push(Note::normal(name, &message)),
            Outcome::Pending | Outcome::TargetMissing | Outcome::NotOurs => {}
        }
    }
    let mut status = match wanted {
        Wanted::Proxies(proxies) => devices(observed, proxies.len()),
        _ => ConnectorStatus { conditions: Vec::new(), ..before.clone() },
    };
    status.conditions = vec![new];
    let others = before.conditions.iter().filter(|other| other.type_ != condition::CONNECTOR_READY).cloned();
    let same =
        ConnectorStatus { conditions: status.conditions.iter().cloned().chain(others).collect(), ..status.clone() }
            == before;
    Status { outcome, apply: (!same).then(|| json!(status)), events }
}

fn judge(observed: &Observed, wanted: &Wanted, trouble: Option<&Trouble>) -> (Outcome, String) {
    let proxies = match wanted {
        Wanted::Nothing => return (Outcome::NotOurs, String::new()),
        Wanted::Never(problems) => return (Outcome::Invalid, problems.join("; ")),
        Wanted::Later(reason) => return (Outcome::Pending, reason.clone()),
        Wanted::Proxies(proxies) => proxies,
    };
    if proxies.is_empty() {
        return (Outcome::Pending, "no replica is asked for".to_owned());
    }
    let progress: Vec<Progress> = observed.proxies.iter().take(proxies.len()).map(|proxy| proxy.progress()).collect();
    let short = observed.proxies.iter().zip(proxies).map(|(there, proxy)| Shortcoming::of(there, proxy));
    let short: Vec<Option<Shortcoming>> = short.collect();
    let waiting = missing(&progress, &short);
    match (waiting, trouble) {
        (None, _) => {
            let ready = format!("traffic flows through {} of {} devices", progress.len(), proxies.len());
            (Outcome::Ready, not_in_force(trouble).map_or(ready.clone(), |but| format!("{ready}; {but}")))
        }
        (Some(_), Some(trouble)) if !trouble.passing => (Outcome::Failed, trouble.message.clone()),
        (Some((Outcome::Pending, _)), Some(trouble)) => (Outcome::Pending, trouble.message.clone()),
        (Some((outcome, message)), _) => (outcome, message),
    }
}

/// What replicas that do not serve wait for: what a pod can't do, how far it is, what becomes of its routes. Of several the
/// first is named, and with routes all, because each wants a step of its own.
fn missing(progress: &[Progress], short: &[Option<Shortcoming>]) -> Option<(Outcome, String)> {
    let all: Vec<(Outcome, String)> = progress
        .iter()
        .zip(short)
        .enumerate()
        .filter_map(|(replica, found)| {
            let (outcome, message) = match found {
                (_, Some(Shortcoming::Stuck(message))) => (Outcome::RoutesNotServed, message.as_str()),
                (Progress::Waiting(reason), _) => (Outcome::Pending, *reason),
                (Progress::Ready, Some(Shortcoming::Unapproved(message))) => {
                    (Outcome::RoutesNotServed, message.as_str())
                }
                (Progress::Ready, Some(Shortcoming::Coming(message))) => (Outcome::Pending, message.as_str()),
                (Progress::Ready, None) => return None,
            };
            Some((outcome, format!("replica {replica}: {message}")))
        })
        .collect();
    let (outcome, first) = all.first()?;
    if *outcome != Outcome::RoutesNotServed {
        return Some((*outcome, first.clone()));
    }
    let same = all.iter().filter(|(other, _)| other == outcome).map(|(_, message)| message.as_str());
    Some((*outcome, same.collect::<Vec<_>>().join("; ")))
}

fn devices(observed: &Observed, asked: usize) -> ConnectorStatus {
    let spec = &observed.connector.spec;
    let said: Vec<ProxyState> = observed.proxies.iter().take(asked).map(|proxy| proxy.said()).collect();
    let devices: Vec<ConnectorDevice> = said
        .iter()
        .filter(|state| state.is_logged_in())
        .map(|state| ConnectorDevice {
            hostname: state.device_fqdn.clone(),
            tailnet_ips: state.device_ips.iter().map(ToString::to_string).collect(),
        })
        .collect();
    let first = devices.first().cloned().unwrap_or_default();
    ConnectorStatus {
        conditions: Vec::new(),
        subnet_routes: spec.subnet_router.as_ref().map(|router| router.advertise_routes.join(",")),
        is_exit_node: Some(spec.exit_node.unwrap_or(false)),
        is_app_connector: Some(false),
        tailnet_ips: first.tailnet_ips,
        hostname: first.hostname,
        devices,
    }
}
