//! Somebody puts a container beside a proxy's: the policies refuse whatever the operator then applies, and it says so.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::event_says;
use crate::stage::{Stage, eventually};

/// The words of a proxy that serves, and not as it should.
const SAID: &str = "a change is not in force";

pub(crate) async fn play(stage: &Stage) {
    let set = stage.set_of("web").await;
    change(stage, &set, json!({"name": "foreign", "image": "foreign"})).await;
    let message = said(stage, true).await;
    assert!(message.contains("traffic flows") && message.contains("one container"), "{message}");
    event_says(stage, "web", "ChangeNotInForce", SAID).await;

    change(stage, &set, json!({"name": "foreign", "$patch": "delete"})).await;
    said(stage, false).await;
}

/// Changes the containers of a proxy's pod, which becomes ready all the same.
async fn change(stage: &Stage, set: &str, container: Value) {
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    stage.sets().patch(set, &PatchParams::default(), &patch).await.unwrap();
    stage.pod_is(set, true).await;
}

/// What is said of the Service, which is ready all the time, once it names what is not in force, or no longer does.
async fn said(stage: &Stage, refused: bool) -> String {
    eventually("the Service tells what is in force", || async {
        let condition = stage.service_is("web", "True", "ProxyCreated").await;
        let told = condition.message.contains(SAID) == refused;
        if told { Ok(condition.message) } else { Err(condition.message) }
    })
    .await
}
