//! Decisions: each looks at a tailnet, refuses, or drafts the changes to be written and the answer.

mod device;
mod key;
mod limits;
mod naming;
mod permission;
mod policy;
mod register;
mod routes;
mod service;
mod settings;
mod sweep;
mod tags;
mod user;

use std::net::Ipv4Addr;

use tailcfg::{NodeId, UserId};

use crate::address::Addresses;
use crate::change::Change;
use crate::command::{Actor, Command, Context, Decision, Reply};
use crate::record::{Node, PolicyRecord};
use crate::refusal::Refusal;
use crate::rules::Rules;
use crate::tailnet::Tailnet;

pub(crate) use limits::{check_host, read_tags};
pub(crate) use settings::check_tailnet_name;

impl Tailnet {
    /// Decides what to do about a command, and changes nothing.
    ///
    /// # Errors
    /// The reason why nothing is done.
    pub fn decide(&self, command: Command, context: &mut Context<'_>) -> Result<Decision, Refusal> {
        let mut draft = Draft::new(context);
        let outcome =
            permission::check(self, &command, draft.actor()).and_then(|()| dispatch(self, command, &mut draft));
        draft.finish(self, outcome)
    }
}

fn dispatch(tailnet: &Tailnet, command: Command, draft: &mut Draft<'_, '_>) -> Result<Reply, Refusal> {
    match command {
        Command::Register(registration) => register::register(tailnet, &registration, draft),
        Command::UpdateHost(update) => register::update_host(tailnet, &update, draft),
        Command::Sweep => sweep::sweep(tailnet, draft),
        Command::DeleteNode(id) => device::delete(tailnet, id, draft),
        Command::ExpireNode(id) => device::expire(tailnet, id, draft),
        Command::RenameNode(id, name) => device::rename(tailnet, id, &name, draft),
        Command::SetNodeTags(id, tags) => device::set_tags(tailnet, id, &tags, draft),
        Command::SetKeyExpiry(id, expiry) => device::set_key_expiry(tailnet, id, expiry, draft),
        Command::SetAuthorized(id, authorized) => device::set_authorized(tailnet, id, authorized, draft),
        Command::SetRoutes(id, routes) => routes::set_routes(tailnet, id, &routes, draft),
        Command::CreateUser(user) => user::create(tailnet, user, draft),
        Command::SetRole(id, role) => user::set_role(tailnet, id, role, draft),
        Command::SetPassword(id, password) => user::set_password(tailnet, id, password, draft),
        Command::SetDisplayName(id, name) => user::set_display_name(tailnet, id, name, draft),
        Command::ApproveUser(id) => user::approve(tailnet, id, draft),
        Command::SuspendUser(id) => user::suspend(tailnet, id, draft),
        Command::RestoreUser(id) => user::restore(tailnet, id, draft),
        Command::DeleteUser(id) => user::delete(tailnet, id, draft),
        Command::CreateAuthKey(key) => key::create_auth_key(tailnet, key, draft),
        Command::CreateOAuthClient(client) => key::create_oauth_client(tailnet, client, draft),
        Command::CreateApiToken(token) => key::create_api_token(tailnet, token, draft),
        Command::Revoke(id) => key::revoke(tailnet, &id, draft),
        Command::SetPolicy(new) => policy::set_policy(tailnet, *new, draft),
        Command::UpdateDns(patch) => settings::update_dns(tailnet, patch, draft),
        Command::UpdateSettings(patch) => settings::update_settings(tailnet, &patch, draft),
        Command::SetNames { name, domain } => settings::set_names(tailnet, name, domain, draft),
        Command::PutService(service) => service::put(tailnet, service, draft),
        Command::DeleteService(name) => service::delete(tailnet, name, draft),
    }
}

/// A decision in the making.
pub(super) struct Draft<'a, 'c> {
    context: &'a mut Context<'c>,
    changes: Vec<Change>,
    is_act: bool,
    rules: Option<Rules>,
    reserved: Vec<Ipv4Addr>,
    highest: Option<u64>,
}

impl<'a, 'c> Draft<'a, 'c> {
    fn new(context: &'a mut Context<'c>) -> Self {
        let (changes, reserved) = (Vec::new(), Vec::new());
        Self { context, changes, is_act: false, rules: None, reserved, highest: None }
    }

    fn now(&self) -> jiff::Timestamp {
        self.context.now
    }

    fn actor(&self) -> &Actor {
        &self.context.actor
    }

    /// The person who asks, if it is one.
    fn acting_user(&self) -> Option<UserId> {
        match self.actor() {
            Actor::User(id) => Some(*id),
            Actor::Server | Actor::Machine(_) | Actor::Client { .. } => None,
        }
    }

    fn put(&mut self, change: Change) {
        self.changes.push(change);
        self.is_act = true;
    }

    /// Puts a device that says something new of itself: alone, it did nothing that has to be on record.
    fn put_described(&mut self, node: Node) {
        self.changes.push(Change::PutNode(Box::new(node)));
    }

    /// Puts a policy in force that is compiled.
    fn put_policy(&mut self, record: PolicyRecord, rules: Rules) {
        self.put(Change::PutPolicy(record));
        self.rules = Some(rules);
    }

    fn draw_number(&mut self) -> u64 {
        let number = self.context.registry.draw_number();
        self.highest = Some(number);
        number
    }

    fn reserve_addresses(&mut self) -> Result<Addresses, Refusal> {
        let addresses = self.context.registry.pool.reserve()?;
        self.reserved.push(addresses.v4);
        Ok(addresses)
    }

    /// Takes addresses for a device, from networks of its own if it has any, else from those that are nobody's.
    fn reserve_addresses_in(&mut self, own: &[ipnet::Ipv4Net], all: &[ipnet::Ipv4Net]) -> Result<Addresses, Refusal> {
        let pool = &mut self.context.registry.pool;
        let addresses = if own.is_empty() { pool.reserve_outside(all)? } else { pool.reserve_in(own)? };
        self.reserved.push(addresses.v4);
        Ok(addresses)
    }

    fn finish(mut self, tailnet: &Tailnet, outcome: Result<Reply, Refusal>) -> Result<Decision, Refusal> {
        match outcome {
            Ok(reply) => {
                if let Some(number) = self.highest {
                    self.changes.push(Change::PutHighestNumber(number));
                }
                Ok(Decision {
                    tailnet: tailnet.id(),
                    base: tailnet.revision(),
                    changes: self.changes,
                    is_act: self.is_act,
                    reply,
                    rules: self.rules,
                    reserved: self.reserved,
                })
            }
            Err(refusal) => {
                for address in self.reserved {
                    self.context.registry.pool.release(address);
                }
                Err(refusal)
            }
        }
    }
}

/// The device, or a refusal that names it.
fn device_of(tailnet: &Tailnet, id: NodeId) -> Result<&Node, Refusal> {
    tailnet.node(id).ok_or(Refusal::NoSuchNode(id))
}

/// The user, or a refusal that names them.
fn user_of(tailnet: &Tailnet, id: UserId) -> Result<&crate::record::User, Refusal> {
    tailnet.user(id).ok_or(Refusal::NoSuchUser(id))
}

/// How messages name who asks.
fn name_of(tailnet: &Tailnet, actor: &Actor) -> String {
    match actor {
        Actor::Server => "the server".to_owned(),
        Actor::Machine(_) => "this device".to_owned(),
        Actor::User(id) => tailnet.user(*id).map_or_else(|| format!("user {id}"), |user| user.login.to_string()),
        Actor::Client { id, .. } => format!("OAuth client {id}"),
    }
}
