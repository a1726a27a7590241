//! What makes a box a Kubernetes node: containerd with its network plugins, kubelet and kube-proxy.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use serde_json::json;

use super::PATIENCE;
use super::certificates::PKI;
use crate::congestion::CONGESTION_CONTROL;
use crate::lab_box::LabBox;
use crate::names::REGISTRY_NAME;
use crate::parallel;
use crate::plan::{CLUSTER_DNS, LOAD_BALANCERS, PODS, node_pods};
use crate::readiness::Ready;
use crate::registry::HOSTS;

/// Settings of the whole machine that a kubelet insists on, with the values that it wants to see.
pub(crate) fn kubelet_settings() -> Vec<(String, String)> {
    [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ]
    .map(|(setting, value)| (setting.to_owned(), value.to_owned()))
    .into()
}

/// Starts containerd on the node with this number, counted from 0.
pub(super) fn start_runtime(node: &LabBox, number: u8) -> Result<()> {
    node.command(["nft", "-f", "-"]).input(pod_rules()).run().context("rules for pods")?;
    node.daemon("containerd", ["containerd", "--config", "/etc/containerd/laboratory.toml"])
        .config("/etc/containerd/laboratory.toml", CONTAINERD)?
        .config("/etc/containerd/certs.d/docker.io/hosts.toml", HOSTS)?
        .config(&format!("/etc/containerd/certs.d/{REGISTRY_NAME}/hosts.toml"), HOSTS)?
        .config("/etc/cni/net.d/10-pods.conflist", &pod_network(number))?
        .ready(Ready::File("/run/containerd/containerd.sock".to_owned()))
        .start()
        .map(drop)
}

/// Starts kubelet and kube-proxy; the API server must be there.
pub(super) fn start_kubelet(node: &LabBox, address: Ipv4Addr) -> Result<()> {
    let healthz = |port: u16| {
        let url = format!("http://127.0.0.1:{port}/healthz");
        Ready::Command(["curl".to_owned(), "-fsS".to_owned(), url].into())
    };
    let kubelet = || {
        let arguments = [
            "kubelet".to_owned(),
            "--config=/etc/kubernetes/kubelet.json".to_owned(),
            "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
            format!("--hostname-override={}", node.name()),
            format!("--node-ip={address}"),
        ];
        let daemon = node.daemon("kubelet", arguments).config("/etc/kubernetes/kubelet.json", &kubelet_config())?;
        daemon.ready(healthz(10248)).within(PATIENCE).start()
    };
    let proxy = || {
        node.daemon("kube-proxy", ["kube-proxy", "--config=/etc/kubernetes/kube-proxy.json"])
            .config("/etc/kubernetes/kube-proxy.json", &proxy_config(node))?
            .ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 10249))))
            .within(PATIENCE)
            .start()
    };
    parallel::both(kubelet, proxy).map(drop)
}

/// Pods reach each other and Services with their own addresses, and everything else with their node's. The home router sends
/// all load balancer addresses here, and those that no Service has must not go back to it.
fn pod_rules() -> String {
    format!(
        r#"
table ip pods
delete table ip pods
table ip pods {{
    chain translate {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {PODS} ip daddr != {PODS} oifname "eth0" masquerade
    }}
    chain refuse {{
        type filter hook forward priority filter; policy accept;
        iifname "eth0" ip daddr {LOAD_BALANCERS} meta l4proto tcp reject with tcp reset
        iifname "eth0" ip daddr {LOAD_BALANCERS} reject
    }}
}}
"#
    )
}

/// Each pod is a routed neighbour of its node: without a bridge, no answer of a Service can bypass connection tracking.
fn pod_network(number: u8) -> String {
    let setting = "net.ipv4.tcp_congestion_control";
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node_pods(number).to_string()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni-addresses",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "tuning", "sysctl": {(setting): CONGESTION_CONTROL}},
        ],
    });
    format!("{config:#}\n")
}

const CONTAINERD: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.towline.test/lab/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "/opt/towline/bin/runc"
"#;

fn kubelet_config() -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{PKI}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{PKI}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{PKI}/kubelet.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [CLUSTER_DNS.to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        // The machine may have cgroups of version 1.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        // The disk is the whole machine's: how full it is says nothing about the laboratory.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "200Mi",
            "imagefs.available": "200Mi",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "registryPullQPS": 0,
        "serializeImagePulls": false,
    });
    format!("{config:#}\n")
}

fn proxy_config(node: &LabBox) -> String {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
        "mode": "nftables",
        "clusterCIDR": PODS.to_string(),
        "hostnameOverride": node.name(),
        // Its limits are the whole machine's.
        "conntrack": {"maxPerCore": 0},
    });
    format!("{config:#}\n")
}
