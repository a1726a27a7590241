//! Labels of the objects that the operator makes.

use std::collections::BTreeMap;

/// On every object that the operator made for a Service or a Connector: `true`.
pub const MANAGED: &str = "tailscale.com/managed";

/// The name of the object that it was made for.
pub const PARENT_NAME: &str = "tailscale.com/parent-resource";

/// The namespace of the object that it was made for; absent for one without.
pub const PARENT_NAMESPACE: &str = "tailscale.com/parent-resource-ns";

/// The kind of the object that it was made for: see [`ParentKind`].
pub const PARENT_TYPE: &str = "tailscale.com/parent-resource-type";

/// What a Secret holds: `config` or `state`.
pub const SECRET_TYPE: &str = "tailscale.com/secret-type";

/// The UID of the object that it was made for: what Services of the operator select pods by.
pub const APP: &str = "app";

/// Which replica of the proxy it belongs to.
pub const REPLICA: &str = "tailscale.com/replica";

/// On ConfigMaps that hold what is still to be removed from the tailnet: `true`.
pub const TOMBSTONE: &str = "tailscale.com/tombstone";

/// A Secret of configuration.
pub const SECRET_CONFIG: &str = "config";

/// A Secret of state.
pub const SECRET_STATE: &str = "state";

/// The selector of everything that the operator made for Services and Connectors.
pub const MANAGED_SELECTOR: &str = "tailscale.com/managed=true";

/// The longest value that a label can have.
pub const MAX_VALUE: usize = 63;

/// The kind of object that something was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentKind {
    /// A Service.
    Service,
    /// A Connector.
    Connector,
}

impl ParentKind {
    /// The value of [`PARENT_TYPE`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "svc",
            Self::Connector => "connector",
        }
    }

    /// Reads a value of [`PARENT_TYPE`].
    pub fn read(text: &str) -> Option<Self> {
        [Self::Service, Self::Connector].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The labels of an object made for `name` in `namespace`, whose UID is `uid`.
pub fn of_parent(kind: ParentKind, namespace: Option<&str>, name: &str, uid: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (PARENT_TYPE.to_owned(), kind.as_str().to_owned()),
        (PARENT_NAME.to_owned(), crate::name::label_value(name)),
        (APP.to_owned(), uid.to_owned()),
        (MANAGED.to_owned(), "true".to_owned()),
        ("app.kubernetes.io/name".to_owned(), "towline-proxy".to_owned()),
        ("app.kubernetes.io/component".to_owned(), kind.as_str().to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), crate::name::CONTROLLER.to_owned()),
    ]);
    if let Some(namespace) = namespace {
        labels.insert(PARENT_NAMESPACE.to_owned(), namespace.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back() {
        for kind in [ParentKind::Service, ParentKind::Connector] {
            assert_eq!(ParentKind::read(kind.as_str()), Some(kind));
        }
        assert_eq!(ParentKind::read("ingress"), None);
    }

    #[test]
    fn an_object_without_a_namespace_has_no_label_for_it() {
        let labels = of_parent(ParentKind::Connector, None, "a", "1");
        assert!(!labels.contains_key(PARENT_NAMESPACE));
        assert_eq!(labels[PARENT_NAME], "a");
    }
}
