use tailcfg::NodeId;

use crate::name::Label;
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// The name that a machine gets that calls itself so: its own if it is free, else with the lowest number behind it that
/// is. `own` is the device that asks, when it has a name already.
pub(super) fn choose(tailnet: &Tailnet, hostname: &str, own: Option<NodeId>) -> Label {
    let wanted = Label::from_hostname(hostname);
    if is_free(tailnet, &wanted, own) {
        return wanted;
    }
    // One of them is free: each is either free or held by another of finitely many devices and services.
    let numbers = 1..=u64::try_from(tailnet.names_held()).unwrap_or(u64::MAX).saturating_add(2);
    let mut numbered = numbers.map(|number| wanted.numbered(number));
    numbered.find(|label| is_free(tailnet, label, own)).unwrap_or(wanted)
}

/// The name that somebody asks for by hand: taken as it is or refused.
pub(super) fn claim(tailnet: &Tailnet, text: &str, own: NodeId) -> Result<Label, Refusal> {
    let name: Label = text.parse()?;
    if name.is_unusable() {
        return Err(Refusal::NameUnusable { name });
    }
    if is_free(tailnet, &name, Some(own)) {
        return Ok(name);
    }
    let reserved = tailnet.node_by_name(&name).is_some_and(|node| node.owner.is_tagged());
    Err(if reserved { Refusal::NameReserved { name } } else { Refusal::NameTaken { name } })
}

/// Whether no other device and no service has the name.
pub(super) fn is_free(tailnet: &Tailnet, name: &Label, own: Option<NodeId>) -> bool {
    let held = tailnet.node_by_name(name).is_some_and(|node| Some(node.id) != own);
    let service = tailnet.services().any(|service| service.name.label().as_ref() == Some(name));
    !held && !service && !name.is_unusable()
}
