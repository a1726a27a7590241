use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use node::StateChange;
use serde_json::{Map, Value, json};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(15);

/// One Secret of the API server: the only object that a proxy's account may touch, by `get` and `patch`.
pub(super) struct Remote {
    secrets: Api<Secret>,
    namespace: String,
    name: String,
}

/// Why the Secret was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error(
        "there is no Secret {namespace}/{name}; the operator makes it, or that of the API server's proxy its chart"
    )]
    Missing { namespace: String, name: String },
    #[error(
        "the API server does not allow this proxy's account to use the Secret {namespace}/{name}: {message}; its Role \
         needs the verbs get and patch for it"
    )]
    Forbidden { namespace: String, name: String, message: String },
    #[error("the Secret {namespace}/{name} is another one than before: {message}")]
    Conflict { namespace: String, name: String, message: String },
    #[error("the API server refuses the state in {namespace}/{name} ({code}): {message}")]
    Refused { namespace: String, name: String, code: u16, message: String },
    #[error("the API server does not answer: {0}")]
    Away(String),
}

impl Remote {
    pub(super) fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { secrets: Api::namespaced(client, namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The Secret's UID and everything in it.
    pub(super) async fn read(&self) -> Result<(Option<String>, BTreeMap<String, Vec<u8>>), RemoteError> {
        let secret = self.within(self.secrets.get(&self.name)).await?;
        let data = secret.data.unwrap_or_default();
        Ok((secret.metadata.uid, data.into_iter().map(|(name, ByteString(value))| (name, value)).collect()))
    }

    /// Sets and removes keys, in the Secret with this UID and in no other.
    pub(super) async fn patch(&self, uid: Option<&str>, change: &StateChange) -> Result<(), RemoteError> {
        let value = |value: &Option<Vec<u8>>| match value {
            // A list of bytes always has a JSON form, as base64.
            Some(bytes) => serde_json::to_value(ByteString(bytes.clone())).unwrap_or(Value::Null),
            None => Value::Null,
        };
        let data: Map<String, Value> = change.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect();
        let mut patch = json!({ "data": data });
        if let Some(uid) = uid {
            patch["metadata"] = json!({ "uid": uid });
        }
        let parameters = PatchParams::default();
        self.within(self.secrets.patch(&self.name, &parameters, &Patch::Merge(&patch))).await?;
        Ok(())
    }

    async fn within<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, RemoteError> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        match tokio::time::timeout(REQUEST, request).await {
            Err(_) => Err(RemoteError::Away(format!("no answer within {} s", REQUEST.as_secs()))),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => {
                let message = status.message.clone();
                Err(match status.code {
                    404 => RemoteError::Missing { namespace, name },
                    401 | 403 => RemoteError::Forbidden { namespace, name, message },
                    409 => RemoteError::Conflict { namespace, name, message },
                    code @ (408 | 429 | 500..) => RemoteError::Away(format!("it says {code}: {message}")),
                    code => RemoteError::Refused { namespace, name, code, message },
                })
            }
            Ok(Err(error)) => Err(RemoteError::Away(dial::causes(&error))),
        }
    }
}
