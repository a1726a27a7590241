use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Users under one name. However many they are, whether somebody is among them is found at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    members: Vec<GroupMember>,
    logins: HashSet<Arc<str>>,
    domains: HashSet<Arc<str>>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupMember {
    /// A login name.
    User(Arc<str>),
    /// Every login name of a domain.
    UsersOf(Arc<str>),
}

impl GroupMember {
    /// Whether the member is, or includes, this login name.
    pub fn matches(&self, login: &str) -> bool {
        match self {
            Self::User(name) => **name == *login,
            Self::UsersOf(domain) => login.rsplit_once('@').is_some_and(|(_, of)| of == &**domain),
        }
    }
}

impl fmt::Display for GroupMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(login) => formatter.write_str(login),
            Self::UsersOf(domain) => write!(formatter, "user:*@{domain}"),
        }
    }
}

impl Group {
    /// A group of these members.
    pub fn new(members: Vec<GroupMember>) -> Self {
        let mut group = Self::default();
        for member in &members {
            match member {
                GroupMember::User(login) => group.logins.insert(login.clone()),
                GroupMember::UsersOf(domain) => group.domains.insert(domain.clone()),
            };
        }
        Self { members, ..group }
    }

    /// The members as the policy lists them.
    pub fn members(&self) -> &[GroupMember] {
        &self.members
    }

    /// Whether a login name is a member, by itself or by its domain.
    pub fn has(&self, login: &str) -> bool {
        self.logins.contains(login) || login.rsplit_once('@').is_some_and(|(_, domain)| self.domains.contains(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_those_that_one_of_its_members_is_or_includes() {
        let members = vec![GroupMember::User("ann@example.com".into()), GroupMember::UsersOf("example.net".into())];
        let group = Group::new(members);
        for login in ["ann@example.com", "ben@example.net", "ann@example.net", "ben@example.com", "example.net", ""] {
            let listed = group.members().iter().any(|member| member.matches(login));
            assert_eq!(group.has(login), listed, "{login}");
        }
        assert!(group.has("ann@example.com") && group.has("ben@example.net") && !group.has("ben@example.com"));
    }
}
