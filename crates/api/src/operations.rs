//! The table of operations: everything else about them is made from it.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use http::Method;

use crate::client::{Client, ClientError};
use crate::exchange::{Content, Done, Json, Payload, Reply};
use crate::operation::{Description, Operation, operations};
use crate::query::{Parameter, Query};
use crate::server::{Call, Peer, answering};
use crate::*;

operations! {
    /// Lists the devices of a tailnet.
    "Devices" "listTailnetDevices" list_devices: GET "/tailnet/{tailnet}/devices",
        by ReadDevices, at InTailnet, query DeviceQuery => Json<DeviceList>;
    /// Shows a device.
    "Devices" "getDevice" get_device: GET "/device/{deviceId}",
        by ReadDevices, at OfDevice, query DeviceFields => Json<Device>;
    /// Removes a device from its tailnet.
    "Devices" "deleteDevice" delete_device: DELETE "/device/{deviceId}",
        by WriteDevices, at OfDevice => Done;
    /// Ends a device's key now, so that its user must log in again.
    "Devices" "expireDeviceKey" expire_device: POST "/device/{deviceId}/expire",
        by WriteDevices, at OfDevice => Done;
    /// Shows the routes that a device offers and those that others may use.
    "Devices" "listDeviceRoutes" list_device_routes: GET "/device/{deviceId}/routes",
        by ReadRoutes, at OfDevice => Json<DeviceRoutes>;
    /// Says which routes of a device others may use.
    "Devices" "setDeviceRoutes" set_device_routes: POST "/device/{deviceId}/routes",
        by WriteRoutes, at OfDevice, payload Json<SetDeviceRoutes> => Json<DeviceRoutes>;
    /// Lets a device in, or keeps it out.
    "Devices" "authorizeDevice" authorize_device: POST "/device/{deviceId}/authorized",
        by WriteDevices, at OfDevice, payload Json<AuthorizeDevice> => Done;
    /// Names a device.
    "Devices" "setDeviceName" set_device_name: POST "/device/{deviceId}/name",
        by WriteDevices, at OfDevice, payload Json<SetDeviceName> => Done;
    /// Tags a device.
    "Devices" "setDeviceTags" set_device_tags: POST "/device/{deviceId}/tags",
        by WriteDevices, at OfDevice, payload Json<SetDeviceTags> => Done;
    /// Says whether a device's key expires.
    "Devices" "updateDeviceKey" set_device_key: POST "/device/{deviceId}/key",
        by WriteDevices, at OfDevice, payload Json<SetDeviceKey> => Done;
    /// Asks a device to show that it is there, or to ping a peer. An extension of the official API.
    "Devices" "pingDevice" ping_device: POST "/device/{deviceId}/ping",
        by ReadDevices, at OfDevice, payload Json<PingDevice> => Json<DevicePing>;

    /// Lists the keys of a tailnet that the caller may see.
    "Keys" "listTailnetKeys" list_keys: GET "/tailnet/{tailnet}/keys",
        by OrOwn<ReadKeys>, at InTailnet, query KeyQuery => Json<KeyList>;
    /// Makes an auth key, an OAuth client or an API access token.
    "Keys" "createKey" create_key: POST "/tailnet/{tailnet}/keys",
        by OrOwn<WriteKeys>, at InTailnet, payload Json<CreateKey> => Json<Key>;
    /// Shows a key, without its secret.
    "Keys" "getKey" get_key: GET "/tailnet/{tailnet}/keys/{keyId}",
        by OrOwn<ReadKeys>, at OfKey => Json<Key>;
    /// Takes a key away.
    "Keys" "deleteKey" delete_key: DELETE "/tailnet/{tailnet}/keys/{keyId}",
        by OrOwn<WriteKeys>, at OfKey => Done;

    /// Shows the policy file.
    "Policy file" "getPolicyFile" get_policy: GET "/tailnet/{tailnet}/acl",
        by ReadPolicy, at InTailnet, query PolicyQuery, payload PolicyForm => PolicyDocument;
    /// Puts a policy file in force.
    "Policy file" "setPolicyFile" set_policy: POST "/tailnet/{tailnet}/acl",
        by WritePolicy, at InTailnet, payload PolicyUpload => PolicyDocument;
    /// Shows which rules of a policy file concern a user or an address.
    "Policy file" "previewRuleMatches" preview_policy: POST "/tailnet/{tailnet}/acl/preview",
        by ReadPolicy, at InTailnet, query PreviewQuery, payload PolicyText => Json<PolicyPreview>;
    /// Checks a policy file with its tests, or runs tests against the policy in force.
    "Policy file" "validateAndTestPolicyFile" validate_policy: POST "/tailnet/{tailnet}/acl/validate",
        by ReadPolicy, at InTailnet, payload PolicyCheck => Json<PolicyVerdict>;
    /// Tells why something is allowed or not. An extension of the official API.
    "Policy file" "explainPolicy" explain_policy: GET "/tailnet/{tailnet}/acl/why",
        by ReadPolicy, at InTailnet, query WhyQuery => Json<PolicyExplanation>;
    /// Lists the policy files that were in force. An extension of the official API.
    "Policy file" "listPolicyHistory" policy_history: GET "/tailnet/{tailnet}/acl/history",
        by ReadPolicy, at InTailnet, query HistoryQuery => Json<PolicyHistory>;

    /// Lists the resolvers that every device uses.
    "DNS" "listDnsNameservers" list_nameservers: GET "/tailnet/{tailnet}/dns/nameservers",
        by ReadDns, at InTailnet => Json<DnsNameservers>;
    /// Says which resolvers every device uses.
    "DNS" "setDnsNameservers" set_nameservers: POST "/tailnet/{tailnet}/dns/nameservers",
        by WriteDns, at InTailnet, payload Json<DnsNameservers> => Json<DnsNameserversSet>;
    /// Shows whether names of the tailnet resolve.
    "DNS" "getDnsPreferences" get_dns_preferences: GET "/tailnet/{tailnet}/dns/preferences",
        by ReadDns, at InTailnet => Json<DnsPreferences>;
    /// Says whether names of the tailnet resolve.
    "DNS" "setDnsPreferences" set_dns_preferences: POST "/tailnet/{tailnet}/dns/preferences",
        by WriteDns, at InTailnet, payload Json<DnsPreferences> => Json<DnsPreferences>;
    /// Lists the domains that a short name is tried in.
    "DNS" "listDnsSearchPaths" list_search_paths: GET "/tailnet/{tailnet}/dns/searchpaths",
        by ReadDns, at InTailnet => Json<DnsSearchPaths>;
    /// Says which domains a short name is tried in.
    "DNS" "setDnsSearchPaths" set_search_paths: POST "/tailnet/{tailnet}/dns/searchpaths",
        by WriteDns, at InTailnet, payload Json<DnsSearchPaths> => Json<DnsSearchPaths>;
    /// Shows the domains that have resolvers of their own.
    "DNS" "getSplitDns" get_split_dns: GET "/tailnet/{tailnet}/dns/split-dns",
        by ReadDns, at InTailnet => Json<SplitDns>;
    /// Changes the resolvers of some domains.
    "DNS" "updateSplitDns" update_split_dns: PATCH "/tailnet/{tailnet}/dns/split-dns",
        by WriteDns, at InTailnet, payload Json<SplitDns> => Json<SplitDns>;
    /// Says which domains have resolvers of their own.
    "DNS" "setSplitDns" set_split_dns: PUT "/tailnet/{tailnet}/dns/split-dns",
        by WriteDns, at InTailnet, payload Json<SplitDns> => Json<SplitDns>;
    /// Shows everything about names.
    "DNS" "getDnsConfiguration" get_dns_configuration: GET "/tailnet/{tailnet}/dns/configuration",
        by ReadDns, at InTailnet => Json<DnsConfiguration>;
    /// Says everything about names.
    "DNS" "setDnsConfiguration" set_dns_configuration: POST "/tailnet/{tailnet}/dns/configuration",
        by WriteDns, at InTailnet, payload Json<DnsConfiguration> => Json<DnsConfiguration>;

    /// Lists the users of a tailnet.
    "Users" "listUsers" list_users: GET "/tailnet/{tailnet}/users",
        by ReadUsers, at InTailnet, query UserQuery => Json<UserList>;
    /// Makes a user with a password of this server. An extension: the official API only invites.
    "Users" "createUser" create_user: POST "/tailnet/{tailnet}/users",
        by WriteUsers, at InTailnet, payload Json<CreateUser> => Json<User>;
    /// Shows a user.
    "Users" "getUser" get_user: GET "/users/{userId}",
        by ReadUsers, at OfUser => Json<User>;
    /// Says what a user may do.
    "Users" "updateUserRole" set_user_role: POST "/users/{userId}/role",
        by WriteUsers, at OfUser, payload Json<SetUserRole> => Done;
    /// Gives a user a new password. An extension: the official API knows no passwords.
    "Users" "setUserPassword" set_user_password: POST "/users/{userId}/password",
        by WriteUsers, at OfUser, payload Json<SetUserPassword> => Done;
    /// Lets a user in.
    "Users" "approveUser" approve_user: POST "/users/{userId}/approve",
        by WriteUsers, at OfUser => Done;
    /// Keeps a user and their devices out.
    "Users" "suspendUser" suspend_user: POST "/users/{userId}/suspend",
        by WriteUsers, at OfUser => Done;
    /// Lets a suspended user in again.
    "Users" "restoreUser" restore_user: POST "/users/{userId}/restore",
        by WriteUsers, at OfUser => Done;
    /// Says what people call a user. An extension: in the official API names come from elsewhere.
    "Users" "setUserName" set_user_name: POST "/users/{userId}/name",
        by WriteUsers, at OfUser, payload Json<SetUserName> => Done;
    /// Removes a user with their devices and keys.
    "Users" "deleteUser" delete_user: POST "/users/{userId}/delete",
        by WriteUsers, at OfUser => Done;

    /// Shows the settings of a tailnet.
    "Settings" "getTailnetSettings" get_settings: GET "/tailnet/{tailnet}/settings",
        by ReadSettings, at InTailnet => Json<TailnetSettings>;
    /// Changes settings of a tailnet.
    "Settings" "updateTailnetSettings" update_settings: PATCH "/tailnet/{tailnet}/settings",
        by WriteSettings, at InTailnet, payload Json<TailnetSettings> => Json<TailnetSettings>;

    /// Shows what a tailnet is called and where the names of its devices live. An extension of the official API.
    "Settings" "getTailnetNames" get_names: GET "/tailnet/{tailnet}/names",
        by ReadNames, at InTailnet => Json<TailnetNames>;
    /// Gives a tailnet another name or domain. An extension of the official API.
    "Settings" "setTailnetNames" set_names: PATCH "/tailnet/{tailnet}/names",
        by WriteNames, at InTailnet, payload Json<SetTailnetNames> => Json<TailnetNames>;

    /// Lists the virtual services of a tailnet.
    "Services" "listServices" list_services:
        GET "/tailnet/{tailnet}/services" or "/tailnet/{tailnet}/vip-services",
        by ReadServices, at InTailnet => Json<ServiceList>;
    /// Shows a virtual service.
    "Services" "getService" get_service:
        GET "/tailnet/{tailnet}/services/{serviceName}" or "/tailnet/{tailnet}/vip-services/{serviceName}",
        by ReadServices, at OfService => Json<VirtualService>;
}

/// Operations of the official API that are answered 501: method, path, official name, group.
static NOT_YET: &[(Method, &[&str], &str, &str)] = &[
    (Method::PATCH, &["/tailnet/{tailnet}/device-attributes"], "batchUpdateCustomDevicePostureAttributes", "Devices"),
    (Method::POST, &["/device/{deviceId}/ip"], "setDeviceIp", "Devices"),
    (Method::GET, &["/device/{deviceId}/attributes"], "getDevicePostureAttributes", "Devices"),
    (Method::POST, &["/device/{deviceId}/attributes/{attributeKey}"], "setCustomDevicePostureAttributes", "Devices"),
    (
        Method::DELETE,
        &["/device/{deviceId}/attributes/{attributeKey}"],
        "deleteCustomDevicePostureAttributes",
        "Devices",
    ),
    (Method::GET, &["/device/{deviceId}/device-invites"], "listDeviceInvites", "Device invites"),
    (Method::POST, &["/device/{deviceId}/device-invites"], "createDeviceInvites", "Device invites"),
    (Method::GET, &["/device-invites/{deviceInviteId}"], "getDeviceInvite", "Device invites"),
    (Method::DELETE, &["/device-invites/{deviceInviteId}"], "deleteDeviceInvite", "Device invites"),
    (Method::POST, &["/device-invites/{deviceInviteId}/resend"], "resendDeviceInvite", "Device invites"),
    (Method::POST, &["/device-invites/-/accept"], "acceptDeviceInvite", "Device invites"),
    (Method::GET, &["/tailnet/{tailnet}/user-invites"], "listUserInvites", "User invites"),
    (Method::POST, &["/tailnet/{tailnet}/user-invites"], "createUserInvites", "User invites"),
    (Method::GET, &["/user-invites/{userInviteId}"], "getUserInvite", "User invites"),
    (Method::DELETE, &["/user-invites/{userInviteId}"], "deleteUserInvite", "User invites"),
    (Method::POST, &["/user-invites/{userInviteId}/resend"], "resendUserInvite", "User invites"),
    (Method::GET, &["/tailnet/{tailnet}/logging/configuration"], "listConfigurationAuditLogs", "Logging"),
    (Method::GET, &["/tailnet/{tailnet}/logging/network"], "listNetworkFlowLogs", "Logging"),
    (Method::GET, &["/tailnet/{tailnet}/logging/{logType}/stream/status"], "getLogStreamingStatus", "Logging"),
    (Method::GET, &["/tailnet/{tailnet}/logging/{logType}/stream"], "getLogStreamingConfiguration", "Logging"),
    (Method::PUT, &["/tailnet/{tailnet}/logging/{logType}/stream"], "setLogStreamingConfiguration", "Logging"),
    (Method::DELETE, &["/tailnet/{tailnet}/logging/{logType}/stream"], "disableLogStreaming", "Logging"),
    (Method::POST, &["/tailnet/{tailnet}/aws-external-id"], "getAwsExternalId", "Logging"),
    (
        Method::POST,
        &["/tailnet/{tailnet}/aws-external-id/{id}/validate-aws-trust-policy"],
        "validateAwsExternalId",
        "Logging",
    ),
    (Method::PUT, &["/tailnet/{tailnet}/keys/{keyId}"], "setKey", "Keys"),
    (Method::GET, &["/tailnet/{tailnet}/posture/integrations"], "getPostureIntegrations", "Posture"),
    (Method::POST, &["/tailnet/{tailnet}/posture/integrations"], "createPostureIntegration", "Posture"),
    (Method::GET, &["/posture/integrations/{id}"], "getPostureIntegration", "Posture"),
    (Method::PATCH, &["/posture/integrations/{id}"], "updatePostureIntegration", "Posture"),
    (Method::DELETE, &["/posture/integrations/{id}"], "deletePostureIntegration", "Posture"),
    (Method::GET, &["/tailnet/{tailnet}/contacts"], "getContacts", "Contacts"),
    (Method::PATCH, &["/tailnet/{tailnet}/contacts/{contactType}"], "updateContact", "Contacts"),
    (
        Method::POST,
        &["/tailnet/{tailnet}/contacts/{contactType}/resend-verification-email"],
        "resendContactVerificationEmail",
        "Contacts",
    ),
    (Method::GET, &["/tailnet/{tailnet}/webhooks"], "listWebhooks", "Webhooks"),
    (Method::POST, &["/tailnet/{tailnet}/webhooks"], "createWebhook", "Webhooks"),
    (Method::GET, &["/webhooks/{endpointId}"], "getWebhook", "Webhooks"),
    (Method::PATCH, &["/webhooks/{endpointId}"], "updateWebhook", "Webhooks"),
    (Method::DELETE, &["/webhooks/{endpointId}"], "deleteWebhook", "Webhooks"),
    (Method::POST, &["/webhooks/{endpointId}/test"], "testWebhook", "Webhooks"),
    (Method::POST, &["/webhooks/{endpointId}/rotate"], "rotateWebhookSecret", "Webhooks"),
    (
        Method::PUT,
        &["/tailnet/{tailnet}/services/{serviceName}", "/tailnet/{tailnet}/vip-services/{serviceName}"],
        "updateService",
        "Services",
    ),
    (
        Method::DELETE,
        &["/tailnet/{tailnet}/services/{serviceName}", "/tailnet/{tailnet}/vip-services/{serviceName}"],
        "deleteService",
        "Services",
    ),
    (Method::GET, &["/tailnet/{tailnet}/services/{serviceName}/devices"], "listServiceHosts", "Services"),
    (
        Method::GET,
        &["/tailnet/{tailnet}/services/{serviceName}/device/{deviceId}/approved"],
        "getServiceDeviceApproval",
        "Services",
    ),
    (
        Method::POST,
        &["/tailnet/{tailnet}/services/{serviceName}/device/{deviceId}/approved"],
        "updateServiceDeviceApproval",
        "Services",
    ),
    (Method::GET, &["/tailnet/{tailnet}/oauth-apps"], "listOAuthApps", "OAuth apps"),
    (Method::POST, &["/tailnet/{tailnet}/oauth-apps"], "createOAuthApp", "OAuth apps"),
    (Method::GET, &["/tailnet/{tailnet}/oauth-apps/{appId}"], "getOAuthApp", "OAuth apps"),
    (Method::PUT, &["/tailnet/{tailnet}/oauth-apps/{appId}"], "updateOAuthApp", "OAuth apps"),
    (Method::DELETE, &["/tailnet/{tailnet}/oauth-apps/{appId}"], "deleteOAuthApp", "OAuth apps"),
];

/// The operations that answer 501.
pub(crate) fn not_yet() -> impl Iterator<Item = Operation> {
    NOT_YET.iter().map(|(method, paths, id, section)| Operation {
        id,
        method: method.clone(),
        paths,
        any_of: &[],
        or_own: false,
        summary: "",
        section,
        describe: None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EXTENSIONS: [&str; 8] = [
        "createUser",
        "setUserPassword",
        "setUserName",
        "pingDevice",
        "explainPolicy",
        "listPolicyHistory",
        "getTailnetNames",
        "setTailnetNames",
    ];

    #[test]
    fn the_table_has_the_ninety_official_operations_once() {
        let ids: Vec<_> =
            SERVED.iter().map(|operation| operation.id).chain(not_yet().map(|operation| operation.id)).collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert_eq!(ids.len() - EXTENSIONS.len(), 90);
    }

    #[test]
    fn every_operation_names_its_path_parameters_in_order() {
        for operation in SERVED {
            let described = (operation.describe.unwrap())(&mut schemars::SchemaGenerator::default());
            for path in operation.paths {
                let names: Vec<_> =
                    path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}')).collect();
                assert_eq!(names, described.path, "{}", operation.id);
            }
            assert!(!operation.any_of.is_empty(), "{}", operation.id);
        }
    }
}
