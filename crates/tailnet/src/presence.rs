use std::net::SocketAddr;
use std::sync::Arc;

use crypto::DiscoPublic;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tailcfg::{MapRequest, NetInfo, NodeId, RegionId};

/// Where a device is right now, as far as it told. Kept in memory and written behind: a crash loses the last moments of
/// it, and the device says it again.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Presence {
    /// Where it may be reached by UDP; at most [`Presence::ENDPOINT_LIMIT`].
    pub endpoints: Vec<SocketAddr>,
    /// The disco key of its process; zero before it told one.
    pub disco_key: DiscoPublic,
    /// Its home relay.
    pub home: RegionId,
    /// What it measured of its network.
    pub net_info: Option<Arc<NetInfo>>,
    /// Whether it counts as connected. A short interruption doesn't show.
    pub online: bool,
    /// When it last came or went.
    pub last_seen: Option<Timestamp>,
    /// Its live map stream.
    pub(crate) stream: Option<StreamId>,
    /// When its live stream ended, until it comes back or counts as gone: only then do its peers hear of it.
    pub(crate) left_at: Option<Timestamp>,
    /// When it will count as gone, unless it comes back.
    pub(crate) gone_at: Option<Timestamp>,
}

/// One map stream of a device: the newest is the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u64);

impl Presence {
    /// How many endpoints of a device are passed on.
    pub const ENDPOINT_LIMIT: usize = 32;

    /// How long a device may be without a stream before its peers hear of it: clients that change their network come
    /// back within seconds.
    pub const ABSENCE_GRACE: SignedDuration = SignedDuration::from_secs(10);

    /// The same after the server's own restart, when every device has to come back.
    pub const RESTART_GRACE: SignedDuration = SignedDuration::from_secs(120);

    /// Takes what a device told; says what of it is news to its peers.
    pub(crate) fn take(&mut self, report: Report) -> News {
        let mut news = News::default();
        if let Some(endpoints) = report.endpoints
            && endpoints != self.endpoints
        {
            // An empty list can't be told by a patch: stock clients read it as "unchanged".
            news.vanished |= endpoints.is_empty();
            news.endpoints = true;
            self.endpoints = endpoints;
        }
        if let Some(key) = report.disco_key
            && key != self.disco_key
        {
            news.disco_key = true;
            self.disco_key = key;
        }
        if let Some(net_info) = report.net_info {
            if net_info.preferred_derp != self.home {
                news.vanished |= net_info.preferred_derp.is_none();
                news.home = true;
                self.home = net_info.preferred_derp;
            }
            news.measured = self.net_info.as_deref() != Some(&net_info);
            self.net_info = Some(Arc::new(net_info));
        }
        news
    }
}

/// What of a report is news.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) endpoints: bool,
    pub(crate) disco_key: bool,
    pub(crate) home: bool,
    /// Something went away in a way that a patch can't say.
    pub(crate) vanished: bool,
    /// Only the measurements changed, which peers don't see.
    pub(crate) measured: bool,
}

impl News {
    pub(crate) fn concerns_peers(self) -> bool {
        self.endpoints || self.disco_key || self.home
    }
}

/// What a device tells of where it is; what is `None` is as it was.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Report {
    endpoints: Option<Vec<SocketAddr>>,
    disco_key: Option<DiscoPublic>,
    net_info: Option<NetInfo>,
}

impl Report {
    /// What a map request tells. Endpoints that can't be reached from anywhere else are left out.
    ///
    /// A streaming request often comes before the device has found its endpoints: an empty list in it tells nothing.
    pub fn of(request: &MapRequest) -> Self {
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        for endpoint in request.endpoints.iter().copied().filter(is_useful) {
            if endpoints.len() < Presence::ENDPOINT_LIMIT && !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        let tells_endpoints = !request.stream || !endpoints.is_empty();
        Self {
            endpoints: tells_endpoints.then_some(endpoints),
            disco_key: (!request.disco_key.is_zero()).then_some(request.disco_key),
            net_info: request.hostinfo.as_ref().and_then(|hostinfo| hostinfo.net_info.clone()),
        }
    }
}

fn is_useful(endpoint: &SocketAddr) -> bool {
    let address = endpoint.ip();
    endpoint.port() != 0 && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// What is written behind of a device's presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceRecord {
    /// The device.
    pub node: NodeId,
    /// See [`Presence::endpoints`].
    pub endpoints: Vec<SocketAddr>,
    /// See [`Presence::disco_key`].
    pub disco_key: DiscoPublic,
    /// See [`Presence::home`].
    pub home: RegionId,
    /// See [`Presence::online`].
    pub online: bool,
    /// See [`Presence::last_seen`].
    pub last_seen: Option<Timestamp>,
    /// Routes that it serves while others wait, so that a restart moves none.
    pub primary_for: Vec<ipnet::IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lite(endpoints: &[&str]) -> MapRequest {
        MapRequest { endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(), ..MapRequest::default() }
    }

    #[test]
    fn endpoints_that_lead_nowhere_and_repetitions_are_left_out() {
        let report =
            Report::of(&lite(&["0.0.0.0:0", "127.0.0.1:5", "224.0.0.1:5", "1.2.3.4:0", "1.2.3.4:5", "1.2.3.4:5"]));
        assert_eq!(report.endpoints, Some(vec!["1.2.3.4:5".parse().unwrap()]));
    }

    #[test]
    fn no_more_endpoints_are_kept_than_the_limit() {
        for (told, kept) in [(32, 32), (33, 32), (3200, 32)] {
            let texts: Vec<_> = (1..=told).map(|port| format!("1.2.3.4:{port}")).collect();
            let report = Report::of(&lite(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(report.endpoints.unwrap().len(), kept);
        }
    }

    #[test]
    fn a_stream_without_endpoints_tells_nothing_of_them_and_a_lite_update_does() {
        let stream = MapRequest { stream: true, ..MapRequest::default() };
        assert_eq!(Report::of(&stream).endpoints, None);
        assert_eq!(Report::of(&lite(&[])).endpoints, Some(vec![]));
    }

    #[test]
    fn news_is_only_what_differs() {
        let mut presence = Presence::default();
        let report = Report::of(&lite(&["1.2.3.4:5"]));
        assert!(presence.take(report.clone()).endpoints);
        assert_eq!(presence.take(report), News::default());
        assert!(presence.take(Report::of(&lite(&[]))).vanished);
    }
}
