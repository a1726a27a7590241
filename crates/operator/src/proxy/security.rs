//! What a ProxyClass may say of the rights of a pod, and how that goes over what the pod needs.
//!
//! Rights only: capabilities, privileges and the user of a pod that changes its kernel's tables follow from what the proxy
//! does and from nothing else. All other fields are the class's, one by one, and what it does not name stays.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};
use serde_json::{Value, json};

/// What pods in the kernel are given, and a class may therefore name.
const GIVEN: &[&str] = &["NET_ADMIN", "MKNOD"];

/// Settings of the kernel that a class may make: those that Kubernetes counts as safe, and forwarding in the pod's own
/// network, which stock manifests set.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
    "net.ipv6.conf.all.forwarding",
];

/// Types of SELinux that confine a container, as Kubernetes' Pod Security names them.
const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Annotations of a pod that stood for profiles before its security context had fields for them. The API server makes the
/// field of them, and some container runtimes still read them.
const PROFILES: &[&str] = &[
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
];

/// Whether an annotation of a pod stands for a profile of its containers.
pub(super) fn is_profile(annotation: &str) -> bool {
    PROFILES.iter().any(|prefix| annotation.starts_with(prefix))
}

/// What a class asks for a container that none gets, each as a sentence.
pub(super) fn refused_of_container(path: &str, asked: &SecurityContext) -> Vec<String> {
    let mut refused = Vec::new();
    if asked.privileged == Some(true) {
        refused.push(format!("{path}.privileged is true, and no proxy runs privileged: remove it, NET_ADMIN and MKNOD are given where they are needed"));
    }
    if asked.allow_privilege_escalation == Some(true) {
        refused.push(format!(
            "{path}.allowPrivilegeEscalation is true, and no proxy gets more rights than it starts with: remove it"
        ));
    }
    if let Some(mount) = asked.proc_mount.as_deref().filter(|mount| *mount != "Default") {
        refused.push(format!("{path}.procMount is {mount:?}, and proxies get Default alone: remove it"));
    }
    let added = asked.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    let more = added.filter(|name| !GIVEN.contains(&name.to_ascii_uppercase().trim_start_matches("CAP_")));
    refused.extend(more.map(|name| {
        format!("{path}.capabilities.add names {name}, and no proxy gets more than NET_ADMIN and MKNOD: remove it")
    }));
    refused.extend(profiles(
        path,
        asked.seccomp_profile.as_ref(),
        asked.app_armor_profile.as_ref(),
        asked.se_linux_options.as_ref(),
        asked.windows_options.as_ref(),
    ));
    refused
}

/// What a class asks for a pod that none gets, each as a sentence.
pub(super) fn refused_of_pod(path: &str, asked: &PodSecurityContext) -> Vec<String> {
    let mut refused = profiles(
        path,
        asked.seccomp_profile.as_ref(),
        asked.app_armor_profile.as_ref(),
        asked.se_linux_options.as_ref(),
        asked.windows_options.as_ref(),
    );
    let unsafe_ones = asked.sysctls.iter().flatten().filter(|sysctl| !SYSCTLS.contains(&dotted(&sysctl.name).as_str()));
    refused.extend(unsafe_ones.map(|sysctl| {
        format!(
            "{path}.sysctls sets {}, which Kubernetes does not count as safe for the machine's other pods: remove it",
            sysctl.name
        )
    }));
    refused
}

/// What of a class is taken and changes nothing, each as a path with its value.
pub(crate) fn without_effect(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
) -> Vec<&'static str> {
    let root = |user: Option<i64>, not_root: Option<bool>| user == Some(0) || not_root == Some(false);
    let mut found = Vec::new();
    if pod.is_some_and(|pod| root(pod.run_as_user, pod.run_as_non_root)) {
        found.push("spec.statefulSet.pod.securityContext, where it asks for root,");
    }
    if container.is_some_and(|container| root(container.run_as_user, container.run_as_non_root)) {
        found.push("spec.statefulSet.pod.tailscaleContainer.securityContext, where it asks for root,");
    }
    found
}

/// The profiles that a pod and a container both have.
fn profiles(
    path: &str,
    seccomp: Option<&SeccompProfile>,
    app_armor: Option<&AppArmorProfile>,
    se_linux: Option<&SELinuxOptions>,
    windows: Option<&WindowsSecurityContextOptions>,
) -> Vec<String> {
    let mut refused = Vec::new();
    let mut unconfined = |field: &str, kind: Option<&str>| {
        if kind == Some("Unconfined") {
            refused.push(format!("{path}.{field}.type is Unconfined, and no proxy runs unconfined: remove it"));
        }
    };
    unconfined("seccompProfile", seccomp.map(|profile| profile.type_.as_str()));
    unconfined("appArmorProfile", app_armor.map(|profile| profile.type_.as_str()));
    if let Some(kind) =
        se_linux.and_then(|options| options.type_.as_deref()).filter(|kind| !SELINUX_TYPES.contains(kind))
    {
        refused.push(format!(
            "{path}.seLinuxOptions.type is {kind:?}, which may not confine the container: write container_t, or remove it"
        ));
    }
    if windows.is_some_and(|options| options.host_process == Some(true)) {
        refused.push(format!(
            "{path}.windowsOptions.hostProcess is true, and proxies stay in their containers: remove it"
        ));
    }
    refused
}

/// Puts what a class says of a container over what the container needs.
pub(super) fn merge_container(asked: &SecurityContext, user_space: bool, security: &mut Value) {
    let rights = ["privileged", "allowPrivilegeEscalation", "procMount", "capabilities"];
    merge(json!(asked), user_space, &rights, security);
}

/// Puts what a class says of a pod over what the pod needs.
pub(super) fn merge_pod(asked: &PodSecurityContext, user_space: bool, security: &mut Value) {
    merge(json!(asked), user_space, &["sysctls"], security);
    let needed = security["sysctls"].as_array().cloned().unwrap_or_default();
    let is_needed = |name: &str| needed.iter().any(|one| one["name"] == name);
    let more = asked.sysctls.iter().flatten().map(|one| (dotted(&one.name), &one.value));
    let more = more.filter(|(name, _)| SYSCTLS.contains(&name.as_str()) && !is_needed(name));
    let all: Vec<Value> =
        needed.iter().cloned().chain(more.map(|(name, value)| json!({"name": name, "value": value}))).collect();
    if !all.is_empty() {
        security["sysctls"] = json!(all);
    }
}

/// Every field that is there and not kept. Whoever forwards in the kernel stays root: to another user its capabilities are
/// lost. Whoever does not never becomes it.
fn merge(asked: Value, user_space: bool, kept: &[&str], security: &mut Value) {
    let Value::Object(fields) = asked else { return };
    for (field, value) in fields {
        let decided = match field.as_str() {
            "runAsUser" => !user_space || value == 0,
            "runAsNonRoot" => !user_space || value == false,
            "runAsGroup" => !user_space,
            other => kept.contains(&other),
        };
        if !decided && !value.is_null() {
            security[field] = value;
        }
    }
}

/// Kernel settings may be written with slashes too.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(yaml: &str) -> SecurityContext {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    fn pod(yaml: &str) -> PodSecurityContext {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    fn kernel() -> Value {
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "MKNOD"]}})
    }

    #[test]
    fn each_right_beyond_the_pods_own_is_refused_by_name() {
        for (yaml, named) in [
            ("{privileged: true}", ".privileged is true"),
            ("{allowPrivilegeEscalation: true}", ".allowPrivilegeEscalation is true"),
            ("{procMount: Unmasked}", ".procMount is \"Unmasked\""),
            ("{capabilities: {add: [NET_ADMIN, SYS_ADMIN]}}", ".capabilities.add names SYS_ADMIN"),
            ("{capabilities: {add: [ALL]}}", ".capabilities.add names ALL"),
            ("{seccompProfile: {type: Unconfined}}", ".seccompProfile.type is Unconfined"),
            ("{appArmorProfile: {type: Unconfined}}", ".appArmorProfile.type is Unconfined"),
            ("{seLinuxOptions: {type: spc_t}}", ".seLinuxOptions.type is \"spc_t\""),
            ("{windowsOptions: {hostProcess: true}}", ".windowsOptions.hostProcess is true"),
        ] {
            let refused = refused_of_container("a", &container(yaml));
            assert_eq!(refused.len(), 1, "{yaml}: {refused:?}");
            assert!(refused[0].starts_with(&format!("a{named}")), "{yaml}: {refused:?}");
        }
    }

    #[test]
    fn what_a_pod_has_anyway_or_may_have_is_not_refused() {
        for yaml in [
            "{capabilities: {add: [NET_ADMIN, CAP_MKNOD], drop: [ALL]}, privileged: false, allowPrivilegeEscalation: false}",
            "{procMount: Default, runAsUser: 0, readOnlyRootFilesystem: false}",
            "{seccompProfile: {type: Localhost, localhostProfile: a.json}, seLinuxOptions: {level: 's0:c1,c2'}}",
        ] {
            assert_eq!(refused_of_container("a", &container(yaml)), Vec::<String>::new(), "{yaml}");
        }
    }

    #[test]
    fn unsafe_settings_of_the_kernel_are_refused_by_name() {
        let asked = pod("{sysctls: [{name: net.core.somaxconn, value: '1'}, {name: net.ipv4.ip_forward, value: '1'}, \
                         {name: kernel/shm_rmid_forced, value: '1'}, {name: kernel.msgmax, value: '1'}]}");
        let refused = refused_of_pod("a", &asked);
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("net.core.somaxconn") && refused[1].contains("kernel.msgmax"), "{refused:?}");
        assert_eq!(refused_of_pod("a", &pod("{seccompProfile: {type: Unconfined}}")).len(), 1);
    }

    #[test]
    fn a_capability_that_the_pod_needs_survives_every_class() {
        for yaml in [
            "{runAsUser: 1000}",
            "{runAsNonRoot: true, runAsGroup: 1000}",
            "{capabilities: {add: [MKNOD]}}",
            "{capabilities: {drop: [NET_ADMIN]}}",
            "{capabilities: {add: []}}",
            // Refused already; and even then no pod gets it.
            "{privileged: true, allowPrivilegeEscalation: true, procMount: Unmasked, capabilities: {add: [SYS_ADMIN]}}",
        ] {
            let mut security = kernel();
            merge_container(&container(yaml), false, &mut security);
            assert_eq!(security, kernel(), "{yaml}");
        }
    }

    #[test]
    fn a_field_that_the_class_names_changes_and_the_others_stay() {
        let mut security = kernel();
        merge_container(
            &container("{readOnlyRootFilesystem: false, seccompProfile: {type: Localhost, localhostProfile: a}}"),
            false,
            &mut security,
        );
        let mut expected = kernel();
        expected["readOnlyRootFilesystem"] = json!(false);
        expected["seccompProfile"] = json!({"type": "Localhost", "localhostProfile": "a"});
        assert_eq!(security, expected);
    }

    #[test]
    fn a_pod_in_user_space_takes_another_user_but_never_root_nor_a_capability() {
        let own = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let mut security = own.clone();
        merge_container(
            &container("{runAsUser: 0, runAsNonRoot: false, capabilities: {add: [NET_ADMIN]}}"),
            true,
            &mut security,
        );
        assert_eq!(security, own);
        merge_container(&container("{runAsUser: 1000, runAsGroup: 0}"), true, &mut security);
        assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(1000), &json!(0)));
        assert_eq!(without_effect(None, Some(&container("{runAsUser: 0}"))).len(), 1);
        assert_eq!(without_effect(Some(&pod("{runAsUser: 1}")), None), Vec::<&str>::new());
    }

    #[test]
    fn a_pods_own_settings_of_the_kernel_stay_beside_the_classs() {
        let start = json!({"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"});
        let mut security = json!({"runAsNonRoot": true, "fsGroup": 65532, "sysctls": [start]});
        let asked = pod("{fsGroup: 7, sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '1024'}, \
                         {name: net.ipv4.tcp_keepalive_time, value: '60'}, {name: net.core.somaxconn, value: '1'}]}");
        merge_pod(&asked, true, &mut security);
        let more = json!({"name": "net.ipv4.tcp_keepalive_time", "value": "60"});
        assert_eq!(security, json!({"runAsNonRoot": true, "fsGroup": 7, "sysctls": [start, more]}));
        let mut none = json!({"runAsUser": 0});
        merge_pod(&pod("{runAsUser: 5}"), false, &mut none);
        assert_eq!(none, json!({"runAsUser": 0}));
    }
}
