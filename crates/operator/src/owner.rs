use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::Resource;
use kubeapi::label::{self, ParentKind};
use kubeapi::{Connector, HostName, name};

/// The object that something was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Its kind.
    pub kind: ParentKind,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Owner {
    /// The name that all names of what is made for it start with.
    pub fn base(&self) -> String {
        name::base(&self.name, &self.uid)
    }

    /// The labels of everything that is made for it.
    pub fn labels(&self) -> BTreeMap<String, String> {
        label::of_parent(self.kind, self.namespace.as_deref(), &self.name, &self.uid)
    }

    /// What an event about it names.
    pub(crate) fn reference(&self) -> ObjectReference {
        let (version, kind) = match self.kind {
            ParentKind::Service => (Service::api_version(&()), Service::kind(&())),
            ParentKind::Connector => (Connector::api_version(&()), Connector::kind(&())),
        };
        ObjectReference {
            api_version: Some(version.into_owned()),
            kind: Some(kind.into_owned()),
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// The host name of its device when it asks for none.
    pub fn host_name(&self) -> HostName {
        match (&self.namespace, self.kind) {
            (Some(namespace), _) => HostName::of_parts(&[namespace, &self.name]),
            (None, ParentKind::Connector) => HostName::of_parts(&[&self.name, "connector"]),
            (None, _) => HostName::of_parts(&[&self.name]),
        }
    }

    /// Whose object this is by its labels; what has no such labels was not made by us.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let kind = ParentKind::read(labels.get(label::PARENT_TYPE)?)?;
        let managed = labels.get(label::MANAGED).is_some_and(|value| value == "true");
        if !managed {
            return None;
        }
        Some(Self {
            kind,
            namespace: labels.get(label::PARENT_NAMESPACE).cloned(),
            name: labels.get(label::PARENT_NAME)?.clone(),
            uid: labels.get(label::APP)?.clone(),
        })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_from_the_labels_of_what_is_made_for_it() {
        let owner = Owner {
            kind: ParentKind::Service,
            namespace: Some("home".to_owned()),
            name: "web".to_owned(),
            uid: "1".to_owned(),
        };
        assert_eq!(Owner::of_labels(&owner.labels()), Some(owner));
        assert_eq!(Owner::of_labels(&BTreeMap::new()), None);
    }

    #[test]
    fn devices_are_named_after_their_objects() {
        let owner = |kind, namespace: Option<&str>, name: &str| Owner {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            uid: "1".to_owned(),
        };
        assert_eq!(owner(ParentKind::Service, Some("home"), "web").host_name().as_str(), "home-web");
        assert_eq!(owner(ParentKind::Connector, None, "lab").host_name().as_str(), "lab-connector");
    }
}
