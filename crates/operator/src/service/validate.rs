use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kubeapi::{DomainName, HostName, ProxyClassSpec, Tag, annotation, class, condition};

use super::Observed;
use crate::proxy::{Port, Proxy, Target, Traffic};
use crate::settings::Settings;

/// What a Service asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Nothing of us.
    Nothing,
    /// A proxy.
    Proxy(Box<Proxy>),
    /// What will be clear later, for this reason.
    Later(String),
    /// What can't be, for these reasons.
    Never(Vec<String>),
}

/// Whether anything about the Service concerns us.
pub fn is_ours(service: &Service, settings: &Settings) -> bool {
    is_exposed(service, settings) || is_egress(service)
}

/// Reads what a Service asks for.
pub fn validate(observed: &Observed, settings: &Settings) -> Wanted {
    let service = &observed.service;
    if service.metadata.deletion_timestamp.is_some() || !is_ours(service, settings) {
        return Wanted::Nothing;
    }
    let mut problems = problems_of(service, settings);
    if let Some(other) = &observed.hostname_taken_by {
        problems.push(format!(
            "the host name {} is taken by {other}, which had it first: choose another with the annotation {}",
            hostname_text(service),
            annotation::HOSTNAME
        ));
    }
    if !problems.is_empty() {
        return Wanted::Never(problems);
    }
    let class = match class_of(observed) {
        Ok(class) => class,
        Err(reason) => return Wanted::Later(reason),
    };
    let Some(traffic) = traffic(service) else {
        return Wanted::Later("the Service has no cluster address yet".to_owned());
    };
    Wanted::Proxy(Box::new(Proxy {
        owner: super::owner(service),
        replica: 0,
        hostname: hostname(service).unwrap_or_else(|_| super::owner(service).host_name()),
        tags: tags(service).ok().flatten().unwrap_or_else(|| settings.tags.clone()),
        traffic,
        class,
    }))
}

/// The name of the ProxyClass that a Service asks for: its label is stronger than its annotation.
pub(crate) fn class_name(service: &Service) -> Option<String> {
    let label = service.metadata.labels.as_ref().and_then(|labels| labels.get(annotation::PROXY_CLASS));
    label
        .map(String::as_str)
        .or_else(|| text(service, annotation::PROXY_CLASS))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The host name that a Service's device has, or would have.
pub(crate) fn hostname_text(service: &Service) -> String {
    text(service, annotation::HOSTNAME).map_or_else(|| super::owner(service).host_name().to_string(), str::to_owned)
}

/// The annotation that names the target of an egress.
pub(super) fn target_annotation(service: &Service) -> &'static str {
    let is_there = |key: &&str| has(service, key);
    let addresses = [annotation::TAILNET_IP, annotation::TAILNET_IP_OLD];
    addresses.into_iter().find(is_there).unwrap_or(annotation::TAILNET_FQDN)
}

/// Everything that is wrong with what a Service asks for, each as a sentence that names it.
pub(super) fn problems_of(service: &Service, settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    if has(service, annotation::PROXY_GROUP) {
        problems.push(format!("the annotation {} asks for a ProxyGroup, which this version does not have: remove it, and the Service gets a proxy of its own", annotation::PROXY_GROUP));
    }
    let exposed = is_exposed(service, settings);
    if exposed && is_egress(service) {
        problems.push(format!(
            "the Service asks to be exposed and leads to the tailnet: keep {} or the annotations {} and {}, not both",
            annotation::EXPOSE,
            annotation::TAILNET_FQDN,
            annotation::TAILNET_IP
        ));
    } else if exposed {
        exposure_problems(service, settings, &mut problems);
    } else {
        egress_problems(service, &mut problems);
    }
    if let Err(error) = hostname(service) {
        problems.push(format!("the annotation {}: {error}", annotation::HOSTNAME));
    }
    if let Err(error) = tags(service) {
        problems.push(format!("the annotation {}: {error}", annotation::TAGS));
    }
    problems
}

fn exposure_problems(service: &Service, settings: &Settings, problems: &mut Vec<String>) {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        problems.push(
            "a headless Service can't be exposed: it has no cluster address that a proxy could lead to".to_owned(),
        );
    }
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let name = spec.and_then(|spec| spec.external_name.as_deref()).unwrap_or_default();
        if let Err(reason) = external_name(name, service.metadata.namespace.as_deref().unwrap_or_default(), settings) {
            problems.push(format!("spec.externalName: {reason}"));
        }
    }
}

fn egress_problems(service: &Service, problems: &mut Vec<String>) {
    let (ip, fqdn) = (target_ip(service), text(service, annotation::TAILNET_FQDN));
    if ip.is_some() && fqdn.is_some() {
        problems.push(format!(
            "the annotations {} and {} exclude each other: keep one",
            annotation::TAILNET_IP,
            annotation::TAILNET_FQDN
        ));
        return;
    }
    if let Some(ip) = ip
        && let Err(reason) = target_address(ip)
    {
        problems.push(format!("the annotation {}: {reason}", annotation::TAILNET_IP));
    }
    if let Some(fqdn) = fqdn
        && let Err(error) = fqdn.parse::<DomainName>()
    {
        problems.push(format!("the annotation {}: {error}", annotation::TAILNET_FQDN));
    }
}

fn target_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address; write one address without a prefix, as in 100.64.0.7"))?;
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(format!("{address} is no address of a device"));
    }
    Ok(address)
}

/// Refuses names that would lead the tailnet to what the Service's writer may not reach: the API server, this machine, and
/// other namespaces.
fn external_name(text: &str, namespace: &str, settings: &Settings) -> Result<DomainName, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("{text} is an address and must be a name"));
    }
    let name: DomainName = text.parse().map_err(|error| format!("{error}"))?;
    if name.as_str() == "kubernetes.default" || name.labels().next_back() == Some("localhost") {
        return Err(format!("{name} is not a name that can be exposed"));
    }
    let Some(within) = within_cluster(&name, settings) else { return Ok(name) };
    match within.as_slice() {
        [_, .., owner, "svc"] if *owner == namespace => Ok(name),
        [_, .., owner, "svc"] => Err(format!(
            "{name} is in the namespace {owner}; a Service can only be exposed from its own namespace, {namespace}"
        )),
        // The cluster answers names of pods with whatever address they spell, of any namespace.
        _ => Err(format!(
            "{name} is a name of the cluster and of no Service in the namespace {namespace}; write one as in \
             db.{namespace}.svc.{}",
            settings.cluster_domain
        )),
    }
}

/// The labels of a name of the cluster, without its domain; `None` for a name of elsewhere. What ends in `svc` or `pod`,
/// which are no domains, a resolver with the search list of pods would look for in the cluster.
fn within_cluster<'a>(name: &'a DomainName, settings: &Settings) -> Option<Vec<&'a str>> {
    let domain = settings.cluster_domain.trim_matches('.').to_ascii_lowercase();
    let domain: Vec<&str> = domain.split('.').collect();
    let labels: Vec<&str> = name.labels().collect();
    let inside = labels.len().checked_sub(domain.len()).filter(|at| labels[*at..] == domain[..]);
    match inside {
        Some(at) => Some(labels[..at].to_vec()),
        None => matches!(labels.as_slice(), [.., "svc" | "pod"]).then_some(labels),
    }
}

fn class_of(observed: &Observed) -> Result<Option<ProxyClassSpec>, String> {
    usable_class(observed.class.as_ref())
}

/// The ProxyClass, when it may be used; why not, else.
pub(crate) fn usable_class(
    class: Option<&Result<std::sync::Arc<kubeapi::ProxyClass>, String>>,
) -> Result<Option<ProxyClassSpec>, String> {
    let class = match class {
        None => return Ok(None),
        Some(Err(name)) => return Err(format!("the ProxyClass {name} does not exist")),
        Some(Ok(class)) => class,
    };
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let conditions = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    match condition::find(conditions, condition::PROXY_CLASS_READY) {
        Some(ready) if ready.status == "True" && ready.observed_generation == class.metadata.generation => {
            Ok(Some(class.spec.clone()))
        }
        Some(ready) if ready.status == "False" => {
            Err(format!("the ProxyClass {name} can't be used: {}", ready.message))
        }
        _ => Err(format!("the ProxyClass {name} has not been looked at yet")),
    }
}

fn traffic(service: &Service) -> Option<Traffic> {
    if let Some(target) = target(service) {
        return Some(Traffic::Egress { target, ports: ports(service) });
    }
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some(Traffic::IngressToName(spec.external_name.as_deref()?.parse().ok()?));
    }
    let all = spec.cluster_ips.as_deref().unwrap_or_default().iter().chain(&spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in all.filter_map(|text| text.parse::<IpAddr>().ok()) {
        if !addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            addresses.push(address);
        }
    }
    (!addresses.is_empty()).then_some(Traffic::IngressToAddresses(addresses))
}

fn target(service: &Service) -> Option<Target> {
    match (target_ip(service), text(service, annotation::TAILNET_FQDN)) {
        (Some(ip), _) => target_address(ip).ok().map(Target::Address),
        (None, Some(name)) => name.parse().ok().map(Target::Name),
        (None, None) => None,
    }
}

fn ports(service: &Service) -> Vec<Port> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = |port: &ServicePort| match port.protocol.as_deref() {
        None | Some("TCP") => Some(Port { udp: false, number: u16::try_from(port.port).ok()? }),
        Some("UDP") => Some(Port { udp: true, number: u16::try_from(port.port).ok()? }),
        Some(_) => None,
    };
    let mut ports: Vec<Port> = declared.iter().filter_map(port).collect();
    ports.sort();
    ports.dedup();
    ports
}

fn hostname(service: &Service) -> Result<HostName, kubeapi::HostNameError> {
    match text(service, annotation::HOSTNAME) {
        Some(text) => text.parse(),
        None => Ok(super::owner(service).host_name()),
    }
}

fn tags(service: &Service) -> Result<Option<Vec<Tag>>, kubeapi::TagError> {
    text(service, annotation::TAGS).map(Tag::list).transpose()
}

fn is_exposed(service: &Service, settings: &Settings) -> bool {
    let spec = service.spec.as_ref();
    let balanced = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    let class = spec.and_then(|spec| spec.load_balancer_class.as_deref());
    text(service, annotation::EXPOSE) == Some("true")
        || balanced && (class == Some(class::LOAD_BALANCER) || class.is_none() && settings.default_load_balancer)
}

fn is_egress(service: &Service) -> bool {
    target_ip(service).is_some() || text(service, annotation::TAILNET_FQDN).is_some()
}

fn target_ip(service: &Service) -> Option<&str> {
    text(service, annotation::TAILNET_IP).or_else(|| text(service, annotation::TAILNET_IP_OLD))
}

fn has(service: &Service, key: &str) -> bool {
    text(service, key).is_some()
}

fn text<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cluster_domain: &str) -> Settings {
        Settings { cluster_domain: cluster_domain.to_owned(), ..Settings::plain() }
    }

    fn refused(name: &str) -> Option<String> {
        external_name(name, "home", &settings("cluster.local")).err()
    }

    #[test]
    fn services_of_the_own_namespace_and_names_of_elsewhere_are_exposed() {
        for name in [
            "db.home.svc.cluster.local",
            "DB.home.svc.cluster.local.",
            "db-0.db.home.svc.cluster.local",
            "db.home.svc",
            "db.example.com",
            "svc.example.com",
            "mycluster.local",
            "home.svc.example.com",
        ] {
            assert_eq!(refused(name), None, "{name}");
        }
    }

    #[test]
    fn no_other_name_of_the_cluster_is() {
        for name in [
            "10-0-3-7.kube-system.pod.cluster.local",
            // Any address is answered below any namespace.
            "10-0-3-7.home.pod.cluster.local",
            "10-0-3-7.home.pod",
            "10-0-3-7.HOME.Pod.Cluster.Local.",
            "db.payments.svc.cluster.local",
            "db.home.payments.svc.cluster.local",
            "db.payments.svc",
            "home.svc.cluster.local",
            "svc.cluster.local",
            "db.cluster.local",
            "cluster.local",
            "kubernetes.default",
            "kubernetes.default.svc",
        ] {
            assert!(refused(name).is_some(), "{name}");
        }
        assert!(external_name("a.b.pod.k8s.example.com", "home", &settings("K8s.example.com.")).is_err());
    }

    #[test]
    fn the_refusal_says_what_to_write() {
        let said = refused("10-0-3-7.kube-system.pod.cluster.local").unwrap();
        assert!(said.ends_with("write one as in db.home.svc.cluster.local"), "{said}");
        let said = refused("db.payments.svc.cluster.local").unwrap();
        assert!(said.contains("from its own namespace, home"), "{said}");
    }
}
