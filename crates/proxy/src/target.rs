use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use node::Snapshot;

use crate::config::Target;

/// The network in which addresses behind a site stand: the site's number and the IPv4 address follow it.
const VIA: u128 = 0xfd7a_115c_a1e0_0b1a_0000_0000_0000_0000;

/// Where a target is now: its addresses, IPv4 first, or why there is none.
pub(crate) fn locate(target: &Target, snapshot: &Snapshot) -> Result<Vec<IpAddr>, String> {
    let name = match target {
        Target::Address(address) => return Ok(vec![*address]),
        Target::Name(name) => name.as_str(),
    };
    let Some(netmap) = snapshot.mesh.netmap() else {
        return Err(format!("whether the tailnet has {name} is not known yet"));
    };
    // MagicDNS shows IPv4 addresses only, as a rule; packets know both.
    let node = netmap.peers().values().find(|peer| is_same(&peer.name, name));
    let mut found: Vec<IpAddr> = match node {
        Some(node) => node.addresses.iter().map(|network| network.addr()).collect(),
        None => snapshot.names.addresses_of(name).map(<[IpAddr]>::to_vec).unwrap_or_default(),
    };
    if found.is_empty() {
        found.extend(via(name, netmap.magic_dns_suffix()));
    }
    let own = snapshot.addresses();
    found.retain(|address| !own.contains(address));
    found.sort();
    if found.is_empty() {
        return Err(format!(
            "the tailnet shows this proxy no {name}; is the name right, and does the policy let it see it?"
        ));
    }
    Ok(found)
}

/// The address that `<a-b-c-d>-via-<site>` below the tailnet's suffix stands for.
fn via(name: &str, suffix: &str) -> Option<IpAddr> {
    let (label, rest) = name.split_once('.')?;
    if !is_same(rest, suffix) {
        return None;
    }
    let (address, site) = label.split_once("-via-")?;
    let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
    let site: u32 = site.parse().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from_bits(VIA | u128::from(site) << 32 | u128::from(address.to_bits()))))
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_behind_a_site_is_an_address_of_it() {
        let expected: IpAddr = "fd7a:115c:a1e0:b1a:0:7:a01:203".parse().unwrap();
        assert_eq!(via("10-1-2-3-via-7.taila31de.ts.net", "taila31de.ts.net."), Some(expected));
        for other in
            ["10-1-2-3-via-7.other.ts.net", "10-1-2-3.taila31de.ts.net", "10-1-2-3-via-x.taila31de.ts.net", "via"]
        {
            assert_eq!(via(other, "taila31de.ts.net"), None, "{other}");
        }
    }
}
