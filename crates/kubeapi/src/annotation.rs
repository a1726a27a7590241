//! Annotations: what users write, and what the operator writes.

/// On a Service: make it a node of the tailnet. Only the value `true` counts.
pub const EXPOSE: &str = "tailscale.com/expose";

/// On a Service: the node's host name.
pub const HOSTNAME: &str = "tailscale.com/hostname";

/// On a Service: the node's tags, with commas.
pub const TAGS: &str = "tailscale.com/tags";

/// On a Service: an address of the tailnet that pods reach through it.
pub const TAILNET_IP: &str = "tailscale.com/tailnet-ip";

/// The old name of [`TAILNET_IP`], still honoured.
pub const TAILNET_IP_OLD: &str = "tailscale.com/ts-tailnet-target-ip";

/// On a Service: a name of the tailnet that pods reach through it.
pub const TAILNET_FQDN: &str = "tailscale.com/tailnet-fqdn";

/// On a Service, as label or annotation: the ProxyClass of its proxy.
pub const PROXY_CLASS: &str = "tailscale.com/proxy-class";

/// On a Service: the ProxyGroup that serves it.
pub const PROXY_GROUP: &str = "tailscale.com/proxy-group";

/// On a headless Service: the name in the tailnet that its pods lead to.
pub const MAGIC_DNS_NAME: &str = "tailscale.com/magic-dnsname";

/// What the operator writes into pods so that a change of target rolls them.
pub mod last_set {
    /// The exposed Service's cluster addresses.
    pub const CLUSTER_IP: &str = "tailscale.com/operator-last-set-cluster-ip";
    /// The exposed Service's external name.
    pub const CLUSTER_DNS_NAME: &str = "tailscale.com/operator-last-set-cluster-dns-name";
    /// The target's address in the tailnet.
    pub const TAILNET_TARGET_IP: &str = "tailscale.com/operator-last-set-ts-tailnet-target-ip";
    /// The target's name in the tailnet.
    pub const TAILNET_TARGET_FQDN: &str = "tailscale.com/operator-last-set-ts-tailnet-target-fqdn";
}

/// What the operator writes down about the credentials of a proxy, on its config Secret, which only the operator may write.
pub mod credential {
    /// How often a key was asked for, the running attempt included: part of the description that makes a key findable.
    pub const ATTEMPT: &str = "tailscale.com/auth-key-attempt";
    /// The id of the key in the configuration, or of the last one.
    pub const KEY_ID: &str = "tailscale.com/auth-key-id";
    /// When that key was made, RFC 3339.
    pub const MINTED: &str = "tailscale.com/auth-key-minted";
    /// When that key stops to work, RFC 3339.
    pub const EXPIRES: &str = "tailscale.com/auth-key-expires";
    /// The tags that the node was let in with, with commas: a device with other tags is never removed for this proxy.
    pub const TAGS: &str = "tailscale.com/auth-key-tags";
    /// The device that the proxy was last seen to be.
    pub const DEVICE: &str = "tailscale.com/device-id";
}
