//! Settings and services in the API's words.

use api::{
    ApiError, ExternalTailnets, TailnetSettings, VirtualService, WriteFeatureSettings, WriteNetworkLogs,
    WriteNetworkingSettings, WritePolicy, WriteSettings,
};
use tailnet::{ExternalRole, Service, Settings, SettingsPatch};

use super::By;

/// The settings.
pub(super) fn show(settings: &Settings) -> TailnetSettings {
    TailnetSettings {
        acls_externally_managed_on: Some(settings.policy_managed_elsewhere),
        acls_external_link: Some(settings.policy_link.clone()),
        devices_approval_on: Some(settings.devices_approval),
        devices_auto_updates_on: Some(settings.auto_updates),
        devices_key_duration_days: Some(settings.key_duration_days),
        users_approval_on: Some(settings.users_approval),
        users_role_allowed_to_join_external_tailnets: Some(match settings.external_role {
            ExternalRole::None => ExternalTailnets::None,
            ExternalRole::Admin => ExternalTailnets::Admin,
            ExternalRole::Member => ExternalTailnets::Member,
        }),
        network_flow_logging_on: Some(settings.flow_logging),
        regional_routing_on: Some(settings.regional_routing),
        posture_identity_collection_on: Some(settings.posture_identity),
        https_enabled: Some(settings.https),
    }
}

/// What is to be changed, if the caller may change each part of it.
pub(super) fn patch(by: &By<WriteSettings>, set: TailnetSettings) -> Result<SettingsPatch, ApiError> {
    if set.acls_externally_managed_on.is_some() || set.acls_external_link.is_some() {
        by.also::<WritePolicy>()?;
    }
    if set.network_flow_logging_on.is_some() {
        by.also::<WriteNetworkLogs>()?;
    }
    if set.regional_routing_on.is_some() {
        by.also::<WriteNetworkingSettings>()?;
    }
    let patch = SettingsPatch {
        devices_approval: set.devices_approval_on,
        users_approval: set.users_approval_on,
        key_duration_days: set.devices_key_duration_days,
        https: set.https_enabled,
        auto_updates: set.devices_auto_updates_on,
        posture_identity: set.posture_identity_collection_on,
        external_role: set.users_role_allowed_to_join_external_tailnets.map(|role| match role {
            ExternalTailnets::None => ExternalRole::None,
            ExternalTailnets::Admin => ExternalRole::Admin,
            ExternalTailnets::Member => ExternalRole::Member,
        }),
        ..SettingsPatch::default()
    };
    if patch != SettingsPatch::default() {
        by.also::<WriteFeatureSettings>()?;
    }
    Ok(SettingsPatch {
        flow_logging: set.network_flow_logging_on,
        regional_routing: set.regional_routing_on,
        policy_managed_elsewhere: set.acls_externally_managed_on,
        policy_link: set.acls_external_link,
        ..patch
    })
}

/// A virtual service.
pub(super) fn service(service: &Service) -> VirtualService {
    VirtualService {
        name: service.name.to_string(),
        addrs: service.addresses.both().iter().map(ToString::to_string).collect(),
        comment: service.comment.clone(),
        annotations: service.annotations.clone(),
        ports: service.ports.clone(),
        tags: service.tags.iter().map(ToString::to_string).collect(),
    }
}
