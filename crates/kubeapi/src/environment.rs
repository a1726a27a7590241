//! Names of the variables that a proxy is started with; [`crate::contract`] says what they mean.

/// The pod's name.
pub const POD_NAME: &str = "POD_NAME";
/// The pod's UID.
pub const POD_UID: &str = "POD_UID";
/// The pod's first address.
pub const POD_IP: &str = "POD_IP";
/// All addresses of the pod, with commas.
pub const POD_IPS: &str = "POD_IPS";
/// The name of the state Secret.
pub const STATE_SECRET: &str = "TS_KUBE_SECRET";
/// The folder of configuration files.
pub const CONFIG_FOLDER: &str = "TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR";
/// Whether packets go through user space.
pub const USERSPACE: &str = "TS_USERSPACE";
/// The folder of the proxy's sockets, where probes ask too. Ours.
pub const RUN_FOLDER: &str = "TOWLINE_RUN_FOLDER";
/// What the node is for.
pub const APP: &str = "TS_INTERNAL_APP";
/// Ingress: an address to send to.
pub const DESTINATION_IP: &str = "TS_DEST_IP";
/// Ingress: all addresses to send to, at most one a family. Ours.
pub const DESTINATION_IPS: &str = "TOWLINE_DEST_IPS";
/// Ingress: a name to send to.
pub const DESTINATION_NAME: &str = "TS_EXPERIMENTAL_DEST_DNS_NAME";
/// Egress: an address of the tailnet.
pub const TARGET_IP: &str = "TS_TAILNET_TARGET_IP";
/// Egress: a name of the tailnet.
pub const TARGET_NAME: &str = "TS_TAILNET_TARGET_FQDN";
/// User-space egress: the ports to listen on. Ours.
pub const EGRESS_PORTS: &str = "TOWLINE_EGRESS_PORTS";
/// Certificates to trust besides the public web's. Ours.
pub const CERTIFICATE_FILE: &str = "TOWLINE_CA_FILE";
/// The same for the stock image.
pub const CERTIFICATE_FILE_STOCK: &str = "SSL_CERT_FILE";
/// Whether metrics are served.
pub const METRICS: &str = "TS_ENABLE_METRICS";
/// Where metrics are served.
pub const LOCAL_ADDRESS: &str = "TS_LOCAL_ADDR_PORT";
/// Whether services that are served are advertised by themselves: never, in a cluster.
pub const AUTO_ADVERTISE: &str = "TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT";

/// Where a pod finds the API server, which it proves its account to.
pub const API_SERVER_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// The port beside [`API_SERVER_HOST`].
pub const API_SERVER_PORT: &str = "KUBERNETES_SERVICE_PORT";

/// What no ProxyClass may set: the contract itself, where the pod's account goes, and credentials, which come with the
/// configuration. [`USERSPACE`] is none of them: a class may ask for it.
const KEPT: &[&str] = &[
    POD_NAME,
    POD_UID,
    POD_IP,
    POD_IPS,
    STATE_SECRET,
    CONFIG_FOLDER,
    APP,
    DESTINATION_IP,
    DESTINATION_IPS,
    DESTINATION_NAME,
    TARGET_IP,
    TARGET_NAME,
    EGRESS_PORTS,
    CERTIFICATE_FILE,
    CERTIFICATE_FILE_STOCK,
    METRICS,
    LOCAL_ADDRESS,
    AUTO_ADVERTISE,
    RUN_FOLDER,
    API_SERVER_HOST,
    API_SERVER_PORT,
    "TS_AUTHKEY",
    "TS_AUTH_KEY",
    "TS_CLIENT_ID",
    "TS_CLIENT_SECRET",
    "TS_ID_TOKEN",
    "TS_STATE_DIR",
    "TS_SOCKET",
];

/// Whether a variable belongs to the contract between the operator and a proxy, so that nobody else may set it.
pub fn is_kept(name: &str) -> bool {
    KEPT.contains(&name)
}

/// Values of [`APP`].
pub mod app {
    /// A Service of the cluster, shown to the tailnet.
    pub const INGRESS: &str = "k8s-operator-ingress-proxy";
    /// A node of the tailnet, shown to the cluster.
    pub const EGRESS: &str = "k8s-operator-egress-proxy";
    /// Subnet router or exit node.
    pub const CONNECTOR: &str = "k8s-operator-connector-resource";
    /// The API server's proxy.
    pub const API_SERVER_PROXY: &str = "k8s-operator-proxy";
}
