use ipnet::IpNet;
use kubeapi::{Connector, HostName, MAX_CONNECTOR_REPLICAS, Tag};

use super::Observed;
use crate::proxy::{Proxy, Traffic};
use crate::service::usable_class;
use crate::settings::Settings;

/// What a Connector asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Nothing any more.
    Nothing,
    /// These replicas.
    Proxies(Vec<Proxy>),
    /// What will be clear later, for this reason.
    Later(String),
    /// What can't be, for these reasons.
    Never(Vec<String>),
}

/// Reads what a Connector asks for.
pub fn validate(observed: &Observed, settings: &Settings) -> Wanted {
    let connector = &observed.connector;
    if connector.metadata.deletion_timestamp.is_some() {
        return Wanted::Nothing;
    }
    let problems = problems_of(connector);
    if !problems.is_empty() {
        return Wanted::Never(problems);
    }
    let class = match usable_class(observed.class.as_ref()) {
        Ok(class) => class,
        Err(reason) => return Wanted::Later(reason),
    };
    let spec = &connector.spec;
    let routes: Vec<IpNet> = routes(connector).iter().filter_map(|text| network(text).ok()).collect();
    let exit_node = spec.exit_node.unwrap_or(false);
    let tags: Option<Vec<Tag>> = spec
        .tags
        .as_ref()
        .filter(|tags| !tags.is_empty())
        .and_then(|tags| tags.iter().map(|tag| tag.parse().ok()).collect());
    let proxy = |replica: u32| Proxy {
        owner: super::owner(connector),
        replica,
        hostname: hostname(connector, replica),
        tags: tags.clone().unwrap_or_else(|| settings.tags.clone()),
        traffic: Traffic::Connector { routes: routes.clone(), exit_node },
        class: class.clone(),
    };
    Wanted::Proxies((0..replicas(connector)).map(proxy).collect())
}

/// How many replicas a Connector asks for.
pub(super) fn replicas(connector: &Connector) -> u32 {
    u32::try_from(connector.spec.replicas.unwrap_or(1).clamp(0, MAX_CONNECTOR_REPLICAS)).unwrap_or_default()
}

/// Everything that is wrong with a Connector, each as a sentence that names it. What the API server refuses by the schema is
/// refused here too: a cluster may have an older schema.
pub fn problems_of(connector: &Connector) -> Vec<String> {
    let spec = &connector.spec;
    let mut problems = Vec::new();
    if spec.app_connector.is_some() {
        problems.push("spec.appConnector: this version has no app connectors".to_owned());
    }
    if spec.tailnet.is_some() {
        problems.push("spec.tailnet: this version knows only the operator's own tailnet; remove the field".to_owned());
    }
    if spec.app_connector.is_none() && spec.subnet_router.is_none() && spec.exit_node != Some(true) {
        problems.push("spec: a Connector offers something: set subnetRouter or exitNode".to_owned());
    }
    if spec.subnet_router.as_ref().is_some_and(|router| router.advertise_routes.is_empty()) {
        problems.push("spec.subnetRouter.advertiseRoutes: there must be at least one route".to_owned());
    }
    for text in routes(connector) {
        if let Err(reason) = network(text) {
            problems.push(format!("spec.subnetRouter.advertiseRoutes: {reason}"));
        }
    }
    name_problems(connector, &mut problems);
    let tags = spec.tags.iter().flatten().filter_map(|tag| tag.parse::<Tag>().err());
    problems.extend(tags.map(|error| format!("spec.tags: {error}")));
    if spec.replicas.is_some_and(|replicas| !(0..=MAX_CONNECTOR_REPLICAS).contains(&replicas)) {
        problems.push(format!("spec.replicas: there can be 0 to {MAX_CONNECTOR_REPLICAS}"));
    }
    problems
}

fn name_problems(connector: &Connector, problems: &mut Vec<String>) {
    let spec = &connector.spec;
    if spec.hostname.is_some() && spec.hostname_prefix.is_some() {
        problems.push("spec.hostname and spec.hostnamePrefix exclude each other".to_owned());
    }
    if spec.hostname.is_some() && spec.replicas.unwrap_or(1) > 1 {
        problems.push("spec.hostname: several replicas can't share one host name; use hostnamePrefix".to_owned());
    }
    if let Some(Err(error)) = spec.hostname.as_ref().map(|name| name.parse::<HostName>()) {
        problems.push(format!("spec.hostname: {error}"));
    }
    if let Some(prefix) = &spec.hostname_prefix
        && let Err(error) = format!("{prefix}-0").parse::<HostName>()
    {
        problems.push(format!("spec.hostnamePrefix with a number behind it: {error}"));
    }
}

fn hostname(connector: &Connector, replica: u32) -> HostName {
    let spec = &connector.spec;
    let owner = super::owner(connector).host_name();
    match (&spec.hostname, &spec.hostname_prefix) {
        (Some(name), _) => name.parse().unwrap_or(owner),
        (None, Some(prefix)) => HostName::of_parts(&[prefix, &replica.to_string()]),
        (None, None) if replicas(connector) > 1 => HostName::of_parts(&[owner.as_str(), &replica.to_string()]),
        (None, None) => owner,
    }
}

fn routes(connector: &Connector) -> &[String] {
    connector.spec.subnet_router.as_ref().map(|router| router.advertise_routes.as_slice()).unwrap_or_default()
}

/// The networks of 4via6: `fd7a:115c:a1e0:b1a::/64`, then a site's number in 32 bits, of which 16 are used, then IPv4.
const VIA: u64 = 0xfd7a_115c_a1e0_0b1a;

fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet =
        text.parse().map_err(|_| format!("{text:?} is not a network: write address and prefix, as in 10.0.0.0/16"))?;
    let right = network.trunc();
    if network.addr() != right.addr() {
        return Err(format!("{text} has bits set behind its prefix: write {right}"));
    }
    if network.prefix_len() == 0 {
        return Err(format!("{text} is the whole internet: set exitNode instead"));
    }
    if let IpNet::V6(via) = network {
        let bits = u128::from(via.addr());
        let site = u32::try_from((bits >> 32) & u128::from(u32::MAX)).unwrap_or_default();
        if u64::try_from(bits >> 64).unwrap_or_default() == VIA && (via.prefix_len() < 96 || site > 0xffff) {
            return Err(format!(
                "{text} is not a network of 4via6: the prefix is 96 or longer and the site 65535 at most"
            ));
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_route_says_why() {
        for (text, reason) in [
            ("10.7.0.1/16", "write 10.7.0.0/16"),
            ("10.7.0.0", "is not a network"),
            ("0.0.0.0/0", "exitNode"),
            ("fd7a:115c:a1e0:b1a::/64", "4via6"),
            ("fd7a:115c:a1e0:b1a:1:0::/96", "4via6"),
            ("x", "is not a network"),
        ] {
            let error = network(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn routes_of_both_families_and_4via6_are_taken() {
        for text in ["10.7.0.0/16", "192.168.1.1/32", "2001:db8::/32", "fd7a:115c:a1e0:b1a:0:7:a01:0/112"] {
            assert!(network(text).is_ok(), "{text}");
        }
    }
}
