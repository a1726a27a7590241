use super::limits::{TEXT_LIMIT, bounded, read_tags};
use super::{Draft, naming, tags};
use crate::change::Change;
use crate::command::{NewService, Reply};
use crate::record::{Service, ServiceName};
use crate::refusal::Refusal;
use crate::tailnet::Tailnet;

/// How many ports, and how many annotations, a service has at most.
const SERVICE_LIMIT: usize = 64;

/// The longest annotation; programs keep lists of owners in them.
const ANNOTATION_LIMIT: usize = 64 * TEXT_LIMIT;

/// Makes a service, or changes one and keeps its addresses.
pub(super) fn put(tailnet: &Tailnet, new: NewService, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let tags = read_tags("the service", &new.tags)?;
    let before = tailnet.service(&new.name);
    let added = tags.iter().filter(|tag| !before.is_some_and(|before| before.tags.contains(tag))).cloned().collect();
    tags::check(tailnet, &added, draft.actor())?;
    for (count, things) in [(new.ports.len(), "ports"), (new.annotations.len(), "annotations")] {
        if count > SERVICE_LIMIT {
            return Err(Refusal::TooMany { what: "the service", count, things, limit: SERVICE_LIMIT });
        }
    }
    new.ports.iter().try_for_each(|port| check_port(port))?;
    if let Some((key, _)) = new.annotations.iter().find(|(key, value)| key.len() + value.len() > ANNOTATION_LIMIT) {
        return Err(Refusal::OutOfRange {
            what: "an annotation of the service",
            given: key.chars().take(80).collect(),
            want: "write at most 32768 bytes, name and value together",
        });
    }
    let addresses = match before {
        Some(before) => before.addresses,
        None => {
            check_name(tailnet, &new.name)?;
            draft.reserve_addresses()?
        }
    };
    let service = Service {
        name: new.name,
        addresses,
        comment: bounded(new.comment),
        annotations: new.annotations,
        ports: new.ports,
        tags,
    };
    if before != Some(&service) {
        draft.put(Change::PutService(service));
    }
    Ok(Reply::Done)
}

/// A service's name stands in the same domain as those of devices.
fn check_name(tailnet: &Tailnet, name: &ServiceName) -> Result<(), Refusal> {
    let Some(label) = name.label() else { return Ok(()) };
    if label.is_unusable() {
        return Err(Refusal::NameUnusable { name: label });
    }
    if naming::is_free(tailnet, &label, None) {
        return Ok(());
    }
    let reserved = tailnet.node_by_name(&label).is_some_and(|node| node.owner.is_tagged());
    Err(if reserved { Refusal::NameReserved { name: label } } else { Refusal::NameTaken { name: label } })
}

fn check_port(port: &str) -> Result<(), Refusal> {
    let number = |text: &str| text.parse::<u16>().is_ok_and(|number| number > 0);
    let range =
        |text: &str| text.split_once('-').map_or_else(|| number(text), |(low, high)| number(low) && number(high));
    let good = port == "do-not-validate"
        || port.split_once(':').is_some_and(|(protocol, ports)| ["tcp", "udp"].contains(&protocol) && range(ports));
    if good {
        return Ok(());
    }
    Err(Refusal::OutOfRange {
        what: "a port of the service",
        given: format!("{:?}", port.chars().take(80).collect::<String>()),
        want: "write \"tcp:443\", \"tcp:80-90\" or \"do-not-validate\"",
    })
}

pub(super) fn delete(tailnet: &Tailnet, name: ServiceName, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    if tailnet.service(&name).is_none() {
        return Err(Refusal::NoSuchService(name.to_string()));
    }
    draft.put(Change::DeleteService(name));
    Ok(Reply::Done)
}
