use std::net::{IpAddr, SocketAddr};

use super::Draft;
use super::limits::TEXT_LIMIT;
use crate::change::Change;
use crate::command::Reply;
use crate::name::Domain;
use crate::record::{DnsPatch, NameServer, Settings, SettingsPatch, TailnetRecord};
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// How many resolvers and domains the DNS settings have at most, each.
const DNS_LIMIT: usize = 1000;

pub(super) fn update_settings(
    tailnet: &Tailnet,
    patch: &SettingsPatch,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let settings = tailnet.settings().patched(patch);
    let days = settings.key_duration_days;
    if days == 0 || days > Settings::KEY_DURATION_LIMIT {
        return Err(Refusal::OutOfRange {
            what: "the key duration",
            given: format!("{days} days"),
            want: "write 1 to 180 days, or disable the expiry of single devices",
        });
    }
    if settings.policy_link.len() > TEXT_LIMIT {
        return Err(Refusal::OutOfRange {
            what: "the link to the policy",
            given: format!("{} bytes long", settings.policy_link.len()),
            want: "write at most 512 bytes",
        });
    }
    if settings != *tailnet.settings() {
        draft.put(Change::PutSettings(settings));
    }
    Ok(Reply::Done)
}

/// Changes what the settings are now, whoever changed something else of them since the caller looked.
pub(super) fn update_dns(tailnet: &Tailnet, patch: DnsPatch, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let dns = tailnet.dns().patched(patch);
    let counted = [
        (dns.nameservers.len(), "nameservers"),
        (dns.split.len(), "domains with resolvers of their own"),
        (dns.split.values().map(Vec::len).sum(), "resolvers of single domains"),
        (dns.search.len(), "search domains"),
    ];
    if let Some((count, things)) = counted.into_iter().find(|(count, _)| *count > DNS_LIMIT) {
        return Err(Refusal::TooMany { what: "the DNS settings", count, things, limit: DNS_LIMIT });
    }
    let servers = dns.nameservers.iter().chain(dns.split.values().flatten());
    servers.into_iter().try_for_each(check_server)?;
    if dns != *tailnet.dns() {
        draft.put(Change::PutDns(dns));
    }
    Ok(Reply::Done)
}

fn check_server(server: &NameServer) -> Result<(), Refusal> {
    let address = server.address.as_str();
    let url =
        address.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace));
    if url || address.parse::<IpAddr>().is_ok() || address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    Err(Refusal::OutOfRange {
        what: "a nameserver",
        given: format!("{:?}", address.chars().take(80).collect::<String>()),
        want: "write an IP address, address:port, or an https:// URL",
    })
}

pub(super) fn set_names(
    tailnet: &Tailnet,
    name: Option<String>,
    domain: Option<Domain>,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let name = name.unwrap_or_else(|| tailnet.record().name.clone());
    let domain = domain.unwrap_or_else(|| tailnet.domain().clone());
    check_tailnet_name(&name)?;
    if draft.context.registry.is_name_taken(tailnet.id(), &name, &domain) {
        return Err(Refusal::DomainTaken { given: format!("{name} or {domain}") });
    }
    let record = TailnetRecord { name, domain, ..tailnet.record().clone() };
    if record != *tailnet.record() {
        draft.put(Change::PutTailnet(record));
    }
    Ok(Reply::Done)
}

/// Refuses a name that can't stand in a path or a header.
pub(crate) fn check_tailnet_name(name: &str) -> Result<(), Refusal> {
    let signs = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@+".contains(&byte);
    if name.is_empty() || name == "-" || name.len() > 253 || !name.bytes().all(signs) {
        return Err(Refusal::OutOfRange {
            what: "the tailnet's name",
            given: format!("{:?}", name.chars().take(80).collect::<String>()),
            want: "write letters, digits and . - _ @ +, like \"example.com\"",
        });
    }
    Ok(())
}
