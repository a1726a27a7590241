//! Keys that don't work any more are replaced, and none is made twice.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kubeapi::{annotation, name};
use serde_json::json;

use crate::stage::{Stage, eventually};

pub(crate) async fn play(stage: &Stage) {
    // The proxy lost its state and has no key: the device that it was goes, and it gets a key.
    let set = stage.set_of("web").await;
    let uid = stage.secrets().get(&name::config_secret(&set)).await.unwrap().uid().unwrap();
    age(stage, &set, 60).await;
    stage.secrets().delete(&name::state_secret(&set), &Default::default()).await.unwrap();
    let key = eventually("another key after the state was lost", || async {
        stage.node_config(&set).await.auth_key.ok_or_else(|| "no key".to_owned())
    })
    .await;
    assert_eq!(stage.control.minted_for(&uid), 2);
    assert!(stage.control.memory().removed.contains(&"nWeb".to_owned()));
    stage.service_is("web", "False", "ProxyPending").await;

    // The server does not take the key: it is replaced, once the last one is old enough.
    stage.say(&set, json!({"reissue_authkey": key.as_str()})).await;
    age(stage, &set, 60).await;
    let another = eventually("another key after one was refused", || async {
        let now = stage.node_config(&set).await.auth_key;
        now.filter(|now| *now != key).ok_or_else(|| "the same key".to_owned())
    })
    .await;
    assert_eq!(stage.control.minted_for(&uid), 3);
    assert!(
        stage.control.memory().revoked.iter().any(|id| key.ends_with(id.as_str())),
        "the refused key is taken back"
    );

    // The key was used by somebody and the proxy is not in: the server is asked, and the key replaced.
    stage.say(&set, json!({"reissue_authkey": null})).await;
    stage.control.memory().keys.remove(another.trim_start_matches("tskey-auth-"));
    age(stage, &set, 120).await;
    eventually("another key after one was used", || async {
        let now = stage.node_config(&set).await.auth_key;
        now.filter(|now| *now != another).ok_or_else(|| "the same key".to_owned())
    })
    .await;
    assert_eq!(stage.control.minted_for(&uid), 4);
    stage.join(&set, "nWeb2").await;
    stage.service_is("web", "True", "ProxyCreated").await;
}

/// Makes the key look as if it had been made so many seconds ago.
async fn age(stage: &Stage, set: &str, seconds: i64) {
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    let patch = json!({"metadata": {"annotations": {annotation::credential::MINTED: then.to_string()}}});
    stage.secrets().patch(&name::config_secret(set), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}
