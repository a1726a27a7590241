use kubeapi::label::{self, ParentKind};
use kubeapi::{NodeConfig, name};
use serde_json::json;

use super::Next;
use crate::context::Context;
use crate::object::{Kind, Object};
use crate::owner::Owner;
use crate::provision::{self, ProvisionError, Site};
use crate::proxy::{ConfigPlace, ObservedProxy};

const MANAGER: &str = name::manager::API_SERVER_PROXY;

/// Whose the node of the API server's proxy is: the chart's workload, of which there is one.
pub(crate) fn owner() -> Owner {
    Owner {
        kind: ParentKind::ApiServerProxy,
        namespace: None,
        name: name::API_SERVER_PROXY_STATE.to_owned(),
        uid: name::API_SERVER_PROXY_STATE.to_owned(),
    }
}

/// Gives the API server's proxy its two Secrets and its way into the tailnet; its pod is the chart's.
pub(super) async fn reconcile(context: &Context) -> Result<Next, ProvisionError> {
    let settings = &context.settings;
    let Some(wanted) = &settings.api_server_proxy else { return Ok(None) };
    let observed = ObservedProxy {
        config: context.stores.secret(name::API_SERVER_PROXY_CONFIG),
        state: context.stores.secret(name::API_SERVER_PROXY_STATE),
        stateful_set: None,
    };
    let labels = owner().labels();
    let mut state_labels = json!(labels);
    state_labels[label::SECRET_TYPE] = json!(label::SECRET_STATE);
    let metadata = json!({"labels": state_labels});
    let state = Object::new(
        Kind::Secret,
        &settings.namespace,
        name::API_SERVER_PROXY_STATE,
        metadata,
        json!({"type": "Opaque"}),
    );
    context.writer.ensure(MANAGER, &state, observed.state.as_ref().map(|_| None)).await?;
    let site = Site {
        place: ConfigPlace {
            namespace: settings.namespace.clone(),
            name: name::API_SERVER_PROXY_CONFIG.to_owned(),
            labels,
        },
        state_secret: name::API_SERVER_PROXY_STATE.to_owned(),
        config: NodeConfig::of_proxy(&settings.login_server, wanted.hostname.as_str()),
        tags: crate::proxy::tag_texts(&wanted.tags),
        manager: MANAGER,
    };
    provision::credentials(context, &site, &observed).await
}
