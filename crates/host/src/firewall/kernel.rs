//! Our table as the kernel has it.

use netlink_bindings::nftables;
use netlink_bindings::utils::chop_header;

use super::FIREWALL_TABLE;
use super::encode::{INET, header, hook_number};
use super::ruleset::Ruleset;
use crate::failure::Reason;
use crate::netlink::Netlink;

/// Our table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledTable {
    /// Its comment: a fingerprint of the rules that it was installed with.
    pub fingerprint: String,
    /// Its chains.
    pub chains: Vec<InstalledChain>,
}

/// A chain of our table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledChain {
    /// Its name.
    pub name: String,
    /// The kernel's number of the hook, and the priority there.
    pub hook: Option<(u32, i32)>,
    /// Of each rule the comment and how many expressions it has.
    pub rules: Vec<(String, usize)>,
}

pub(super) fn installed(netlink: &mut Netlink) -> Result<Option<InstalledTable>, Reason> {
    let ours = |name: Result<&std::ffi::CStr, _>| name.is_ok_and(|name| name.to_bytes() == FIREWALL_TABLE.as_bytes());
    let tables = netlink.list(&nftables::Request::new().op_gettable_dump(&header()), |(header, attributes)| {
        let found = header.nfgen_family == INET && ours(attributes.get_name());
        found.then(|| comment(attributes.get_userdata().unwrap_or_default()))
    })?;
    let Some(fingerprint) = tables.into_iter().next() else { return Ok(None) };
    let mut chains = netlink.list(&nftables::Request::new().op_getchain_dump(&header()), |(header, attributes)| {
        if header.nfgen_family != INET || !ours(attributes.get_table()) {
            return None;
        }
        let hook = attributes.get_hook().ok().and_then(|hook| Some((hook.get_num().ok()?, hook.get_priority().ok()?)));
        Some(InstalledChain { name: text(attributes.get_name().ok()?.to_bytes()), hook, rules: Vec::new() })
    })?;
    let mut request = nftables::Request::new().op_getrule_dump(&header());
    request.encode().push_table_bytes(FIREWALL_TABLE.as_bytes());
    let rules = netlink.list(&request, |(header, attributes)| {
        if header.nfgen_family != INET || !ours(attributes.get_table()) {
            return None;
        }
        let expressions = attributes.get_expressions().map_or(0, |list| elements(list.get_buf()));
        let comment = comment(attributes.get_userdata().unwrap_or_default());
        Some((text(attributes.get_chain().ok()?.to_bytes()), comment, expressions))
    })?;
    for (name, comment, expressions) in rules {
        if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
            chain.rules.push((comment, expressions));
        }
    }
    Ok(Some(InstalledTable { fingerprint, chains }))
}

/// Whether the table is the ruleset's: installed as it, and not changed since in chains, their places, or rules.
pub(super) fn matches(installed: &InstalledTable, ruleset: &Ruleset) -> bool {
    let chains = &installed.chains;
    installed.fingerprint == ruleset.fingerprint()
        && chains.len() == ruleset.chains.len()
        && ruleset.chains.iter().all(|chain| {
            chains.iter().any(|found| {
                found.name == chain.name
                    && found.hook == Some((hook_number(chain.hook), chain.priority))
                    && found.rules.iter().map(|(comment, _)| comment.as_str()).eq(chain.rules.iter().map(|r| r.comment))
            })
        })
}

fn elements(list: &[u8]) -> usize {
    let mut position = 0;
    std::iter::from_fn(|| chop_header(list, &mut position)).count()
}

fn comment(data: &[u8]) -> String {
    match data {
        [0, length, value @ ..] => text(value.get(..*length as usize).unwrap_or(value)),
        _ => String::new(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::encode::comment_data;
    use super::*;

    #[test]
    fn a_comment_reads_back_as_it_was_written() {
        assert_eq!(comment(&comment_data("into the tunnel")), "into the tunnel");
        assert_eq!(comment(&[0, 200, b'a']), "a");
        assert_eq!(comment(&[]), "");
    }
}
