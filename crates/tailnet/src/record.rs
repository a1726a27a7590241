//! What a tailnet keeps: the rows of its tables, one type for each.

mod dns;
mod key;
mod node;
mod policy;
mod service;
mod settings;
mod tailnet;
mod user;

pub use dns::{DnsPatch, DnsSettings, NameServer};
pub use key::{ApiToken, AuthKey, KeySpent, OAuthClient, TokenHolder};
pub use node::{Node, Owner};
pub use policy::PolicyRecord;
pub use service::{Service, ServiceName, ServiceNameError};
pub use settings::{Settings, SettingsPatch};
pub use tailnet::{TailnetId, TailnetRecord};
pub use user::{LoginName, LoginNameError, PasswordHash, Role, User, UserStatus};
