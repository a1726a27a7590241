//! Who is who in the cluster: its authorities, certificates and kubeconfigs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::KUBECONFIG;
use crate::authority::{Authority, Credential, Subject};
use crate::lab_box::LabBox;
use crate::plan::NODE1;

/// Where keys and certificates lie in a node.
pub(super) const PKI: &str = "/etc/kubernetes/pki";

/// The cluster's own authority, and the one for the API server's aggregation front.
pub(super) struct Authorities {
    cluster: Authority,
    front_proxy: Authority,
    service_accounts: Authority,
}

impl Authorities {
    pub(super) fn open(records: &Path) -> Result<Self> {
        let folder = records.join("cluster");
        Ok(Self {
            cluster: Authority::open(&folder.join("ca"), "kubernetes")?,
            front_proxy: Authority::open(&folder.join("front-proxy"), "front-proxy")?,
            // Only its key pair is used: service account tokens are signed, not certified.
            service_accounts: Authority::open(&folder.join("service-accounts"), "service-accounts")?,
        })
    }

    /// The administrator's kubeconfig.
    pub(super) fn admin_kubeconfig(&self) -> Result<String> {
        self.kubeconfig("admin", "kubernetes-admin", &["system:masters"])
    }

    /// Gives a node its own certificates and kubeconfigs.
    pub(super) fn equip_node(&self, node: &LabBox, address: Ipv4Addr) -> Result<()> {
        let name = node.name();
        let kubelet = self.cluster.issue(
            &format!("kubelet-{name}"),
            &Subject {
                common_name: format!("system:node:{name}"),
                organizations: vec!["system:nodes".to_owned()],
                names: vec![name.to_owned()],
                addresses: vec![IpAddr::V4(address)],
            },
        )?;
        node.write(&format!("{PKI}/ca.crt"), self.cluster.certificate(), 0o644)?;
        put(node, "kubelet", &kubelet)?;
        let kubelet = kubeconfig(&self.cluster, "kubelet", &kubelet);
        node.write("/etc/kubernetes/kubelet.conf", kubelet, 0o600)?;
        let proxy = self.kubeconfig("kube-proxy", "system:kube-proxy", &[])?;
        node.write("/etc/kubernetes/kube-proxy.conf", proxy, 0o600)?;
        node.write(KUBECONFIG, self.admin_kubeconfig()?, 0o600)
    }

    /// Gives the first node what the control plane needs besides.
    pub(super) fn equip_control_plane(&self, node: &LabBox) -> Result<()> {
        let names = ["", ".default", ".default.svc", ".default.svc.cluster.local"];
        let api_server = Subject {
            common_name: "kube-apiserver".to_owned(),
            names: names.iter().map(|suffix| format!("kubernetes{suffix}")).chain(["localhost".to_owned()]).collect(),
            addresses: vec![NODE1.into(), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(10, 1, 0, 1).into()],
            ..Subject::default()
        };
        put(node, "apiserver", &self.cluster.issue("apiserver", &api_server)?)?;
        let kubelet_client = Subject {
            common_name: "kube-apiserver-kubelet-client".to_owned(),
            organizations: vec!["system:masters".to_owned()],
            ..Subject::default()
        };
        put(node, "apiserver-kubelet-client", &self.cluster.issue("apiserver-kubelet-client", &kubelet_client)?)?;
        let front = Subject { common_name: "front-proxy-client".to_owned(), ..Subject::default() };
        put(node, "front-proxy-client", &self.front_proxy.issue("client", &front)?)?;
        node.write(&format!("{PKI}/front-proxy-ca.crt"), self.front_proxy.certificate(), 0o644)?;
        node.write(&format!("{PKI}/ca.key"), self.cluster.key()?, 0o600)?;
        node.write(&format!("{PKI}/service-accounts.key"), self.service_accounts.key()?, 0o600)?;
        node.write(&format!("{PKI}/service-accounts.pub"), self.service_accounts.public_key(), 0o644)?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let config = self.kubeconfig(name, &format!("system:{name}"), &[])?;
            node.write(&format!("/etc/kubernetes/{name}.conf"), config, 0o600)?;
        }
        Ok(())
    }

    /// The kubeconfig of a client certificate kept under `file`.
    fn kubeconfig(&self, file: &str, user: &str, groups: &[&str]) -> Result<String> {
        let subject = Subject {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Subject::default()
        };
        Ok(kubeconfig(&self.cluster, file, &self.cluster.issue(file, &subject)?))
    }
}

fn put(node: &LabBox, name: &str, credential: &Credential) -> Result<()> {
    node.write(&format!("{PKI}/{name}.crt"), &credential.certificate, 0o644)?;
    node.write(&format!("{PKI}/{name}.key"), &credential.key, 0o600)
}

fn kubeconfig(cluster: &Authority, user: &str, credential: &Credential) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "home",
        "clusters": [{"name": "home", "cluster": {
            "server": format!("https://{NODE1}:6443"),
            "certificate-authority-data": base64(cluster.certificate()),
        }}],
        "contexts": [{"name": "home", "context": {"cluster": "home", "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64(&credential.certificate),
            "client-key-data": base64(&credential.key),
        }}],
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
