use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most replicas that one Connector gets.
pub const MAX_CONNECTOR_REPLICAS: i32 = 64;

/// A subnet router, an exit node or an app connector of the tailnet that runs in this cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tailscale.com",
    version = "v1alpha1",
    kind = "Connector",
    shortname = "cn",
    status = "ConnectorStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A subnet router, an exit node or an app connector of the tailnet that runs in this cluster.",
    printcolumn = r#"{"name": "SubnetRoutes", "type": "string", "jsonPath": ".status.subnetRoutes", "description": "The routes that the devices offer."}"#,
    printcolumn = r#"{"name": "IsExitNode", "type": "string", "jsonPath": ".status.isExitNode", "description": "Whether the devices are exit nodes."}"#,
    printcolumn = r#"{"name": "IsAppConnector", "type": "string", "jsonPath": ".status.isAppConnector", "description": "Whether the devices are app connectors."}"#,
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.conditions[?(@.type == \"ConnectorReady\")].reason", "description": "How far the devices are."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = ("has(self.subnetRouter) || (has(self.exitNode) && self.exitNode == true) || has(self.appConnector)", "a Connector is at least one of subnetRouter, exitNode and appConnector"),
    validation = ("!((has(self.subnetRouter) || (has(self.exitNode) && self.exitNode == true)) && has(self.appConnector))", "appConnector can't stand beside subnetRouter or exitNode"),
    validation = ("!(has(self.hostname) && has(self.replicas) && self.replicas > 1)", "several replicas can't share one hostname: use hostnamePrefix"),
    validation = ("!(has(self.hostname) && has(self.hostnamePrefix))", "hostname and hostnamePrefix exclude each other")
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorSpec {
    /// Tags of the devices. A change has effect for devices that join afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(regex(pattern = r"^tag:[a-zA-Z][a-zA-Z0-9-]*$")))]
    pub tags: Option<Vec<String>>,

    /// Host name of the device; the Connector's name and -connector when absent. Only for one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$"))]
    pub hostname: Option<String>,

    /// Host names of the devices are this, a hyphen and the replica's number from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,61}$"))]
    pub hostname_prefix: Option<String>,

    /// The ProxyClass that says how the pods look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_class: Option<String>,

    /// Routes that the devices offer to the tailnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_router: Option<SubnetRouter>,

    /// Routes to domains that the policy names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_connector: Option<AppConnector>,

    /// Whether the devices offer the way to the internet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_node: Option<bool>,

    /// The tailnet that the devices join; the operator's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "a Connector can't move to another tailnet: make a new one"))]
    pub tailnet: Option<String>,

    /// How many devices there are; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
}

/// Routes that are offered.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SubnetRouter {
    /// Networks in CIDR form with no bit set behind the prefix; 4via6 networks too.
    #[schemars(schema_with = "network_list")]
    pub advertise_routes: Vec<String>,
}

/// An app connector.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AppConnector {
    /// Networks that are offered from the start, besides those found by names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "network_list")]
    pub routes: Option<Vec<String>>,
}

/// What is known of a Connector's devices.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorStatus {
    /// How far the devices are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The routes that the devices offer, with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_routes: Option<String>,
    /// Whether the devices are exit nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_exit_node: Option<bool>,
    /// Whether the devices are app connectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_app_connector: Option<bool>,
    /// Addresses of the first device.
    #[serde(rename = "tailnetIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub tailnet_ips: Vec<String>,
    /// Whole name of the first device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// All devices that have joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<ConnectorDevice>,
}

/// One device of a Connector.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorDevice {
    /// Its whole name in the tailnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its addresses in the tailnet.
    #[serde(rename = "tailnetIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub tailnet_ips: Vec<String>,
}

/// One network or more; the API server checks their form.
fn network_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "format": "cidr"},
    })
}
