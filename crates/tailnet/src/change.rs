use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tailcfg::{NodeId, UserId};

use crate::record::{
    ApiToken, AuthKey, DnsSettings, Node, OAuthClient, PolicyRecord, Service, ServiceName, Settings, TailnetRecord,
    User,
};
use crate::secret::KeyId;

/// One row written or deleted. A tailnet is what its changes, committed in order, make of nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The tailnet itself; its first change.
    PutTailnet(TailnetRecord),
    /// The highest number that it has drawn for a user or device, so that none is given twice, not even after a restart.
    PutHighestNumber(u64),
    /// Its switches.
    PutSettings(Settings),
    /// How its devices resolve names.
    PutDns(DnsSettings),
    /// The policy in force.
    PutPolicy(PolicyRecord),
    /// A user, new or changed.
    PutUser(User),
    /// A user who is gone.
    DeleteUser(UserId),
    /// A device, new or changed.
    PutNode(Box<Node>),
    /// A device that is gone.
    DeleteNode(NodeId),
    /// A key that devices join with, new or changed.
    PutAuthKey(AuthKey),
    /// Such a key that is forgotten.
    DeleteAuthKey(KeyId),
    /// A program's credential, new or changed.
    PutOAuthClient(OAuthClient),
    /// Such a credential that is forgotten.
    DeleteOAuthClient(KeyId),
    /// A token for the REST API, new or changed.
    PutApiToken(ApiToken),
    /// Such a token that is forgotten.
    DeleteApiToken(KeyId),
    /// A virtual service, new or changed.
    PutService(Service),
    /// A virtual service that is gone.
    DeleteService(ServiceName),
}

/// Which table a row stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// The tailnet itself, one row.
    Tailnet,
    /// The highest number that it has drawn, one row.
    Numbers,
    /// Its switches, one row.
    Settings,
    /// How its devices resolve names, one row.
    Dns,
    /// The policy in force, one row.
    Policy,
    /// Users by number.
    Users,
    /// Devices by number.
    Nodes,
    /// Keys that devices join with, by id.
    AuthKeys,
    /// Credentials of programs by id.
    OAuthClients,
    /// Tokens for the REST API by id.
    ApiTokens,
    /// Virtual services by name.
    Services,
}

impl Table {
    /// Every table, in an order in which rows that name others come after them.
    pub const ALL: [Self; 11] = [
        Self::Tailnet,
        Self::Numbers,
        Self::Settings,
        Self::Dns,
        Self::Policy,
        Self::Users,
        Self::AuthKeys,
        Self::OAuthClients,
        Self::ApiTokens,
        Self::Services,
        Self::Nodes,
    ];

    /// A name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tailnet => "tailnet",
            Self::Numbers => "numbers",
            Self::Settings => "settings",
            Self::Dns => "dns",
            Self::Policy => "policy",
            Self::Users => "users",
            Self::Nodes => "nodes",
            Self::AuthKeys => "auth_keys",
            Self::OAuthClients => "oauth_clients",
            Self::ApiTokens => "api_tokens",
            Self::Services => "services",
        }
    }
}

impl Change {
    /// Which row this is about: its table, and its key within the tailnet (empty where the table has one row).
    pub fn row(&self) -> (Table, String) {
        match self {
            Self::PutTailnet(_) => (Table::Tailnet, String::new()),
            Self::PutHighestNumber(_) => (Table::Numbers, String::new()),
            Self::PutSettings(_) => (Table::Settings, String::new()),
            Self::PutDns(_) => (Table::Dns, String::new()),
            Self::PutPolicy(_) => (Table::Policy, String::new()),
            Self::PutUser(user) => (Table::Users, user.id.to_string()),
            Self::DeleteUser(id) => (Table::Users, id.to_string()),
            Self::PutNode(node) => (Table::Nodes, node.id.to_string()),
            Self::DeleteNode(id) => (Table::Nodes, id.to_string()),
            Self::PutAuthKey(key) => (Table::AuthKeys, key.id.to_string()),
            Self::DeleteAuthKey(id) => (Table::AuthKeys, id.to_string()),
            Self::PutOAuthClient(client) => (Table::OAuthClients, client.id.to_string()),
            Self::DeleteOAuthClient(id) => (Table::OAuthClients, id.to_string()),
            Self::PutApiToken(token) => (Table::ApiTokens, token.id.to_string()),
            Self::DeleteApiToken(id) => (Table::ApiTokens, id.to_string()),
            Self::PutService(service) => (Table::Services, service.name.to_string()),
            Self::DeleteService(name) => (Table::Services, name.to_string()),
        }
    }

    /// The change as the log of what was done tells it: without what a device says of itself, which nobody did, and
    /// without the text of a policy, which may be large and has a history of its own.
    pub fn for_log(&self) -> Cow<'_, Self> {
        match self {
            Self::PutNode(node) => {
                let node = Node { hostinfo: Arc::default(), ..(**node).clone() };
                Cow::Owned(Self::PutNode(Box::new(node)))
            }
            Self::PutPolicy(PolicyRecord { text: _, version, who, why, when }) => {
                let (who, why) = (who.clone(), why.clone());
                Cow::Owned(Self::PutPolicy(PolicyRecord {
                    text: String::new(),
                    version: *version,
                    who,
                    why,
                    when: *when,
                }))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether the row goes away.
    pub fn is_deletion(&self) -> bool {
        matches!(
            self,
            Self::DeleteUser(_)
                | Self::DeleteNode(_)
                | Self::DeleteAuthKey(_)
                | Self::DeleteOAuthClient(_)
                | Self::DeleteApiToken(_)
                | Self::DeleteService(_)
        )
    }
}
