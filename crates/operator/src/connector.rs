//! Connectors: subnet routers and exit nodes.

mod observe;
mod plan;
mod routes;
mod status;
mod validate;

use jiff::Timestamp;
use kubeapi::Connector;

pub use observe::Observed;
pub(crate) use observe::observe;
pub use plan::{Plan, plan};
pub use status::{Status, status};
pub use validate::{Wanted, problems_of, validate};

use crate::owner::Owner;
use crate::service::Trouble;
use crate::settings::Settings;

/// The owner that a Connector is.
pub fn owner(connector: &Connector) -> Owner {
    Owner {
        kind: kubeapi::label::ParentKind::Connector,
        namespace: None,
        name: connector.metadata.name.clone().unwrap_or_default(),
        uid: connector.metadata.uid.clone().unwrap_or_default(),
    }
}

/// Everything that is decided about a Connector without asking anybody.
pub fn decide(observed: &Observed, trouble: Option<&Trouble>, settings: &Settings, now: Timestamp) -> (Plan, Status) {
    let wanted = validate(observed, settings);
    let plan = plan(observed, &wanted, settings);
    let status = status(observed, &wanted, trouble, now);
    (plan, status)
}
