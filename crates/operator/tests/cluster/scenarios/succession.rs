//! Two replicas, one leader: what happens when it dies, and what a crash between two steps leaves behind.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kubeapi::{NodeConfig, annotation, config_file_name, name};
use serde_json::json;

use super::exposed;
use crate::stage::{NAMESPACE, Running, Stage, eventually};

pub(crate) async fn play(stage: &Stage, first: Running) {
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let holder =
        || async { leases.get("operator-lease").await.unwrap().spec.unwrap().holder_identity.unwrap_or_default() };
    let second = stage.operator("second");
    assert_eq!(holder().await, "first");

    // A Service that has its key and has not joined yet.
    stage.apply::<Service>(Some("home"), exposed("journal")).await;
    let set = stage.set_of("journal").await;
    let uid = stage.secrets().get(&name::config_secret(&set)).await.unwrap().uid().unwrap();
    assert_eq!(stage.control.minted_for(&uid), 1);

    // The leader is asked to stop: the other leads at once, and makes nothing twice.
    first.shutdown.request();
    first.task.await.unwrap().unwrap();
    let free = holder().await;
    assert!(free.is_empty() || free == "second", "the lease was not given up: {free}");
    eventually("the second leads", || async {
        let holder = holder().await;
        if holder == "second" { Ok(()) } else { Err(holder) }
    })
    .await;
    stage.apply::<Service>(Some("home"), exposed("ledger")).await;
    stage.set_of("ledger").await;
    assert_eq!(stage.control.minted_for(&uid), 1);

    // The leader dies after it asked for a key and before it could write it down.
    second.task.abort();
    let _dead = second.task.await;
    let written = stage.secrets().get(&name::config_secret(&set)).await.unwrap();
    let id = written.annotations()[annotation::credential::KEY_ID].clone();
    let mut config = NodeConfig::read(&written.data.unwrap()[&config_file_name()].0).unwrap();
    config.auth_key = None;
    let lost = json!({
        "metadata": {"annotations": {annotation::credential::KEY_ID: null, annotation::credential::MINTED: null}},
        "data": {config_file_name(): k8s_openapi::ByteString(config.write())},
    });
    stage.secrets().patch(&name::config_secret(&set), &PatchParams::default(), &Patch::Merge(lost)).await.unwrap();
    assert!(stage.control.memory().keys.contains_key(&id));

    // The next one waits for the lease to end, takes the lost key back and makes another.
    let third = stage.operator("third");
    eventually("the key of the dead leader is taken back", || async {
        let revoked = stage.control.memory().revoked.clone();
        if revoked.contains(&id) { Ok(()) } else { Err(format!("{revoked:?}")) }
    })
    .await;
    stage.join(&set, "nJournal").await;
    stage.service_is("journal", "True", "ProxyCreated").await;
    assert_eq!(stage.control.minted_for(&uid), 2);
    assert_eq!(holder().await, "third");

    // Somebody takes the lease by force: the operator ends, and writes nothing any more.
    let thief = Patch::Merge(json!({"spec": {"holderIdentity": "thief"}}));
    leases.patch("operator-lease", &PatchParams::default(), &thief).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), third.task).await.unwrap().unwrap();
    assert!(ended.unwrap_err().to_string().contains("thief"));
    let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
    leases.patch("operator-lease", &PatchParams::default(), &free).await.unwrap();
}
