//! Bad input: what is refused on the object, and in which words.

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, ListParams};
use kubeapi::{Connector, ProxyClass, condition};
use serde_json::{Value, json};

use super::{connector, event_says, service};
use crate::stage::{Stage, eventually};

pub(crate) async fn play(stage: &Stage) {
    stage.control.memory().refused_tag = Some("tag:server".to_owned());
    let plain = json!({"ports": [{"port": 80}]});
    let leads = json!({"type": "ExternalName", "externalName": "placeholder"});
    let expose = |key: &str, value: &str| json!({"tailscale.com/expose": "true", key: value});
    for (annotations, spec, reason, named) in [
        (expose("tailscale.com/tags", "tag:server"), &plain, "ProxyFailed", "tag:server"),
        (expose("tailscale.com/tags", "server"), &plain, "ProxyInvalid", "\"server\" is not a tag"),
        (expose("tailscale.com/hostname", "not a name"), &plain, "ProxyInvalid", "not a name"),
        (expose("tailscale.com/hostname", "music"), &plain, "ProxyInvalid", "home/music"),
        (
            json!({"tailscale.com/tailnet-fqdn": "a.b.c", "tailscale.com/tailnet-ip": "100.64.0.2"}),
            &leads,
            "ProxyInvalid",
            "tailscale.com/tailnet-ip",
        ),
        (json!({"tailscale.com/tailnet-fqdn": "robbinsdale"}), &leads, "ProxyInvalid", "only one label"),
        (json!({"tailscale.com/tailnet-ip": "100.64.0.0/10"}), &leads, "ProxyInvalid", "without a prefix"),
    ] {
        stage.apply::<Service>(Some("home"), service("pretender", annotations.clone(), spec.clone())).await;
        let condition = stage.service_is("pretender", "False", reason).await;
        assert!(condition.message.contains(named), "{annotations}: {condition:?}");
        event_says(
            stage,
            "pretender",
            if reason == "ProxyInvalid" { condition::event::INVALID_SERVICE } else { reason },
            named,
        )
        .await;
        assert!(stage.sets_of("pretender").await.is_empty(), "{annotations}");
        stage.services().delete("pretender", &DeleteParams::default()).await.unwrap();
        eventually("the Service goes, with everything of it", || async {
            let labels = ListParams::default().labels("tailscale.com/parent-resource=pretender");
            let left = stage.secrets().list(&labels).await.unwrap().items.len();
            match stage.services().get_opt("pretender").await.unwrap() {
                None if left == 0 => Ok(()),
                found => Err(format!("{left} Secrets, {:?}", found.map(|service| service.metadata.finalizers))),
            }
        })
        .await;
    }

    let crooked = json!({"subnetRouter": {"advertiseRoutes": ["10.7.0.1/16"]}});
    stage.apply::<Connector>(None, connector("crooked", crooked)).await;
    let condition = stage.connector_is("crooked", "False", "ConnectorInvalid").await;
    assert!(condition.message.contains("10.7.0.1/16") && condition.message.contains("10.7.0.0/16"), "{condition:?}");
    event_says(stage, "crooked", "ConnectorInvalid", "10.7.0.1/16").await;
    stage.connectors().delete("crooked", &DeleteParams::default()).await.unwrap();

    let security = |context: Value| json!({"securityContext": context});
    for (container, named) in [
        (security(json!({"privileged": true})), "privileged"),
        (security(json!({"capabilities": {"add": ["SYS_ADMIN"]}})), "SYS_ADMIN"),
        (security(json!({"allowPrivilegeEscalation": true})), "allowPrivilegeEscalation"),
        (json!({"env": [{"name": "TS_KUBE_SECRET", "value": "another"}]}), "TS_KUBE_SECRET"),
    ] {
        class_is_refused(stage, &container, named).await;
    }
}

async fn class_is_refused(stage: &Stage, container: &Value, named: &str) {
    let spec = json!({"statefulSet": {"pod": {"tailscaleContainer": container}}});
    let class = json!({"apiVersion": "tailscale.com/v1alpha1", "kind": "ProxyClass", "metadata": {"name": "strong"}, "spec": spec});
    stage.apply::<ProxyClass>(None, class).await;
    let classes: Api<ProxyClass> = Api::all(stage.client.clone());
    eventually("the ProxyClass is refused", || async {
        let conditions = classes.get("strong").await.unwrap().status.unwrap_or_default().conditions;
        let found = condition::find(&conditions, condition::PROXY_CLASS_READY).cloned().ok_or("no condition")?;
        let refused = found.reason == "ProxyClassInvalid" && found.message.contains(named);
        if refused { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    event_says(stage, "strong", "ProxyClassInvalid", named).await;
    classes.delete("strong", &DeleteParams::default()).await.unwrap();
}
