//! What is played, in this order: later scenarios use what earlier ones have made.

pub(crate) mod connector;
pub(crate) mod egress;
pub(crate) mod impostor;
pub(crate) mod ingress;
pub(crate) mod keys;
pub(crate) mod refusals;
pub(crate) mod removal;
pub(crate) mod rights;
pub(crate) mod schema;
pub(crate) mod sidecar;
pub(crate) mod succession;
pub(crate) mod takeover;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::stage::{Stage, eventually};

/// A Service in the namespace `home`.
pub(crate) fn service(name: &str, annotations: Value, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "home", "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// A Service that is exposed.
pub(crate) fn exposed(name: &str) -> Value {
    service(name, json!({"tailscale.com/expose": "true"}), json!({"ports": [{"port": 80}]}))
}

/// A Connector.
pub(crate) fn connector(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "tailscale.com/v1alpha1", "kind": "Connector", "metadata": {"name": name}, "spec": spec})
}

/// Waits for an event about an object.
pub(crate) async fn event_says(stage: &Stage, object: &str, reason: &str, named: &str) {
    let events: Api<Event> = Api::all(stage.client.clone());
    eventually(&format!("an event {reason} about {object} that names {named}"), || async {
        let found = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &&Event| event.regarding.as_ref().and_then(|one| one.name.as_deref()) == Some(object);
        let notes: Vec<String> =
            found.items.iter().filter(about).map(|event| format!("{:?}: {:?}", event.reason, event.note)).collect();
        let says = |note: &String| {
            note.contains(reason) && note.contains(named.trim_matches('"').split('"').next().unwrap_or(named))
        };
        if notes.iter().any(says) { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
}
