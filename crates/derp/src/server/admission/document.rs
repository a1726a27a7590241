use crypto::NodePublic;
use serde::{Deserialize, Serialize};

/// What the coordination server says about who may use the relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) enum Document {
    /// These keys and no others.
    Whole { version: u64, nodes: Vec<NodePublic> },
    /// What changed after an earlier version.
    Change { version: u64, since: u64, add: Vec<NodePublic>, remove: Vec<NodePublic> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    version: u64,
    since: Option<u64>,
    nodes: Option<Vec<NodePublic>>,
    #[serde(default)]
    add: Vec<NodePublic>,
    #[serde(default)]
    remove: Vec<NodePublic>,
}

impl TryFrom<Fields> for Document {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { version, since, nodes, add, remove } = fields;
        match (since, nodes) {
            (None, Some(nodes)) if add.is_empty() && remove.is_empty() => Ok(Self::Whole { version, nodes }),
            (Some(since), None) => Ok(Self::Change { version, since, add, remove }),
            _ => Err("it must have either `nodes`, or `since` with `add` and `remove`"),
        }
    }
}

/// The whole set as it is kept on disk: the form that the server sends it in.
#[derive(Debug, Serialize)]
pub(crate) struct Kept<'a> {
    pub(crate) version: u64,
    pub(crate) nodes: Vec<&'a NodePublic>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> NodePublic {
        NodePublic::from_bytes([byte; 32])
    }

    fn read(json: &str) -> Result<Document, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_two_forms_are_read() {
        let whole = format!(r#"{{"version":7,"nodes":["{}"]}}"#, key(1));
        assert_eq!(read(&whole), Ok(Document::Whole { version: 7, nodes: vec![key(1)] }));
        let change = format!(r#"{{"version":9,"since":7,"add":["{}"],"remove":["{}"]}}"#, key(2), key(1));
        let expected = Document::Change { version: 9, since: 7, add: vec![key(2)], remove: vec![key(1)] };
        assert_eq!(read(&change), Ok(expected));
    }

    #[test]
    fn a_document_that_is_both_or_neither_is_refused() {
        for bad in [
            r#"{"version":7}"#,
            r#"{"version":7,"since":6,"nodes":[]}"#,
            r#"{"version":7,"nodes":[],"add":["nodekey:00"]}"#,
            r#"{"nodes":[]}"#,
            r#"{"version":-1,"nodes":[]}"#,
            r#"{"version":7,"nodes":["mkey:00"]}"#,
            r#"{"version":7,"nodes":[],"later":1}"#,
            "[]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_reads_back() {
        let kept = serde_json::to_string(&Kept { version: 3, nodes: vec![&key(1)] }).unwrap();
        assert_eq!(read(&kept), Ok(Document::Whole { version: 3, nodes: vec![key(1)] }));
    }
}
