use serde_json::{Value, json};

use kubeapi::name;

use super::{Observed, Wanted};
use crate::object::Object;
use crate::proxy::{Proxy, Traffic, headless_service};
use crate::settings::Settings;

/// What to do for a Service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Whether everything that was ever made for it must go.
    pub tear_down: bool,
    /// What to change in the Service itself.
    pub patch: Option<Value>,
    /// The proxy, with its Secrets and its way into the tailnet.
    pub proxy: Option<Box<Proxy>>,
    /// What belongs to the Service and to no replica.
    pub objects: Vec<Object>,
}

/// Plans for what is wanted. A Service that asks for nothing loses its proxy; one that asks for what can't be, or is not
/// clear yet, keeps what runs as it was.
pub fn plan(observed: &Observed, wanted: &Wanted, settings: &Settings) -> Plan {
    let service = &observed.service;
    match wanted {
        Wanted::Nothing => Plan { tear_down: has_finalizer(observed), ..Plan::default() },
        Wanted::Never(_) => Plan::default(),
        Wanted::Later(_) => Plan { patch: finalizer_patch(observed), ..Plan::default() },
        Wanted::Proxy(proxy) => {
            let mut plan = Plan { patch: finalizer_patch(observed), proxy: Some(proxy.clone()), ..Plan::default() };
            if let Traffic::Egress { target, ports } = &proxy.traffic {
                plan.objects.push(headless_service(&proxy.owner, target, ports, settings));
                let leads = format!("{}.{}.svc.{}", proxy.owner.base(), settings.namespace, settings.cluster_domain);
                let spec = service.spec.as_ref();
                let right = spec.and_then(|spec| spec.external_name.as_deref()) == Some(leads.as_str())
                    && spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
                if !right {
                    let patch = plan.patch.get_or_insert_with(|| json!({}));
                    patch["spec"] = json!({"type": "ExternalName", "externalName": leads, "selector": null, "clusterIP": null, "clusterIPs": null});
                }
            }
            plan
        }
    }
}

fn has_finalizer(observed: &Observed) -> bool {
    let finalizers = observed.service.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == name::FINALIZER)
}

/// The finalizer stands before anything is made in the tailnet.
fn finalizer_patch(observed: &Observed) -> Option<Value> {
    if has_finalizer(observed) {
        return None;
    }
    let metadata = &observed.service.metadata;
    let finalizers: Vec<&str> =
        metadata.finalizers.iter().flatten().map(String::as_str).chain([name::FINALIZER]).collect();
    Some(json!({"metadata": {"finalizers": finalizers, "resourceVersion": metadata.resource_version}}))
}
