//! What every scenario needs: the API server, the coordination server, an operator, and the parts that tests play.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ADMINISTRATOR, ApiServer};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use kubeapi::{Connector, NodeConfig, name};
use operator::{Config, Credentials, RestSettings, Settings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use telemetry::Shutdown;
use tokio::task::JoinHandle;

use crate::chart;
use crate::control::Control;

pub(crate) const NAMESPACE: &str = "tailscale";

pub(crate) struct Stage {
    server: ApiServer,
    pub(crate) client: Client,
    pub(crate) control: Control,
    /// A token of the operator's account, with the rights that the chart gives it.
    pub(crate) account: String,
    _collector: JoinHandle<()>,
}

/// An operator that runs in this process.
pub(crate) struct Running {
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

#[derive(Debug)]
struct NoNames;

impl dial::Resolve for NoNames {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Err(io::Error::other(format!("{host} is a name"))) })
    }
}

impl Stage {
    pub(crate) async fn set() -> Self {
        // As clusters have it: what is privileged is for the policies under test to refuse.
        let server = ApiServer::start(&[], &["--allow-privileged=true"]).unwrap();
        let client = Client::try_from(config(&server, ADMINISTRATOR.token)).unwrap();
        let control = Control::start().await;
        let collector = tokio::spawn(collect(client.clone()));
        let mut stage = Self { _collector: collector, server, client, control, account: String::new() };
        for name in [NAMESPACE, "home"] {
            stage
                .apply::<Namespace>(None, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
                .await;
        }
        for definition in kubeapi::custom_resource_definitions() {
            let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
            stage.apply::<CustomResourceDefinition>(None, definition).await;
            let definitions: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
            eventually("the definition is served", || async {
                let found = definitions.get(&name).await.map_err(|error| error.to_string())?;
                let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
                let served = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
                if served { Ok(()) } else { Err("not established".to_owned()) }
            })
            .await;
        }
        stage.account = chart::install(&stage.client).await;
        stage
    }

    pub(crate) fn operator(&self, identity: &str) -> Running {
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let task = tokio::spawn(operator::run(self.config(identity), shutdown.clone()));
        Running { shutdown, task }
    }

    pub(crate) fn config(&self, identity: &str) -> Config {
        Config {
            settings: Settings {
                namespace: NAMESPACE.to_owned(),
                cluster_domain: "cluster.local".to_owned(),
                login_server: self.control.url.clone(),
                image: "towline:test".to_owned(),
                image_pull_policy: None,
                image_pull_secrets: Vec::new(),
                tags: vec!["tag:k8s".parse().unwrap()],
                proxy_class: None,
                priority_class: None,
                certificates: None,
                default_load_balancer: false,
            },
            cluster: self.cluster(&self.account),
            control: RestSettings {
                url: self.control.url.clone(),
                credentials: Credentials::Given { id: "id".to_owned(), secret: "secret".to_owned().into() },
                roots: dial::Roots::none(),
                resolver: Arc::new(NoNames),
            },
            lease: "operator-lease".to_owned(),
            identity: identity.to_owned(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            drained: Vec::new(),
            api_server_proxy: None,
        }
    }

    /// Applies an object as a user would.
    pub(crate) async fn apply<K>(&self, namespace: Option<&str>, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope: Scoped<K>> + Clone + DeserializeOwned + Debug,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.try_apply(namespace, object).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) async fn try_apply<K>(&self, namespace: Option<&str>, object: Value) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope: Scoped<K>> + Clone + DeserializeOwned + Debug,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let api = <K::Scope as Scoped<K>>::api(self.client.clone(), namespace);
        api.patch(&name, &PatchParams::apply("user"), &Patch::Apply(&object)).await
    }

    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), "home")
    }

    pub(crate) fn connectors(&self) -> Api<Connector> {
        Api::all(self.client.clone())
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// How to reach the API server with a token.
    pub(crate) fn cluster(&self, token: &str) -> kube::Config {
        config(&self.server, token)
    }

    pub(crate) fn sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The names of the StatefulSets that were made for an object.
    pub(crate) async fn sets_of(&self, parent: &str) -> Vec<String> {
        let labels = format!("tailscale.com/parent-resource={parent}");
        let found = self.sets().list(&ListParams::default().labels(&labels)).await.unwrap();
        found.iter().map(ResourceExt::name_any).collect()
    }

    /// The one StatefulSet of an object, once it is there.
    pub(crate) async fn set_of(&self, parent: &str) -> String {
        eventually(&format!("a StatefulSet for {parent}"), || async {
            let sets = self.sets_of(parent).await;
            sets.first().cloned().ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// What kubelet would show a proxy's pod.
    pub(crate) async fn node_config(&self, set: &str) -> NodeConfig {
        let secret = self.secrets().get(&name::config_secret(set)).await.unwrap();
        let data = secret.data.unwrap();
        assert_eq!(data.len(), 1, "{:?}", data.keys());
        NodeConfig::read(&data[&kubeapi::config_file_name()].0).unwrap()
    }

    /// Plays a proxy that joins with the key that it was given, and its pod that becomes ready.
    pub(crate) async fn join(&self, set: &str, device: &str) {
        let config = eventually(&format!("a key for {set}"), || async {
            let config = self.node_config(set).await;
            if config.auth_key.is_some() { Ok(config) } else { Err("no key".to_owned()) }
        })
        .await;
        let key = config.auth_key.unwrap();
        {
            let mut memory = self.control.memory();
            let id = key.trim_start_matches("tskey-auth-").to_owned();
            let used = memory.keys.remove(&id).expect("a device joins with a key that lives");
            let tags = used["capabilities"]["devices"]["create"]["tags"].clone();
            memory.devices.insert(device.to_owned(), serde_json::from_value(tags).unwrap());
        }
        let fqdn = format!("{}.taila31de.ts.net.", config.hostname.unwrap());
        self.say(set, json!({"device_id": device, "device_fqdn": fqdn, "device_ips": r#"["100.64.0.7","fd7a:115c:a1e0::7"]"#, "pod_uid": "p", "reissue_authkey": null})).await;
        self.pod_is(set, true).await;
    }

    /// Plays a proxy that writes into its state.
    pub(crate) async fn say(&self, set: &str, state: Value) {
        let mut data = json!({});
        for (key, value) in state.as_object().unwrap() {
            data[key] = match value.as_str() {
                Some(text) => json!(k8s_openapi::ByteString(text.as_bytes().to_vec())),
                None => Value::Null,
            };
        }
        let patch = Patch::Merge(json!({"data": data}));
        self.secrets().patch(&name::state_secret(set), &PatchParams::default(), &patch).await.unwrap();
    }

    /// Plays the controller that watches a StatefulSet's pod.
    pub(crate) async fn pod_is(&self, set: &str, ready: bool) {
        let found = self.sets().get(set).await.unwrap();
        let status =
            json!({"observedGeneration": found.metadata.generation, "replicas": 1, "readyReplicas": i32::from(ready)});
        let patch = Patch::Merge(json!({"status": status}));
        self.sets().patch_status(set, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The condition of a Service, once it has this status and reason.
    pub(crate) async fn service_is(&self, service: &str, status: &str, reason: &str) -> Condition {
        eventually(&format!("{service} is {status} because of {reason}"), || async {
            let found = self.services().get(service).await.map_err(|error| error.to_string())?;
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            matching(&conditions, kubeapi::condition::PROXY_READY, status, reason)
        })
        .await
    }

    pub(crate) async fn connector_is(&self, connector: &str, status: &str, reason: &str) -> Condition {
        eventually(&format!("{connector} is {status} because of {reason}"), || async {
            let found = self.connectors().get(connector).await.map_err(|error| error.to_string())?;
            let conditions = found.status.map(|status| status.conditions).unwrap_or_default();
            matching(&conditions, kubeapi::condition::CONNECTOR_READY, status, reason)
        })
        .await
    }
}

fn config(server: &ApiServer, token: &str) -> kube::Config {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    config.root_cert = Some(vec![server.authority().to_vec()]);
    config.auth_info.token = Some(token.to_owned().into());
    config
}

fn matching(conditions: &[Condition], kind: &str, status: &str, reason: &str) -> Result<Condition, String> {
    let found = conditions.iter().find(|condition| condition.type_ == kind).ok_or("there is no condition")?;
    if found.status == status && found.reason == reason { Ok(found.clone()) } else { Err(format!("{found:?}")) }
}

/// Where objects of a kind are.
pub(crate) trait Scoped<K: Resource> {
    fn api(client: Client, namespace: Option<&str>) -> Api<K>;
}

impl<K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>> Scoped<K>
    for kube::core::NamespaceResourceScope
{
    fn api(client: Client, namespace: Option<&str>) -> Api<K> {
        Api::namespaced(client, namespace.expect("a namespace"))
    }
}

impl<K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>> Scoped<K>
    for kube::core::ClusterResourceScope
{
    fn api(client: Client, _: Option<&str>) -> Api<K> {
        Api::all(client)
    }
}

/// Asks again and again until the answer is one; panics with the last refusal after 40 s.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(last) if tokio::time::Instant::now() > deadline => panic!("{what}: {last}"),
            // tidy: sleep, what is awaited has no event of its own
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Plays the garbage collector: a StatefulSet that is deleted in the foreground goes once its pod is gone, and there is none.
async fn collect(client: Client) {
    let sets: Api<StatefulSet> = Api::namespaced(client, NAMESPACE);
    let events = watcher(sets.clone(), watcher::Config::default()).default_backoff().applied_objects();
    let mut events = std::pin::pin!(events.into_stream());
    while let Some(event) = events.next().await {
        let Ok(set) = event else { continue };
        if set.metadata.deletion_timestamp.is_some() {
            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _gone = sets.patch(&set.name_any(), &PatchParams::default(), &none).await;
        }
    }
}
