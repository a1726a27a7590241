use serde_json::{Value, json};

use kubeapi::name;

use super::{Proxy, Traffic, overlay, pod};
use crate::object::{Kind, Object};
use crate::settings::Settings;

/// On a StatefulSet: a fingerprint of its pod, by which it is known whether a change would replace the pod.
pub(crate) const TEMPLATE: &str = "tailscale.com/pod-template";

/// The StatefulSet of one pod.
pub(super) fn stateful_set(proxy: &Proxy, settings: &Settings) -> Object {
    let name = proxy.name();
    let mut labels = json!(proxy.labels());
    let mut annotations = json!({});
    let mut template = pod::template(proxy, settings);
    if let Some(class) = &proxy.class {
        overlay::apply(class, proxy, &mut labels, &mut annotations, &mut template);
    }
    annotations[TEMPLATE] = json!(format!("{:016x}", name::fingerprint(template.to_string().as_bytes())));
    let mut spec = json!({
        "replicas": 1,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {kubeapi::label::APP: proxy.owner.uid, kubeapi::label::REPLICA: proxy.replica.to_string()}},
        "template": template,
    });
    if matches!(proxy.traffic, Traffic::Egress { .. }) {
        spec["serviceName"] = json!(proxy.owner.base());
    }
    let metadata = json!({"labels": labels, "annotations": annotations});
    Object::new(Kind::StatefulSet, &settings.namespace, &name, metadata, json!({"spec": spec}))
}

/// The volume through which kubelet shows the configuration, and where.
pub(super) fn config_volume(stateful_set: &str, user_space: bool) -> (Value, Value) {
    let mode = if user_space { 0o440 } else { 0o400 };
    let volume =
        json!({"name": "config", "secret": {"secretName": name::config_secret(stateful_set), "defaultMode": mode}});
    let mount = json!({
        "name": "config",
        "mountPath": format!("{}/{}", kubeapi::contract::CONFIG_FOLDER, name::state_secret(stateful_set)),
        "readOnly": true,
    });
    (volume, mount)
}
