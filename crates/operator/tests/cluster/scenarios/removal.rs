//! Everything goes: in order, while the coordination server is away, after a finalizer was removed by hand, by a drain.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use kubeapi::{label, name};
use operator::ApiServerProxy;
use serde_json::json;
use telemetry::Shutdown;
use tokio::task::JoinHandle;

use super::event_says;
use crate::chart;
use crate::stage::{NAMESPACE, Stage, eventually};

pub(crate) async fn play(stage: &Stage) {
    let operator = stage.operator("fourth");

    // The coordination server is away: the Service goes in time, and a tombstone remembers its device.
    stage.control.memory().away = true;
    stage.services().delete("journal", &DeleteParams::default()).await.unwrap();

    // Its finalizer is removed by hand: what was made for it goes all the same, once the server is back.
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    stage.services().patch("music", &PatchParams::default(), &none).await.unwrap();
    stage.services().delete("music", &DeleteParams::default()).await.unwrap();

    for _ in 0..2 {
        // Each wait is as long as one is at most.
        let gone = stage.services().get_opt("journal").await.unwrap().is_none();
        if gone {
            break;
        }
        let _later = tokio::time::timeout(
            std::time::Duration::from_secs(38),
            await_condition(stage.services(), "journal", |found: Option<&Service>| found.is_none()),
        )
        .await;
    }
    assert!(stage.services().get_opt("journal").await.unwrap().is_none(), "the finalizer did not give up waiting");
    assert!(stage.control.memory().devices.contains_key("nJournal"));
    let tombstones: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let parameters = ListParams::default().labels("tailscale.com/tombstone=true");
    let remembered = tombstones.list(&parameters).await.unwrap();
    assert!(remembered.items.iter().any(|one| format!("{:?}", one.data).contains("nJournal")), "{remembered:?}");

    stage.control.memory().away = false;
    for tombstone in remembered {
        // As if all this had begun long ago.
        let text = tombstone.data.as_ref().unwrap()["remains"].clone();
        let mut remains: serde_json::Value = serde_json::from_str(&text).unwrap();
        remains["since"] = json!("2020-01-01T00:00:00Z");
        let patch = Patch::Merge(json!({"data": {"remains": remains.to_string()}}));
        tombstones.patch(&tombstone.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }
    for device in ["nJournal", "nMusic"] {
        eventually(&format!("{device} is removed after all"), || async {
            if stage.control.memory().devices.contains_key(device) { Err("it is there".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    tombstones_that_somebody_changed(stage, &tombstones).await;

    // A Service that is not to be exposed any more stays, without anything of ours.
    let plain = Patch::Merge(json!({"metadata": {"annotations": {"tailscale.com/expose": null}}}));
    stage.services().patch("web", &PatchParams::default(), &plain).await.unwrap();
    eventually("nothing is left on the Service", || async {
        let service = stage.services().get("web").await.unwrap();
        let conditions = service.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        if service.finalizers().is_empty() && conditions.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?} {conditions:?}", service.finalizers()))
        }
    })
    .await;
    assert!(stage.control.memory().removed.contains(&"nWeb2".to_owned()));

    operator.shutdown.request();
    operator.task.await.unwrap().unwrap();
    drained(stage).await;
}

/// One that can't be read is told; one that does not say when it began is acted on.
async fn tombstones_that_somebody_changed(stage: &Stage, tombstones: &Api<ConfigMap>) {
    let tombstone = |name: &str, remains: &str| {
        let metadata = json!({"name": name, "labels": {label::TOMBSTONE: "true"}});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"remains": remains}})
    };
    stage.apply::<ConfigMap>(Some(NAMESPACE), tombstone("garbled", "nJournal")).await;
    event_says(stage, "garbled", "TombstoneUnreadable", "can't be read").await;
    stage.control.memory().devices.insert("nOld".to_owned(), vec!["tag:k8s".to_owned()]);
    let timeless = tombstone("timeless", r#"{"devices": {"nOld": ["tag:k8s"]}, "keys": []}"#);
    stage.apply::<ConfigMap>(Some(NAMESPACE), timeless).await;
    eventually("the device goes, and its tombstone", || async {
        let there = stage.control.memory().devices.contains_key("nOld");
        let left = tombstones.get_opt("timeless").await.unwrap().is_some();
        if there || left { Err(format!("device {there}, tombstone {left}")) } else { Ok(()) }
    })
    .await;
    assert!(tombstones.get_opt("garbled").await.unwrap().is_some());
    tombstones.delete("garbled", &DeleteParams::default()).await.unwrap();
}

/// The drain takes everything back that is still there, by its own account and with the rights that the chart gives that, and
/// leaves the users' objects.
async fn drained(stage: &Stage) {
    let shutdown = Shutdown::new(std::time::Duration::from_secs(5));
    let mut config = stage.config("drain");
    config.cluster = stage.cluster(&account_of_the_drain(stage).await);
    config.drained = vec![OPERATOR.to_owned()];
    let controller = deployed(stage).await;
    config.api_server_proxy =
        Some(ApiServerProxy { namespace: "home".to_owned(), tags: vec!["tag:k8s-operator".to_owned()] });
    let said = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name::API_SERVER_PROXY_STATE},
        "stringData": {"device_id": "nDoor"},
    });
    stage.apply::<Secret>(Some("home"), said).await;
    stage.control.memory().devices.insert("nDoor".to_owned(), vec!["tag:k8s-operator".to_owned()]);
    one_that_can_not_be_freed_keeps_no_other(stage, config.clone()).await;
    operator::drain(config, shutdown).await.unwrap();
    controller.await.unwrap();
    let devices = stage.control.memory().devices.clone();
    assert!(devices.is_empty(), "{devices:?}");
    let managed = ListParams::default().labels("tailscale.com/managed=true");
    let left = stage.secrets().list(&managed).await.unwrap().items.len()
        + stage.sets().list(&managed).await.unwrap().items.len();
    assert_eq!(left, 0);
    let service = stage.services().get("tailscale-robbinsdale").await.unwrap();
    assert!(!service.finalizers().contains(&name::FINALIZER.to_owned()));
    let connector = stage.connectors().get("robbinsdale-connector").await.unwrap();
    assert!(connector.finalizers().is_empty());
    let said = stage.connector_is("robbinsdale-connector", "False", "ConnectorCreating").await;
    assert!(said.message.contains("uninstalled"), "{said:?}");
}

/// The Deployment of the operator.
const OPERATOR: &str = "operator";

/// What Helm makes before it runs the drain: a token of its account, once the API server knows what that may.
async fn account_of_the_drain(stage: &Stage) -> String {
    let token = chart::begin_uninstallation(&stage.client, "home").await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(Client::try_from(stage.cluster(&token)).unwrap());
    // One right of each binding: they come into force one by one.
    let rights = [
        json!({"verb": "list", "resource": "services"}),
        json!({"verb": "delete", "resource": "secrets", "namespace": NAMESPACE}),
        json!({"verb": "patch", "group": "apps", "resource": "deployments", "name": OPERATOR, "namespace": NAMESPACE}),
        json!({"verb": "get", "resource": "secrets", "name": name::API_SERVER_PROXY_STATE, "namespace": "home"}),
    ];
    for right in rights {
        let review = json!({"metadata": {}, "spec": {"resourceAttributes": &right}});
        let review: SelfSubjectAccessReview = serde_json::from_value(review).unwrap();
        eventually(&format!("the drain's account has the right {right}"), || async {
            let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
            let status = answer.status.unwrap_or_default();
            if status.allowed { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }
    token
}

/// Makes the operator's Deployment, and plays the controller that ends its pods when it is to have none.
async fn deployed(stage: &Stage) -> JoinHandle<()> {
    let labels = json!({"app": OPERATOR});
    let pod = json!({"containers": [{"name": OPERATOR, "image": "towline:test"}]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": OPERATOR},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    });
    stage.apply::<Deployment>(Some(NAMESPACE), deployment).await;
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), NAMESPACE);
    tokio::spawn(async move {
        let stopped = await_condition(deployments.clone(), OPERATOR, |found: Option<&Deployment>| {
            found.and_then(|one| one.spec.as_ref()).is_some_and(|spec| spec.replicas == Some(0))
        });
        let generation = stopped.await.unwrap().unwrap().metadata.generation;
        let seen = Patch::Merge(json!({"status": {"observedGeneration": generation, "replicas": 0}}));
        deployments.patch_status(OPERATOR, &PatchParams::default(), &seen).await.unwrap();
    })
}

/// Somebody's admission refuses every change of one Service: the job fails and names it, once all else is done.
async fn one_that_can_not_be_freed_keeps_no_other(stage: &Stage, config: operator::Config) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["UPDATE"]});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "frozen"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.metadata.name != 'ledger'", "message": "the ledger is frozen"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "frozen"}, "spec": {"policyName": "frozen", "validationActions": ["Deny"]},
    });
    stage.apply::<ValidatingAdmissionPolicy>(None, policy).await;
    stage.apply::<ValidatingAdmissionPolicyBinding>(None, binding).await;
    let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
    eventually("the policy is in force", || async {
        stage.services().patch("ledger", &parameters, &touch).await.err().map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;

    let shutdown = Shutdown::new(std::time::Duration::from_secs(5));
    let refusal = format!("{:#}", operator::drain(config, shutdown).await.unwrap_err());
    assert!(refusal.contains("svc home/ledger") && refusal.contains("the ledger is frozen"), "{refusal}");
    let finalizers = |metadata: &ObjectMeta| metadata.finalizers.clone().unwrap_or_default();
    assert!(!finalizers(&stage.services().get("ledger").await.unwrap().metadata).is_empty());
    for connector in ["lab", "robbinsdale-connector"] {
        assert!(finalizers(&stage.connectors().get(connector).await.unwrap().metadata).is_empty(), "{connector}");
    }
    let egress = stage.services().get("tailscale-robbinsdale").await.unwrap();
    assert!(finalizers(&egress.metadata).is_empty());
    assert_eq!(stage.control.memory().devices.len(), 0);

    bindings.delete("frozen", &DeleteParams::default()).await.unwrap();
    policies.delete("frozen", &DeleteParams::default()).await.unwrap();
    eventually("the policy is gone", || async {
        stage.services().patch("ledger", &parameters, &touch).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
