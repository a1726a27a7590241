use kube::api::{ApiResource, GroupVersionKind};
use serde::Serialize;
use serde_json::{Value, json};

/// An object that should be in the operator's namespace, as it is applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, kind and name included.
    pub body: Value,
}

/// The kinds that the operator makes, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// Who a pod is.
    ServiceAccount,
    /// What it may do.
    Role,
    /// That it may.
    RoleBinding,
    /// Configuration and state.
    Secret,
    /// A name for pods.
    Service,
    /// The pods.
    StatefulSet,
    /// What is still to be removed.
    ConfigMap,
}

impl Kind {
    /// Everything that is made for a proxy, in the order in which it is removed.
    pub const REMOVAL: [Self; 6] =
        [Self::StatefulSet, Self::Service, Self::RoleBinding, Self::Role, Self::ServiceAccount, Self::Secret];

    /// The kind as the API server knows it.
    pub fn resource(self) -> ApiResource {
        let (group, plural) = match self {
            Self::ServiceAccount => ("", "serviceaccounts"),
            Self::Role => ("rbac.authorization.k8s.io", "roles"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", "rolebindings"),
            Self::Secret => ("", "secrets"),
            Self::Service => ("", "services"),
            Self::StatefulSet => ("apps", "statefulsets"),
            Self::ConfigMap => ("", "configmaps"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", self.name()), plural)
    }

    fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::StatefulSet => "StatefulSet",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl Object {
    /// An object from its metadata (without name and namespace) and the rest of it.
    pub fn new(kind: Kind, namespace: &str, name: &str, mut metadata: Value, rest: Value) -> Self {
        let resource = kind.resource();
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(namespace);
        let mut body = json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata});
        if let (Some(body), Value::Object(rest)) = (body.as_object_mut(), rest) {
            body.extend(rest);
        }
        Self { kind, name: name.to_owned(), body }
    }

    /// The same for the same content, in this process and the next.
    pub fn fingerprint(&self) -> u64 {
        kubeapi::name::fingerprint(self.body.to_string().as_bytes())
    }
}
