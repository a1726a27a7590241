//! A kubeconfig as a value: what stands in it stays, and a cluster behind the tailnet is added.

mod file;

use base64::Engine;
use serde_yaml_ng::{Mapping, Value};

pub(crate) use file::KubeconfigFile;

/// The one user that clusters behind the tailnet need: who it really is, the tailnet says.
const USER: &str = "tailscale-auth";
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Why a text is not taken for a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotKubeconfig {
    #[error("it is not YAML: {0}")]
    Yaml(String),
    #[error("it is not a list of settings")]
    Shape,
    #[error("its {field} is {found:?} and not {expected:?}")]
    Kind { field: &'static str, found: String, expected: &'static str },
    #[error("its {0} are not a list of things with names")]
    List(&'static str),
    #[error("it has none of clusters, contexts and users")]
    Foreign,
}

/// Whom kubectl is to believe that a server is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The authority with this certificate, in PEM, and no other.
    Only(String),
    /// Those that the system trusts.
    System,
    /// Whomever the kubeconfig says already.
    AsItIs,
}

/// A cluster behind the tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The name of cluster and context: the whole MagicDNS name.
    pub(crate) name: String,
    /// The server's URL.
    pub(crate) server: String,
    /// How its certificate is verified.
    pub(crate) authority: Authority,
}

/// Adds a cluster with its context and makes that the current one; answers the new text.
pub(crate) fn with_cluster(text: &str, cluster: &Cluster) -> Result<String, NotKubeconfig> {
    let mut config = parse(text)?;
    for (field, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        if !config.contains_key(field) {
            config.insert(field.into(), value.into());
        }
    }
    let entry = named(&mut config, "clusters", &cluster.name, "cluster")?;
    entry.insert("server".into(), cluster.server.as_str().into());
    const OTHERS: [&str; 2] = ["certificate-authority", "insecure-skip-tls-verify"];
    const EMBEDDED: &str = "certificate-authority-data";
    match &cluster.authority {
        Authority::Only(pem) => {
            for field in OTHERS {
                entry.shift_remove(field);
            }
            let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
            entry.insert(EMBEDDED.into(), encoded.into());
        }
        Authority::System => {
            for field in [EMBEDDED].into_iter().chain(OTHERS) {
                entry.shift_remove(field);
            }
        }
        Authority::AsItIs => {}
    }
    let context = named(&mut config, "contexts", &cluster.name, "context")?;
    context.insert("cluster".into(), cluster.name.as_str().into());
    context.insert("user".into(), USER.into());
    let user = named(&mut config, "users", USER, "user")?;
    // The server takes no token, but kubectl asks for a password where there is none.
    user.insert("token".into(), "unused".into());
    config.insert("current-context".into(), cluster.name.as_str().into());
    serde_yaml_ng::to_string(&config).map_err(|error| NotKubeconfig::Yaml(error.to_string()))
}

/// Reads a text, which may be empty, and makes sure that it is a kubeconfig.
fn parse(text: &str) -> Result<Mapping, NotKubeconfig> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| NotKubeconfig::Yaml(error.to_string()))?;
    let config = match value {
        Value::Null => return Ok(Mapping::new()),
        Value::Mapping(config) => config,
        _ => return Err(NotKubeconfig::Shape),
    };
    for (field, expected) in [("apiVersion", "v1"), ("kind", "Config")] {
        match config.get(field) {
            None => {}
            Some(Value::String(found)) if found == expected => {}
            Some(found) => {
                let found = found.as_str().map_or_else(|| format!("{found:?}"), str::to_owned);
                return Err(NotKubeconfig::Kind { field, found, expected });
            }
        }
    }
    let says_so = config.contains_key("kind");
    if !says_so && !config.is_empty() && !LISTS.iter().any(|list| config.contains_key(*list)) {
        return Err(NotKubeconfig::Foreign);
    }
    for list in LISTS {
        let is_named = |entry: &Value| entry.get("name").is_some_and(Value::is_string);
        match config.get(list) {
            None | Some(Value::Null) => {}
            Some(Value::Sequence(entries)) if entries.iter().all(is_named) => {}
            Some(_) => return Err(NotKubeconfig::List(list)),
        }
    }
    Ok(config)
}

/// What a list holds under a name, made if it is not there.
fn named<'a>(
    config: &'a mut Mapping,
    list: &'static str,
    name: &str,
    what: &'static str,
) -> Result<&'a mut Mapping, NotKubeconfig> {
    let entries = config.entry(list.into()).or_insert_with(|| Value::Sequence(Vec::new()));
    if entries.is_null() {
        *entries = Value::Sequence(Vec::new());
    }
    let Value::Sequence(entries) = entries else { return Err(NotKubeconfig::List(list)) };
    let is_it = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some(name);
    let at = entries.iter().position(is_it).unwrap_or_else(|| {
        let mut entry = Mapping::new();
        entry.insert(what.into(), Value::Mapping(Mapping::new()));
        entry.insert("name".into(), name.into());
        entries.push(Value::Mapping(entry));
        entries.len() - 1
    });
    let Some(Value::Mapping(entry)) = entries.get_mut(at) else { return Err(NotKubeconfig::List(list)) };
    let inner = entry.entry(what.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
    if inner.is_null() {
        *inner = Value::Mapping(Mapping::new());
    }
    inner.as_mapping_mut().ok_or(NotKubeconfig::List(list))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cluster() -> Cluster {
        let authority = Authority::Only("PEM".to_owned());
        Cluster { name: "op.t.net".into(), server: "https://op.t.net".into(), authority }
    }

    #[test]
    fn an_empty_file_becomes_what_the_stock_command_writes_and_the_authority() {
        let wanted = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    server: https://op.t.net\n    certificate-authority-data: UEVN\n  name: op.t.net\ncontexts:\n- context:\n    cluster: op.t.net\n    user: tailscale-auth\n  name: op.t.net\nusers:\n- user:\n    token: unused\n  name: tailscale-auth\ncurrent-context: op.t.net\n";
        assert_eq!(with_cluster("", &cluster()).unwrap(), wanted);
    }

    #[test]
    fn doing_it_twice_changes_nothing() {
        let once = with_cluster("", &cluster()).unwrap();
        assert_eq!(with_cluster(&once, &cluster()).unwrap(), once);
    }

    #[test]
    fn what_a_cluster_says_beside_server_and_authority_stays() {
        let text = "clusters:\n- name: op.t.net\n  cluster: {server: old, proxy-url: p, insecure-skip-tls-verify: true}\ncontexts:\n- name: op.t.net\n  context: {namespace: n}\nusers: null\n";
        let config: Value = serde_yaml_ng::from_str(&with_cluster(text, &cluster()).unwrap()).unwrap();
        let found = &config["clusters"][0]["cluster"];
        assert_eq!((found["proxy-url"].as_str(), found["server"].as_str()), (Some("p"), Some("https://op.t.net")));
        assert!(found.get("insecure-skip-tls-verify").is_none());
        assert_eq!(config["contexts"][0]["context"]["namespace"].as_str(), Some("n"));
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_and_said_why() {
        for (text, reason) in [
            ("hello: [", "not YAML"),
            ("- a\n", "not a list of settings"),
            ("hello", "not a list of settings"),
            ("kind: Pod\napiVersion: v1\n", "its kind is \"Pod\""),
            ("apiVersion: v2\nkind: Config\n", "its apiVersion is \"v2\""),
            ("kind: Config\nclusters: 5\n", "its clusters are not a list"),
            ("kind: Config\nusers:\n- 5\n", "its users are not a list"),
            ("name: me\n", "none of clusters"),
            ("a: 1\n---\nb: 2\n", "not YAML"),
            ("clusters:\n- name: op.t.net\n  cluster: 5\n", "its clusters are not a list"),
        ] {
            let error = with_cluster(text, &cluster()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            "\\PC{0,12}".prop_map(Value::from),
            prop::sample::select(vec![
                "yes", "no", "on", "null", "~", "0x1f", "1e3", "true", "012", "- a", "a: b", "#"
            ])
            .prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ]
    }

    fn mapping() -> impl Strategy<Value = Value> {
        prop::collection::vec(("[a-z-]{1,8}", scalar()), 0..5)
            .prop_map(|fields| Value::Mapping(fields.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }

    fn entries(what: &'static str) -> impl Strategy<Value = Value> {
        let entry = ("[a-z.]{1,6}", mapping()).prop_map(move |(name, inner)| {
            let mut entry = Mapping::new();
            entry.insert("name".into(), name.into());
            entry.insert(what.into(), inner);
            Value::Mapping(entry)
        });
        prop::collection::vec(entry, 0..4).prop_map(Value::Sequence)
    }

    proptest! {
        #[test]
        fn everything_else_stays_as_it_was(
            clusters in entries("cluster"),
            contexts in entries("context"),
            users in entries("user"),
            more in mapping(),
        ) {
            let mut config = Mapping::new();
            config.insert("extensions".into(), more);
            let lists = [("clusters", clusters), ("contexts", contexts), ("users", users)];
            for (name, list) in &lists {
                config.insert((*name).into(), list.clone());
            }
            let text = serde_yaml_ng::to_string(&config).unwrap();
            let merged: Value = serde_yaml_ng::from_str(&with_cluster(&text, &cluster()).unwrap()).unwrap();
            prop_assert_eq!(&merged["extensions"], &config["extensions"]);
            for (name, list) in lists {
                let (old, new) = (list.as_sequence().unwrap(), merged[name].as_sequence().unwrap());
                prop_assert_eq!(&new[..old.len()], &old[..]);
                prop_assert_eq!(new.len(), old.len() + 1);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = with_cluster(&text, &cluster());
        }
    }
}
