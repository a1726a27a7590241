//! What Towline says to Kubernetes, as types: custom resources, annotations, labels, conditions, and the contract between
//! the operator and the pods that it makes.
//!
//! Group, kinds, fields, annotations and reasons are those of the stock operator, so that manifests written for it apply
//! unchanged. [`contract`] is the page to read before writing either side of a proxy.
//!
//! What it does not do: talk to a cluster, decide anything about an object beyond whether it parses, or know what a node
//! is. It has no async code and touches no file.
//!
//! Invariants:
//! - [`custom_resource_definitions`] is made from the types that everybody reads and writes with; the chart's copy is
//!   tested to be the same.
//! - A [`Tag`], a [`HostName`] and a [`DomainName`] are right by construction.
//! - What a proxy wrote into its state Secret is read with bounds by [`ProxyState::read`], which cannot fail: a broken
//!   value is one that was not written.

#![forbid(unsafe_code)]

pub mod annotation;
pub mod class;
pub mod condition;
pub mod contract;
pub mod environment;
pub mod label;
pub mod name;

mod config;
#[expect(unreachable_pub, reason = "the schema's derive repeats the type inside a function")]
mod connector;
mod definition;
mod domain_name;
mod host_name;
#[expect(unreachable_pub, reason = "the schema's derive repeats the type inside a function")]
mod proxy_class;
mod state;
mod tag;

pub use config::{ConfigError, NodeConfig, config_file_name};
pub use connector::{
    AppConnector, Connector, ConnectorDevice, ConnectorSpec, ConnectorStatus, MAX_CONNECTOR_REPLICAS, SubnetRouter,
};
pub use definition::{custom_resource_definitions, definition_file_name, definition_yaml};
pub use domain_name::{DomainName, DomainNameError};
pub use host_name::{HostName, HostNameError};
pub use proxy_class::{
    ContainerDebug, ContainerOverlay, EnvironmentVariable, Metrics, NodePortConfig, PodOverlay, PortRange, ProxyClass,
    ProxyClassSpec, ProxyClassStatus, ServiceMonitor, StatefulSetOverlay, StaticEndpoints, TailscaleSettings,
};
pub use state::{
    MissingTarget, OfferedRoutes, PodIdentity, ProxyState, Reissue, RouteStanding, TargetProblem, keys as state_keys,
};
pub use tag::{Tag, TagError};

/// The API group of the custom resources.
pub const GROUP: &str = "tailscale.com";

/// The one version of the custom resources.
pub const VERSION: &str = "v1alpha1";
