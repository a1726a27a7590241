use kubeapi::Tag;

/// What holds for every proxy, resolved once at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The namespace that proxies run in.
    pub namespace: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The coordination server, as nodes reach it.
    pub login_server: String,
    /// The image of proxies.
    pub image: String,
    /// When it is pulled; Kubernetes' own rule when absent.
    pub image_pull_policy: Option<String>,
    /// Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Tags of proxies that ask for none.
    pub tags: Vec<Tag>,
    /// The ProxyClass of proxies that ask for none.
    pub proxy_class: Option<String>,
    /// The priority class of pods, unless a ProxyClass names one.
    pub priority_class: Option<String>,
    /// A ConfigMap of certificates that proxies trust.
    pub certificates: Option<String>,
    /// Whether a Service of type LoadBalancer without a class is ours.
    pub default_load_balancer: bool,
}

#[cfg(test)]
impl Settings {
    /// The settings of a chart that is given a server and an image, and nothing else.
    pub(crate) fn plain() -> Self {
        Self {
            namespace: "tailscale".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            login_server: "https://control.example.com".to_owned(),
            image: "registry.example.com/towline:0.1.0".to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            tags: Vec::new(),
            proxy_class: None,
            priority_class: None,
            certificates: None,
            default_load_balancer: false,
        }
    }
}
