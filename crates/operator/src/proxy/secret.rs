use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kubeapi::annotation::credential as note;
use kubeapi::{NodeConfig, Tag, config_file_name, label, name};
use serde_json::{Value, json};

use super::Proxy;
use crate::object::{Kind, Object};
use crate::settings::Settings;

/// What the operator wrote down about a proxy's credentials, on its config Secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CredentialRecord {
    /// How often a key was asked for.
    pub attempt: u32,
    /// The id of the last key, unless it was never told us.
    pub key_id: Option<String>,
    /// When that key was made.
    pub minted: Option<Timestamp>,
    /// When it stops to work.
    pub expires: Option<Timestamp>,
    /// The tags that it lets in with.
    pub tags: Vec<String>,
    /// The device that the proxy was last seen to be.
    pub device: Option<String>,
    /// The key, while it is in the configuration.
    pub auth_key: Option<String>,
}

impl CredentialRecord {
    /// Reads what stands on a config Secret.
    pub fn read(secret: &Secret) -> Self {
        let empty = BTreeMap::new();
        let notes = secret.metadata.annotations.as_ref().unwrap_or(&empty);
        let text = |key: &str| notes.get(key).filter(|value| !value.is_empty()).cloned();
        let time = |key: &str| text(key).and_then(|value| value.parse().ok());
        let file = secret.data.as_ref().and_then(|data| data.get(&config_file_name()));
        let config = file.and_then(|file| NodeConfig::read(&file.0).ok());
        Self {
            attempt: text(note::ATTEMPT).and_then(|value| value.parse().ok()).unwrap_or_default(),
            key_id: text(note::KEY_ID),
            minted: time(note::MINTED),
            expires: time(note::EXPIRES),
            tags: text(note::TAGS).map(|tags| tags.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            device: text(note::DEVICE),
            auth_key: config.and_then(|config| config.auth_key),
        }
    }

    /// The description by which the key of this attempt is found again: within what the API takes, 50 characters of
    /// letters, digits, spaces and hyphens.
    pub fn description(secret_uid: &str, attempt: u32) -> String {
        format!("towline {secret_uid} {attempt}")
    }

    fn annotations(&self) -> Value {
        let mut notes = json!({});
        let mut note = |key: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                notes[key] = json!(value);
            }
        };
        note(note::ATTEMPT, Some(self.attempt).filter(|attempt| *attempt > 0).map(|attempt| attempt.to_string()));
        note(note::KEY_ID, self.key_id.clone());
        note(note::MINTED, self.minted.map(|time| time.to_string()));
        note(note::EXPIRES, self.expires.map(|time| time.to_string()));
        note(note::TAGS, Some(self.tags.join(",")));
        note(note::DEVICE, self.device.clone());
        notes
    }
}

impl std::fmt::Debug for CredentialRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialRecord")
            .field("attempt", &self.attempt)
            .field("key_id", &self.key_id)
            .field("device", &self.device)
            .field("has_key", &self.auth_key.is_some())
            .finish_non_exhaustive()
    }
}

/// Where and for whom a config Secret is.
pub(crate) struct ConfigPlace {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The Secret through which kubelet shows the pod its configuration.
pub(crate) fn config_object(place: &ConfigPlace, mut config: NodeConfig, record: &CredentialRecord) -> Object {
    config.auth_key.clone_from(&record.auth_key);
    let mut labels = json!(place.labels);
    labels[label::SECRET_TYPE] = json!(label::SECRET_CONFIG);
    let metadata = json!({"labels": labels, "annotations": record.annotations()});
    let data = json!({"type": "Opaque", "data": {config_file_name(): k8s_openapi::ByteString(config.write())}});
    Object::new(Kind::Secret, &place.namespace, &place.name, metadata, data)
}

/// The Secret that the proxy keeps its state in; the operator writes nothing into it.
pub fn state_secret(proxy: &Proxy, settings: &Settings) -> Object {
    let mut labels = json!(proxy.labels());
    labels[label::SECRET_TYPE] = json!(label::SECRET_STATE);
    let name = name::state_secret(&proxy.name());
    Object::new(Kind::Secret, &settings.namespace, &name, json!({"labels": labels}), json!({"type": "Opaque"}))
}

/// Tags as the API and the record have them.
pub(crate) fn tag_texts(tags: &[Tag]) -> Vec<String> {
    tags.iter().map(|tag| tag.as_str().to_owned()).collect()
}
