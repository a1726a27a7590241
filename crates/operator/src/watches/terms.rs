//! What the objects of each kind are found by.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;
use kubeapi::annotation::credential;
use kubeapi::{Connector, NodeConfig, ProxyState, config_file_name, label};

use super::index::Term;
use super::is_finalized;
use crate::service;
use crate::settings::Settings;

/// A Service, by the host name that it asks for, and by its proxy.
pub(super) fn of_service(service: &Service, settings: &Settings) -> Vec<Term> {
    let finalized = is_finalized(service);
    let mut terms = Vec::new();
    if finalized || service::is_ours(service, settings) {
        terms.push(Term::Hostname(service::hostname_text(service)));
    }
    if finalized {
        terms.push(Term::Proxy(service::owner(service).base()));
    }
    terms
}

/// A Connector, by its UID: of a long name its objects have a part only.
pub(super) fn of_connector(connector: &Connector) -> Vec<Term> {
    connector.metadata.uid.clone().map(Term::Uid).into_iter().collect()
}

/// A proxy's Secret, by whom it was made for, by the device that is written down on it or that the proxy writes into it, and
/// by the host name that its device was given.
pub(super) fn of_secret(secret: &Secret) -> Vec<Term> {
    let mut terms: Vec<Term> = made_for(secret.labels().get(label::APP));
    terms.extend(secret.annotations().get(credential::DEVICE).cloned().map(Term::Device));
    let Some(data) = &secret.data else { return terms };
    terms.extend(ProxyState::read(data).device_id.map(Term::Device));
    let config = data.get(&config_file_name()).and_then(|file| NodeConfig::read(&file.0).ok());
    terms.extend(config.and_then(|config| config.hostname).map(Term::Hostname));
    terms
}

/// A StatefulSet, by whom it was made for.
pub(super) fn of_set(set: &StatefulSet) -> Vec<Term> {
    made_for(set.labels().get(label::APP))
}

fn made_for(uid: Option<&String>) -> Vec<Term> {
    uid.cloned().map(Term::Uid).into_iter().collect()
}
