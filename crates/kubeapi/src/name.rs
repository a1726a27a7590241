//! Names of objects: who writes, and what is made for whom.

/// The controller, as events and labels name it.
pub const CONTROLLER: &str = "tailscale-operator";

/// The finalizer on every object that something in the tailnet hangs on.
pub const FINALIZER: &str = "tailscale.com/finalizer";

/// The state Secret of the API server's proxy, and its Deployment, in a namespace of their own.
pub const API_SERVER_PROXY_STATE: &str = "apiserver-proxy";

/// Field managers: one a controller, so that each sees what it owns.
pub mod manager {
    /// Of what is made for Services, and of what is written on them.
    pub const SERVICE: &str = "tailscale-operator-service";
    /// Of what is made for Connectors, and of what is written on them.
    pub const CONNECTOR: &str = "tailscale-operator-connector";
    /// Of what is written on ProxyClasses.
    pub const PROXY_CLASS: &str = "tailscale-operator-proxyclass";
    /// Of tombstones.
    pub const TOMBSTONE: &str = "tailscale-operator-tombstone";
}

/// The longest name of a StatefulSet: its pods carry it in a label with a hash of ten digits behind it.
const MAX_STATEFUL_SET: usize = 52;

/// Letters and digits that can't be mistaken for one another or make words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The name of what is made for the object `parent` with this UID: `ts-<parent>-<ten characters of the UID>`. The same object
/// always has the same name, so that nothing is made twice.
pub fn base(parent: &str, uid: &str) -> String {
    // Leaves room for the number of a replica behind the name.
    // By the value of its label, from which an object that is gone is still known.
    let parent = fit(&label_value(parent).replace('.', "-"), MAX_STATEFUL_SET - "ts--xxxxxxxxxx-000".len());
    format!("ts-{parent}-{}", hash(uid, 10))
}

/// The name of a replica's StatefulSet, ServiceAccount and Role: the first has the base's own.
pub fn replica(base: &str, replica: u32) -> String {
    if replica == 0 { base.to_owned() } else { format!("{base}-{replica}") }
}

/// The name of the one pod of a StatefulSet, and of its state Secret.
pub fn state_secret(stateful_set: &str) -> String {
    format!("{stateful_set}-0")
}

/// The name of the config Secret of a StatefulSet's pod.
pub fn config_secret(stateful_set: &str) -> String {
    format!("{stateful_set}-0-config")
}

/// The StatefulSet whose pod's config Secret has this name.
pub fn of_config_secret(secret: &str) -> Option<&str> {
    secret.strip_suffix("-0-config").filter(|stateful_set| !stateful_set.is_empty())
}

/// The name of the ConfigMap that remembers what is still to be removed for a parent.
pub fn tombstone(base: &str) -> String {
    format!("{base}-tombstone")
}

/// The text, where it is longer than a label's value may be cut and told apart by a hash.
pub fn label_value(text: &str) -> String {
    fit(text, crate::label::MAX_VALUE)
}

/// The text as it is when it fits; else its beginning and a hash of all of it.
pub(crate) fn fit(text: &str, length: usize) -> String {
    if text.len() <= length {
        return text.to_owned();
    }
    let keep = length.saturating_sub("-xxxxx".len());
    let end = (0..=keep).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}-{}", text[..end].trim_end_matches(['-', '.', '_']), hash(text, 5))
}

/// Characters that differ for differing texts, but for a chance of one in 27 to the power of their number.
fn hash(text: &str, length: usize) -> String {
    let mut rest = fingerprint(text.as_bytes());
    let mut hash = String::new();
    for _ in 0..length {
        let at = usize::try_from(rest % ALPHABET.len() as u64).unwrap_or_default();
        hash.push(char::from(ALPHABET[at]));
        rest /= ALPHABET.len() as u64;
    }
    hash
}

/// FNV-1a in 64 bits: the same on every machine and in every version, unlike the standard library's hash. Not for secrets.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_the_same_name_every_time_and_another_with_another_uid() {
        assert_eq!(base("web", "1"), base("web", "1"));
        assert_ne!(base("web", "1"), base("web", "2"));
        assert!(base("tailscale-robbinsdale", "1").starts_with("ts-tailscale-robbinsdale-"));
    }

    #[test]
    fn the_longest_names_stay_within_their_limits() {
        let name = base(&"a".repeat(253), "1");
        assert_eq!(replica(&name, 999).len(), MAX_STATEFUL_SET, "{name}");
        assert!(config_secret(&replica(&name, 999)).len() <= 63);
        assert!(label_value(&"a".repeat(253)).len() <= 63);
        assert_ne!(label_value(&format!("{}b", "a".repeat(100))), label_value(&format!("{}c", "a".repeat(100))));
    }

    #[test]
    fn a_config_secret_names_its_stateful_set() {
        assert_eq!(of_config_secret(&config_secret("ts-web-bcdfg")), Some("ts-web-bcdfg"));
        assert_eq!(of_config_secret(&state_secret("ts-web-bcdfg")), None);
    }

    #[test]
    fn ten_characters_tell_two_objects_of_one_name_apart() {
        let name = base("web", "1");
        assert_eq!(name.strip_prefix("ts-web-").unwrap().len(), 10, "{name}");
    }

    #[test]
    fn the_name_is_found_again_by_the_label_of_the_parent() {
        let parent = "a".repeat(200);
        assert_eq!(base(&label_value(&parent), "1"), base(&parent, "1"));
    }

    #[test]
    fn a_name_with_dots_becomes_one_label() {
        assert!(!base("a.b.c", "1").contains('.'));
    }

    #[test]
    fn the_fingerprint_is_fnv_1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
