use std::fmt;
use std::sync::Arc;

use filter::AddressRange;

/// Who or what a rule speaks of, as it is written in a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alias {
    /// `*`
    Anyone,
    /// A user's login name.
    User(Arc<str>),
    /// `user:*@domain`: every user of a login domain.
    UsersOf(Arc<str>),
    /// `group:…`
    Group(Arc<str>),
    /// `tag:…`
    Tag(Tag),
    /// `autogroup:…`
    Auto(Autogroup),
    /// A name from `hosts`.
    Host(Arc<str>),
    /// An address, prefix or range.
    Literal(AddressRange),
    /// `ipset:…`
    IpSet(Arc<str>),
    /// `svc:…`: a service that nodes host together.
    Service(Arc<str>),
}

/// A tag with its prefix: `tag:server`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A group that the policy language defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Autogroup {
    /// Devices of the tailnet's own users.
    Member,
    /// Devices that have tags.
    Tagged,
    /// The devices of the same user.
    OwnDevices,
    /// The public Internet, through exit nodes.
    Internet,
    /// Every address there is, also from outside the tailnet.
    DangerAll,
    /// Any login but root; in SSH rules.
    NonRoot,
    /// Devices shared into the tailnet.
    Shared,
    /// Devices of users with a role.
    Role(Role),
}

/// What a user may do in the tailnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Owns the tailnet; also counts as [`Role::Admin`].
    Owner,
    /// May do everything but give the tailnet away.
    Admin,
    /// Manages users and devices.
    ItAdmin,
    /// Manages the policy and the network.
    NetworkAdmin,
    /// Manages payment.
    BillingAdmin,
    /// Reads everything, changes nothing.
    Auditor,
    /// Uses the network.
    #[default]
    Member,
}

impl Role {
    /// The name as the API and `autogroup:` spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::ItAdmin => "it-admin",
            Self::NetworkAdmin => "network-admin",
            Self::BillingAdmin => "billing-admin",
            Self::Auditor => "auditor",
            Self::Member => "member",
        }
    }

    /// The role with this name.
    pub fn parse(name: &str) -> Option<Self> {
        use Role::*;
        [Owner, Admin, ItAdmin, NetworkAdmin, BillingAdmin, Auditor, Member]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Whether a user with this role is in the autogroup of `role`.
    pub fn includes(self, role: Self) -> bool {
        self == role || (self == Self::Owner && role == Self::Admin)
    }
}

impl Autogroup {
    /// The autogroup with this name (without the prefix).
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "member" | "members" => Self::Member,
            "tagged" => Self::Tagged,
            "self" => Self::OwnDevices,
            "internet" => Self::Internet,
            "danger-all" => Self::DangerAll,
            "nonroot" => Self::NonRoot,
            "shared" => Self::Shared,
            _ => Self::Role(Role::parse(name)?),
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Tagged => "tagged",
            Self::OwnDevices => "self",
            Self::Internet => "internet",
            Self::DangerAll => "danger-all",
            Self::NonRoot => "nonroot",
            Self::Shared => "shared",
            Self::Role(role) => role.name(),
        }
    }
}

impl Tag {
    /// Takes a tag with its prefix. What follows the prefix begins with a letter and has letters, digits and dashes.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let name = text.strip_prefix("tag:").ok_or("tags must start with 'tag:'")?;
        if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err("tag names must start with a letter, after 'tag:'");
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("tag names can only contain letters, numbers, or dashes");
        }
        Ok(Self(text.into()))
    }

    /// The tag with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a text is no alias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// It has the prefix of a tag, but no tag has such a name, so none can be defined.
    #[error("tag not found: {0:?}")]
    Tag(String),
    /// There is no such autogroup.
    #[error("{0:?}: invalid autogroup")]
    Autogroup(String),
    /// It looks like an address and is none.
    #[error("{0:?}: {1}")]
    Address(String, filter::RangeError),
    /// It is nothing that an alias can be.
    #[error("{0:?}: invalid address")]
    Malformed(String),
}

impl Alias {
    /// Reads an alias; blanks around it don't matter. Whether what it names exists is not looked at.
    ///
    /// # Errors
    /// The text can't be an alias.
    pub fn parse(text: &str) -> Result<Self, AliasError> {
        let text = text.trim();
        match text.parse::<AddressRange>() {
            Ok(range) => return Ok(Self::Literal(range)),
            Err(error @ filter::RangeError::HostBits { .. }) => {
                return Err(AliasError::Address(text.to_owned(), error));
            }
            Err(_) => {}
        }
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if let Some(domain) = text.strip_prefix("user:*@") {
            return Ok(Self::UsersOf(domain.into()));
        }
        if text.contains('@') {
            return Ok(Self::User(text.into()));
        }
        match text.split_once(':') {
            Some(("group", _)) => Ok(Self::Group(text.into())),
            Some(("tag", _)) => Tag::parse(text).map(Self::Tag).map_err(|_| AliasError::Tag(text.to_owned())),
            Some(("autogroup", name)) => {
                Autogroup::parse(name).map(Self::Auto).ok_or_else(|| AliasError::Autogroup(text.to_owned()))
            }
            Some(("svc", _)) => Ok(Self::Service(text.into())),
            Some(("ipset", _)) => Ok(Self::IpSet(text.into())),
            _ if is_host_name(text) => Ok(Self::Host(text.into())),
            _ => Err(AliasError::Malformed(text.to_owned())),
        }
    }
}

/// Whether a text can be a name in `hosts`: nothing that another alias could be.
pub(crate) fn is_host_name(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(plain) && text.parse::<AddressRange>().is_err()
}

impl fmt::Display for Alias {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => formatter.write_str("*"),
            Self::UsersOf(domain) => write!(formatter, "user:*@{domain}"),
            Self::User(name) | Self::Group(name) | Self::Host(name) | Self::IpSet(name) | Self::Service(name) => {
                formatter.write_str(name)
            }
            Self::Tag(tag) => write!(formatter, "{tag}"),
            Self::Auto(group) => write!(formatter, "autogroup:{}", group.name()),
            Self::Literal(range) => write!(formatter, "{range}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_read_back_as_they_are_written() {
        for text in [
            "*",
            "a@example.com",
            "user:*@example.com",
            "group:x",
            "tag:x-1",
            "autogroup:it-admin",
            "autogroup:self",
            "web-1.x",
            "10.0.0.0/8",
            "fd7a::1",
            "10.0.0.1-10.0.0.9",
            "ipset:x",
            "svc:web",
        ] {
            assert_eq!(Alias::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn members_are_spelled_in_two_ways() {
        assert_eq!(Alias::parse("autogroup:members"), Alias::parse("autogroup:member"));
        assert_eq!(Alias::parse("autogroup:members").unwrap().to_string(), "autogroup:member");
    }

    #[test]
    fn blanks_around_an_alias_do_not_matter() {
        assert_eq!(Alias::parse(" tag:server\t"), Alias::parse("tag:server"));
    }

    #[test]
    fn texts_that_are_no_alias_are_refused() {
        for (text, message) in [
            ("%bogus%", "\"%bogus%\": invalid address"),
            ("", "\"\": invalid address"),
            ("autogroup:bogus", "\"autogroup:bogus\": invalid autogroup"),
            ("tag:9", "tag not found: \"tag:9\""),
            ("10.0.0.1/8", "\"10.0.0.1/8\": prefix 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?"),
            ("10.0.0.0/99", "\"10.0.0.0/99\": invalid address"),
        ] {
            assert_eq!(Alias::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_owner_is_also_an_admin_and_nobody_else_is() {
        assert!(Role::Owner.includes(Role::Admin));
        assert!(!Role::Admin.includes(Role::Owner));
        assert!(!Role::NetworkAdmin.includes(Role::Admin));
    }
}
