//! What is played, in this order: later scenarios use what earlier ones have made.

pub(crate) mod connector;
pub(crate) mod egress;
pub(crate) mod ingress;
pub(crate) mod keys;
pub(crate) mod refusals;
pub(crate) mod removal;
pub(crate) mod rights;
pub(crate) mod schema;
pub(crate) mod succession;
pub(crate) mod takeover;

use serde_json::{Value, json};

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
