//! What is another's: a device that a proxy claims, and a name that something was made under before.

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::DeleteParams;
use kube::{Resource, ResourceExt};
use kubeapi::{annotation, label, name};
use serde_json::json;

use super::{event_says, exposed, service};
use crate::stage::{NAMESPACE, Stage, eventually};

pub(crate) async fn play(stage: &Stage) {
    a_proxy_claims_a_device(stage).await;
    a_name_is_taken(stage).await;
}

/// Whoever takes a proxy over writes into its state that it is another's device.
async fn a_proxy_claims_a_device(stage: &Stage) {
    stage.apply::<Service>(Some("home"), exposed("liar")).await;
    let set = stage.set_of("liar").await;
    stage.join(&set, "nLiar").await;
    stage.service_is("liar", "True", "ProxyCreated").await;
    let recorded = || async {
        let config = stage.secrets().get(&name::config_secret(&set)).await.unwrap();
        config.annotations().get(annotation::credential::DEVICE).cloned()
    };
    eventually("the device is written down", || async {
        recorded().await.filter(|device| device == "nLiar").ok_or_else(|| "it is not".to_owned())
    })
    .await;

    stage.say(&set, json!({"device_id": "nWeb"})).await;
    event_says(stage, "liar", "DeviceOfAnother", "nWeb").await;
    assert_eq!(recorded().await.as_deref(), Some("nLiar"));

    stage.services().delete("liar", &DeleteParams::default()).await.unwrap();
    eventually("the Service goes", || async {
        let found = stage.services().get_opt("liar").await.unwrap();
        found.map_or(Ok(()), |service| Err(format!("{:?}", service.metadata.finalizers)))
    })
    .await;
    let memory = stage.control.memory();
    assert!(memory.removed.contains(&"nLiar".to_owned()), "{:?}", memory.removed);
    assert!(
        memory.devices.contains_key("nWeb") && !memory.removed.contains(&"nWeb".to_owned()),
        "{:?}",
        memory.removed
    );
}

/// Two objects may have one name for what is made for them, though that is as good as impossible.
async fn a_name_is_taken(stage: &Stage) {
    let plain = service("double", json!({}), json!({"ports": [{"port": 80}]}));
    let uid = stage.apply::<Service>(Some("home"), plain).await.uid().unwrap();
    let taken = name::config_secret(&name::base("double", &uid));
    let labels = json!({label::MANAGED: "true", label::SECRET_TYPE: label::SECRET_CONFIG, label::APP: "another"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": taken, "labels": labels}});
    stage.apply::<Secret>(Some(NAMESPACE), secret).await;
    secrets_are_seen(stage).await;
    stage.apply::<Service>(Some("home"), exposed("double")).await;
    let condition = stage.service_is("double", "False", "ProxyFailed").await;
    assert!(condition.message.contains("was made for another object, with the UID another"), "{condition:?}");
    assert!(stage.sets_of("double").await.is_empty());

    stage.services().delete("double", &DeleteParams::default()).await.unwrap();
    eventually("the Service goes, and the other's Secret stays as it was", || async {
        let found = stage.services().get_opt("double").await.unwrap();
        found.map_or(Ok(()), |service| Err(format!("{:?}", service.metadata.finalizers)))
    })
    .await;
    let left = stage.secrets().get(&taken).await.unwrap();
    assert_eq!((left.labels()[label::APP].as_str(), left.meta().deletion_timestamp.is_none()), ("another", true));
    stage.secrets().delete(&taken, &DeleteParams::default()).await.unwrap();
}

/// Waits until the operator has seen every Secret that there is now: it sees them in their order, and tells of this one.
async fn secrets_are_seen(stage: &Stage) {
    let set = stage.set_of("web").await;
    for name in ["seen.taila31de.ts.net", "home-web.taila31de.ts.net"] {
        stage.say(&set, json!({"device_fqdn": format!("{name}.")})).await;
        eventually("the Service names its device", || async {
            let condition = stage.service_is("web", "True", "ProxyCreated").await;
            if condition.message.contains(name) { Ok(()) } else { Err(condition.message) }
        })
        .await;
    }
}
