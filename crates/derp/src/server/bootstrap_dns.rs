use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a client whose DNS is broken may learn here: the addresses of this installation's own hosts, as configured.
///
/// Nothing is looked up for a question, so no question costs more than its answer.
#[derive(Debug)]
pub(crate) struct BootstrapDns {
    names: BTreeMap<String, Vec<IpAddr>>,
    all: String,
}

impl BootstrapDns {
    pub(crate) fn new(names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        let all = serde_json::to_string(&names).expect("names and addresses are always written as JSON");
        Self { names, all }
    }

    /// The answer to a request's query: the name in `q` alone if it is known, all names otherwise.
    pub(crate) fn answer(&self, query: Option<&str>) -> String {
        let wanted = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("q="));
        match wanted.and_then(|name| self.names.get_key_value(name)) {
            Some((name, addresses)) => serde_json::json!({ name: addresses }).to_string(),
            None => self.all.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_names_are_answered() {
        let names = [("control.example", "203.0.113.10"), ("derp.example", "203.0.113.11")];
        let names = names.map(|(name, address)| (name.to_owned(), vec![address.parse().unwrap()]));
        let dns = BootstrapDns::new(names.into());
        assert_eq!(dns.answer(Some("q=derp.example")), r#"{"derp.example":["203.0.113.11"]}"#);
        let all = r#"{"control.example":["203.0.113.10"],"derp.example":["203.0.113.11"]}"#;
        assert_eq!(dns.answer(Some("x=1&q=elsewhere.example")), all);
        assert_eq!(dns.answer(None), all);
    }
}
