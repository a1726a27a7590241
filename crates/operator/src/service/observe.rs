use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kubeapi::ProxyClass;

use crate::proxy::ObservedProxy;
use crate::settings::Settings;
use crate::watches::Stores;

/// What is known of a Service when it is decided about.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Service.
    pub service: Arc<Service>,
    /// The ProxyClass that it names, or that holds for all; `Err` with its name when there is none of that name.
    pub class: Option<Result<Arc<ProxyClass>, String>>,
    /// What there is of its proxy.
    pub proxy: ObservedProxy,
    /// Another object that has a better claim to its host name.
    pub hostname_taken_by: Option<String>,
}

/// Looks a Service up; `None` when there is none.
pub(crate) fn observe(stores: &Stores, namespace: &str, name: &str, settings: &Settings) -> Option<Observed> {
    let service = stores.service(namespace, name)?;
    let class = super::validate::class_name(&service).or(settings.proxy_class.clone());
    let class = class.map(|name| stores.class(&name).ok_or(name));
    let base = super::owner(&service).base();
    let hostname_taken_by = stores.hostname_taken(&service, settings);
    Some(Observed { class, proxy: stores.proxy(&base), hostname_taken_by, service })
}
