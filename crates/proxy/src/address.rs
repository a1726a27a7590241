use std::net::IpAddr;

/// Why no packet may be sent to an address on behalf of the tailnet or the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is a loopback address, which would be this pod itself")]
    Loopback,
    #[error("it is the unspecified address, which is nobody's")]
    Unspecified,
    #[error("it is a link-local address, where machines keep their metadata service")]
    LinkLocal,
    #[error("it is a multicast or broadcast address, which is nobody's own")]
    Multicast,
}

/// Refuses addresses that lead to the pod itself, to its machine, or to nobody in particular.
pub(crate) fn check(address: IpAddr) -> Result<(), Unusable> {
    // ::ffff:127.0.0.1 is another way to write 127.0.0.1 for the kernel.
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_loopback() {
        Err(Unusable::Loopback)
    } else if address.is_unspecified() || matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0) {
        Err(Unusable::Unspecified)
    } else if link_local {
        Err(Unusable::LinkLocal)
    } else if address.is_multicast() || broadcast {
        Err(Unusable::Multicast)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nobody_in_particular_are_refused() {
        for (text, reason) in [
            ("127.0.0.1", Unusable::Loopback),
            ("127.9.9.9", Unusable::Loopback),
            ("::1", Unusable::Loopback),
            ("::ffff:127.0.0.1", Unusable::Loopback),
            ("0.0.0.0", Unusable::Unspecified),
            ("0.1.2.3", Unusable::Unspecified),
            ("::", Unusable::Unspecified),
            ("169.254.169.254", Unusable::LinkLocal),
            ("::ffff:169.254.169.254", Unusable::LinkLocal),
            ("fe80::1", Unusable::LinkLocal),
            ("224.0.0.1", Unusable::Multicast),
            ("255.255.255.255", Unusable::Multicast),
            ("ff02::1", Unusable::Multicast),
        ] {
            assert_eq!(check(text.parse().unwrap()), Err(reason), "{text}");
        }
        for text in ["10.1.0.10", "100.64.0.1", "fd00::1", "203.0.113.50"] {
            assert_eq!(check(text.parse().unwrap()), Ok(()), "{text}");
        }
    }
}
