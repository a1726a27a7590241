use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dial::Resolve;
use ipnet::IpNet;
use kubeapi::DomainName;
use telemetry::Condition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::address;
use crate::config::Destination;

/// How often a name is asked for; the resolver's cache answers until the end of the records' TTL.
const LOOK: Duration = Duration::from_secs(30);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How many addresses of a name are kept.
const MAX_ADDRESSES: usize = 64;

/// Where what comes from the tailnet goes to.
#[derive(Debug, Clone)]
pub(crate) enum Backends {
    /// To one address a family.
    Fixed { v4: Option<IpAddr>, v6: Option<IpAddr> },
    /// To what a name stands for now.
    Named(watch::Receiver<Vec<IpAddr>>),
    /// To where the client wants to go, within the routes that the node offers.
    Asked(watch::Receiver<Vec<IpNet>>),
}

/// Why an address that a name stands for is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Unusable(#[from] address::Unusable),
    #[error("it is the cluster's API server")]
    ApiServer,
}

impl Backends {
    /// A destination of addresses.
    pub(crate) fn fixed(destination: &Destination) -> Self {
        Self::Fixed { v4: destination.address(true), v6: destination.address(false) }
    }

    /// The addresses to try for a client that wants to go to `to`, best first.
    pub(crate) fn candidates(&self, to: IpAddr) -> Vec<IpAddr> {
        match self {
            Self::Fixed { v4, v6 } => (if to.is_ipv4() { v4 } else { v6 }).iter().copied().collect(),
            Self::Named(addresses) => {
                let mut found = addresses.borrow().clone();
                // A name has the families that it has: a client of the other one is served all the same.
                found.sort_by_key(|address| address.is_ipv4() != to.is_ipv4());
                found
            }
            Self::Asked(routes) => {
                let offered = routes.borrow().iter().any(|route| route.contains(&to));
                if offered && address::check(to).is_ok() { vec![to] } else { Vec::new() }
            }
        }
    }
}

/// Follows what a name stands for, until the token is cancelled.
///
/// What it stood for last stays in force while it can't be resolved.
pub(crate) fn follow(
    name: DomainName,
    api_server: Option<String>,
    resolver: Arc<dyn Resolve>,
    condition: Condition,
    ends: CancellationToken,
) -> watch::Receiver<Vec<IpAddr>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(ends.run_until_cancelled_owned(async move {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let forbidden = api_servers(api_server.as_deref(), resolver.as_ref()).await;
            match look(&name, &forbidden, resolver.as_ref()).await {
                Ok(addresses) => {
                    condition.met();
                    let changed = sender.send_if_modified(|current| {
                        let mut before = current.clone();
                        before.sort();
                        let mut now = addresses.clone();
                        now.sort();
                        // Name servers rotate their answers: the order alone is no news, and yet it is followed.
                        *current = addresses;
                        before != now
                    });
                    if changed {
                        tracing::info!(addresses = sender.borrow().len(), "the destination was resolved");
                        tracing::debug!(%name, "its name");
                    }
                }
                Err(reason) => {
                    tracing::warn!("the destination can't be resolved");
                    tracing::debug!(%name, %reason, "its name, and what is wrong");
                    if sender.borrow().is_empty() {
                        condition.unmet(format!("{name} can't be resolved: {reason}"));
                    }
                }
            }
        }
    }));
    receiver
}

async fn look(name: &DomainName, forbidden: &[IpAddr], resolver: &dyn Resolve) -> Result<Vec<IpAddr>, String> {
    // Without the dot the pod's search list would make names of this cluster of it, in whatever namespace.
    let absolute = format!("{name}.");
    let asked = tokio::time::timeout(QUESTION, resolver.resolve(&absolute)).await;
    let found = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    let mut refusal = "it has no address".to_owned();
    let mut usable = Vec::new();
    for address in found.into_iter().take(MAX_ADDRESSES) {
        match judge(address, forbidden) {
            Ok(()) => usable.push(address),
            Err(reason) => refusal = format!("{address} is refused: {reason}"),
        }
    }
    if usable.is_empty() { Err(refusal) } else { Ok(usable) }
}

fn judge(address: IpAddr, forbidden: &[IpAddr]) -> Result<(), Refused> {
    address::check(address)?;
    if forbidden.contains(&address.to_canonical()) { Err(Refused::ApiServer) } else { Ok(()) }
}

async fn api_servers(host: Option<&str>, resolver: &dyn Resolve) -> Vec<IpAddr> {
    let Some(host) = host else { return Vec::new() };
    match host.parse() {
        Ok(address) => vec![address],
        // Kubernetes always names an address; where somebody names a name, what it stands for counts.
        Err(_) => match tokio::time::timeout(QUESTION, resolver.resolve(host)).await {
            Ok(Ok(found)) => found,
            _ => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use telemetry::Health;

    use super::*;

    #[derive(Debug)]
    struct Names(&'static [(&'static str, &'static [&'static str])]);

    impl Resolve for Names {
        fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let found = self.0.iter().find(|(name, _)| *name == host);
            let found = found.map(|(_, list)| list.iter().map(|text| text.parse().unwrap()).collect());
            std::future::ready(found.ok_or_else(|| io::Error::other("no such name"))).boxed()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn looked_up(addresses: &'static [&'static str]) -> Result<Vec<IpAddr>, String> {
        let names = Names(Box::leak(Box::new([("db.example.com.", addresses)])));
        look(&"db.example.com".parse().unwrap(), &[ip("10.1.0.1")], &names).await
    }

    #[tokio::test]
    async fn addresses_that_no_name_may_lead_to_are_left_out() {
        assert_eq!(looked_up(&["127.0.0.1", "10.9.0.1", "169.254.169.254"]).await, Ok(vec![ip("10.9.0.1")]));
        let refused = looked_up(&["10.1.0.1"]).await.unwrap_err();
        assert_eq!(refused, "10.1.0.1 is refused: it is the cluster's API server");
        assert!(looked_up(&["::1"]).await.unwrap_err().contains("loopback"));
        assert!(looked_up(&["::ffff:10.1.0.1"]).await.unwrap_err().contains("API server"));
        assert_eq!(looked_up(&[]).await.unwrap_err(), "it has no address");
    }

    /// As the resolver of a pod does: `db.payments` would be `db.payments.svc.cluster.local`.
    #[tokio::test]
    async fn a_name_is_asked_for_as_it_is_and_never_within_the_search_list_of_the_pod() {
        let names = Names(&[("db.payments", &["10.1.0.9"]), ("db.example.com.", &["10.9.0.1"])]);
        let refused = look(&"db.payments".parse().unwrap(), &[], &names).await.unwrap_err();
        assert_eq!(refused, "no such name");
        assert_eq!(look(&"db.example.com".parse().unwrap(), &[], &names).await, Ok(vec![ip("10.9.0.1")]));
    }

    #[tokio::test]
    async fn a_name_is_followed_and_one_that_is_gone_is_what_is_missing() {
        let health = Health::new();
        let (known, unknown) = (health.condition("known"), health.condition("unknown"));
        let resolver = Arc::new(Names(&[("db.example.com.", &["10.9.0.1"])]));
        let ends = CancellationToken::new();
        let start =
            |name: &str, condition| follow(name.parse().unwrap(), None, resolver.clone(), condition, ends.clone());
        let mut addresses = start("db.example.com", known);
        addresses.wait_for(|found| *found == [ip("10.9.0.1")]).await.unwrap();
        let _none = start("gone.example.com", unknown);
        while health.unmet() != [("unknown", "gone.example.com can't be resolved: no such name".to_owned())] {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_name_prefers_the_clients_family_and_a_fixed_destination_has_no_other() {
        let (_sender, named) = watch::channel(vec![ip("fd00::1"), ip("10.9.0.1")]);
        let named = Backends::Named(named);
        assert_eq!(named.candidates(ip("100.64.0.1")), [ip("10.9.0.1"), ip("fd00::1")]);
        assert_eq!(named.candidates(ip("fd7a::1")), [ip("fd00::1"), ip("10.9.0.1")]);
        let fixed = Backends::fixed(&Destination::Addresses { v4: Some([10, 1, 0, 9].into()), v6: None });
        assert_eq!(fixed.candidates(ip("100.64.0.1")), [ip("10.1.0.9")]);
        assert_eq!(fixed.candidates(ip("fd7a::1")), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_connector_reaches_what_it_offers_and_nothing_else() {
        let (_sender, routes) = watch::channel(vec!["10.0.0.0/16".parse().unwrap(), "169.254.0.0/16".parse().unwrap()]);
        let asked = Backends::Asked(routes);
        assert_eq!(asked.candidates(ip("10.0.3.4")), [ip("10.0.3.4")]);
        assert_eq!(asked.candidates(ip("10.1.0.1")), Vec::<IpAddr>::new());
        assert_eq!(asked.candidates(ip("169.254.169.254")), Vec::<IpAddr>::new());
    }
}
