//! What a proxy may do, tried with its own token, and what its pod may be, judged by PodSecurity admission.

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use kubeapi::name;
use serde_json::json;

use crate::chart;
use crate::stage::{NAMESPACE, Stage};

pub(crate) async fn play(stage: &Stage) {
    own_secret_only(stage).await;
    pods_are_admitted(stage).await;
}

async fn own_secret_only(stage: &Stage) {
    let (own, other) = (stage.set_of("web").await, stage.set_of("music").await);
    let token = chart::token(&stage.client, &own).await;
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let client = Client::try_from(stage.cluster(&token)).unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);

    secrets.get(&name::state_secret(&own)).await.unwrap();
    let mark = Patch::Merge(json!({"data": {"mark": "eA=="}}));
    secrets.patch(&name::state_secret(&own), &PatchParams::default(), &mark).await.unwrap();

    let parameters = PatchParams::default();
    for foreign in [name::config_secret(&own), name::state_secret(&other), name::config_secret(&other)] {
        forbidden(&format!("get {foreign}"), secrets.get(&foreign).await);
        forbidden(&format!("patch {foreign}"), secrets.patch(&foreign, &parameters, &mark).await);
    }
    forbidden("list", secrets.list(&ListParams::default()).await);
    forbidden("delete", secrets.delete(&name::state_secret(&own), &DeleteParams::default()).await);
    let more = Secret {
        metadata: kube::api::ObjectMeta { name: Some("more".to_owned()), ..Default::default() },
        ..Default::default()
    };
    forbidden("create", secrets.create(&PostParams::default(), &more).await);
    let elsewhere: Api<Secret> = Api::namespaced(client.clone(), "home");
    forbidden("list elsewhere", elsewhere.list(&ListParams::default()).await);
    let own_accounts: Api<ServiceAccount> = Api::namespaced(client, NAMESPACE);
    forbidden("mint a token", own_accounts.create_token_request(&own, &PostParams::default(), &request).await);
}

fn forbidden<T>(what: &str, outcome: kube::Result<T>) {
    match outcome {
        Err(Error::Api(status)) if status.code == 403 => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: it may"),
    }
}

async fn pods_are_admitted(stage: &Stage) {
    for (name, level) in [("tight", "restricted"), ("loose", "privileged")] {
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        stage.apply::<Namespace>(None, namespace).await;
    }
    let in_user_space = stage.set_of("web").await;
    let in_kernel = [stage.set_of("robbinsdale-connector").await, stage.set_of("tailscale-robbinsdale").await];
    admitted(stage, &in_user_space, "tight").await.unwrap();
    for set in in_kernel {
        admitted(stage, &set, "loose").await.unwrap();
        let said = admitted(stage, &set, "tight").await.unwrap_err().to_string();
        assert!(said.contains("NET_ADMIN") && !said.contains("privileged=true"), "{said}");
    }
}

/// Asks for the pod of a StatefulSet in another namespace, without making it.
async fn admitted(stage: &Stage, set: &str, namespace: &str) -> kube::Result<Pod> {
    let template = stage.sets().get(set).await.unwrap().spec.unwrap().template;
    let mut spec = template.spec.unwrap();
    spec.service_account_name = Some("default".to_owned());
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), namespace);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    accounts.patch("default", &PatchParams::apply("user"), &Patch::Apply(&account)).await.unwrap();
    let pod = Pod {
        metadata: kube::api::ObjectMeta { name: Some("tried".to_owned()), ..Default::default() },
        spec: Some(spec),
        ..Default::default()
    };
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), namespace);
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await
}
