//! One proxy: what it is for, and from that the objects that it consists of.

mod credential;
mod observed;
mod overlay;
mod pod;
mod secret;
mod security;
mod stateful_set;

use std::net::IpAddr;

use ipnet::IpNet;
use kubeapi::{DomainName, HostName, NodeConfig, ProxyClassSpec, Tag, environment, name};
use serde::Serialize;
use serde_json::json;

use crate::object::{Kind, Object};
use crate::owner::Owner;
use crate::settings::Settings;

pub use credential::{Credential, CredentialStep, KeyHealth, MintReason};
pub use observed::{ObservedProxy, Progress};
pub(crate) use overlay::refused_fields;
pub(crate) use secret::{ConfigPlace, config_object, tag_texts};
pub use secret::{CredentialRecord, state_secret};
pub(crate) use security::without_effect as security_without_effect;

/// One replica of what an object asks for: a device, a pod, and everything that belongs to it alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Whose it is.
    pub owner: Owner,
    /// Which one, from 0.
    pub replica: u32,
    /// What it calls itself.
    pub hostname: HostName,
    /// The tags that it joins with.
    pub tags: Vec<Tag>,
    /// What it does.
    pub traffic: Traffic,
    /// How it looks.
    pub class: Option<ProxyClassSpec>,
}

/// What a proxy does with packets.
#[derive(Debug, Clone, PartialEq)]
pub enum Traffic {
    /// From the tailnet to addresses of a Service, one a family.
    IngressToAddresses(Vec<IpAddr>),
    /// From the tailnet to a name.
    IngressToName(DomainName),
    /// From pods to a device of the tailnet.
    Egress {
        /// Which device.
        target: Target,
        /// Only these ports, by user space; all of them and every protocol, by the kernel, when there are none.
        ports: Vec<Port>,
    },
    /// From the tailnet to networks.
    Connector {
        /// The networks.
        routes: Vec<IpNet>,
        /// Whether the internet is one of them.
        exit_node: bool,
    },
}

/// A device of the tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its address.
    Address(IpAddr),
    /// By its name.
    Name(DomainName),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name.as_str()),
        }
    }
}

/// A port that pods may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port {
    /// Whether it is UDP, else TCP.
    pub udp: bool,
    /// Its number.
    pub number: u16,
}

impl Proxy {
    /// The name of its StatefulSet, ServiceAccount, Role and RoleBinding.
    pub fn name(&self) -> String {
        name::replica(&self.owner.base(), self.replica)
    }

    /// Whether packets go through user space.
    ///
    /// Ingress does always: a proxy that the ProxyClass puts into the kernel would need more rights for less.
    pub fn in_user_space(&self) -> bool {
        match &self.traffic {
            Traffic::IngressToAddresses(_) | Traffic::IngressToName(_) => true,
            Traffic::Egress { ports, .. } => !ports.is_empty(),
            Traffic::Connector { .. } => self.asks_for_user_space(),
        }
    }

    fn asks_for_user_space(&self) -> bool {
        let container = self
            .class
            .as_ref()
            .and_then(|class| class.stateful_set.as_ref()?.pod.as_ref()?.tailscale_container.as_ref());
        let mut variables = container.and_then(|container| container.env.as_ref()).into_iter().flatten();
        let last = variables.rfind(|variable| variable.name == environment::USERSPACE);
        last.is_some_and(|variable| variable.value.as_deref() == Some("true"))
    }

    /// Routes that the node offers.
    pub fn routes(&self) -> Option<Vec<IpNet>> {
        let Traffic::Connector { routes, exit_node } = &self.traffic else { return None };
        let internet = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
        Some(routes.iter().copied().chain(internet.into_iter().filter(|_| *exit_node)).collect())
    }

    /// How its node is configured, but for the key.
    pub(crate) fn node_config(&self, settings: &Settings) -> NodeConfig {
        let mut config = NodeConfig::of_proxy(&settings.login_server, self.hostname.as_str());
        config.advertise_routes = self.routes();
        let accepts = self.class.as_ref().and_then(|class| class.tailscale.as_ref()?.accept_routes);
        config.accept_routes = Some(accepts.unwrap_or(false));
        config
    }

    /// Everything but the two Secrets, which depend on what was observed.
    pub fn objects(&self, settings: &Settings) -> Vec<Object> {
        let mut objects = self.account(settings);
        objects.push(stateful_set::stateful_set(self, settings));
        objects
    }

    /// Whether there is a pod which this proxy's objects would replace.
    pub fn would_restart(&self, observed: &ObservedProxy, settings: &Settings) -> bool {
        let Some(set) = &observed.stateful_set else { return false };
        let applied = set.metadata.annotations.as_ref().and_then(|notes| notes.get(stateful_set::TEMPLATE));
        let next = stateful_set::stateful_set(self, settings);
        next.body["metadata"]["annotations"][stateful_set::TEMPLATE].as_str() != applied.map(String::as_str)
    }

    /// The labels of everything that belongs to this replica.
    pub fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels = self.owner.labels();
        labels.insert(kubeapi::label::REPLICA.to_owned(), self.replica.to_string());
        labels
    }

    /// Who the pod is, and that it may read and write its own state and nothing else.
    fn account(&self, settings: &Settings) -> Vec<Object> {
        let (name, namespace) = (self.name(), settings.namespace.as_str());
        let metadata = json!({"labels": self.labels()});
        let rule = json!({
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [name::state_secret(&name)],
            "verbs": ["get", "update", "patch"],
        });
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        });
        vec![
            Object::new(
                Kind::ServiceAccount,
                namespace,
                &name,
                metadata.clone(),
                json!({"automountServiceAccountToken": false}),
            ),
            Object::new(Kind::Role, namespace, &name, metadata.clone(), json!({"rules": [rule]})),
            Object::new(Kind::RoleBinding, namespace, &name, metadata, binding),
        ]
    }
}

/// The Service without an address of its own whose name leads to an owner's pods.
pub(crate) fn headless_service(owner: &Owner, target: &Target, ports: &[Port], settings: &Settings) -> Object {
    let mut annotations = json!({});
    if let Target::Name(name) = target {
        annotations[kubeapi::annotation::MAGIC_DNS_NAME] = json!(name.as_str());
    }
    let ports: Vec<_> = ports
        .iter()
        .map(|port| {
            let protocol = if port.udp { "UDP" } else { "TCP" };
            json!({"name": format!("{}-{}", protocol.to_lowercase(), port.number), "port": port.number, "protocol": protocol})
        })
        .collect();
    let mut spec =
        json!({"clusterIP": "None", "selector": {kubeapi::label::APP: owner.uid}, "ipFamilyPolicy": "PreferDualStack"});
    if !ports.is_empty() {
        spec["ports"] = json!(ports);
    }
    let metadata = json!({"labels": owner.labels(), "annotations": annotations});
    Object::new(Kind::Service, &settings.namespace, &owner.base(), metadata, json!({"spec": spec}))
}
