use std::sync::Arc;

use kubeapi::{Connector, ProxyClass};

use crate::proxy::ObservedProxy;
use crate::watches::Stores;

/// What is known of a Connector when it is decided about.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Connector.
    pub connector: Arc<Connector>,
    /// The ProxyClass that it names, or that holds for all; `Err` with its name when there is none of that name.
    pub class: Option<Result<Arc<ProxyClass>, String>>,
    /// What there is of its replicas, by their numbers; as many as were ever seen, at least as many as are asked for.
    pub proxies: Vec<ObservedProxy>,
}

/// Looks a Connector up; `None` when there is none.
pub(crate) fn observe(stores: &Stores, name: &str, default_class: Option<&str>) -> Option<Observed> {
    let connector = stores.connector(name)?;
    let class = connector.spec.proxy_class.clone().or(default_class.map(str::to_owned));
    let class = class.map(|name| stores.class(&name).ok_or(name));
    let owner = super::owner(&connector);
    let base = owner.base();
    let asked = super::validate::replicas(&connector);
    let replicas = asked.max(stores.replicas(&owner));
    let proxies = (0..replicas).map(|replica| stores.proxy(&kubeapi::name::replica(&base, replica))).collect();
    Some(Observed { connector, class, proxies })
}
