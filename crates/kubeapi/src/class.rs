//! Class names by which users choose us.

/// `spec.loadBalancerClass` of a Service that becomes a node.
pub const LOAD_BALANCER: &str = "tailscale";

/// The name of the IngressClass, unless the chart says otherwise.
pub const INGRESS: &str = "tailscale";

/// `spec.controller` of the IngressClass.
pub const INGRESS_CONTROLLER: &str = "tailscale.com/ts-ingress";
