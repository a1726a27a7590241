use api::{Device, RegionLatency};
use jiff::Timestamp;

use crate::moment::{ago, second};

/// How a device is, in two words.
pub(super) fn state(device: &Device, now: Timestamp) -> String {
    match (device.authorized, device.connected_to_control, device.last_seen) {
        (false, _, _) => "waits for approval".to_owned(),
        (_, true, _) => "online".to_owned(),
        (_, _, Some(seen)) => format!("last seen {}", ago(seen, now)),
        _ => "offline".to_owned(),
    }
}

/// Whose it is: its tags', or else its user's.
pub(super) fn owner(device: &Device) -> String {
    if device.tags.is_empty() { device.user.clone() } else { device.tags.join(",") }
}

/// Everything about a device that people ask for, a line each; `-o json` has the rest.
pub(super) fn block(device: &Device, now: Timestamp) -> String {
    let lines = [
        ("name", device.name.clone()),
        ("owner", owner(device)),
        ("addresses", device.addresses.join(", ")),
        ("state", state(device, now)),
        ("system", system(device)),
        ("client", device.client_version.clone()),
        ("joined", device.created.map(|at| format!("{} ({})", second(at), ago(at, now))).unwrap_or_default()),
        ("key", key(device, now)),
        (
            "ephemeral",
            if device.is_ephemeral { "removed once it has been away for a while".to_owned() } else { String::new() },
        ),
        ("routes", routes(device)),
        (
            "endpoints",
            device.client_connectivity.iter().flat_map(|net| net.endpoints.clone()).collect::<Vec<_>>().join(", "),
        ),
        ("relay", home_relay(device)),
        ("id", device.node_id.clone()),
        ("machine key", device.machine_key.clone()),
        ("node key", device.node_key.clone()),
    ];
    let told = lines.into_iter().filter(|(_, text)| !text.is_empty());
    told.map(|(what, text)| format!("{:<12} {text}\n", format!("{what}:"))).collect()
}

fn system(device: &Device) -> String {
    match &device.distro {
        Some(distro) if !distro.name.is_empty() => format!("{} ({} {})", device.os, distro.name, distro.version),
        _ => device.os.clone(),
    }
}

fn key(device: &Device, now: Timestamp) -> String {
    match device.expires {
        _ if device.key_expiry_disabled => "never expires".to_owned(),
        None => "never expires".to_owned(),
        Some(at) if at <= now => format!("expired {} ({})", second(at), ago(at, now)),
        Some(at) => format!("expires {}", second(at)),
    }
}

/// The routes that it offers, or that are approved for it, each with what becomes of it.
fn routes(device: &Device) -> String {
    let offered: Vec<&String> = device.advertised_routes.iter().flatten().collect();
    let approved: Vec<&String> = device.enabled_routes.iter().flatten().collect();
    let waits = offered.iter().map(|route| match approved.contains(route) {
        true => format!("{route} in use"),
        false => format!("{route} waits for approval"),
    });
    let unused =
        approved.iter().filter(|route| !offered.contains(route)).map(|route| format!("{route} approved, not offered"));
    waits.chain(unused).collect::<Vec<_>>().join(", ")
}

fn home_relay(device: &Device) -> String {
    let mut regions = device.client_connectivity.iter().flat_map(|net| &net.latency);
    let home = regions.find(|(_, latency)| latency.preferred);
    home.map(|(region, RegionLatency { latency_ms, .. })| format!("{region}, {latency_ms:.1} ms away"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-02-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_device_is_shown_as_a_block_of_lines() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let device = Device {
            name: "laptop.tail.example.net".to_owned(),
            user: "alice@example.com".to_owned(),
            addresses: list(&["100.64.0.1", "fd7a::1"]),
            os: "linux".to_owned(),
            authorized: true,
            last_seen: "2026-01-31T23:55:00.5Z".parse().ok(),
            expires: "2026-03-01T00:00:00.25Z".parse().ok(),
            advertised_routes: Some(list(&["10.0.0.0/8", "192.168.0.0/16"])),
            enabled_routes: Some(list(&["10.0.0.0/8", "172.16.0.0/12"])),
            node_id: "n1".to_owned(),
            ..Device::default()
        };
        let wanted = "name:        laptop.tail.example.net\n\
                      owner:       alice@example.com\n\
                      addresses:   100.64.0.1, fd7a::1\n\
                      state:       last seen 4m ago\n\
                      system:      linux\n\
                      key:         expires 2026-03-01T00:00:00Z\n\
                      routes:      10.0.0.0/8 in use, 192.168.0.0/16 waits for approval, 172.16.0.0/12 approved, not offered\n\
                      id:          n1\n";
        assert_eq!(block(&device, now()), wanted);
    }

    #[test]
    fn a_tagged_device_is_its_tags_and_one_that_is_kept_out_waits() {
        let device = Device { tags: vec!["tag:server".to_owned()], connected_to_control: true, ..Device::default() };
        assert_eq!((owner(&device).as_str(), state(&device, now()).as_str()), ("tag:server", "waits for approval"));
        let device = Device { authorized: true, ..device };
        assert_eq!(state(&device, now()), "online");
    }
}
