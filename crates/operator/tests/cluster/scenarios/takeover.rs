//! Somebody has the operator's token: what they can't make with it, tried with that token.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use kubeapi::{Connector, name};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::service;
use crate::chart;
use crate::stage::{NAMESPACE, Stage, eventually};

/// The name of what is tried.
const TRIED: &str = "ts-tried-bcdfg";

pub(crate) async fn play(stage: &Stage) {
    let operator = Client::try_from(stage.cluster(&stage.account)).unwrap();
    only_the_shape_of_a_proxy(stage, &operator).await;
    no_rights_for_others(stage, &operator).await;
    accounts_that_it_makes_are_held_to_the_same(stage, &operator).await;
    of_others_objects_finalizer_and_status(stage, &operator).await;
}

/// A change of a proxy's StatefulSet, by JSON pointer, and what the refusal names.
fn changes() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/spec/template/spec/volumes/-",
            json!({"name": "machine", "hostPath": {"path": "/var/lib/kubelet"}}),
            "hostPath",
        ),
        (
            "/spec/volumeClaimTemplates",
            json!([{"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}}}}]),
            "its volumes are Secrets",
        ),
        ("/spec/template/spec/hostNetwork", json!(true), "hostNetwork"),
        ("/spec/template/spec/hostPID", json!(true), "hostPID"),
        ("/spec/template/spec/hostIPC", json!(true), "hostIPC"),
        ("/spec/template/spec/serviceAccountName", json!("operator-drain"), "the account of the same name"),
        ("/spec/template/spec/initContainers", json!([{"name": "a", "image": "a"}]), "one container"),
        ("/spec/template/spec/containers/-", json!({"name": "a", "image": "a"}), "one container"),
        ("/spec/template/spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 80}]), "hostPort"),
        (
            "/spec/template/spec/containers/0/lifecycle",
            json!({"postStart": {"httpGet": {"port": 80, "host": "169.254.169.254"}}}),
            "lifecycle",
        ),
        (
            "/spec/template/spec/containers/0/livenessProbe",
            json!({"httpGet": {"port": 80, "host": "10.0.0.1"}}),
            "exec",
        ),
        ("/spec/template/spec/containers/0/readinessProbe", json!({"tcpSocket": {"port": 80}}), "exec"),
        ("/spec/template/spec/containers/0/startupProbe", json!({"grpc": {"port": 80}}), "exec"),
        (
            "/spec/template/spec/containers/0/securityContext",
            json!({"privileged": true, "capabilities": {"drop": ["ALL"]}}),
            "not privileged",
        ),
        (
            "/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation",
            json!(true),
            "allowPrivilegeEscalation",
        ),
        (
            "/spec/template/spec/containers/0/securityContext/capabilities/add",
            json!(["SYS_ADMIN"]),
            "NET_ADMIN and MKNOD at most",
        ),
        ("/spec/template/spec/containers/0/securityContext/capabilities/drop", json!([]), "drops ALL"),
        (
            "/spec/template/spec/containers/0/securityContext/seccompProfile",
            json!({"type": "Unconfined"}),
            "seccompProfile",
        ),
        ("/spec/template/spec/securityContext", json!({"runAsUser": 0}), "seccompProfile"),
        ("/spec/template/spec/securityContext/appArmorProfile", json!({"type": "Unconfined"}), "Unconfined"),
        ("/spec/template/spec/securityContext/seLinuxOptions", json!({"type": "spc_t"}), "SELinux"),
        (
            "/spec/template/metadata/annotations",
            json!({"container.apparmor.security.beta.kubernetes.io/tailscale": "unconfined"}),
            "container.apparmor",
        ),
    ]
}

async fn only_the_shape_of_a_proxy(stage: &Stage, operator: &Client) {
    let set = stage.set_of("robbinsdale-connector").await;
    let found = stage.sets().get(&set).await.unwrap();
    let mut proxy =
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": TRIED}, "spec": found.spec});
    let pod = &mut proxy["spec"]["template"]["spec"];
    pod["serviceAccountName"] = json!(TRIED);
    pod.as_object_mut().unwrap().remove("serviceAccount");
    for (place, value, named) in changes() {
        let mut tried = proxy.clone();
        put(&mut tried, place, value);
        refused::<StatefulSet>(operator, &tried, named).await;
        // Others are not held to it, though some of this is none of Kubernetes' own pods either.
        let others = try_to_make::<StatefulSet>(&stage.client, &tried).await.err().map(|error| error.to_string());
        assert!(others.is_none_or(|refusal| !refusal.contains("ValidatingAdmissionPolicy")), "{place}");
    }
    let mut unmasked = proxy.clone();
    // Else it is no pod at all.
    put(&mut unmasked, "/spec/template/spec/hostUsers", json!(false));
    put(&mut unmasked, "/spec/template/spec/containers/0/securityContext/procMount", json!("Unmasked"));
    refused::<StatefulSet>(operator, &unmasked, "the Default procMount").await;
    let mut foreign = proxy.clone();
    foreign["metadata"]["name"] = json!("tried");
    foreign["spec"]["template"]["spec"]["serviceAccountName"] = json!("tried");
    refused::<StatefulSet>(operator, &foreign, "begins with ts-").await;
    try_to_make::<StatefulSet>(operator, &proxy).await.expect("a proxy as the operator makes them");
}

async fn no_rights_for_others(stage: &Stage, operator: &Client) {
    let binding = |subjects: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": TRIED},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}, "subjects": subjects})
    };
    for subjects in [
        json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "member@example.com"}]),
        json!([{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}]),
        json!([{"kind": "ServiceAccount", "namespace": "home", "name": "default"}]),
    ] {
        refused::<RoleBinding>(operator, &binding(subjects), "accounts of this namespace alone").await;
    }
    let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": TRIED, "annotations": {"kubernetes.io/service-account.name": "operator"}}});
    refused::<Secret>(operator, &token, "kubernetes.io/service-account-token").await;
    try_to_make::<Secret>(&stage.client, &token).await.expect("an administrator's Secret");
}

async fn accounts_that_it_makes_are_held_to_the_same(stage: &Stage, operator: &Client) {
    // What the operator has, it may give to an account that it makes: that it may make StatefulSets too.
    let own = stage.set_of("robbinsdale-connector").await;
    let metadata = json!({"name": TRIED});
    let rule = json!({"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["create"]});
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": TRIED},
        "subjects": [{"kind": "ServiceAccount", "namespace": NAMESPACE, "name": own}]});
    let roles: Api<Role> = Api::namespaced(operator.clone(), NAMESPACE);
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(operator.clone(), NAMESPACE);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();

    let token = chart::token(&stage.client, &own).await;
    let account = Client::try_from(stage.cluster(&token)).unwrap();
    let mut tried = serde_json::to_value(stage.sets().get(&own).await.unwrap()).unwrap();
    tried["metadata"] = metadata;
    put(&mut tried, "/spec/template/spec/serviceAccountName", json!(TRIED));
    put(&mut tried, "/spec/template/spec/serviceAccount", json!(TRIED));
    put(&mut tried, "/spec/template/spec/hostNetwork", json!(true));
    // Until the authorizer has seen the binding it is refused for another reason.
    eventually("the account is held to the policy", || async {
        let refusal = try_to_make::<StatefulSet>(&account, &tried).await.unwrap_err().to_string();
        if refusal.contains("hostNetwork") { Ok(()) } else { Err(refusal) }
    })
    .await;
    let parameters = DeleteParams::default();
    bindings.delete(TRIED, &parameters).await.unwrap();
    roles.delete(TRIED, &parameters).await.unwrap();
}

async fn of_others_objects_finalizer_and_status(stage: &Stage, operator: &Client) {
    let spec = json!({"ports": [{"port": 80}], "selector": {"app": "kiosk"}, "type": "LoadBalancer"});
    stage.apply::<Service>(Some("home"), service("kiosk", json!({"note": "a"}), spec)).await;
    let services: Api<Service> = Api::namespaced(operator.clone(), "home");
    let leads = |to: &str| json!({"spec": {"type": "ExternalName", "externalName": to, "selector": null, "clusterIP": null, "clusterIPs": null}});
    let elsewhere = format!("ts-web.{NAMESPACE}.evil.example.com");
    for (object, change, named) in [
        ("kiosk", json!({"spec": {"selector": {"app": "trap"}}}), "no spec"),
        ("kiosk", json!({"spec": {"externalIPs": ["192.0.2.1"]}}), "no spec"),
        ("kiosk", leads(&format!("ts-web.{NAMESPACE}.svc.cluster.local")), "no spec"),
        ("tailscale-robbinsdale", leads("evil.example.com"), "a proxy of its own"),
        ("tailscale-robbinsdale", leads(&elsewhere), "a proxy of its own"),
        ("kiosk", json!({"metadata": {"annotations": {"tailscale.com/tailnet-ip": "100.64.0.9"}}}), "no labels"),
        ("kiosk", json!({"metadata": {"labels": {"tailscale.com/managed": "true"}}}), "no labels"),
        ("kiosk", json!({"metadata": {"finalizers": ["example.com/keep"]}}), "nobody else's finalizers"),
    ] {
        refused_change(&services, object, &change, named).await;
        let own = stage.services().patch(object, &tried(), &Patch::Merge(&change)).await;
        assert!(own.is_ok(), "others are not held to it: {change}: {own:?}");
    }
    let connectors: Api<Connector> = Api::all(operator.clone());
    let routes = json!({"spec": {"subnetRouter": {"advertiseRoutes": ["10.9.0.0/16"]}}});
    refused_change(&connectors, "robbinsdale-connector", &routes, "no spec").await;
    let ours = Patch::Merge(json!({"metadata": {"finalizers": [name::FINALIZER]}}));
    services.patch("kiosk", &tried(), &ours).await.expect("what the operator does to Services that it serves");

    let address = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
    let refusal = services.patch_status("kiosk", &tried(), &address).await.unwrap_err().to_string();
    assert!(refusal.contains("of the class tailscale alone"), "{refusal}");
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    let refusal = services.patch_status("kiosk", &tried(), &label).await.map(|kiosk| kiosk.metadata.labels);
    assert!(refusal.as_ref().map_or(true, Option::is_none), "{refusal:?}");
    services.patch_status("music", &tried(), &address).await.expect("the address of a Service of its class");
    stage.services().delete("kiosk", &DeleteParams::default()).await.unwrap();
}

/// A change that is not made.
fn tried() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

async fn refused_change<K>(api: &Api<K>, object: &str, change: &Value, named: &str)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    eventually(&format!("{change} is refused"), || async {
        match api.patch(object, &tried(), &Patch::Merge(change)).await {
            Err(error) if error.to_string().contains(named) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it was taken".to_owned()),
        }
    })
    .await;
}

/// Puts a value at a JSON pointer; `-` at its end adds to a list.
fn put(object: &mut Value, place: &str, value: Value) {
    let (parent, last) = place.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
    if last == "-" {
        parent.as_array_mut().unwrap().push(value);
    } else {
        parent[last] = value;
    }
}

/// Waits until this is refused with these words: policies are in force some moments after they were written.
async fn refused<K>(client: &Client, object: &Value, named: &str)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    eventually(&format!("what names {named} is refused"), || async {
        match try_to_make::<K>(client, object).await {
            Err(error) if error.to_string().contains(named) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it was taken".to_owned()),
        }
    })
    .await;
}

/// Asks for an object, without making it.
async fn try_to_make<K>(client: &Client, object: &Value) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
}
