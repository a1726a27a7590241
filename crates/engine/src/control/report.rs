use std::collections::BTreeMap;
use std::net::IpAddr;

use path::{RegionId, Report};
use tailcfg::NetInfo;

use crate::Netcheck;

/// A measurement as the coordination server is told of it.
pub(super) fn net_info(report: &Report, home: Option<RegionId>, has_ipv6: bool) -> NetInfo {
    let mut latency = BTreeMap::new();
    for (family, regions) in [("v4", &report.latency_v4), ("v6", &report.latency_v6)] {
        for (region, time) in regions {
            latency.insert(format!("{region}-{family}"), time.as_secs_f64());
        }
    }
    NetInfo {
        mapping_varies_by_dest_ip: report.mapping_varies,
        working_ipv6: Some(report.global_v6.is_some()),
        os_has_ipv6: Some(has_ipv6),
        working_udp: Some(report.udp),
        preferred_derp: tailcfg::RegionId(home.map_or(0, RegionId::get)),
        derp_latency: latency,
        ..NetInfo::default()
    }
}

/// A measurement as a user is told of it.
pub(super) fn netcheck(report: &Report, home: Option<RegionId>, has_ipv6: bool, local: &[IpAddr]) -> Netcheck {
    Netcheck { nat: report.nat(local), net_info: net_info(report, home, has_ipv6), report: report.clone() }
}
