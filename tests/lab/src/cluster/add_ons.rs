//! What runs in the cluster before anybody's own workload: its names.

use anyhow::Result;
use cache::Cache;
use image::{Image, LayerBuilder, Process, Reference};

use super::Cluster;
use crate::lab_box::LabBox;
use crate::plan::CLUSTER_DNS;
use crate::registry;

/// Puts the images that the cluster itself needs into the registry; each is one static program.
pub(super) fn push_images(registry: &LabBox, cache: &Cache) -> Result<()> {
    for name in ["pause", "coredns"] {
        let path = format!("/{name}");
        let layer = LayerBuilder::new().file(&path, cache.program(name), 0o755).build()?;
        let process = Process { entrypoint: vec![path], ..Process::default() };
        registry::push(registry, &Image::new(process, vec![layer]), &Reference::new(format!("lab/{name}"), "1"))?;
    }
    Ok(())
}

/// Applies the manifests; the API server must be there.
pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    cluster.apply(&COREDNS.replace("CLUSTER_DNS", &CLUSTER_DNS.to_string())).map(drop)
}

/// CoreDNS as clusters have it: their own names here, every other from the name server of the node.
const COREDNS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects:
- {kind: ServiceAccount, name: coredns, namespace: kube-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      health
      ready
      kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
      }
      forward . /etc/resolv.conf
      cache 30
      reload
      loadbalance
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      containers:
      - name: coredns
        image: registry.towline.test/lab/coredns:1
        imagePullPolicy: IfNotPresent
        args: [-conf, /etc/coredns/Corefile]
        ports:
        - {name: dns, containerPort: 53, protocol: UDP}
        - {name: dns-tcp, containerPort: 53, protocol: TCP}
        readinessProbe:
          httpGet: {path: /ready, port: 8181}
          periodSeconds: 1
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}
          readOnlyRootFilesystem: true
        volumeMounts:
        - {name: config, mountPath: /etc/coredns, readOnly: true}
      volumes:
      - name: config
        configMap: {name: coredns}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: CLUSTER_DNS
  selector: {k8s-app: kube-dns}
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
"#;
