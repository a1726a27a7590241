use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use kubeapi::DomainName;
use node::DeviceConfig;

use crate::rules;

/// What a proxy is started from: the environment of its pod, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The pod that it runs in.
    pub pod: Pod,
    /// The name of its state Secret, in the pod's namespace.
    pub state_secret: String,
    /// The folder with its configuration files.
    pub config_folder: PathBuf,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether packets go through user space. Otherwise through a TUN device and nf_tables.
    pub user_space: bool,
    /// What the node says that it is for.
    pub app: String,
    /// A file of PEM certificates to believe besides the public web's.
    pub certificates: Option<PathBuf>,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// The address that the cluster's API server is reached at, which no traffic of the tailnet is sent to by name.
    pub api_server: Option<String>,
}

/// A workload of the cluster as a node of the tailnet: what its pod says of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The pod's UID: tells the state that this pod wrote from that of one before.
    pub pod_uid: String,
    /// The name of its state Secret, in the pod's namespace.
    pub state_secret: String,
    /// The folder with its configuration files.
    pub config_folder: PathBuf,
    /// A file of PEM certificates to believe besides the public web's.
    pub certificates: Option<PathBuf>,
    /// What the node says that it is for.
    pub app: String,
    /// How packets enter and leave the pod.
    pub device: DeviceConfig,
    /// The UDP port of the mesh; 0 lets the system choose.
    pub port: u16,
    /// Whether the node manages the firewall: not where other rules have to stand in its one table.
    pub manage_firewall: bool,
}

/// The pod that a proxy runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its UID: tells the state that this pod wrote from that of one before.
    pub uid: String,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
}

/// What a proxy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// What arrives from the tailnet for the node's own addresses goes to a destination in the cluster.
    Ingress(Destination),
    /// What arrives from the cluster at the pod's own addresses goes to a target in the tailnet.
    Egress {
        /// Where to.
        target: Target,
        /// The ports to listen on in user space; empty in kernel mode, where all of them are forwarded.
        ports: Vec<Port>,
    },
    /// Networks that the node offers to the tailnet, as its configuration says.
    Connector,
}

/// Where an ingress sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To these addresses: a family that is not there is refused.
    Addresses {
        /// What arrives by IPv4 goes here.
        v4: Option<Ipv4Addr>,
        /// What arrives by IPv6 goes here.
        v6: Option<Ipv6Addr>,
    },
    /// To whatever a name stands for.
    Name(DomainName),
}

/// Where an egress sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To an address of the tailnet, or one behind a subnet router.
    Address(IpAddr),
    /// To a name of the tailnet: a node, a service, or an address behind a site.
    Name(DomainName),
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that an egress in user space listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol.
    pub transport: Transport,
    /// The port's number, of the pod and of the target.
    pub number: u16,
}

impl Config {
    /// The UDP port of WireGuard in kernel mode.
    pub(crate) fn udp_port(&self) -> u16 {
        rules::udp_port(&self.pod.uid)
    }

    /// The proxy as a node.
    pub(crate) fn member(&self) -> Member {
        let (device, port) = if self.user_space {
            (DeviceConfig::UserSpace, 0)
        } else {
            (DeviceConfig::Tun { name: rules::INTERFACE.to_owned() }, self.udp_port())
        };
        // In kernel mode the proxy's own rules have to stand in the node's one table.
        let own_rules = !self.user_space && !matches!(self.purpose, Purpose::Connector);
        Member {
            pod_uid: self.pod.uid.clone(),
            state_secret: self.state_secret.clone(),
            config_folder: self.config_folder.clone(),
            certificates: self.certificates.clone(),
            app: self.app.clone(),
            device,
            port,
            manage_firewall: !own_rules,
        }
    }
}

impl Destination {
    /// The address that stands in for an own address of this family.
    pub fn address(&self, for_ipv4: bool) -> Option<IpAddr> {
        match self {
            Self::Addresses { v4, v6 } => {
                if for_ipv4 {
                    v4.map(IpAddr::V4)
                } else {
                    v6.map(IpAddr::V6)
                }
            }
            Self::Name(_) => None,
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses { v4: Some(v4), v6: Some(v6) } => write!(f, "{v4} and {v6}"),
            Self::Addresses { v4: Some(v4), v6: None } => write!(f, "{v4}"),
            Self::Addresses { v4: None, v6: Some(v6) } => write!(f, "{v6}"),
            Self::Addresses { v4: None, v6: None } => f.write_str("nothing"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{transport}:{}", self.number)
    }
}
