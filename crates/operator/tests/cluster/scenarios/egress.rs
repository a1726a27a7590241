//! The article's Service, which leads pods to a device.

use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::json;

use crate::stage::{NAMESPACE, Stage, eventually};

const MANIFEST: &str = include_str!("../../../../../examples/egress-service.yaml");

pub(crate) async fn play(stage: &Stage) {
    stage.apply::<Service>(Some("home"), serde_yaml_ng::from_str(MANIFEST).unwrap()).await;
    let set = stage.set_of("tailscale-robbinsdale").await;
    let leads = format!("{set}.{NAMESPACE}.svc.cluster.local");
    eventually("the Service leads to its proxy", || async {
        let spec = stage.services().get("tailscale-robbinsdale").await.unwrap().spec.unwrap();
        if spec.external_name.as_deref() == Some(leads.as_str()) { Ok(()) } else { Err(format!("{spec:?}")) }
    })
    .await;
    let headless: Api<Service> = Api::namespaced(stage.client.clone(), NAMESPACE);
    assert_eq!(headless.get(&set).await.unwrap().spec.unwrap().cluster_ip.as_deref(), Some("None"));
    stage.join(&set, "nEgress").await;
    stage.service_is("tailscale-robbinsdale", "True", "ProxyCreated").await;

    // The device leaves, which the proxy knows before its pod's probe tells, and comes back.
    let missing = kubeapi::MissingTarget {
        target: "robbinsdale.taila31de.ts.net".to_owned(),
        problem: kubeapi::TargetProblem::Unknown,
    };
    let missing = String::from_utf8(missing.write("p")).unwrap();
    stage.say(&set, json!({"towline_missing_target": missing})).await;
    let told = stage.service_is("tailscale-robbinsdale", "False", "TargetMissing").await;
    assert!(told.message.contains("no device robbinsdale.taila31de.ts.net"), "{}", told.message);
    stage.say(&set, json!({"towline_missing_target": null})).await;
    stage.service_is("tailscale-robbinsdale", "True", "ProxyCreated").await;

    // A user applies the manifest again: the placeholder does not stay.
    let again = json!({"spec": {"externalName": "placeholder"}});
    let merge = kube::api::Patch::Merge(again);
    stage.services().patch("tailscale-robbinsdale", &kube::api::PatchParams::default(), &merge).await.unwrap();
    eventually("the Service leads to its proxy again", || async {
        let spec = stage.services().get("tailscale-robbinsdale").await.unwrap().spec.unwrap();
        if spec.external_name.as_deref() == Some(leads.as_str()) { Ok(()) } else { Err(format!("{spec:?}")) }
    })
    .await;
}
