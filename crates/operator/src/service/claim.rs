use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::validate::{hostname_text, problems_of};
use crate::proxy::ObservedProxy;
use crate::settings::Settings;
use crate::watches::is_finalized;

/// A Service's claim to a host name in the tailnet: what it asks for, and what its device was given.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The Service.
    pub service: Arc<Service>,
    /// What there is of its proxy.
    pub proxy: ObservedProxy,
}

impl Claim {
    /// Which of the others has the better claim to the name that this one asks for.
    ///
    /// The name is whose device was given it, however old the others are: they may be in other namespaces, and ask for it
    /// long after. Where no device was, it goes by age. Times have whole seconds: of two in one second that which has a
    /// proxy came first, or else the one with the lower UID.
    pub fn taken_by(&self, others: impl IntoIterator<Item = Self>, settings: &Settings) -> Option<String> {
        let wanted = hostname_text(&self.service);
        let better = |other: &Self| {
            other.service.metadata.uid != self.service.metadata.uid
                && other.service.metadata.deletion_timestamp.is_none()
                && (other.proxy.was_given(&wanted) || other.could_have(&wanted, settings))
                && other.precedes(self, &wanted)
        };
        let other = others.into_iter().find(better)?.service;
        Some(format!("the Service {}/{}", other.namespace().unwrap_or_default(), other.name_any()))
    }

    /// Whether it asks for the name, and would get it if nobody else had it.
    fn could_have(&self, wanted: &str, settings: &Settings) -> bool {
        is_finalized(self.service.as_ref())
            && hostname_text(&self.service) == wanted
            && problems_of(&self.service, settings).is_empty()
    }

    fn precedes(&self, other: &Self, wanted: &str) -> bool {
        match (self.proxy.was_given(wanted), other.proxy.was_given(wanted)) {
            (true, false) => true,
            (false, true) => false,
            _ => self.came_before(other),
        }
    }

    fn came_before(&self, other: &Self) -> bool {
        let created = |claim: &Self| claim.service.metadata.creation_timestamp.clone().map(|time| time.0);
        match created(self).cmp(&created(other)) {
            Ordering::Less => true,
            Ordering::Equal => {
                !is_finalized(other.service.as_ref()) || self.service.metadata.uid < other.service.metadata.uid
            }
            Ordering::Greater => false,
        }
    }
}
