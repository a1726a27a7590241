use std::collections::BTreeSet;

use crypto::NodePublic;
use tailcfg::{CapabilityVersion, Hostinfo, RegisterRequest, Time};

use crate::decide::{check_host, read_tags};
use crate::refusal::Refusal;
use crate::tag::Tag;

/// What a device that waits for a person asks to be: what the person is shown, and what lets the device in.
///
/// It is small whatever the device sent, because anybody may have one kept: texts for people are cut, tags are read, and
/// everything else that the device says of itself is left out. The device says that again once it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    version: CapabilityVersion,
    node_key: NodePublic,
    old_node_key: NodePublic,
    expiry: Time,
    ephemeral: bool,
    tailnet: Box<str>,
    hostname: Box<str>,
    os: Box<str>,
    os_version: Box<str>,
    client: Box<str>,
    tags: BTreeSet<Tag>,
}

impl LoginRequest {
    /// The most memory that one takes, in bytes.
    pub const LIMIT: usize = 10 << 10;

    /// Takes from a registration what a login needs.
    ///
    /// # Errors
    /// The device says more of itself than is kept of any, offers routes that none may serve, or names no tags where tags
    /// should be: whoever confirmed it could not let it in.
    pub fn of(request: &RegisterRequest) -> Result<Self, Refusal> {
        let none = Hostinfo::default();
        let host = request.hostinfo.as_ref().unwrap_or(&none);
        check_host(host)?;
        Ok(Self {
            version: request.version,
            node_key: request.node_key,
            old_node_key: request.old_node_key,
            expiry: request.expiry,
            ephemeral: request.ephemeral,
            tailnet: cut(&request.tailnet),
            hostname: cut(&host.hostname),
            os: cut(&host.os),
            os_version: cut(&host.os_version),
            client: cut(&host.ipn_version),
            tags: read_tags("this device", &host.request_tags)?,
        })
    }

    /// What a person is shown of the device.
    pub fn hostinfo(&self) -> Hostinfo {
        Hostinfo {
            hostname: self.hostname.to_string(),
            os: self.os.to_string(),
            os_version: self.os_version.to_string(),
            ipn_version: self.client.to_string(),
            request_tags: self.tags.iter().map(Tag::to_string).collect(),
            ..Hostinfo::default()
        }
    }

    /// The registration that lets the device in.
    pub fn registration(&self) -> RegisterRequest {
        RegisterRequest {
            version: self.version,
            node_key: self.node_key,
            old_node_key: self.old_node_key,
            expiry: self.expiry,
            ephemeral: self.ephemeral,
            tailnet: self.tailnet.to_string(),
            hostinfo: Some(self.hostinfo()),
            ..RegisterRequest::default()
        }
    }

    /// The memory that this takes, in bytes.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        let Self {
            version: _,
            node_key: _,
            old_node_key: _,
            expiry: _,
            ephemeral: _,
            tailnet,
            hostname,
            os,
            os_version,
            client,
            tags,
        } = self;
        let texts: usize = [tailnet, hostname, os, os_version, client].iter().map(|text| text.len()).sum();
        // A set's nodes are at least half full but for the first, which has room for eleven.
        let set = (2 * tags.len() + 11) * size_of::<Tag>();
        size_of::<Self>() + texts + set + tags.iter().map(|tag| tag.as_str().len()).sum::<usize>()
    }
}

/// The start of a text, as long as people read it; in memory of its own, so that a long one's is given back.
fn cut(text: &str) -> Box<str> {
    /// Twice what any name may have that is one.
    const SHOWN: usize = 512;
    let end = (0..=SHOWN.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The most that a device may ask with: long texts, as many and as long tags as there may be, and host information
    /// that is all small objects, up to the size that is taken.
    pub(in crate::login) fn largest() -> RegisterRequest {
        let text = "ä".repeat(4 << 10);
        let mut request = RegisterRequest {
            hostinfo: Some(Hostinfo {
                hostname: text.clone(),
                os: text.clone(),
                os_version: text.clone(),
                ipn_version: text.clone(),
                request_tags: (0..32).map(|number| format!("tag:{}{number:02}", "x".repeat(122))).collect(),
                ..Hostinfo::default()
            }),
            followup: "x".repeat(60_000),
            tailnet: "x".repeat(60_000),
            signature_type: "x".repeat(60_000),
            device_cert: vec![0; 40_000],
            signature: vec![0; 40_000],
            node_key_signature: vec![0; 40_000],
            ..RegisterRequest::default()
        };
        let objects: Vec<Value> = (0..3600).map(|_| json!({"": 0})).collect();
        request.hostinfo.as_mut().unwrap().rest.insert("Rest".to_owned(), Value::Array(objects));
        request
    }

    #[test]
    fn little_is_kept_of_the_most_that_a_device_may_ask_with() {
        let request = largest();
        let sent = serde_json::to_vec(request.hostinfo.as_ref().unwrap()).unwrap().len();
        assert!(sent > 60_000, "{sent} bytes are near what is taken");
        let kept = LoginRequest::of(&request).unwrap();
        assert!(kept.weight() <= LoginRequest::LIMIT, "{} bytes", kept.weight());
        assert!(kept.hostinfo().rest.is_empty() && kept.registration().followup.is_empty());
    }

    #[test]
    fn what_a_person_is_shown_and_what_lets_the_device_in_is_kept() {
        let request = RegisterRequest {
            version: CapabilityVersion(130),
            node_key: NodePublic::from_bytes([1; 32]),
            old_node_key: NodePublic::from_bytes([2; 32]),
            ephemeral: true,
            hostinfo: Some(Hostinfo {
                hostname: "laptop".to_owned(),
                os: "linux".to_owned(),
                os_version: "6.1".to_owned(),
                ipn_version: "1.104.1".to_owned(),
                request_tags: vec!["tag:web".to_owned()],
                ..Hostinfo::default()
            }),
            ..RegisterRequest::default()
        };
        assert_eq!(LoginRequest::of(&request).unwrap().registration(), request);
    }

    #[test]
    fn what_could_not_be_let_in_is_refused_before_anybody_is_asked() {
        let refusal = |change: fn(&mut Hostinfo)| {
            let mut hostinfo = Hostinfo::default();
            change(&mut hostinfo);
            let request = RegisterRequest { hostinfo: Some(hostinfo), ..RegisterRequest::default() };
            LoginRequest::of(&request).unwrap_err().to_string()
        };
        let large = refusal(|host| drop(host.rest.insert("Rest".to_owned(), Value::from("x".repeat(65_600)))));
        assert!(large.starts_with("this device's host information has 65"), "{large}");
        let tags = refusal(|host| host.request_tags = vec!["web".to_owned()]);
        assert!(tags.starts_with("\"web\" is not a tag"), "{tags}");
        let route = refusal(|host| host.routable_ips = vec!["100.64.0.0/16".parse().unwrap()]);
        assert!(route.contains("the mesh's own"), "{route}");
    }
}
