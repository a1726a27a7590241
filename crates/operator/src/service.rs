//! Services: those that the tailnet reaches, and those that lead pods to the tailnet.

mod claim;
mod observe;
mod plan;
mod status;
mod validate;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

pub use claim::Claim;
pub use observe::Observed;
pub(crate) use observe::observe;
pub use plan::{Plan, plan};
pub(crate) use status::not_in_force;
pub use status::{Outcome, Status, Trouble, status};
pub use validate::{Wanted, is_ours, validate};
pub(crate) use validate::{class_name, hostname_text, usable_class};

use crate::owner::Owner;
use crate::settings::Settings;

/// The owner that a Service is.
pub fn owner(service: &Service) -> Owner {
    Owner {
        kind: kubeapi::label::ParentKind::Service,
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
    }
}

/// Everything that is decided about a Service without asking anybody: what is wanted, what follows, and what to say.
pub fn decide(observed: &Observed, trouble: Option<&Trouble>, settings: &Settings, now: Timestamp) -> (Plan, Status) {
    let wanted = validate(observed, settings);
    let plan = plan(observed, &wanted, settings);
    let status = status(observed, &wanted, &plan, trouble, now);
    (plan, status)
}
