//! What the chart gives the operator: its account, its rights, and the policies that it is held to.

use std::process::Command;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

use crate::stage::NAMESPACE;

/// The account of the operator, and that of the drain.
const ACCOUNT: &str = "operator";
const DRAIN: &str = "operator-drain";

const KINDS: [&str; 7] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Applies what the chart has of these kinds, and returns a token of the operator's account.
pub(crate) async fn install(client: &Client) -> String {
    apply(client, rendered(&["--no-hooks"])).await;
    token(client, ACCOUNT).await
}

/// Applies what Helm makes for the time of an uninstallation, where the API server's proxy is in the namespace `apart`, and
/// returns a token of the drain's account.
pub(crate) async fn begin_uninstallation(client: &Client, apart: &str) -> String {
    let namespace = format!("apiServerProxy.namespace={apart}");
    let all = rendered(&["--set", "apiServerProxy.enabled=true", "--set", &namespace]);
    let of_the_drain = all.into_iter().filter(|object| object.annotations().contains_key("helm.sh/hook"));
    apply(client, of_the_drain.collect()).await;
    token(client, DRAIN).await
}

async fn apply(client: &Client, objects: Vec<DynamicObject>) {
    for object in objects {
        let kind = object.types.clone().unwrap();
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&kind).unwrap());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &kind),
            None => Api::all_with(client.clone(), &kind),
        };
        api.patch(&object.name_any(), &PatchParams::apply("helm"), &Patch::Apply(&object)).await.unwrap();
    }
}

/// A token of an account in the operator's namespace, as its pods get one.
pub(crate) async fn token(client: &Client, account: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let token = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    token.status.unwrap().token
}

fn rendered(options: &[&str]) -> Vec<DynamicObject> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart");
    let helm = apiserver::program("bin/helm").unwrap();
    let server = "loginServer=https://control.example.com";
    let arguments = [
        "template",
        "tailscale-operator",
        chart,
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.34.0",
        "--set",
        server,
    ];
    let output = Command::new(helm).args(arguments).args(options).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Option::<DynamicObject>::deserialize);
    let objects = documents.filter_map(Result::unwrap);
    objects.filter(|object| KINDS.contains(&object.types.as_ref().unwrap().kind.as_str())).collect()
}
