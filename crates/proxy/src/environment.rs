use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kubeapi::DomainName;
use kubeapi::environment as names;
use node::DeviceConfig;

use crate::address::{self, Unusable};
use crate::config::{Config, Destination, Member, Pod, Port, Purpose, Target, Transport};

/// The variables that a process was started with.
///
/// A variable that is there and empty counts as absent, as in the stock image.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// A variable that can't be meant as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {reason}; {advice}")]
pub struct EnvironmentError {
    variable: String,
    reason: String,
    advice: String,
}

/// The most ports that one egress listens on.
const MAX_PORTS: usize = 1000;

/// Variables of the stock image that would change what a proxy is, with where the same is said here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("TS_AUTHKEY", "put the key into the configuration file (AuthKey)"),
    ("TS_AUTH_KEY", "put the key into the configuration file (AuthKey)"),
    ("TS_HOSTNAME", "name the node with the annotation tailscale.com/hostname, or in the Connector"),
    ("TS_ROUTES", "name the routes in a Connector"),
    ("TS_ACCEPT_DNS", "remove it: a proxy resolves no names of the tailnet for others"),
    ("TS_EXTRA_ARGS", "put the setting into the configuration file"),
    ("TS_TAILSCALED_EXTRA_ARGS", "put the setting into the configuration file"),
    ("TS_SERVE_CONFIG", "expose the Service by tailscale.com/expose"),
    ("TS_EGRESS_PROXIES_CONFIG_PATH", "give each target a Service of its own"),
    ("TS_INGRESS_PROXIES_CONFIG_PATH", "expose each Service by tailscale.com/expose"),
    ("TS_SOCKS5_SERVER", "remove it: only what the Service asks for is forwarded"),
    ("TS_OUTBOUND_HTTP_PROXY_LISTEN", "remove it: only what the Service asks for is forwarded"),
];

impl Environment {
    /// The variables of this process. What is not UTF-8 is no name or value of ours.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// Understands what the variables say together.
    ///
    /// # Errors
    /// The first variable that is missing, unknown or contradicts another, with what to do.
    pub fn resolve(&self) -> Result<Config, EnvironmentError> {
        for (name, advice) in ELSEWHERE {
            if self.get(name).is_some() {
                return Err(wrong(name, "has no meaning for this proxy", advice));
            }
        }
        let user_space = self.boolean(names::USERSPACE, true)?;
        let purpose = self.purpose(user_space)?;
        let app = match &purpose {
            Purpose::Ingress(_) => names::app::INGRESS,
            Purpose::Egress { .. } => names::app::EGRESS,
            Purpose::Connector => names::app::CONNECTOR,
        };
        Ok(Config {
            pod: self.pod(&purpose)?,
            state_secret: self.state_secret()?,
            config_folder: self.config_folder()?,
            metrics: self.metrics(&purpose, user_space)?,
            purpose,
            user_space,
            app: self.app(app)?,
            certificates: self.certificates(),
            api_server: self.get("KUBERNETES_SERVICE_HOST").map(str::to_owned),
        })
    }

    /// Understands what the variables say of the API server's proxy as a node: it is in user space, and forwards nothing.
    ///
    /// # Errors
    /// The first variable that is missing or unknown, with what to do.
    pub fn member(&self) -> Result<Member, EnvironmentError> {
        for (name, advice) in ELSEWHERE {
            if self.get(name).is_some() {
                return Err(wrong(name, "has no meaning here", advice));
            }
        }
        if !self.boolean(names::USERSPACE, true)? {
            return Err(wrong(names::USERSPACE, "is false, and this runs in user space only", "remove it"));
        }
        Ok(Member {
            pod_uid: self.pod_uid()?,
            state_secret: self.state_secret()?,
            config_folder: self.config_folder()?,
            certificates: self.certificates(),
            app: self.app(names::app::API_SERVER_PROXY)?,
            device: DeviceConfig::UserSpace,
            port: 0,
            manage_firewall: true,
        })
    }

    fn purpose(&self, user_space: bool) -> Result<Purpose, EnvironmentError> {
        let ingress = [names::DESTINATION_IPS, names::DESTINATION_IP, names::DESTINATION_NAME];
        let egress = [names::TARGET_IP, names::TARGET_NAME];
        let first = |group: &[&'static str]| group.iter().copied().find(|name| self.get(name).is_some());
        match (first(&ingress), first(&egress)) {
            (Some(ingress), Some(egress)) => Err(wrong(
                ingress,
                &format!("and {egress} are both set, and one proxy goes in one direction"),
                "remove one of them",
            )),
            (Some(_), None) => {
                self.no_ports("is set for an ingress, which takes every port")?;
                Ok(Purpose::Ingress(self.destination()?))
            }
            (None, Some(_)) => {
                let target = self.target()?;
                Ok(Purpose::Egress { target, ports: self.ports(user_space)? })
            }
            (None, None) => {
                self.no_ports("is set, and there is no target to send to")?;
                Ok(Purpose::Connector)
            }
        }
    }

    fn destination(&self) -> Result<Destination, EnvironmentError> {
        let addresses = self.get(names::DESTINATION_IPS).map(|text| (names::DESTINATION_IPS, text));
        let address = addresses.or_else(|| self.get(names::DESTINATION_IP).map(|text| (names::DESTINATION_IP, text)));
        match (address, self.get(names::DESTINATION_NAME)) {
            (Some((variable, _)), Some(_)) => Err(wrong(
                variable,
                &format!("and {} are both set", names::DESTINATION_NAME),
                "send to addresses or to a name, not to both",
            )),
            (Some((variable, text)), None) => destination_addresses(variable, text),
            (None, Some(name)) => Ok(Destination::Name(domain(names::DESTINATION_NAME, name)?)),
            (None, None) => Ok(Destination::Addresses { v4: None, v6: None }),
        }
    }

    fn target(&self) -> Result<Target, EnvironmentError> {
        match (self.get(names::TARGET_IP), self.get(names::TARGET_NAME)) {
            (Some(_), Some(_)) => Err(wrong(
                names::TARGET_IP,
                &format!("and {} are both set", names::TARGET_NAME),
                "send to an address or to a name, not to both",
            )),
            (Some(address), None) => Ok(Target::Address(usable(names::TARGET_IP, address)?)),
            (None, name) => Ok(Target::Name(domain(names::TARGET_NAME, name.unwrap_or_default())?)),
        }
    }

    fn ports(&self, user_space: bool) -> Result<Vec<Port>, EnvironmentError> {
        let variable = names::EGRESS_PORTS;
        let Some(text) = self.get(variable) else {
            if user_space {
                return Err(wrong(
                    variable,
                    "is missing, and an egress in user space has to know what to listen on",
                    &format!(
                        "list the ports as in tcp:80,udp:53, or set {}=false to forward all of them",
                        names::USERSPACE
                    ),
                ));
            }
            return Ok(Vec::new());
        };
        if !user_space {
            return Err(wrong(
                variable,
                "is set, and a proxy with a TUN device forwards every port",
                &format!("remove it, or set {}=true", names::USERSPACE),
            ));
        }
        let mut ports = BTreeSet::new();
        for part in text.split(',') {
            let port = port(part.trim()).ok_or_else(|| {
                wrong(variable, &format!("lists {part:?}, which is no port"), "write ports as in tcp:80,udp:53")
            })?;
            ports.insert(port);
        }
        if ports.len() > MAX_PORTS {
            return Err(wrong(
                variable,
                &format!("lists more than {MAX_PORTS} ports"),
                "forward all of them with a TUN device",
            ));
        }
        Ok(ports.into_iter().collect())
    }

    fn no_ports(&self, reason: &str) -> Result<(), EnvironmentError> {
        match self.get(names::EGRESS_PORTS) {
            Some(_) => Err(wrong(names::EGRESS_PORTS, reason, "remove it")),
            None => Ok(()),
        }
    }

    fn pod(&self, purpose: &Purpose) -> Result<Pod, EnvironmentError> {
        let advice = |field: &str| format!("set it from the pod's {field} by the downward API");
        let (variable, text) = match (self.get(names::POD_IPS), self.get(names::POD_IP)) {
            (Some(text), _) => (names::POD_IPS, text),
            (None, Some(text)) => (names::POD_IP, text),
            (None, None) => (names::POD_IPS, ""),
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let address: IpAddr = part.parse().map_err(|_| {
                wrong(variable, &format!("has {part:?}, which is no address"), &advice("status.podIPs"))
            })?;
            if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(wrong(variable, "has two addresses of one family", &advice("status.podIPs")));
            }
            addresses.push(address);
        }
        if addresses.is_empty() && matches!(purpose, Purpose::Egress { .. }) {
            return Err(wrong(
                variable,
                "is missing, and an egress takes what arrives there",
                &advice("status.podIPs"),
            ));
        }
        Ok(Pod {
            name: self.required(names::POD_NAME, &advice("metadata.name"))?.to_owned(),
            uid: self.pod_uid()?,
            addresses,
        })
    }

    fn pod_uid(&self) -> Result<String, EnvironmentError> {
        let advice = "set it from the pod's metadata.uid by the downward API";
        self.required(names::POD_UID, advice).map(str::to_owned)
    }

    fn config_folder(&self) -> Result<PathBuf, EnvironmentError> {
        let advice = "name the folder that the config Secret is mounted at";
        self.required(names::CONFIG_FOLDER, advice).map(PathBuf::from)
    }

    fn certificates(&self) -> Option<PathBuf> {
        self.get(names::CERTIFICATE_FILE).map(PathBuf::from)
    }

    fn state_secret(&self) -> Result<String, EnvironmentError> {
        let variable = names::STATE_SECRET;
        let name = self.required(variable, "name the Secret that the node's keys are kept in")?;
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        // The name becomes a part of a path of the API server.
        if name.len() > 253 || !name.bytes().all(fine) || name.starts_with('.') || name.contains("..") {
            return Err(wrong(variable, &format!("is {name:?}, which is no name of a Secret"), "use the pod's name"));
        }
        Ok(name.to_owned())
    }

    fn metrics(&self, purpose: &Purpose, user_space: bool) -> Result<Option<SocketAddr>, EnvironmentError> {
        if !self.boolean(names::METRICS, false)? {
            return Ok(None);
        }
        if matches!(purpose, Purpose::Egress { .. }) && !user_space {
            return Err(wrong(
                names::METRICS,
                "is true, and this egress forwards every port to its target, the one for metrics too",
                &format!("remove it, or list ports in {} and set {}=true", names::EGRESS_PORTS, names::USERSPACE),
            ));
        }
        let default = format!("[::]:{}", kubeapi::contract::METRICS_PORT);
        let text = self.get(names::LOCAL_ADDRESS).unwrap_or(&default);
        let address = text.parse().map_err(|_| {
            wrong(
                names::LOCAL_ADDRESS,
                &format!("is {text:?}, which is no address with a port"),
                "write it as in 10.0.0.7:9002",
            )
        })?;
        Ok(Some(address))
    }

    fn app(&self, default: &str) -> Result<String, EnvironmentError> {
        let app = self.get(names::APP).unwrap_or(default);
        if app.len() > 64 || !app.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(names::APP, "is no word of up to 64 characters", &format!("use {default}")));
        }
        Ok(app.to_owned())
    }

    fn boolean(&self, variable: &str, default: bool) -> Result<bool, EnvironmentError> {
        match self.get(variable) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(wrong(variable, &format!("is {other:?}"), "write true or false")),
        }
    }

    fn required(&self, variable: &str, advice: &str) -> Result<&str, EnvironmentError> {
        self.get(variable).ok_or_else(|| wrong(variable, "is missing", advice))
    }

    fn get(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: other people's variables may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn destination_addresses(variable: &str, text: &str) -> Result<Destination, EnvironmentError> {
    let (mut v4, mut v6) = (None, None);
    for part in text.split(',').map(str::trim) {
        let taken = match usable(variable, part)? {
            IpAddr::V4(address) => v4.replace(address).is_some(),
            IpAddr::V6(address) => v6.replace(address).is_some(),
        };
        if taken {
            return Err(wrong(
                variable,
                "has two addresses of one family",
                "name at most one IPv4 and one IPv6 address",
            ));
        }
    }
    Ok(Destination::Addresses { v4, v6 })
}

fn usable(variable: &str, text: &str) -> Result<IpAddr, EnvironmentError> {
    let advice = "name an address of one machine, as in 10.1.0.10";
    let address: IpAddr =
        text.parse().map_err(|_| wrong(variable, &format!("has {text:?}, which is no address"), advice))?;
    address::check(address)
        .map_err(|unusable: Unusable| wrong(variable, &format!("is refused: {unusable}"), advice))?;
    Ok(address)
}

fn domain(variable: &str, text: &str) -> Result<DomainName, EnvironmentError> {
    text.parse().map_err(|error: kubeapi::DomainNameError| wrong(variable, "is refused", &error.to_string()))
}

fn port(text: &str) -> Option<Port> {
    let (transport, number) = text.split_once(':')?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return None,
    };
    let number = number.parse().ok().filter(|number| *number != 0)?;
    Some(Port { transport, number })
}

fn wrong(variable: &str, reason: &str, advice: &str) -> EnvironmentError {
    EnvironmentError { variable: variable.to_owned(), reason: reason.to_owned(), advice: advice.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: [(&str, &str); 5] = [
        ("POD_NAME", "ts-web-abcde-0"),
        ("POD_UID", "1-2-3"),
        ("POD_IPS", "10.0.0.7"),
        ("TS_KUBE_SECRET", "ts-web-abcde-0"),
        ("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", "/etc/tsconfig/ts-web-abcde-0"),
    ];

    fn resolve(more: &[(&str, &str)]) -> Result<Config, EnvironmentError> {
        POD.iter().chain(more).copied().collect::<Environment>().resolve()
    }

    fn refused(more: &[(&str, &str)]) -> String {
        resolve(more).unwrap_err().to_string()
    }

    #[test]
    fn an_ingress_takes_all_addresses_of_its_service_over_the_first() {
        let config = resolve(&[("TS_DEST_IP", "10.1.0.9"), ("TOWLINE_DEST_IPS", "10.1.0.10,fd00:1::10")]).unwrap();
        let Purpose::Ingress(destination) = config.purpose else { panic!("no ingress") };
        assert_eq!(destination.address(true), Some("10.1.0.10".parse().unwrap()));
        assert_eq!(destination.address(false), Some("fd00:1::10".parse().unwrap()));
        assert!(config.user_space);
        assert_eq!(config.app, "k8s-operator-ingress-proxy");
    }

    #[test]
    fn an_ingress_to_one_family_has_no_other() {
        let Purpose::Ingress(destination) = resolve(&[("TS_DEST_IP", "10.1.0.9")]).unwrap().purpose else {
            panic!("no ingress")
        };
        assert_eq!(destination.address(false), None);
    }

    #[test]
    fn an_egress_with_a_tun_needs_no_ports_and_one_in_user_space_does() {
        let target = ("TS_TAILNET_TARGET_FQDN", "robbinsdale.taila31de.ts.net.");
        let config = resolve(&[target, ("TS_USERSPACE", "false")]).unwrap();
        let Purpose::Egress { target: Target::Name(name), ports } = config.purpose else { panic!("no egress by name") };
        assert_eq!((name.as_str(), ports.len()), ("robbinsdale.taila31de.ts.net", 0));

        let error = refused(&[target, ("TS_USERSPACE", "true")]);
        assert!(error.starts_with("TOWLINE_EGRESS_PORTS is missing") && error.contains("tcp:80,udp:53"), "{error}");

        let config = resolve(&[target, ("TOWLINE_EGRESS_PORTS", "udp:53, tcp:80,tcp:80")]).unwrap();
        let Purpose::Egress { ports, .. } = config.purpose else { panic!("no egress") };
        assert_eq!(ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp:80", "udp:53"]);
    }

    #[test]
    fn a_connector_has_neither_destination_nor_target() {
        let config = resolve(&[("TS_USERSPACE", "false")]).unwrap();
        assert_eq!(config.purpose, Purpose::Connector);
        assert_eq!(config.app, "k8s-operator-connector-resource");
    }

    #[test]
    fn what_contradicts_itself_names_the_variable_and_the_next_step() {
        let ip = ("TS_TAILNET_TARGET_IP", "100.64.0.9");
        let name = ("TS_TAILNET_TARGET_FQDN", "a.b.ts.net");
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&[ip, name], &["TS_TAILNET_TARGET_IP", "TS_TAILNET_TARGET_FQDN", "not to both"]),
            (&[("TS_DEST_IP", "10.1.0.9"), ip], &["TS_DEST_IP", "TS_TAILNET_TARGET_IP", "remove one"]),
            (
                &[("TS_DEST_IP", "10.1.0.9"), ("TS_EXPERIMENTAL_DEST_DNS_NAME", "db.example.com")],
                &["TS_DEST_IP", "TS_EXPERIMENTAL_DEST_DNS_NAME", "not to both"],
            ),
            (&[("TOWLINE_EGRESS_PORTS", "tcp:80")], &["TOWLINE_EGRESS_PORTS", "no target"]),
            (&[("TS_DEST_IP", "10.1.0.9"), ("TOWLINE_EGRESS_PORTS", "tcp:80")], &["TOWLINE_EGRESS_PORTS", "remove it"]),
            (
                &[ip, ("TS_USERSPACE", "false"), ("TOWLINE_EGRESS_PORTS", "tcp:80")],
                &["TOWLINE_EGRESS_PORTS", "TS_USERSPACE=true"],
            ),
            (&[ip, ("TOWLINE_EGRESS_PORTS", "tcp:0")], &["tcp:0", "tcp:80,udp:53"]),
            (&[ip, ("TOWLINE_EGRESS_PORTS", "sctp:80")], &["sctp:80"]),
            (&[ip, ("TS_USERSPACE", "false"), ("TS_ENABLE_METRICS", "true")], &["TS_ENABLE_METRICS", "every port"]),
            (&[("TS_USERSPACE", "maybe")], &["TS_USERSPACE", "true or false"]),
            (&[("TS_DEST_IP", "10.1.0.9,10.1.0.10")], &["two addresses of one family"]),
            (&[("TS_DEST_IP", "169.254.169.254")], &["TS_DEST_IP", "link-local"]),
            (&[("TS_DEST_IP", "127.0.0.1")], &["TS_DEST_IP", "loopback"]),
            (&[("TS_EXPERIMENTAL_DEST_DNS_NAME", "db")], &["TS_EXPERIMENTAL_DEST_DNS_NAME", "only one label"]),
            (&[("TS_AUTHKEY", "tskey-auth-1")], &["TS_AUTHKEY", "configuration file"]),
            (&[("TS_KUBE_SECRET", "../a")], &["TS_KUBE_SECRET", "no name of a Secret"]),
            (&[ip, ("POD_IPS", "10.0.0.7,10.0.0.8"), ("TS_USERSPACE", "false")], &["POD_IPS", "two addresses"]),
            (
                &[("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", "9002")],
                &["TS_LOCAL_ADDR_PORT", "10.0.0.7:9002"],
            ),
        ];
        for (variables, words) in cases {
            let error = refused(variables);
            assert!(words.iter().all(|word| error.contains(word)), "{variables:?}: {error}");
        }
    }

    #[test]
    fn an_empty_variable_is_none() {
        assert_eq!(refused(&[("POD_UID", "")]).split(';').next(), Some("POD_UID is missing"));
        assert!(resolve(&[("TS_DEST_IP", " "), ("TS_AUTHKEY", "")]).is_ok());
    }

    #[test]
    fn metrics_are_served_where_the_pod_says() {
        let config = resolve(&[("TS_ENABLE_METRICS", "true"), ("TS_LOCAL_ADDR_PORT", "10.0.0.7:9002")]).unwrap();
        assert_eq!(config.metrics, Some("10.0.0.7:9002".parse().unwrap()));
        assert_eq!(resolve(&[("TS_LOCAL_ADDR_PORT", "10.0.0.7:9002")]).unwrap().metrics, None);
    }

    #[test]
    fn an_environment_does_not_show_values() {
        let environment: Environment = [("SECRET", "x-secret-x")].into_iter().collect();
        assert!(!format!("{environment:?}").contains("x-secret-x"));
    }

    proptest! {
        #[test]
        fn any_environment_is_understood_or_refused(
            values in proptest::collection::btree_map(
                proptest::sample::select(vec![
                    "TS_USERSPACE", "TS_DEST_IP", "TOWLINE_DEST_IPS", "TS_TAILNET_TARGET_IP", "POD_IPS",
                    "TS_TAILNET_TARGET_FQDN", "TOWLINE_EGRESS_PORTS", "TS_EXPERIMENTAL_DEST_DNS_NAME", "TS_KUBE_SECRET",
                ]),
                "\\PC{0,40}",
                0..6,
            )
        ) {
            let _ = POD.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .chain(values.into_iter().map(|(name, value)| (name.to_owned(), value)))
                .collect::<Environment>().resolve();
        }
    }
}
