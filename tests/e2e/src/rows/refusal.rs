//! Bad input: what is refused, and in which words.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::operator::NAMESPACE;
use crate::{Checks, PATIENCE, Stage, eventually};

/// Something that is wrong with an object, which the operator says in a condition of it.
struct Wrong {
    what: &'static str,
    object: Value,
    /// `service/NAME` or `connector/NAME`, and the type of the condition that turns False.
    place: (&'static str, &'static str),
    /// What the message must name.
    named: &'static str,
}

/// Applies one wrong object after the other.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    for wrong in wrongs() {
        checks.check(&format!("{}: its condition says why, and it gets no device", wrong.what), || {
            stage.cluster.apply(&wrong.object.to_string())?;
            let outcome = refused(stage, &wrong);
            stage.cluster.kubectl(["--namespace", "home", "delete", wrong.place.0]).run()?;
            outcome?;
            eventually("no object of it", PATIENCE, || {
                let labels = "tailscale.com/parent-resource in (pretender, crooked)";
                let left = stage.cluster.list(NAMESPACE, "secrets", labels)?;
                ensure!(left.is_empty(), "{} Secrets are left", left.len());
                Ok(())
            })
        });
    }
    for (what, spec, named) in beyond_the_schema() {
        checks.check(&format!("{what} does not even get into the cluster"), || {
            let applied = stage.cluster.apply(&connector(&spec).to_string());
            let said = format!("{:#}", applied.err().context("it was taken")?);
            ensure!(said.contains(named), "{said}");
            Ok(())
        });
    }
}

fn wrongs() -> [Wrong; 4] {
    let service = ("service/pretender", "TailscaleProxyReady");
    [
        Wrong {
            what: "a Service that asks for a tag of somebody else's",
            object: exposed(&json!({"tailscale.com/expose": "true", "tailscale.com/tags": "tag:server"})),
            place: service,
            named: "tag:server",
        },
        Wrong {
            what: "a Service with a host name that is none",
            object: exposed(&json!({"tailscale.com/expose": "true", "tailscale.com/hostname": "not a name"})),
            place: service,
            named: "not a name",
        },
        Wrong {
            what: "a Service that leads to two targets",
            object: leading(&json!({
                "tailscale.com/tailnet-fqdn": "robbinsdale.taila31de.ts.net",
                "tailscale.com/tailnet-ip": "100.64.0.2",
            })),
            place: service,
            named: "tailscale.com/tailnet-ip",
        },
        Wrong {
            what: "a Connector whose route has host bits set",
            object: connector(&json!({"subnetRouter": {"advertiseRoutes": ["10.7.0.1/16"]}})),
            place: ("connector/crooked", "ConnectorReady"),
            named: "10.7.0.1/16",
        },
    ]
}

fn beyond_the_schema() -> [(&'static str, Value, &'static str); 3] {
    [
        ("a Connector that connects nothing", json!({"hostname": "crooked"}), "spec"),
        ("a Connector without a route", json!({"subnetRouter": {"advertiseRoutes": []}}), "advertiseRoutes"),
        ("a Connector with a bad host name", json!({"exitNode": true, "hostname": "Not-A-Name"}), "spec.hostname"),
    ]
}

fn exposed(annotations: &Value) -> Value {
    service(annotations, &json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}))
}

fn leading(annotations: &Value) -> Value {
    service(annotations, &json!({"type": "ExternalName", "externalName": "placeholder"}))
}

fn service(annotations: &Value, spec: &Value) -> Value {
    let metadata = json!({"name": "pretender", "namespace": "home", "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

fn connector(spec: &Value) -> Value {
    let metadata = json!({"name": "crooked"});
    json!({"apiVersion": "tailscale.com/v1alpha1", "kind": "Connector", "metadata": metadata, "spec": spec})
}

fn refused(stage: &Stage, wrong: &Wrong) -> Result<()> {
    let (place, condition) = wrong.place;
    stage.cluster.wait("home", place, &format!("condition={condition}=False"), PATIENCE)?;
    let object = stage.cluster.get("home", place)?;
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let messages: Vec<&str> = conditions.filter_map(|condition| condition["message"].as_str()).collect();
    ensure!(messages.iter().any(|message| message.contains(wrong.named)), "{}", object["status"]);
    for device in ["home-pretender", "crooked-connector"] {
        let device = stage.tailnet.installation.device(device)?;
        ensure!(device.is_none(), "there is a device {device:?}");
    }
    Ok(())
}
