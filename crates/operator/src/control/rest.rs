use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{
    Client, ClientConfig, ClientCredential, ClientError, CreateDevices, CreateKey, DeviceCapabilities, DeviceFields,
    InTailnet, Json, KeyCapabilities, KeyQuery, OfDevice, OfKey, SecretText,
};
use async_trait::async_trait;
use dial::{Resolve, Roots};

use super::{ControlError, Devices, Keys, MintedKey};
use crate::proxy::KeyHealth;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where the OAuth client's id and secret are read from, anew for every call: they may be changed while we run.
#[derive(Clone)]
pub enum Credentials {
    /// Two files, as a mounted Secret has them.
    Files {
        /// The file with the id.
        id: PathBuf,
        /// The file with the secret.
        secret: PathBuf,
    },
    /// As they are.
    Given {
        /// The id.
        id: String,
        /// The secret.
        secret: SecretText,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files { id, secret } => f.debug_struct("Files").field("id", id).field("secret", secret).finish(),
            Self::Given { id, .. } => f.debug_struct("Given").field("id", id).finish_non_exhaustive(),
        }
    }
}

/// Where the server is and how it is reached.
#[derive(Clone)]
pub struct RestSettings {
    /// Its URL.
    pub url: String,
    /// What we prove our right with.
    pub credentials: Credentials,
    /// Who is believed to be the server.
    pub roots: Roots,
    /// Who turns its name into addresses.
    pub resolver: Arc<dyn Resolve>,
}

/// A coordination server by its REST API v2.
pub struct RestControl {
    settings: RestSettings,
    client: Mutex<Option<Session>>,
}

/// A client, and the credential that it was made with.
struct Session {
    id: String,
    secret: SecretText,
    client: Arc<Client>,
}

impl RestControl {
    /// Makes one; nothing is asked and no file is read yet.
    pub fn new(settings: RestSettings) -> Self {
        Self { settings, client: Mutex::new(None) }
    }

    /// Whether there is a credential that the server takes.
    pub async fn probe(&self) -> Result<(), ControlError> {
        self.client().await?.list_keys(&InTailnet::own(), &KeyQuery::default()).await.map(drop).map_err(refused)
    }

    /// Makes a key for one device with these tags, which is of no use after so many seconds.
    ///
    /// # Errors
    ///
    /// When there is no credential, or the server does not take it or does not give a key.
    pub async fn mint_for(
        &self,
        description: &str,
        tags: &[String],
        seconds: Option<i64>,
    ) -> Result<MintedKey, ControlError> {
        let create = CreateDevices { reusable: false, ephemeral: false, preauthorized: true, tags: tags.to_vec() };
        let request = CreateKey {
            description: description.to_owned(),
            capabilities: Some(KeyCapabilities { devices: DeviceCapabilities { create } }),
            expiry_seconds: seconds,
            ..CreateKey::default()
        };
        let Json(key) = self.client().await?.create_key(&InTailnet::own(), &Json(request)).await.map_err(|error| {
            let error = refused(error);
            ControlError { message: format!("no auth key for {}: {}", tags.join(","), error.message), ..error }
        })?;
        if key.key.is_empty() || key.id.is_empty() {
            return Err(ControlError {
                message: "the coordination server's answer holds no auth key".to_owned(),
                passing: false,
            });
        }
        Ok(MintedKey { id: key.id, secret: key.key, expires: key.expires })
    }

    async fn client(&self) -> Result<Arc<Client>, ControlError> {
        let (id, secret) = self.credential().await?;
        let mut session = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = session.as_ref()
            && session.id == id
            && session.secret.expose() == secret.expose()
        {
            return Ok(session.client.clone());
        }
        let config = ClientConfig {
            base_url: self.settings.url.clone(),
            credential: ClientCredential::OauthClient { id: id.clone(), secret: secret.clone(), scopes: Vec::new() },
            roots: self.settings.roots.clone(),
            resolver: self.settings.resolver.clone(),
            user_agent: concat!("towline-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: TIMEOUT,
        };
        let client = Arc::new(Client::new(config).map_err(refused)?);
        *session = Some(Session { id, secret, client: client.clone() });
        Ok(client)
    }

    async fn credential(&self) -> Result<(String, SecretText), ControlError> {
        match &self.settings.credentials {
            Credentials::Given { id, secret } => Ok((id.clone(), secret.clone())),
            Credentials::Files { id, secret } => Ok((read(id).await?, SecretText::from(read(secret).await?))),
        }
    }
}

async fn read(path: &PathBuf) -> Result<String, ControlError> {
    let missing = |reason: String| ControlError {
        message: format!(
            "the OAuth client's credential {} can't be read ({reason}): is the Secret operator-oauth there, with client_id and client_secret?",
            path.display()
        ),
        passing: true,
    };
    let text = tokio::fs::read_to_string(path).await.map_err(|error| missing(error.to_string()))?;
    match text.trim() {
        "" => Err(missing("it is empty".to_owned())),
        text => Ok(text.to_owned()),
    }
}

fn refused(error: ClientError) -> ControlError {
    let unauthorized = error.status() == Some(http::StatusCode::UNAUTHORIZED);
    let message = match &error {
        ClientError::Refused(_) if unauthorized => {
            format!("the coordination server does not take the OAuth client's credential: {error}")
        }
        ClientError::Refused(_) => format!("the coordination server refused: {error}"),
        _ => format!("the coordination server: {error}"),
    };
    // Another secret may come at any time.
    ControlError { message, passing: error.is_transient() || unauthorized }
}

#[async_trait]
impl Keys for RestControl {
    async fn mint(&self, description: &str, tags: &[String]) -> Result<MintedKey, ControlError> {
        self.mint_for(description, tags, None).await
    }

    async fn health(&self, id: &str) -> Result<KeyHealth, ControlError> {
        let at = OfKey { tailnet: "-".to_owned(), key: id.to_owned() };
        match self.client().await?.get_key(&at).await {
            Ok(Json(key)) if key.invalid || key.revoked.is_some() => Ok(KeyHealth::Spent),
            Ok(_) => Ok(KeyHealth::Usable),
            Err(error) if error.is_not_found() => Ok(KeyHealth::Spent),
            Err(error) => Err(refused(error)),
        }
    }

    async fn find(&self, description: &str) -> Result<Vec<String>, ControlError> {
        let Json(list) =
            self.client().await?.list_keys(&InTailnet::own(), &KeyQuery::default()).await.map_err(refused)?;
        let same =
            list.keys.into_iter().filter(|key| key.description == description && !key.invalid && key.revoked.is_none());
        Ok(same.map(|key| key.id).collect())
    }

    async fn revoke(&self, id: &str) -> Result<(), ControlError> {
        let at = OfKey { tailnet: "-".to_owned(), key: id.to_owned() };
        gone(self.client().await?.delete_key(&at).await)
    }
}

#[async_trait]
impl Devices for RestControl {
    async fn tags(&self, id: &str) -> Result<Option<Vec<String>>, ControlError> {
        let at = OfDevice { device: id.to_owned() };
        match self.client().await?.get_device(&at, &DeviceFields::default()).await {
            Ok(Json(device)) => Ok(Some(device.tags)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), ControlError> {
        gone(self.client().await?.delete_device(&OfDevice { device: id.to_owned() }).await)
    }
}

fn gone<T>(outcome: Result<T, ClientError>) -> Result<(), ControlError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(refused(error)),
    }
}
