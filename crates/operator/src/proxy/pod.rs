use serde_json::{Value, json};

use kubeapi::annotation::last_set;
use kubeapi::{contract, environment as env, name};

use super::stateful_set::config_volume;
use super::{Port, Proxy, Target, Traffic};
use crate::settings::Settings;

/// The container's name, as the stock operator has it: ProxyClasses and people know it by this.
pub(super) const CONTAINER: &str = "tailscale";

/// Every second until traffic flows: how soon a new proxy's condition turns True is this, and it ends with the first success.
const STARTUP: (u32, u32) = (1, 3600);

/// Every 30 seconds, and twice before a pod counts as not ready, each probe being a process that the container runtime has
/// to start, at far more processor time than its answer takes. What this finds late costs little: a proxy whose process
/// ended is found by kubelet at once and without a probe, and a proxy that lost its tailnet mends itself. It decides only how
/// soon the object's condition says so: within a minute.
const READINESS: (u32, u32) = (30, 2);

/// Every 90 seconds, and twice before the container is started anew. Only a process that hangs is found by this, within three
/// minutes; one that answers in time under a heavy load on the machine must not be ended by it.
const LIVENESS: (u32, u32) = (90, 2);

/// The pod of a proxy, before its ProxyClass.
pub(super) fn template(proxy: &Proxy, settings: &Settings) -> Value {
    let user_space = proxy.in_user_space();
    let (mut volumes, mut mounts) = volumes(proxy, user_space);
    let mut variables = variables(proxy, user_space);
    if let Some(config_map) = &settings.certificates {
        let file = format!("{}/{}", contract::CERTIFICATE_FOLDER, contract::CERTIFICATE_KEY);
        variables.extend([value(env::CERTIFICATE_FILE, &file), value(env::CERTIFICATE_FILE_STOCK, &file)]);
        volumes.push(json!({"name": "certificates", "configMap": {"name": config_map}}));
        mounts.push(json!({"name": "certificates", "mountPath": contract::CERTIFICATE_FOLDER, "readOnly": true}));
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": settings.image,
        "args": contract::ARGUMENTS,
        "env": variables,
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "securityContext": container_security(user_space),
        "volumeMounts": mounts,
        "startupProbe": probe(contract::READINESS, STARTUP),
        "readinessProbe": probe(contract::READINESS, READINESS),
        "livenessProbe": probe(contract::LIVENESS, LIVENESS),
    });
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    let mut spec = json!({
        "serviceAccountName": proxy.name(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": contract::GRACE_SECONDS,
        "securityContext": pod_security(user_space),
        "containers": [container],
        "volumes": volumes,
    });
    if !settings.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = settings.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    if let Some(class) = &settings.priority_class {
        spec["priorityClassName"] = json!(class);
    }
    json!({"metadata": {"labels": proxy.labels(), "annotations": annotations(proxy)}, "spec": spec})
}

fn variables(proxy: &Proxy, user_space: bool) -> Vec<Value> {
    let from_field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let app = match &proxy.traffic {
        Traffic::IngressToAddresses(_) | Traffic::IngressToName(_) => env::app::INGRESS,
        Traffic::Egress { .. } => env::app::EGRESS,
        Traffic::Connector { .. } => env::app::CONNECTOR,
    };
    let mut variables = vec![
        from_field(env::POD_NAME, "metadata.name"),
        from_field(env::POD_UID, "metadata.uid"),
        from_field(env::POD_IP, "status.podIP"),
        from_field(env::POD_IPS, "status.podIPs"),
        value(env::USERSPACE, if user_space { "true" } else { "false" }),
        value(env::STATE_SECRET, &name::state_secret(&proxy.name())),
        value(env::CONFIG_FOLDER, &format!("{}/{}", contract::CONFIG_FOLDER, name::state_secret(&proxy.name()))),
        value(env::APP, app),
        value(env::AUTO_ADVERTISE, "false"),
    ];
    match &proxy.traffic {
        Traffic::IngressToAddresses(addresses) => {
            if let Some(first) = addresses.first() {
                variables.push(value(env::DESTINATION_IP, &first.to_string()));
            }
            variables.push(value(env::DESTINATION_IPS, &join(addresses)));
        }
        Traffic::IngressToName(name) => variables.push(value(env::DESTINATION_NAME, name.as_str())),
        Traffic::Egress { target, ports } => {
            variables.push(match target {
                Target::Address(address) => value(env::TARGET_IP, &address.to_string()),
                Target::Name(name) => value(env::TARGET_NAME, name.as_str()),
            });
            if !ports.is_empty() {
                variables.push(value(env::EGRESS_PORTS, &join(ports)));
            }
        }
        Traffic::Connector { .. } => {}
    }
    variables
}

/// What rolls the pod when it changes.
fn annotations(proxy: &Proxy) -> Value {
    match &proxy.traffic {
        Traffic::IngressToAddresses(addresses) => json!({last_set::CLUSTER_IP: join(addresses)}),
        Traffic::IngressToName(name) => json!({last_set::CLUSTER_DNS_NAME: name.as_str()}),
        Traffic::Egress { target: Target::Address(address), .. } => json!({last_set::TAILNET_TARGET_IP: address}),
        Traffic::Egress { target: Target::Name(name), .. } => json!({last_set::TAILNET_TARGET_FQDN: name.as_str()}),
        Traffic::Connector { .. } => json!({}),
    }
}

fn volumes(proxy: &Proxy, user_space: bool) -> (Vec<Value>, Vec<Value>) {
    let (config, config_mount) = config_volume(&proxy.name(), user_space);
    let memory = |name: &str| json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}});
    let mode = if user_space { 0o440 } else { 0o400 };
    let token = json!({"name": "account", "projected": {"defaultMode": mode, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}});
    let mounts = vec![
        config_mount,
        json!({"name": "account", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
        json!({"name": "run", "mountPath": "/run/towline"}),
    ];
    (vec![config, token, memory("tmp"), memory("run")], mounts)
}

fn container_security(user_space: bool) -> Value {
    let capabilities =
        if user_space { json!({"drop": ["ALL"]}) } else { json!({"drop": ["ALL"], "add": ["NET_ADMIN", "MKNOD"]}) };
    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": capabilities})
}

fn pod_security(user_space: bool) -> Value {
    let seccomp = json!({"type": "RuntimeDefault"});
    if !user_space {
        // Capabilities of a user that is not root have no effect on the programs it starts.
        return json!({"runAsUser": 0, "runAsGroup": 0, "seccompProfile": seccomp});
    }
    let user = contract::UNPRIVILEGED_USER;
    json!({
        "runAsNonRoot": true,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": seccomp,
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
    })
}

fn probe(command: &[&str], (period, failures): (u32, u32)) -> Value {
    json!({"exec": {"command": command}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures})
}

fn value(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", if self.udp { "udp" } else { "tcp" }, self.number)
    }
}
