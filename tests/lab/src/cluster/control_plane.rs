//! etcd, the API server and the controllers, as daemons of the first node.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::PATIENCE;
use super::certificates::PKI;
use crate::lab_box::LabBox;
use crate::parallel;
use crate::plan::{NODE1, PODS, SERVICES};
use crate::readiness::Ready;

/// In memory, without waiting for a disk: a cluster of the laboratory lives no longer than its box.
pub(super) fn start_etcd(node: &LabBox) -> Result<()> {
    let arguments = [
        "etcd",
        "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ];
    node.daemon("etcd", arguments).ready(Ready::Tcp(local(2379))).within(PATIENCE).start().map(drop)
}

pub(super) fn start_apiserver(node: &LabBox) -> Result<()> {
    let file = |name: &str| format!("{PKI}/{name}");
    let arguments = [
        "kube-apiserver".to_owned(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={NODE1}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction,PodSecurity".to_owned(),
        "--allow-privileged".to_owned(),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", file("apiserver-kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
    ];
    // `kubectl` would take ten times the work of this for each look.
    let probe = ["curl", "-fsS", "--cacert", &file("ca.crt"), "--cert", &file("apiserver-kubelet-client.crt")]
        .into_iter()
        .chain(["--key", &file("apiserver-kubelet-client.key"), "https://127.0.0.1:6443/readyz"])
        .map(str::to_owned)
        .collect();
    node.daemon("kube-apiserver", arguments).ready(Ready::Command(probe)).within(PATIENCE).start().map(drop)
}

pub(super) fn start_controllers(node: &LabBox) -> Result<()> {
    let manager = || {
        let arguments = [
            "kube-controller-manager".to_owned(),
            "--kubeconfig=/etc/kubernetes/kube-controller-manager.conf".to_owned(),
            format!("--root-ca-file={PKI}/ca.crt"),
            format!("--service-account-private-key-file={PKI}/service-accounts.key"),
            "--use-service-account-credentials".to_owned(),
            format!("--cluster-signing-cert-file={PKI}/ca.crt"),
            format!("--cluster-signing-key-file={PKI}/ca.key"),
            "--leader-elect=false".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--cluster-cidr={PODS}"),
        ];
        start(node, "kube-controller-manager", arguments, 10257)
    };
    let scheduler = || {
        let arguments = [
            "kube-scheduler".to_owned(),
            "--kubeconfig=/etc/kubernetes/kube-scheduler.conf".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        start(node, "kube-scheduler", arguments, 10259)
    };
    parallel::both(manager, scheduler).map(drop)
}

fn start<const N: usize>(node: &LabBox, name: &str, arguments: [String; N], port: u16) -> Result<()> {
    node.daemon(name, arguments).ready(Ready::Tcp(local(port))).within(PATIENCE).start().map(drop)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
