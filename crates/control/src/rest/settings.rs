//! Settings and services in the API's words.

use api::{
    ApiError, ExternalTailnets, ServiceList, SetTailnetNames, TailnetNames, TailnetSettings, VirtualService,
    WriteFeatureSettings, WriteNetworkLogs, WriteNetworkingSettings, WritePolicy, WriteSettings,
};
use tailnet::{Command, Domain, DomainError, Service, Settings, SettingsPatch, Tailnet, TailnetRecord};

use super::By;

/// The settings. What this server does not offer is off.
pub(super) fn show(settings: &Settings) -> TailnetSettings {
    TailnetSettings {
        acls_externally_managed_on: Some(false),
        acls_external_link: Some(settings.policy_link.clone()),
        devices_approval_on: Some(settings.devices_approval),
        devices_auto_updates_on: Some(false),
        devices_key_duration_days: Some(settings.key_duration_days),
        users_approval_on: Some(settings.users_approval),
        users_role_allowed_to_join_external_tailnets: Some(ExternalTailnets::None),
        network_flow_logging_on: Some(false),
        regional_routing_on: Some(false),
        posture_identity_collection_on: Some(false),
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
    let feature = set.devices_approval_on.is_some()
        || set.devices_auto_updates_on.is_some()
        || set.devices_key_duration_days.is_some()
        || set.users_approval_on.is_some()
        || set.users_role_allowed_to_join_external_tailnets.is_some()
        || set.posture_identity_collection_on.is_some()
        || set.https_enabled.is_some();
    if feature {
        by.also::<WriteFeatureSettings>()?;
    }
    refuse_what_is_not_offered(&set)?;
    Ok(SettingsPatch {
        devices_approval: set.devices_approval_on,
        users_approval: set.users_approval_on,
        key_duration_days: set.devices_key_duration_days,
        https: set.https_enabled,
        policy_link: set.acls_external_link,
    })
}

/// Refuses to turn on what would change nothing. Turning it off is what it is, and programs that send all settings do.
fn refuse_what_is_not_offered(set: &TailnetSettings) -> Result<(), ApiError> {
    let joining = set.users_role_allowed_to_join_external_tailnets.is_some_and(|role| role != ExternalTailnets::None);
    let wanted = [
        ("aclsExternallyManagedOn", set.acls_externally_managed_on == Some(true)),
        ("devicesAutoUpdatesOn", set.devices_auto_updates_on == Some(true)),
        ("usersRoleAllowedToJoinExternalTailnets", joining),
        ("networkFlowLoggingOn", set.network_flow_logging_on == Some(true)),
        ("regionalRoutingOn", set.regional_routing_on == Some(true)),
        ("postureIdentityCollectionOn", set.posture_identity_collection_on == Some(true)),
    ];
    match wanted.into_iter().find(|(_, wanted)| *wanted) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::new(
            http::StatusCode::NOT_IMPLEMENTED,
            format!("{name} is not served by this server yet, so it can't be turned on; nothing was changed"),
        )),
    }
}

/// What a tailnet is called.
pub(super) fn names(record: &TailnetRecord) -> TailnetNames {
    TailnetNames { name: record.name.clone(), domain: record.domain.to_string() }
}

/// The command that gives a tailnet other names; what is not named stays.
pub(super) fn set_names(set: SetTailnetNames) -> Result<Command, ApiError> {
    let read =
        |text: String| text.parse::<Domain>().map_err(|error: DomainError| ApiError::bad_request(error.to_string()));
    Ok(Command::SetNames { name: set.name, domain: set.domain.map(read).transpose()? })
}

/// All services in the API's words.
pub(super) fn services(tailnet: &Tailnet) -> ServiceList {
    ServiceList { vip_services: tailnet.services().map(service).collect() }
}

/// A service in the API's words, by its name.
pub(super) fn find_service(tailnet: &Tailnet, name: &str) -> Result<VirtualService, ApiError> {
    let found = tailnet.services().find(|known| known.name.as_str() == name);
    found.map(service).ok_or_else(|| ApiError::not_found("there is no such service in this tailnet"))
}

/// A virtual service.
fn service(service: &Service) -> VirtualService {
    VirtualService {
        name: service.name.to_string(),
        addrs: service.addresses.both().iter().map(ToString::to_string).collect(),
        comment: service.comment.clone(),
        annotations: service.annotations.clone(),
        ports: service.ports.clone(),
        tags: service.tags.iter().map(ToString::to_string).collect(),
    }
}
