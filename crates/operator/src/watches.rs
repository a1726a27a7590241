mod index;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use kubeapi::annotation::credential;
use kubeapi::label::{self, ParentKind};
use kubeapi::{Connector, ProxyClass, ProxyState, name};
use serde::de::DeserializeOwned;
use telemetry::Condition;
use tokio::task::JoinSet;

use crate::owner::Owner;
use crate::proxy::ObservedProxy;
use crate::queue::{Key, Queue};
use crate::service::{self, Claim};
use crate::settings::Settings;
use index::{Indexed, Scribe, Term};

/// What the cluster was last seen to be: one watch a kind, shared by every controller.
#[derive(Clone)]
pub(crate) struct Stores {
    namespace: String,
    pub(crate) services: Indexed<Service>,
    pub(crate) connectors: Indexed<Connector>,
    pub(crate) classes: Indexed<ProxyClass>,
    pub(crate) secrets: Indexed<Secret>,
    sets: Indexed<StatefulSet>,
    pub(crate) tombstones: Indexed<ConfigMap>,
}

/// What writes into the stores, one a kind.
struct Scribes {
    services: Scribe<Service>,
    connectors: Scribe<Connector>,
    classes: Scribe<ProxyClass>,
    secrets: Scribe<Secret>,
    sets: Scribe<StatefulSet>,
    tombstones: Scribe<ConfigMap>,
}

impl Stores {
    /// Stores of a namespace's operator that have seen nothing yet.
    fn empty(settings: &Settings) -> (Self, Scribes) {
        let keep = settings.clone();
        let (services, service_scribe) = index::indexed(move |service| terms::of_service(service, &keep));
        let (connectors, connector_scribe) = index::indexed(terms::of_connector);
        let (classes, class_scribe) = index::indexed(|_| Vec::new());
        let (secrets, secret_scribe) = index::indexed(terms::of_secret);
        let (sets, set_scribe) = index::indexed(terms::of_set);
        let (tombstones, tombstone_scribe) = index::indexed(|_| Vec::new());
        let namespace = settings.namespace.clone();
        let stores = Self { namespace, services, connectors, classes, secrets, sets, tombstones };
        let scribes = Scribes {
            services: service_scribe,
            connectors: connector_scribe,
            classes: class_scribe,
            secrets: secret_scribe,
            sets: set_scribe,
            tombstones: tombstone_scribe,
        };
        (stores, scribes)
    }

    /// Starts to watch. Whatever changes is put into the queue; the tasks end with the process.
    pub(crate) fn watch(
        client: &Client,
        settings: &Settings,
        queue: &Arc<Queue>,
        health: &Condition,
    ) -> (Self, JoinSet<()>) {
        let own = settings.namespace.as_str();
        let everything = watcher::Config::default().any_semantic();
        let labelled = |labels: &str| everything.clone().labels(labels);
        let (stores, scribes) = Self::empty(settings);
        let mut watches = Watches { stores: &stores, settings, queue, health, tasks: JoinSet::new() };

        let all = || everything.clone();
        watches.begin(Api::all(client.clone()), all(), scribes.services, strip_service, Self::keys_of_service);
        watches.begin(Api::all(client.clone()), all(), scribes.connectors, whole, Self::keys_of_connector);
        watches.begin(Api::all(client.clone()), all(), scribes.classes, whole, Self::keys_of_class);
        let credentials = labelled(label::SECRET_TYPE);
        watches.begin(Api::namespaced(client.clone(), own), credentials, scribes.secrets, whole, Self::keys_of_made);
        let managed = labelled(label::MANAGED_SELECTOR);
        watches.begin(Api::namespaced(client.clone(), own), managed, scribes.sets, strip_set, Self::keys_of_made);
        let remembered = labelled(&format!("{}=true", label::TOMBSTONE));
        watches.begin(
            Api::namespaced(client.clone(), own),
            remembered,
            scribes.tombstones,
            whole,
            Self::keys_of_tombstone,
        );
        let tasks = watches.tasks;
        (stores, tasks)
    }

    /// Ends when every kind was listed once.
    pub(crate) async fn ready(&self) {
        // A writer that is dropped ends the process elsewhere.
        let _all = futures_util::join!(
            self.services.wait_until_ready(),
            self.connectors.wait_until_ready(),
            self.classes.wait_until_ready(),
            self.secrets.wait_until_ready(),
            self.sets.wait_until_ready(),
            self.tombstones.wait_until_ready(),
        );
    }

    /// Everything that could ever need a look.
    pub(crate) fn all_keys(&self, settings: &Settings) -> Vec<Key> {
        let services = self.services.state();
        let mut keys: Vec<Key> =
            services.iter().flat_map(|service| self.keys_of_service(service, false, settings)).collect();
        keys.extend(self.connectors.state().iter().map(|connector| Key::Connector(connector.name_any())));
        keys.extend(self.classes.state().iter().map(|class| Key::ProxyClass(class.name_any())));
        keys.extend(self.secrets.state().iter().flat_map(|secret| self.keys_of_labels(secret.as_ref())));
        keys.extend(self.tombstones.state().iter().map(|tombstone| Key::Tombstone(tombstone.name_any())));
        keys.sort();
        keys.dedup();
        keys
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(name).within(namespace))
    }

    pub(crate) fn connector(&self, name: &str) -> Option<Arc<Connector>> {
        self.connectors.get(&ObjectRef::new(name))
    }

    pub(crate) fn class(&self, name: &str) -> Option<Arc<ProxyClass>> {
        self.classes.get(&ObjectRef::new(name))
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&ObjectRef::new(name).within(&self.namespace))
    }

    /// What there is of the proxy whose StatefulSet has this name.
    pub(crate) fn proxy(&self, stateful_set: &str) -> ObservedProxy {
        ObservedProxy {
            config: self.secret(&name::config_secret(stateful_set)),
            state: self.secret(&name::state_secret(stateful_set)),
            stateful_set: self.sets.get(&ObjectRef::new(stateful_set).within(&self.namespace)),
        }
    }

    /// One more than the highest replica of which something is left.
    pub(crate) fn replicas(&self, owner: &Owner) -> u32 {
        let theirs = Term::Uid(owner.uid.clone());
        let (secrets, sets) = (self.secrets.found_by(&theirs), self.sets.found_by(&theirs));
        let labels = secrets.iter().map(|secret| secret.labels()).chain(sets.iter().map(|set| set.labels()));
        let replicas = labels.filter_map(|labels| labels.get(label::REPLICA)?.parse::<u32>().ok());
        replicas.max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// Whether the object that this was made for is still there, the very same.
    pub(crate) fn lives(&self, owner: &Owner) -> bool {
        self.key_of(owner).is_some()
    }

    /// Another Service that has a better claim to the host name of this one's device.
    pub(crate) fn hostname_taken(&self, service: &Arc<Service>, settings: &Settings) -> Option<String> {
        self.claim(service.clone()).taken_by(self.rivals(service), settings)
    }

    /// Who may have a claim to the host name that a Service asks for: those that ask for it too, and those whose devices
    /// were given it.
    fn rivals(&self, service: &Service) -> Vec<Claim> {
        let wanted = Term::Hostname(service::hostname_text(service));
        let given = self.secrets.found_by(&wanted).into_iter().filter_map(|secret| {
            let secret = secret.name_any();
            name::of_config_secret(&secret).map(|proxy| Term::Proxy(proxy.to_owned()))
        });
        let all = given.flat_map(|proxy| self.services.found_by(&proxy)).chain(self.services.found_by(&wanted));
        let all = all.filter(|service| is_finalized(service.as_ref()));
        let each: BTreeMap<_, _> = all.map(|service| ((service.namespace(), service.name_any()), service)).collect();
        each.into_values().map(|service| self.claim(service)).collect()
    }

    fn claim(&self, service: Arc<Service>) -> Claim {
        Claim { proxy: self.proxy(&service::owner(&service).base()), service }
    }

    /// Whether a device is that of another proxy than the one whose StatefulSet has this name: by what was written down of
    /// that one, or, where nothing is written down of either, by what its proxy says.
    ///
    /// A proxy writes its state itself, and knows the ids of others from its network map.
    pub(crate) fn is_anothers(&self, device: &str, stateful_set: &str) -> bool {
        let (config, state) = (name::config_secret(stateful_set), name::state_secret(stateful_set));
        let recorded =
            |secret: &Secret| secret.annotations().get(credential::DEVICE).is_some_and(|recorded| recorded == device);
        let says = |secret: &Secret| {
            let said = secret.data.as_ref().and_then(|data| ProxyState::read(data).device_id);
            said.is_some_and(|said| said == device)
        };
        let ours = self.secret(&config).is_some_and(|secret| recorded(&secret));
        let another = |secret: &Secret| {
            let name = secret.name_any();
            name != config && recorded(secret) || !ours && name != state && says(secret)
        };
        self.secrets.found_by(&Term::Device(device.to_owned())).iter().any(|secret| another(secret))
    }

    fn key_of(&self, owner: &Owner) -> Option<Key> {
        match owner.kind {
            ParentKind::Service => {
                let namespace = owner.namespace.clone()?;
                let service = self.service(&namespace, &owner.name)?;
                (service.metadata.uid.as_deref() == Some(owner.uid.as_str()))
                    .then(|| Key::Service { namespace, name: owner.name.clone() })
            }
            ParentKind::Connector => {
                let found = self.connectors.found_by(&Term::Uid(owner.uid.clone()));
                Some(Key::Connector(found.first()?.name_any()))
            }
        }
    }

    fn keys_of_labels<K: Resource>(&self, object: &K) -> Vec<Key> {
        let owner = object.meta().labels.as_ref().and_then(Owner::of_labels);
        owner.map(|owner| self.key_of(&owner).unwrap_or(Key::Orphan(owner))).into_iter().collect()
    }

    fn keys_of_made<K: Resource>(&self, object: &K, _gone: bool, _settings: &Settings) -> Vec<Key> {
        self.keys_of_labels(object)
    }

    fn keys_of_connector(&self, connector: &Connector, _gone: bool, _settings: &Settings) -> Vec<Key> {
        vec![Key::Connector(connector.name_any())]
    }

    fn keys_of_tombstone(&self, tombstone: &ConfigMap, _gone: bool, _settings: &Settings) -> Vec<Key> {
        vec![Key::Tombstone(tombstone.name_any())]
    }

    fn keys_of_service(&self, service: &Service, gone: bool, settings: &Settings) -> Vec<Key> {
        let namespace = service.namespace().unwrap_or_default();
        if namespace == self.namespace && service.labels().contains_key(label::MANAGED) {
            return self.keys_of_labels(service);
        }
        let key = |service: &Service| Key::Service {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
        };
        let finalized = is_finalized(service);
        if !finalized && !service::is_ours(service, settings) && !has_our_condition(service) {
            return Vec::new();
        }
        let mut keys = vec![key(service)];
        if gone {
            // Its host name may be what another one waits for.
            let waiting = self.services.found_by(&Term::Hostname(service::hostname_text(service)));
            keys.extend(waiting.iter().filter(|other| service::is_ours(other, settings)).map(|other| key(other)));
            let owner = service::owner(service);
            if self.replicas(&owner) > 0 {
                keys.push(Key::Orphan(owner));
            }
        }
        keys
    }

    fn keys_of_class(&self, class: &ProxyClass, _gone: bool, settings: &Settings) -> Vec<Key> {
        let (name, default) = (class.name_any(), settings.proxy_class.as_deref());
        let users = self.services.state_filter(|service| {
            is_finalized(service) && service::class_name(service).as_deref().or(default) == Some(name.as_str())
        });
        let mut keys = vec![Key::ProxyClass(name.clone())];
        keys.extend(users.iter().map(|service| Key::Service {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
        }));
        let connectors = self
            .connectors
            .state_filter(|connector| connector.spec.proxy_class.as_deref().or(default) == Some(name.as_str()));
        keys.extend(connectors.iter().map(|connector| Key::Connector(connector.name_any())));
        keys
    }
}

/// Whether something of ours hangs on it.
pub(crate) fn is_finalized<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name::FINALIZER)
}

fn has_our_condition(service: &Service) -> bool {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    kubeapi::condition::find(conditions, kubeapi::condition::PROXY_READY).is_some()
}

/// Of Services that are none of ours only the name is kept: a cluster may have thousands.
fn strip_service(service: &mut Service, settings: &Settings) {
    let finalized = is_finalized(service);
    let made = service.labels().contains_key(label::MANAGED);
    if finalized || made || service::is_ours(service, settings) || has_our_condition(service) {
        return;
    }
    service.spec = None;
    service.status = None;
    service.metadata.labels = None;
    service.metadata.annotations = None;
}

/// What the pod should look like is never read back.
fn strip_set(set: &mut StatefulSet, _settings: &Settings) {
    if let Some(spec) = set.spec.as_mut() {
        spec.template.spec = None;
        spec.template.metadata = None;
    }
}

fn whole<K>(_object: &mut K, _settings: &Settings) {}

/// Watches that have begun, and what all of them need.
struct Watches<'a> {
    stores: &'a Stores,
    settings: &'a Settings,
    queue: &'a Arc<Queue>,
    health: &'a Condition,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Begins to follow one kind: what is kept of each object, and what to look at when one changes or is gone.
    fn begin<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        scribe: Scribe<K>,
        strip: fn(&mut K, &Settings),
        keys: fn(&Stores, &K, bool, &Settings) -> Vec<Key>,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let keep = self.settings.clone();
        let strip = move |object: &mut K| strip(object, &keep);
        let (stores, settings) = (self.stores.clone(), self.settings.clone());
        let keys = move |object: &K, gone| keys(&stores, object, gone, &settings);
        self.tasks.spawn(follow(api, config, scribe, strip, keys, self.queue.clone(), self.health.clone()));
    }
}

/// Follows one kind for as long as the process lives.
async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut scribe: Scribe<K>,
    strip: impl Fn(&mut K) + Send + 'static,
    keys: impl Fn(&K, bool) -> Vec<Key> + Send + 'static,
    queue: Arc<Queue>,
    health: Condition,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let kind = K::kind(&()).into_owned();
    let events = watcher(api, config).default_backoff().modify(move |object| {
        object.meta_mut().managed_fields = None;
        strip(object);
    });
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let Ok(event) = &event {
            scribe.write(event);
        }
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                keys(&object, false).into_iter().for_each(|key| queue.push(key));
            }
            Ok(watcher::Event::Delete(object)) => keys(&object, true).into_iter().for_each(|key| queue.push(key)),
            Ok(watcher::Event::InitDone) => tracing::debug!(kind, "listed"),
            Ok(watcher::Event::Init) => {}
            Err(error) => {
                // The stream goes on by itself, with growing pauses.
                tracing::warn!(kind, %error, "watching was interrupted");
                health.unmet(format!("the API server does not let us watch {kind}: {error}"));
                continue;
            }
        }
        health.met();
    }
}
