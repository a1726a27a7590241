use tailcfg::NodeId;

/// A login about which a device's SSH server asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshLogin {
    /// The device that it comes from.
    pub source: NodeId,
    /// The device that asks.
    pub destination: NodeId,
    /// The account that was asked for.
    pub account: String,
    /// The check that it waits for, where it asks again.
    pub check: Option<String>,
}

/// Where such questions are asked.
pub(super) const PATH: &str = "/machine/ssh/action/";

impl SshLogin {
    /// Reads `/machine/ssh/action/<source>/to/<destination>?ssh_user=<account>&check=<check>`.
    pub(super) fn read(path: &str, query: &str) -> Option<Self> {
        let (source, destination) = path.strip_prefix(PATH)?.split_once("/to/")?;
        let mut login = Self {
            source: NodeId(source.parse().ok()?),
            destination: NodeId(destination.parse().ok()?),
            account: String::new(),
            check: None,
        };
        for (name, value) in api::decode_form(query) {
            match name.as_str() {
                "ssh_user" => login.account = value,
                "check" => login.check = Some(value),
                _ => {}
            }
        }
        (!login.account.is_empty()).then_some(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_two_devices_and_an_account() {
        let read = SshLogin::read("/machine/ssh/action/7/to/9", "ssh_user=a%40b&local_user=a&check=xyz").unwrap();
        let login = SshLogin {
            source: NodeId(7),
            destination: NodeId(9),
            account: "a@b".to_owned(),
            check: Some("xyz".to_owned()),
        };
        assert_eq!(read, login);
        for (path, query) in [
            ("/machine/ssh/action/7/to/9", ""),
            ("/machine/ssh/action/7/to/9", "ssh_user="),
            ("/machine/ssh/action/7/to/-1", "ssh_user=a"),
            ("/machine/ssh/action/7/to/9/", "ssh_user=a"),
            ("/machine/ssh/action/9", "ssh_user=a"),
            ("/machine/ssh/other/7/to/9", "ssh_user=a"),
        ] {
            assert_eq!(SshLogin::read(path, query), None, "{path}?{query}");
        }
    }
}
