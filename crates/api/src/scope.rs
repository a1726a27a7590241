use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use crate::ApiError;

/// A part of a tailnet that a credential can be let at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Everything.
    All,
    /// Contacts and other facts of the account.
    AccountSettings,
    /// API access tokens.
    ApiAccessTokens,
    /// Keys that devices join with.
    AuthKeys,
    /// Invitations to share a device.
    DeviceInvites,
    /// Devices: what they are, their names, tags and keys.
    DevicesCore,
    /// Facts about devices that policy may ask for.
    DevicesPostureAttributes,
    /// Routes of devices.
    DevicesRoutes,
    /// Names and resolvers.
    Dns,
    /// Switches of features.
    FeatureSettings,
    /// Credentials that another issuer's tokens are exchanged for.
    FederatedKeys,
    /// Where logs are streamed to.
    LogStreaming,
    /// Who changed what.
    LogsConfiguration,
    /// Who talked to whom.
    LogsNetwork,
    /// Switches of the network.
    NetworkingSettings,
    /// Applications that users sign in to.
    OauthApps,
    /// OAuth clients.
    OauthKeys,
    /// The policy file.
    PolicyFile,
    /// Virtual services.
    Services,
    /// Invitations to join.
    UserInvites,
    /// Users and their roles.
    Users,
    /// Webhooks.
    Webhooks,
}

impl Area {
    /// Every area with its name on the wire.
    const NAMES: [(Self, &'static str); 22] = [
        (Self::All, "all"),
        (Self::AccountSettings, "account_settings"),
        (Self::ApiAccessTokens, "api_access_tokens"),
        (Self::AuthKeys, "auth_keys"),
        (Self::DeviceInvites, "device_invites"),
        (Self::DevicesCore, "devices:core"),
        (Self::DevicesPostureAttributes, "devices:posture_attributes"),
        (Self::DevicesRoutes, "devices:routes"),
        (Self::Dns, "dns"),
        (Self::FeatureSettings, "feature_settings"),
        (Self::FederatedKeys, "federated_keys"),
        (Self::LogStreaming, "log_streaming"),
        (Self::LogsConfiguration, "logs:configuration"),
        (Self::LogsNetwork, "logs:network"),
        (Self::NetworkingSettings, "networking_settings"),
        (Self::OauthApps, "oauth_apps"),
        (Self::OauthKeys, "oauth_keys"),
        (Self::PolicyFile, "policy_file"),
        (Self::Services, "services"),
        (Self::UserInvites, "user_invites"),
        (Self::Users, "users"),
        (Self::Webhooks, "webhooks"),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find_map(|(area, name)| (*area == self).then_some(*name)).unwrap_or("")
    }
}

/// What may be done with an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Looking.
    Read,
    /// Looking and changing.
    Write,
}

/// An area and what may be done with it; its text form is `devices:core` for changing, `devices:core:read` for looking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    area: Area,
    access: Access,
}

impl Scope {
    /// Looking at everything and changing it.
    pub const ALL: Self = Self::write(Area::All);

    /// Looking at everything.
    pub const ALL_READ: Self = Self::read(Area::All);

    /// Looking at an area.
    pub const fn read(area: Area) -> Self {
        Self { area, access: Access::Read }
    }

    /// Looking at an area and changing it.
    pub const fn write(area: Area) -> Self {
        Self { area, access: Access::Write }
    }

    /// The area.
    pub fn area(self) -> Area {
        self.area
    }

    /// What may be done with it.
    pub fn access(self) -> Access {
        self.access
    }

    /// Whether who holds this scope may do what `other` stands for.
    pub fn covers(self, other: Self) -> bool {
        (self.area == Area::All || self.area == other.area) && self.access >= other.access
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.area.name())?;
        if self.access == Access::Read { f.write_str(":read") } else { Ok(()) }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is the name of no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope; write for example \"devices:core\", \"auth_keys\" or \"all:read\"")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, access) = match text.strip_suffix(":read") {
            Some(name) => (name, Access::Read),
            None => (text, Access::Write),
        };
        let area = Area::NAMES.iter().find_map(|(area, known)| (*known == name).then_some(*area));
        Ok(Self { area: area.ok_or_else(|| UnknownScope(text.chars().take(64).collect()))?, access })
    }
}

/// A set of scopes: all that a credential may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Reads names of scopes, as a key's description lists them.
    pub fn parse<T: AsRef<str>>(names: &[T]) -> Result<Self, UnknownScope> {
        names.iter().map(|name| name.as_ref().parse()).collect()
    }

    /// Whether one of the set covers `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.0.iter().any(|held| held.covers(scope))
    }

    /// Whether everything that `other` allows is allowed here too.
    pub fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|scope| self.allows(*scope))
    }

    /// The scopes' names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(Scope::to_string).collect()
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Somebody whose credential was found good: who it is, and what the credential may do.
#[derive(Debug, Clone)]
pub struct Caller<I> {
    /// Who it is, in the server's own terms.
    pub identity: I,
    /// What the credential may do.
    pub scopes: Scopes,
}

impl<I> Caller<I> {
    /// Proves that the caller may do what `P` stands for; the only way to make an [`Authorized`].
    pub fn authorize<P: Permission>(self) -> Result<Authorized<P, I>, ApiError> {
        if P::OR_OWN || P::ANY_OF.iter().any(|scope| self.scopes.allows(*scope)) {
            return Ok(Authorized { caller: self, permission: PhantomData });
        }
        let wanted: Vec<_> = P::ANY_OF.iter().map(|scope| format!("{:?}", scope.to_string())).collect();
        let held = self.scopes.names();
        let held = if held.is_empty() { "none".to_owned() } else { held.join(" ") };
        let wanted = wanted.join(" or ");
        Err(ApiError::forbidden(format!("this needs the scope {wanted}, and the credential has {held}")))
    }
}

/// A right that an operation asks for, as a type.
pub trait Permission: Send + Sync + 'static {
    /// Any one of these scopes is enough.
    const ANY_OF: &'static [Scope];
    /// Whether a caller with none of them may ask too, about what is their own.
    const OR_OWN: bool = false;
}

/// What `P` stands for, and for whoever may not do that, the same with what is their own and nothing else.
///
/// It proves nothing about scopes: the operation finds out whose a thing is, and asks [`Authorized::also`] for `P` where it
/// is not the caller's own.
#[derive(Debug)]
pub struct OrOwn<P>(PhantomData<fn() -> P>);

impl<P: Permission> Permission for OrOwn<P> {
    const ANY_OF: &'static [Scope] = P::ANY_OF;
    const OR_OWN: bool = true;
}

/// Proof that a caller was found to have the permission `P`.
///
/// Every operation takes one, and only [`Caller::authorize`] makes one: an operation without its check does not compile.
#[derive(Debug)]
pub struct Authorized<P, I> {
    caller: Caller<I>,
    permission: PhantomData<fn() -> P>,
}

impl<P, I> Authorized<P, I> {
    /// Who called.
    pub fn identity(&self) -> &I {
        &self.caller.identity
    }

    /// What the credential may do altogether.
    pub fn scopes(&self) -> &Scopes {
        &self.caller.scopes
    }

    /// Proves another permission of the same caller, where what is asked for stands in the request's body.
    pub fn also<Q: Permission>(&self) -> Result<Authorized<Q, I>, ApiError>
    where
        I: Clone,
    {
        self.caller.clone().authorize()
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident: $($access:ident $area:ident)|+;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl Permission for $name {
                const ANY_OF: &'static [Scope] = &[$(Scope::$access(Area::$area)),+];
            }
        )*
    };
}

permissions! {
    /// Looking at devices.
    ReadDevices: read DevicesCore;
    /// Changing devices.
    WriteDevices: write DevicesCore;
    /// Looking at routes.
    ReadRoutes: read DevicesRoutes | read DevicesCore;
    /// Approving routes.
    WriteRoutes: write DevicesRoutes;
    /// Looking at keys of some kind; which kinds are seen depends on the scopes.
    ReadKeys: read AuthKeys | read OauthKeys | read FederatedKeys | read ApiAccessTokens;
    /// Changing keys of some kind; which one is checked again.
    WriteKeys: write AuthKeys | write OauthKeys | write FederatedKeys | write ApiAccessTokens;
    /// Looking at auth keys.
    ReadAuthKeys: read AuthKeys;
    /// Making and taking away auth keys.
    WriteAuthKeys: write AuthKeys;
    /// Looking at OAuth clients.
    ReadOauthKeys: read OauthKeys;
    /// Making and taking away OAuth clients.
    WriteOauthKeys: write OauthKeys;
    /// Looking at API access tokens.
    ReadApiTokens: read ApiAccessTokens;
    /// Making and taking away API access tokens.
    WriteApiTokens: write ApiAccessTokens;
    /// Looking at users.
    ReadUsers: read Users;
    /// Changing users.
    WriteUsers: write Users;
    /// Reading the policy file.
    ReadPolicy: read PolicyFile;
    /// Writing the policy file.
    WritePolicy: write PolicyFile;
    /// Looking at the DNS settings.
    ReadDns: read Dns;
    /// Changing the DNS settings.
    WriteDns: write Dns;
    /// Looking at settings.
    ReadSettings: read FeatureSettings | read NetworkingSettings | read PolicyFile | read LogsNetwork;
    /// Changing settings of some kind; which one is checked again.
    WriteSettings: write FeatureSettings | write NetworkingSettings | write PolicyFile | write LogsNetwork;
    /// Changing the settings of features.
    WriteFeatureSettings: write FeatureSettings;
    /// Changing the settings of the network.
    WriteNetworkingSettings: write NetworkingSettings;
    /// Changing the settings of traffic logs.
    WriteNetworkLogs: write LogsNetwork;
    /// Looking at what the tailnet is called.
    ReadNames: read AccountSettings;
    /// Giving the tailnet another name or domain, on which names, certificates and the policy hang.
    WriteNames: write All;
    /// Looking at services.
    ReadServices: read Services;
    /// Changing services.
    WriteServices: write Services;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(names: &[&str]) -> Caller<()> {
        Caller { identity: (), scopes: Scopes::parse(names).unwrap() }
    }

    #[test]
    fn every_scope_reads_back_from_its_name() {
        for (area, _) in Area::NAMES {
            for scope in [Scope::read(area), Scope::write(area)] {
                assert_eq!(scope.to_string().parse(), Ok(scope));
            }
        }
        assert_eq!("devices".parse::<Scope>(), Err(UnknownScope("devices".to_owned())));
    }

    #[test]
    fn changing_covers_looking_and_not_the_other_way() {
        assert!(caller(&["devices:core"]).authorize::<ReadDevices>().is_ok());
        assert!(caller(&["devices:core:read"]).authorize::<WriteDevices>().is_err());
        assert!(caller(&["all"]).authorize::<WritePolicy>().is_ok());
        assert!(caller(&["all:read"]).authorize::<WritePolicy>().is_err());
    }

    #[test]
    fn a_missing_scope_is_named() {
        let error = caller(&["auth_keys"]).authorize::<WriteDevices>().unwrap_err();
        assert_eq!(error.status, http::StatusCode::FORBIDDEN);
        assert_eq!(error.message, r#"this needs the scope "devices:core", and the credential has auth_keys"#);
    }

    #[test]
    fn who_may_ask_about_their_own_has_proven_no_scope_by_it() {
        let by = caller(&["dns"]).authorize::<OrOwn<WriteApiTokens>>().unwrap();
        let error = by.also::<WriteApiTokens>().unwrap_err();
        assert_eq!(error.message, r#"this needs the scope "api_access_tokens", and the credential has dns"#);
        let by = caller(&["api_access_tokens"]).authorize::<OrOwn<WriteApiTokens>>().unwrap();
        assert!(by.also::<WriteApiTokens>().is_ok());
    }

    #[test]
    fn a_set_covers_what_it_allows_and_no_more() {
        let scopes = |names: &[&str]| Scopes::parse(names).unwrap();
        assert!(scopes(&["all"]).cover(&scopes(&["all:read", "dns"])));
        assert!(scopes(&["dns", "users"]).cover(&scopes(&["dns:read"])));
        assert!(!scopes(&["all:read"]).cover(&scopes(&["dns"])));
        assert!(!scopes(&["dns"]).cover(&scopes(&["all"])));
    }
}
