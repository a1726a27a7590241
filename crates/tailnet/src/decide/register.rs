use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use tailcfg::{CapabilityVersion, Hostinfo, NodeId, RegisterRequest, UserId};

use super::limits::{ROUTE_LIMIT, check_host, read_tags};
use super::{Draft, naming, tags};
use crate::change::Change;
use crate::command::{Actor, HostUpdate, Proof, Registered, Registration, Reply};
use crate::record::{AuthKey, KeySpent, Node, Owner, TokenHolder};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::secret::{KeyKind, SecretText};
use crate::tag::Tag;
use crate::tailnet::Tailnet;

/// A device wants to join, to renew its key, or to leave.
pub(super) fn register(
    tailnet: &Tailnet,
    registration: &Registration,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    let Registration { machine, request, .. } = registration;
    if request.node_key.is_zero() {
        return Err(Refusal::NoNodeKey);
    }
    if request.version < CapabilityVersion::OLDEST_SERVED {
        return Err(Refusal::ClientTooOld { version: request.version });
    }
    let bound = draft.context.registry.node_by_key(&request.node_key);
    let known = match bound {
        Some((home, id)) if home == tailnet.id() => {
            let node = tailnet.node(id).filter(|node| node.machine_key == *machine);
            Some(node.ok_or(Refusal::NodeKeyOfOtherMachine)?)
        }
        Some(_) if draft.context.registry.machine_of_key(&request.node_key) != Some(*machine) => {
            return Err(Refusal::NodeKeyOfOtherMachine);
        }
        // The key is this machine's in another tailnet. With a new one it may be in both.
        Some(_) => return Ok(Reply::KeyExpired),
        None => None,
    };
    if request.expiry.get().is_some_and(|expiry| expiry <= draft.now()) {
        return Ok(leave(known, draft));
    }
    match known {
        Some(node) if node.is_expired(draft.now()) => Ok(Reply::KeyExpired),
        Some(node) => go_on(tailnet, node, request, draft),
        None => join(tailnet, registration, draft),
    }
}

/// Logs a device out: its key ends now, and an ephemeral device with it.
fn leave(known: Option<&Node>, draft: &mut Draft<'_, '_>) -> Reply {
    match known {
        Some(node) if node.ephemeral => draft.put(Change::DeleteNode(node.id)),
        Some(node) if !node.is_expired(draft.now()) => {
            let node = Node { key_expiry: Some(draft.now()), ..node.clone() };
            draft.put(Change::PutNode(Box::new(node)));
        }
        _ => {}
    }
    Reply::LoggedOut
}

/// A device that is in starts again: nothing is spent, whatever key it brings along.
fn go_on(
    tailnet: &Tailnet,
    node: &Node,
    request: &RegisterRequest,
    draft: &mut Draft<'_, '_>,
) -> Result<Reply, Refusal> {
    check_owner(tailnet, &node.owner)?;
    let mut renewed = node.clone();
    // It is in whatever it says of itself. What is not taken now, it says again with its next map request.
    if let Some(hostinfo) = request.hostinfo.as_ref().filter(|_| wait_to_describe(tailnet, node, draft).is_none()) {
        describe(tailnet, &mut renewed, hostinfo, request.version)?;
    }
    put_described(node, renewed.clone(), draft);
    Ok(Reply::Registered(registered(tailnet, &renewed)))
}

/// A device with a node key that nobody has: new, or known under an older key.
fn join(tailnet: &Tailnet, registration: &Registration, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let hostinfo = registration.request.hostinfo.clone().unwrap_or_default();
    check_host(&hostinfo)?;
    let Some(grant) = admit(tailnet, registration, &hostinfo, draft)? else { return Ok(Reply::LoginNeeded) };
    check_owner(tailnet, &grant.owner)?;
    let node = match predecessor(tailnet, registration, &grant) {
        Some(before) => renew(tailnet, before, registration, &grant, &hostinfo, draft)?,
        None => create(tailnet, registration, &grant, &hostinfo, draft)?,
    };
    if let Some(key) = grant.key.filter(|key| !key.reusable || key.spent.is_none()) {
        let spent = Some(KeySpent { at: draft.now(), node: node.id });
        draft.put(Change::PutAuthKey(AuthKey { spent, ..key }));
    }
    let reply = Reply::Registered(registered(tailnet, &node));
    draft.put(Change::PutNode(Box::new(node)));
    Ok(reply)
}

/// What a proof lets a device be.
struct Grant {
    owner: Owner,
    /// The person behind it, where there is one.
    by: Option<UserId>,
    ephemeral: bool,
    preauthorized: bool,
    key: Option<AuthKey>,
}

fn admit(
    tailnet: &Tailnet,
    registration: &Registration,
    hostinfo: &Hostinfo,
    draft: &Draft<'_, '_>,
) -> Result<Option<Grant>, Refusal> {
    let wanted = read_tags("this device", &hostinfo.request_tags)?;
    match &registration.proof {
        Proof::None => Ok(None),
        Proof::AuthKey(text) => {
            let key = usable_key(tailnet, text, draft.now())?;
            let (owner, by) = owner_by_key(tailnet, key, wanted)?;
            Ok(Some(Grant {
                owner,
                by,
                ephemeral: key.ephemeral || registration.request.ephemeral,
                preauthorized: key.preauthorized,
                key: Some(key.clone()),
            }))
        }
        Proof::Confirmed(user) => {
            tags::check(tailnet, &wanted, &Actor::User(*user))?;
            let owner = if wanted.is_empty() { Owner::User(*user) } else { Owner::Tags(wanted) };
            let ephemeral = registration.request.ephemeral;
            Ok(Some(Grant { owner, by: Some(*user), ephemeral, preauthorized: false, key: None }))
        }
    }
}

/// The auth key with this text, if it lets a device in now.
///
/// Who doesn't have the whole text learns nothing about the key, not even that there is one.
fn usable_key<'t>(tailnet: &'t Tailnet, text: &SecretText, now: Timestamp) -> Result<&'t AuthKey, Refusal> {
    let found = text.identify().filter(|(kind, _)| *kind == KeyKind::Auth).and_then(|(_, id)| tailnet.auth_key(&id));
    let key = found.filter(|key| key.hash.matches(text)).ok_or(Refusal::UnknownAuthKey)?;
    let id = key.id.clone();
    if key.revoked.is_some() {
        return Err(Refusal::AuthKeyRevoked { id });
    }
    if key.expires <= now {
        return Err(Refusal::AuthKeyExpired { id, at: key.expires });
    }
    if key.spent.is_some() && !key.reusable {
        return Err(Refusal::AuthKeyUsed { id });
    }
    // A key is worth what its maker is: it lets nobody in on behalf of a user who may not be here.
    match &key.maker {
        TokenHolder::User(maker) => check_owner(tailnet, &Owner::User(*maker))?,
        // Whoever took the program's credential away took its keys with it, marked or not.
        TokenHolder::Client(maker) => {
            if tailnet.oauth_client(maker).is_none_or(|client| client.revoked.is_some()) {
                return Err(Refusal::AuthKeyRevoked { id });
            }
        }
    }
    Ok(key)
}

/// Whose a device is that joins with this key. A tagged key's tags win; a device may ask for some of them and no others.
fn owner_by_key(tailnet: &Tailnet, key: &AuthKey, wanted: BTreeSet<Tag>) -> Result<(Owner, Option<UserId>), Refusal> {
    let maker = match &key.maker {
        TokenHolder::User(user) => Some(*user),
        TokenHolder::Client(_) => None,
    };
    if !key.tags.is_empty() {
        if let Some(tag) = wanted.difference(&key.tags).next() {
            return Err(Refusal::TagNotOfKey { id: key.id.clone(), tag: tag.clone() });
        }
        if let Some(tag) = key.tags.iter().find(|tag| !tailnet.rules.knows_tag(tag)) {
            return Err(Refusal::UnknownTag { tag: tag.clone() });
        }
        return Ok((Owner::Tags(key.tags.clone()), maker));
    }
    let Some(user) = maker else { return Err(Refusal::TagsNeeded { what: "an auth key of an OAuth client" }) };
    tags::check(tailnet, &wanted, &Actor::User(user))?;
    let owner = if wanted.is_empty() { Owner::User(user) } else { Owner::Tags(wanted) };
    Ok((owner, Some(user)))
}

/// Refuses devices of users who may not be here.
fn check_owner(tailnet: &Tailnet, owner: &Owner) -> Result<(), Refusal> {
    let Some(id) = owner.user() else { return Ok(()) };
    Refusal::unless_active(super::user_of(tailnet, id)?)
}

/// The device that this machine was before, when it is to go on as that device.
///
/// It is the one whose key it used last, or the one that it has with the same owner. A person's device may become a
/// tagged one when that person lets it in again. Every other change of owner makes a new device, so that no machine takes
/// a tagged device's place by logging in.
fn predecessor<'t>(tailnet: &'t Tailnet, registration: &Registration, grant: &Grant) -> Option<&'t Node> {
    let own: Vec<&Node> = tailnet.nodes_of_machine(&registration.machine).collect();
    let same = |node: &&&Node| match (&node.owner, &grant.owner) {
        (Owner::User(before), Owner::User(now)) => before == now,
        (Owner::Tags(_), Owner::Tags(_)) => true,
        (Owner::User(before), Owner::Tags(_)) => {
            Some(*before) == grant.by && node.node_key == registration.request.old_node_key
        }
        (Owner::Tags(_), Owner::User(_)) => false,
    };
    let last = own.iter().find(|node| node.node_key == registration.request.old_node_key).filter(same);
    last.or_else(|| own.iter().find(same)).copied()
}

fn renew(
    tailnet: &Tailnet,
    before: &Node,
    registration: &Registration,
    grant: &Grant,
    hostinfo: &Hostinfo,
    draft: &Draft<'_, '_>,
) -> Result<Node, Refusal> {
    let mut node = Node {
        node_key: registration.request.node_key,
        owner: grant.owner.clone(),
        ephemeral: grant.ephemeral,
        authorized: before.authorized || grant.preauthorized,
        joined_with: grant.key.as_ref().map(|key| key.id.clone()),
        ..before.clone()
    };
    node.key_expiry = key_expiry(tailnet, &node, registration.request.expiry.get(), draft.now());
    describe(tailnet, &mut node, hostinfo, registration.request.version)?;
    Ok(node)
}

fn create(
    tailnet: &Tailnet,
    registration: &Registration,
    grant: &Grant,
    hostinfo: &Hostinfo,
    draft: &mut Draft<'_, '_>,
) -> Result<Node, Refusal> {
    let (own, all) = tailnet.rules.address_pools(&grant.owner);
    let addresses = draft.reserve_addresses_in(&own, &all)?;
    let id = NodeId(draft.draw_number());
    let mut node = Node {
        id,
        stable_id: Registry::stable_id(id, draft.context.entropy),
        machine_key: registration.machine,
        node_key: registration.request.node_key,
        owner: grant.owner.clone(),
        name: naming::choose(tailnet, &hostinfo.hostname, None),
        named_by_hand: false,
        addresses,
        created: draft.now(),
        key_expiry: None,
        key_expiry_disabled: false,
        ephemeral: grant.ephemeral,
        authorized: grant.preauthorized || !tailnet.settings().devices_approval,
        approved_routes: BTreeSet::new(),
        revoked_routes: BTreeSet::new(),
        hostinfo: Arc::default(),
        cap: registration.request.version,
        joined_with: grant.key.as_ref().map(|key| key.id.clone()),
    };
    node.key_expiry = key_expiry(tailnet, &node, registration.request.expiry.get(), draft.now());
    describe(tailnet, &mut node, hostinfo, registration.request.version)?;
    Ok(node)
}

/// When a node key that is new now expires: never for a tagged device, else as the settings say, or sooner if asked for.
pub(super) fn key_expiry(
    tailnet: &Tailnet,
    node: &Node,
    wanted: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    if node.owner.is_tagged() || node.key_expiry_disabled {
        return None;
    }
    let hours = i64::from(tailnet.settings().key_duration_days) * 24;
    let latest = now.saturating_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX);
    Some(wanted.map_or(latest, |wanted| wanted.min(latest)))
}

/// A device says something new of itself.
pub(super) fn update_host(tailnet: &Tailnet, update: &HostUpdate, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    let before = super::device_of(tailnet, update.node)?;
    let mut node = before.clone();
    describe(tailnet, &mut node, &update.hostinfo, update.version)?;
    if node != *before
        && let Some(seconds) = wait_to_describe(tailnet, before, draft)
    {
        return Err(Refusal::DescribedTooOften { name: before.name.clone(), seconds });
    }
    put_described(before, node, draft);
    Ok(Reply::Done)
}

/// After how many seconds a device may describe itself anew; `None` where it may now.
fn wait_to_describe(tailnet: &Tailnet, node: &Node, draft: &Draft<'_, '_>) -> Option<u32> {
    tailnet.device(node.id)?.descriptions.wait(draft.now())
}

/// Puts a device that describes itself anew, if anything differs. It did something only where more follows than the
/// description: another name, or routes that it may serve now.
fn put_described(before: &Node, node: Node, draft: &mut Draft<'_, '_>) {
    if node == *before {
        return;
    }
    let said = Node { hostinfo: Arc::clone(&node.hostinfo), cap: node.cap, ..before.clone() };
    if node == said {
        draft.put_described(node);
    } else {
        draft.put(Change::PutNode(Box::new(node)));
    }
}

/// Takes over what a machine says of itself, and what follows from it: its name and the routes that need no approval.
fn describe(
    tailnet: &Tailnet,
    node: &mut Node,
    hostinfo: &Hostinfo,
    version: CapabilityVersion,
) -> Result<(), Refusal> {
    check_host(hostinfo)?;
    // What it measured of its network is part of its presence, and kept there.
    let kept = Hostinfo { net_info: None, ..hostinfo.clone() };
    if kept.hostname != node.hostinfo.hostname && !node.named_by_hand {
        let own = tailnet.node(node.id).map(|node| node.id);
        node.name = naming::choose(tailnet, &kept.hostname, own);
    }
    if *node.hostinfo != kept {
        node.hostinfo = Arc::new(kept);
    }
    node.cap = version;
    let offered: BTreeSet<IpNet> = node.hostinfo.routable_ips.iter().copied().collect();
    // What it offers no longer and then anew is for policy to approve again.
    node.revoked_routes.retain(|route| offered.contains(route));
    let approved = tailnet.rules.auto_approved(node);
    node.approved_routes.extend(approved.intersection(&offered).copied());
    if node.approved_routes.len() > ROUTE_LIMIT {
        // Approved as it offered them, some now and others before: what it offers no longer makes room.
        node.approved_routes.retain(|route| offered.contains(route));
    }
    Ok(())
}

/// What a device is told that is in.
fn registered(tailnet: &Tailnet, node: &Node) -> Registered {
    let profile = tailnet.self_profile(node);
    let created = node.owner.user().and_then(|id| tailnet.user(id)).map_or(node.created, |user| user.created);
    Registered {
        node: node.id,
        node_key: node.node_key,
        authorized: node.authorized,
        user: tailcfg::User {
            id: profile.id,
            display_name: profile.display_name.clone(),
            profile_pic_url: profile.profile_pic_url.clone(),
            created: created.into(),
        },
        login: tailcfg::Login {
            id: profile.id,
            provider: "towline".to_owned(),
            login_name: profile.login_name,
            display_name: profile.display_name,
            profile_pic_url: profile.profile_pic_url,
        },
    }
}
