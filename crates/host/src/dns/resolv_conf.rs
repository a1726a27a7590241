//! The format of `/etc/resolv.conf` (resolv.conf(5)).

use std::fmt;
use std::net::IpAddr;

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers in order.
    pub nameservers: Vec<IpAddr>,
    /// Domains that complete short names.
    pub search: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads a file as the system's library does: what it does not know is skipped, and the last `search` or `domain`
    /// counts.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // A zone (`fe80::1%eth0`) is the interface's, and no forwarder of ours can use it.
                Some("nameserver") => {
                    parsed.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => parsed.search = words.map(domain).filter(|word| is_domain(word)).collect(),
                Some("options") => parsed.options.extend(words.filter(|word| is_option(word)).map(str::to_owned)),
                _ => {}
            }
        }
        parsed
    }
}

/// Whether a word is a domain name that may stand in the file.
pub(super) fn is_domain(word: &str) -> bool {
    (1..=253).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && !word.starts_with('.')
}

fn is_option(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn domain(word: &str) -> String {
    word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase()
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for nameserver in &self.nameservers {
            writeln!(f, "nameserver {nameserver}")?;
        }
        if !self.search.is_empty() {
            writeln!(f, "search {}", self.search.join(" "))?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_search_counts_and_comments_do_not() {
        let parsed = ResolvConf::parse(
            "; old\n#nameserver 9.9.9.9\ndomain a.example\nnameserver 1.1.1.1 # trailing\nnameserver nonsense\n\
             search B.example. c.example\noptions ndots:2 rotate\n",
        );
        assert_eq!(parsed.nameservers, ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(parsed.search, ["b.example", "c.example"]);
        assert_eq!(parsed.options, ["ndots:2", "rotate"]);
    }

    proptest! {
        #[test]
        fn what_was_read_reads_back_as_it_was_written(text in "(nameserver|search|options|#)?[ \\PC\n]{0,200}") {
            let parsed = ResolvConf::parse(&text);
            prop_assert_eq!(ResolvConf::parse(&parsed.to_string()), parsed);
        }
    }
}
