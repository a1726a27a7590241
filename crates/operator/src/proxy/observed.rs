use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kubeapi::{NodeConfig, ProxyState, TargetProblem, config_file_name, label};

use super::{CredentialRecord, Target};

/// What there is of a proxy.
#[derive(Debug, Clone, Default)]
pub struct ObservedProxy {
    /// Its configuration.
    pub config: Option<Arc<Secret>>,
    /// Its state.
    pub state: Option<Arc<Secret>>,
    /// Its pod's StatefulSet.
    pub stateful_set: Option<Arc<StatefulSet>>,
}

/// How far a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It carries traffic.
    Ready,
    /// It does not, because of this.
    Waiting(&'static str),
}

impl ObservedProxy {
    /// What the operator wrote down about its credentials.
    pub fn record(&self) -> CredentialRecord {
        self.config.as_deref().map(CredentialRecord::read).unwrap_or_default()
    }

    /// What it says about itself.
    pub fn said(&self) -> ProxyState {
        self.state.as_ref().and_then(|secret| secret.data.as_ref()).map(ProxyState::read).unwrap_or_default()
    }

    /// Whether the operator gave its device this host name.
    pub fn was_given(&self, hostname: &str) -> bool {
        let file = self.config.as_ref().and_then(|secret| secret.data.as_ref()?.get(&config_file_name()));
        let Some(file) = file.filter(|_| !hostname.is_empty()) else { return false };
        // Of thousands of proxies hardly one has the name: the others are not worth parsing.
        let mentions = file.0.windows(hostname.len()).any(|part| part == hostname.as_bytes());
        mentions && NodeConfig::read(&file.0).is_ok_and(|config| config.hostname.as_deref() == Some(hostname))
    }

    /// The UID of another owner than this one, for whom something of it was made: two names are the same.
    pub fn stranger(&self, uid: &str) -> Option<String> {
        let secrets = [&self.config, &self.state].into_iter().flatten().map(|secret| &secret.metadata);
        let all = secrets.chain(self.stateful_set.iter().map(|set| &set.metadata));
        let owners = all.filter_map(|metadata| metadata.labels.as_ref()?.get(label::APP));
        owners.into_iter().find(|owner| *owner != uid).cloned()
    }

    /// Whether it carries traffic: its device is in, and its pod, as it was last changed, says that it is ready.
    pub fn progress(&self) -> Progress {
        let said = self.said();
        if self.stateful_set.is_none() {
            return Progress::Waiting("its objects are being made");
        }
        if said.reissue.is_some() {
            return Progress::Waiting("the coordination server did not let its device in; it gets another auth key");
        }
        if said.device_id.is_none() {
            return Progress::Waiting("its pod has not joined the tailnet yet");
        }
        if !said.is_logged_in() {
            return Progress::Waiting("its device is registered and has no address yet");
        }
        if !self.pod_is_ready() {
            return Progress::Waiting("its device is in the tailnet, and its pod is not ready yet");
        }
        Progress::Ready
    }

    /// Why nothing of the tailnet leads to an egress' target, as its device says that is in: it knows before its pod's
    /// probe shows it. What it said of another target counts for nothing.
    pub fn misses(&self, target: &Target) -> Option<TargetProblem> {
        let said = self.said();
        let missing = said.missing_target.as_ref().filter(|_| self.stateful_set.is_some() && said.is_logged_in())?;
        missing.is_about(&target.to_string()).then_some(missing.problem)
    }

    /// Whether the one pod is the newest and ready.
    pub fn pod_is_ready(&self) -> bool {
        let Some(set) = self.stateful_set.as_deref() else { return false };
        let Some(status) = set.status.as_ref() else { return false };
        let seen = status.observed_generation >= set.metadata.generation;
        let newest = status.update_revision.is_none() || status.update_revision == status.current_revision;
        seen && newest && status.ready_replicas.unwrap_or_default() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_for_another_object_is_told_from_ones_own() {
        let made = |uid: &str| {
            let mut secret = Secret::default();
            secret.metadata.labels = Some([(label::APP.to_owned(), uid.to_owned())].into());
            Some(Arc::new(secret))
        };
        let proxy = ObservedProxy { config: made("1"), state: made("2"), stateful_set: None };
        assert_eq!(proxy.stranger("1").as_deref(), Some("2"));
        assert_eq!(ObservedProxy { state: None, ..proxy }.stranger("1"), None);
        assert_eq!(ObservedProxy::default().stranger("1"), None);
    }
}
