//! Other programs' chains that would drop what ours accept.

use std::fmt;

use netlink_bindings::nftables::{self, Nfgenmsg};

use super::FIREWALL_TABLE;
use crate::failure::Reason;
use crate::netlink::Netlink;

const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const DROP: u32 = 0;

/// A chain of somebody else that drops by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDrop {
    /// The table's family: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Whether it stands in the way of packets for this machine, rather than of forwarded ones.
    pub input: bool,
}

impl fmt::Display for ForeignDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, next) = if self.input {
            ("packets for this machine", "allow the tunnel's interface and the node's UDP port there")
        } else {
            ("forwarded packets", "allow forwarding from and to the tunnel's interface there")
        };
        let Self { family, table, chain, .. } = self;
        write!(f, "the chain {chain} of the table {family} {table} drops {what} that it does not know: {next}")
    }
}

pub(super) fn drops(netlink: &mut Netlink) -> Result<Vec<ForeignDrop>, Reason> {
    netlink.list(&nftables::Request::new().op_getchain_dump(&Nfgenmsg::new()), |(header, attributes)| {
        let family = match header.nfgen_family {
            1 => "inet",
            2 => "ip",
            10 => "ip6",
            _ => return None,
        };
        let table = attributes.get_table().ok()?.to_string_lossy().into_owned();
        let hook = attributes.get_hook().ok()?.get_num().ok()?;
        let in_the_way = (hook == INPUT || hook == FORWARD) && attributes.get_policy().ok() == Some(DROP);
        (in_the_way && table != FIREWALL_TABLE).then(|| ForeignDrop {
            family,
            table,
            chain: attributes.get_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            input: hook == INPUT,
        })
    })
}
