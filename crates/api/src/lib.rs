//! The REST API v2 and OAuth: the interface as a trait, its types, the routes, a typed client, and its description.
//!
//! One table (`operations.rs`) names every operation: its path, who may call it, what goes in and what comes out. From
//! it are made the trait [`Api`] that a server implements, the routes that [`router`] serves, the methods of
//! [`Client`], and the OpenAPI document of [`openapi`], so these can't differ. Names, shapes and scopes are those of the
//! official API; the few operations beyond it say so.
//!
//! Invariants:
//! - An operation runs only with an [`Authorized`] value, which only [`Caller::authorize`] makes.
//! - Credentials are checked before a body is read, and bodies are bounded.
//! - Every answer is JSON, also for unknown paths and methods.
//!
//! What it does not do: know what a device or a policy is beyond its JSON, keep anything, or find out who holds a
//! credential: that is the implementation of [`Api`]. It does not follow redirects.

#![forbid(unsafe_code)]

mod body;
mod client;
mod device;
mod dns;
mod error;
mod exchange;
mod explanation;
mod json;
mod key;
mod openapi;
mod operation;
mod operations;
mod path;
mod policy;
mod query;
mod scope;
mod secret;
mod server;
mod service;
mod settings;
mod time;
mod token;
mod urlencoded;
mod user;

pub use client::{Client, ClientConfig, ClientCredential, ClientError};
pub use device::{
    AuthorizeDevice, ClientConnectivity, ClientSupports, Device, DeviceFields, DeviceList, DevicePing, DeviceQuery,
    DeviceRoutes, Distro, PingDevice, PingKind, PostureIdentity, RegionLatency, SetDeviceKey, SetDeviceName,
    SetDeviceRoutes, SetDeviceTags,
};
pub use dns::{
    DnsConfiguration, DnsConfigurationPreferences, DnsNameservers, DnsNameserversSet, DnsPreferences, DnsResolver,
    DnsSearchPaths, SplitDns,
};
pub use error::{ApiError, Finding};
pub use exchange::{Done, Json};
pub use explanation::{
    HistoryQuery, PolicyAnswer, PolicyCitation, PolicyExplanation, PolicyHistory, PolicyParties, PolicyVersion,
    WhyQuery,
};
pub use key::{CreateDevices, CreateKey, DeviceCapabilities, Key, KeyCapabilities, KeyList, KeyQuery, KeyType};
pub use openapi::openapi;
pub use operations::Api;
pub use path::{InTailnet, OfDevice, OfKey, OfService, OfUser, PathParameters};
pub use policy::{
    PolicyBody, PolicyCheck, PolicyDetails, PolicyDifference, PolicyDocument, PolicyForm, PolicyMatch,
    PolicyPrecondition, PolicyPreview, PolicyQuery, PolicyReach, PolicyText, PolicyUpload, PolicyVerdict, PreviewQuery,
    PreviewType,
};
pub use scope::*;
pub use secret::SecretText;
pub use server::{BODY_LIMIT, Peer, router};
pub use service::{ServiceList, VirtualService};
pub use settings::{ExternalTailnets, SetTailnetNames, TailnetNames, TailnetSettings};
pub use token::{AccessToken, Credential, TokenGrant, TokenRequest};
pub use urlencoded::decode_pairs as decode_form;
pub use user::{
    CreateUser, SetUserName, SetUserPassword, SetUserRole, User, UserList, UserQuery, UserRole, UserStatus, UserType,
};
