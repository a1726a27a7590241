//! What the API server itself refuses, by the definitions.

use kubeapi::{Connector, ProxyClass};
use serde_json::{Value, json};

use super::connector;
use crate::stage::Stage;

pub(crate) async fn play(stage: &Stage) {
    for (spec, named) in [
        (json!({"hostname": "crooked"}), "at least one of"),
        (json!({"subnetRouter": {"advertiseRoutes": []}}), "advertiseRoutes"),
        (json!({"subnetRouter": {"advertiseRoutes": ["10.0.0.0"]}}), "advertiseRoutes"),
        (json!({"exitNode": true, "hostname": "Not-A-Name"}), "spec.hostname"),
        (json!({"exitNode": true, "hostnamePrefix": "-a"}), "spec.hostnamePrefix"),
        (json!({"exitNode": true, "hostname": "lab", "hostnamePrefix": "lab"}), "exclude each other"),
        (json!({"exitNode": true, "hostname": "lab", "replicas": 2}), "hostnamePrefix"),
        (json!({"exitNode": true, "replicas": -1}), "spec.replicas"),
        (json!({"exitNode": true, "tags": ["k8s"]}), "spec.tags"),
        (json!({"exitNode": true, "appConnector": {}}), "appConnector"),
    ] {
        let said = refusal(stage.try_apply::<Connector>(None, connector("crooked", spec.clone())).await, &spec);
        assert!(said.contains(named), "{spec}: {said}");
    }
    let class = |spec: Value| json!({"apiVersion": "tailscale.com/v1alpha1", "kind": "ProxyClass", "metadata": {"name": "crooked"}, "spec": spec});
    for (spec, named) in [
        (json!({"statefulSet": {"labels": {"a": "b c"}}}), "spec.statefulSet.labels"),
        (json!({"statefulSet": {"pod": {"dnsPolicy": "Sometimes"}}}), "dnsPolicy"),
        (json!({"statefulSet": {"pod": {"tailscaleContainer": {"imagePullPolicy": "Often"}}}}), "imagePullPolicy"),
        (json!({"metrics": {"enable": false, "serviceMonitor": {"enable": true}}}), "ServiceMonitor needs metrics"),
        (json!({"staticEndpoints": {"nodePort": {"ports": []}}}), "ports"),
    ] {
        let said = refusal(stage.try_apply::<ProxyClass>(None, class(spec.clone())).await, &spec);
        assert!(said.contains(named), "{spec}: {said}");
    }
    let whole = json!({
        "statefulSet": {
            "labels": {"team": "a"},
            "annotations": {"x": "y"},
            "pod": {
                "labels": {"tier": "edge"},
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}}]}},
                "tolerations": [{"key": "a", "operator": "Exists"}],
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
                "imagePullSecrets": [{"name": "a"}],
                "nodeSelector": {"a": "b"},
                "priorityClassName": "a",
                "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["10.0.0.1"]},
                "securityContext": {"runAsUser": 7, "sysctls": [{"name": "a", "value": "b"}]},
                "tailscaleContainer": {"image": "a/b:1", "imagePullPolicy": "Always", "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "64Mi", "cpu": "1"}}, "securityContext": {"readOnlyRootFilesystem": true}, "debug": {"enable": false}},
                "tailscaleInitContainer": {"image": "a/b:1"}
            }
        },
        "metrics": {"enable": true, "serviceMonitor": {"enable": true, "labels": {"a": "b"}}},
        "tailscale": {"acceptRoutes": true},
        "useLetsEncryptStagingEnvironment": true,
        "staticEndpoints": {"nodePort": {"ports": [{"port": 3100, "endPort": 3200}], "selector": {"a": "b"}}}
    });
    let mut manifest = class(whole.clone());
    manifest["metadata"]["name"] = json!("whole");
    let applied: ProxyClass = stage.apply(None, manifest).await;
    let kept = serde_json::to_value(&applied.spec).unwrap();
    assert_eq!(kept, whole, "nothing of a whole ProxyClass is pruned");
}

fn refusal<T>(outcome: kube::Result<T>, spec: &Value) -> String {
    match outcome {
        Ok(_) => panic!("{spec} was taken"),
        Err(error) => error.to_string(),
    }
}
