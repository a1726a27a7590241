//! The contract between the operator and a proxy: what a pod is given, and what it must give back.
//!
//! One replica of a proxy is one StatefulSet of one pod, with a ServiceAccount, a Role and two Secrets of its own. Nothing
//! that a proxy may read or write belongs to another.
//!
//! # What runs
//!
//! The container's only argument is `proxy`; the image's entry point is the binary at [`BINARY`]. The same pod runs with
//! the stock image where no field below is marked as ours: what the stock image does not know, it ignores.
//!
//! # Environment
//!
//! The names are constants of [`crate::environment`].
//!
//! | variable | value |
//! |---|---|
//! | `POD_NAME`, `POD_UID`, `POD_IP`, `POD_IPS` | the pod's own, by the downward API; `POD_IPS` with commas |
//! | `TS_KUBE_SECRET` | the state Secret's name, in the pod's namespace |
//! | `TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR` | the folder that the config Secret is mounted at |
//! | `TS_USERSPACE` | `true`: packets go through user space, no TUN; `false`: TUN and nf_tables |
//! | `TS_INTERNAL_APP` | what the node says that it is for, in its `Hostinfo.App` |
//! | `TS_DEST_IP` | ingress: what arrives for the node's own addresses goes to this address |
//! | `TOWLINE_DEST_IPS` (ours) | the same with all addresses of the Service, commas between them, at most one a family; wins over `TS_DEST_IP`. A family that is not there is refused, not sent elsewhere |
//! | `TS_EXPERIMENTAL_DEST_DNS_NAME` | ingress to a name, resolved again at the end of its TTL and at least every 10 minutes. The proxy refuses loopback, unspecified, link-local and multicast addresses that it resolves to, and the API server's |
//! | `TS_TAILNET_TARGET_IP` | egress: what arrives at the pod's own addresses goes to this address of the tailnet |
//! | `TS_TAILNET_TARGET_FQDN` | egress to a name of the tailnet: a node, a service, or `<a-b-c-d>-via-<site>` |
//! | `TOWLINE_EGRESS_PORTS` (ours) | user-space egress: `tcp:80,udp:53`, what to listen on. There exactly when `TS_USERSPACE` is `true` and there is a target |
//! | `TOWLINE_CA_FILE` (ours) | a file of PEM certificates to trust besides the public web's, for control and relays; there only when the chart has a `caBundle`. `SSL_CERT_FILE` names the same file for the stock image |
//! | `TS_ENABLE_METRICS`, `TS_LOCAL_ADDR_PORT` | `true` and `$(POD_IP):9002`, when the ProxyClass asks for metrics and the proxy does not forward every port |
//! | `TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT` | always `false` |
//!
//! A Connector has no destination and no target: routes come with the configuration. With `TS_USERSPACE=true` an ingress
//! (`TS_DEST_IP`, …) is an extension of ours: the stock image wants kernel mode there. What a ProxyClass adds comes last
//! and wins, but for the variables above: a class may set `TS_USERSPACE` and none of the others
//! ([`crate::environment::is_kept`]).
//!
//! # Config Secret
//!
//! `<StatefulSet>-0-config`, mounted read-only; written by the operator only, and the proxy's account may not even read it
//! by the API. Its one file is named by [`crate::config_file_name`] (`cap-95.hujson`) and holds a [`crate::NodeConfig`]. A
//! proxy takes the file with the highest number that is not above its own capability version, and must follow changes while
//! it runs: kubelet swaps the link `..data`. What may change at any time: host name, routes, `acceptRoutes`, the auth key,
//! the server's URL.
//!
//! `AuthKey` is there from the beginning until the operator has seen `device_id` in the state Secret. A proxy without a key
//! and without state waits for one.
//!
//! # State Secret
//!
//! Named like the pod, `<StatefulSet>-0`; made empty by the operator, which writes no key of its `data` ever after. The
//! proxy's account may `get`, `update` and `patch` it, and nothing else in the cluster: no `list`, no `watch`, no `create`,
//! no other Secret. When the Secret is not there the proxy waits for it.
//!
//! | key | value |
//! |---|---|
//! | `_machinekey`, `_profiles`, `_current-profile`, `profile-XXXX`, … | the node's own state. `_current-profile` names the key of the profile, JSON with `Config.NodeID` (the stable id), `Config.UserProfile.LoginName` (of a tagged node its whole name) and `AdvertiseServices` |
//! | `device_id` | the node's stable id, as soon as it is registered, before anything else may fail |
//! | `device_fqdn` | its whole name, with or without a dot at the end |
//! | `device_ips` | its addresses: a JSON list of strings |
//! | `pod_uid` | `POD_UID` of the pod that wrote these |
//! | `tailscale_capver` | its capability version, in decimal; believed only when `pod_uid` is the living pod's |
//! | `reissue_authkey` | there while the proxy can't log in with what it was given: the auth key that failed, whole, or `no-authkey` when it has none |
//! | `towline_missing_target` (ours) | there while nothing of the tailnet leads to the target of an egress: JSON with `pod` (the pod's UID), `target` (as the pod was given it) and `problem` (`unknown`, `routes-not-accepted`, `other-family`); believed only when `pod` is `pod_uid` and `target` is the Service's |
//! | `towline_routes` (ours) | what becomes of each route that a Connector's proxy offers: JSON with `pod` (the pod's UID) and `routes`, an object from route to `served`, `not-approved` (the node's own entry in its map does not name it) or `not-forwarded` (the pod's kernel forwards no packets of its family); believed only when `pod` is `pod_uid`. Without it a Connector is judged by the rest alone, as with the stock image |
//!
//! At its start a proxy removes `device_fqdn`, `device_ips`, `tailscale_capver`, `reissue_authkey`,
//! `towline_missing_target` and `towline_routes`, writes `pod_uid`, and
//! keeps `device_id`. It writes `reissue_authkey` when control refuses its key, when its node key is expired or its node
//! was deleted (then it forgets its machine and node keys first and removes `device_id`), and removes it once it is logged
//! in. After it wrote it, it waits for another `AuthKey` in its configuration without ending.
//!
//! # Health
//!
//! The readiness probe runs `/towline proxy health` in the container: an exec probe, because an egress proxy forwards every
//! port. It exits with 0 only when traffic can flow: logged in with an address, rules or listeners in place; for an egress,
//! something of the tailnet leads to the target; for a Connector, the kernel forwards. Else it exits with 1 and one line that
//! says what is missing. That routes are not approved is no fault of the pod: the Connector's condition tells it, and a pod
//! that is not ready would hold up changes of the other replicas. Liveness is the same command with `--alive`: 0 while the
//! process answers at all, whatever control or relays do.
//!
//! # End
//!
//! SIGTERM: stop taking new flows, let those that are open go on, end when the last is over or after 20 s, whichever is
//! first; the pod's grace is 30 s. The node stays registered: the operator removes it, not the proxy.
//!
//! # What a pod may do
//!
//! | kind | user | capabilities |
//! |---|---|---|
//! | `TS_USERSPACE=true` | 65532, group 65532 | none: PodSecurity `restricted`; ports below 1024 by the pod sysctl `net.ipv4.ip_unprivileged_port_start` |
//! | `TS_USERSPACE=false` | 0 | NET_ADMIN, MKNOD (its own `/dev/net/tun`), nothing else; no escalation |
//!
//! Root is read-only in both; `/tmp` and `/run` are small memory-backed volumes. The account's token, the cluster's CA and the
//! namespace stand where every client of Kubernetes looks for them, by a projected volume whose token lives an hour and is
//! renewed: read it again for every request.
//!
//! # The API server's proxy
//!
//! The chart's workload `apiserver-proxy` runs in a namespace of its own, where the operator has no right. It follows the
//! same contract for `TS_KUBE_SECRET`, `TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR`, `TOWLINE_CA_FILE` and its state Secret
//! [`crate::name::API_SERVER_PROXY_STATE`]. Its configuration and that Secret, empty, are the chart's; no `AuthKey` is in the
//! one and no `reissue_authkey` in the other, because it gets its keys itself, with the OAuth client of the Secret
//! `operator-oauth` beside it.

/// Where the binary stands in the image; also the image's entry point.
pub const BINARY: &str = "/towline";

/// What the container is started with.
pub const ARGUMENTS: &[&str] = &["proxy"];

/// The readiness probe.
pub const READINESS: &[&str] = &[BINARY, "proxy", "health"];

/// The liveness probe.
pub const LIVENESS: &[&str] = &[BINARY, "proxy", "health", "--alive"];

/// The folder whose child, named like the pod, the config Secret is mounted at.
pub const CONFIG_FOLDER: &str = "/etc/tsconfig";

/// The folder that the ConfigMap of certificates is mounted at.
pub const CERTIFICATE_FOLDER: &str = "/etc/towline/ca";

/// The key of the ConfigMap of certificates, which is the file's name too.
pub const CERTIFICATE_KEY: &str = "ca.crt";

/// The user and group of pods that need no capability.
pub const UNPRIVILEGED_USER: i64 = 65532;

/// How long a proxy has between SIGTERM and SIGKILL, in seconds.
pub const GRACE_SECONDS: i64 = 30;

/// The port of metrics.
pub const METRICS_PORT: u16 = 9002;
