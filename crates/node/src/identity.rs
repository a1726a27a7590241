use crypto::{Entropy, MachinePrivate, NodePrivate, SystemEntropy};
use mesh::Preferences;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tailcfg::{StableNodeId, UserProfile};

use crate::store::{StateChange, StateStore, StoreError};

const MACHINE_KEY: &str = "_machinekey";
const PROFILES: &str = "_profiles";
const CURRENT_PROFILE: &str = "_current-profile";

/// Who this node is, as the store keeps it: the machine's key, and the login with its keys and settings.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The machine's key, for life.
    pub(crate) machine: MachinePrivate,
    /// The name of the settings in the store.
    pub(crate) profile: String,
    /// What the user wants.
    pub(crate) preferences: Preferences,
    /// The node key, once the node has logged in or tries to.
    pub(crate) node_key: Option<NodePrivate>,
    /// The node key before, until the server has taken the new one.
    pub(crate) old_node_key: Option<NodePrivate>,
    /// Who logged in.
    pub(crate) user: UserProfile,
    /// The node's id for programs.
    pub(crate) node_id: StableNodeId,
}

/// What the settings hold besides preferences: the `Config` of the stock client's.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Persisted {
    private_node_key: String,
    old_private_node_key: String,
    user_profile: UserProfile,
    #[serde(rename = "NodeID")]
    node_id: StableNodeId,
}

impl Identity {
    /// Reads who this node is, or makes a new one and keeps it.
    pub(crate) async fn load(store: &dyn StateStore) -> Result<Self, StoreError> {
        let machine = match store.read(MACHINE_KEY).await? {
            Some(text) => private(&text, MACHINE_KEY, MachinePrivate::from_text)?,
            None => MachinePrivate::generate(&mut SystemEntropy),
        };
        let profile = store.read(CURRENT_PROFILE).await?.and_then(|name| String::from_utf8(name).ok());
        let profile = profile.filter(|name| !name.is_empty());
        let mut identity = Self {
            machine,
            profile: profile.clone().unwrap_or_else(new_profile_name),
            preferences: Preferences::default(),
            node_key: None,
            old_node_key: None,
            user: UserProfile::default(),
            node_id: StableNodeId::default(),
        };
        if let Some(text) = store.read(&identity.profile).await? {
            identity.read_profile(&text)?;
        }
        if profile.is_none() {
            identity.save(store).await?;
        }
        Ok(identity)
    }

    /// Keeps who this node is.
    pub(crate) async fn save(&self, store: &dyn StateStore) -> Result<(), StoreError> {
        let shape = |error: serde_json::Error| StoreError::Other(error.to_string());
        let mut profile = serde_json::to_value(&self.preferences).map_err(shape)?;
        let key = |key: &Option<NodePrivate>| match key {
            Some(key) => key.expose_text().to_string(),
            None => format!("{}{}", NodePrivate::PREFIX, "0".repeat(64)),
        };
        profile["Config"] = serde_json::to_value(Persisted {
            private_node_key: key(&self.node_key),
            old_private_node_key: key(&self.old_node_key),
            user_profile: self.user.clone(),
            node_id: self.node_id.clone(),
        })
        .map_err(shape)?;
        let profiles = json!({ self.profile.trim_start_matches("profile-"): self.login_profile() });
        let change: StateChange = [
            (MACHINE_KEY.to_owned(), Some(self.machine.expose_text().as_bytes().to_vec())),
            (CURRENT_PROFILE.to_owned(), Some(self.profile.clone().into_bytes())),
            (PROFILES.to_owned(), Some(serde_json::to_vec(&profiles).map_err(shape)?)),
            (self.profile.clone(), Some(serde_json::to_vec(&profile).map_err(shape)?)),
        ]
        .into();
        store.write(&change).await
    }

    /// The settings as lists of them show them (`ipn.LoginProfile`).
    pub(crate) fn login_profile(&self) -> Value {
        json!({
            "ID": self.profile.trim_start_matches("profile-"),
            "Name": if self.preferences.profile_name.is_empty() { &self.user.login_name } else { &self.preferences.profile_name },
            "NetworkProfile": {"MagicDNSName": "", "DomainName": "", "DisplayName": ""},
            "Key": self.profile,
            "UserProfile": self.user,
            "NodeID": self.node_id,
            "LocalUserID": "",
            "ControlURL": self.preferences.control_url,
        })
    }

    fn read_profile(&mut self, text: &[u8]) -> Result<(), StoreError> {
        let malformed =
            |reason: String| StoreError::Other(format!("the state's {} can't be read: {reason}", self.profile));
        let value: Value = serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        let persisted: Persisted = match value.get("Config") {
            None | Some(Value::Null) => Persisted::default(),
            Some(config) => serde_json::from_value(config.clone()).map_err(|error| malformed(error.to_string()))?,
        };
        let key = |text: &str| match text {
            "" => Ok(None),
            text if text.trim_start_matches(NodePrivate::PREFIX).chars().all(|digit| digit == '0') => Ok(None),
            text => NodePrivate::from_text(text).map(Some).map_err(|error| malformed(error.to_string())),
        };
        let (node_key, old_node_key) = (key(&persisted.private_node_key)?, key(&persisted.old_private_node_key)?);
        let preferences = Preferences::read(value).map_err(|error| malformed(error.to_string()))?;
        self.preferences = preferences;
        self.node_key = node_key;
        self.old_node_key = old_node_key;
        self.user = persisted.user_profile;
        self.node_id = persisted.node_id;
        Ok(())
    }
}

fn private<K>(text: &[u8], name: &str, read: fn(&str) -> Result<K, crypto::KeyTextError>) -> Result<K, StoreError> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    read(text.trim()).map_err(|error| StoreError::Other(format!("the state's {name} is no key: {error}")))
}

fn new_profile_name() -> String {
    let random = SystemEntropy.bytes32();
    let number = random.iter().take(2).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("profile-{number:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn an_identity_survives_a_restart() {
        let store = MemoryStore::default();
        let mut identity = Identity::load(&store).await.unwrap();
        identity.preferences.hostname = "laptop".to_owned();
        identity.node_key = Some(NodePrivate::generate(&mut SystemEntropy));
        identity.save(&store).await.unwrap();
        let again = Identity::load(&store).await.unwrap();
        assert_eq!(again.machine.public(), identity.machine.public());
        assert_eq!(again.profile, identity.profile);
        assert_eq!(again.preferences, identity.preferences);
        let public = |key: &Option<NodePrivate>| key.as_ref().map(NodePrivate::public);
        assert_eq!(public(&again.node_key), public(&identity.node_key));
        assert_eq!(public(&again.old_node_key), None);
    }

    #[tokio::test]
    async fn a_broken_key_is_an_error_and_not_a_new_node() {
        let store = MemoryStore::default();
        Identity::load(&store).await.unwrap();
        store.write(&[(MACHINE_KEY.to_owned(), Some(b"privkey:12".to_vec()))].into()).await.unwrap();
        let error = Identity::load(&store).await.unwrap_err().to_string();
        assert!(error.starts_with("the state's _machinekey is no key"), "{error}");
    }
}
