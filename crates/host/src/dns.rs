//! Points the machine's programs at MagicDNS by `/etc/resolv.conf`, and gives the file back.

mod contest;
mod file;
mod resolv_conf;
mod watch;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use contest::{Contest, ContestVerdict};
pub use resolv_conf::ResolvConf;
pub use watch::DnsWatch;

use crate::failure::{Area, HostError};
use file::{read_bounded, replace};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The servers that systemd-resolved asks, of all interfaces.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const BACKUP_SUFFIX: &str = ".before-towline";
const MARKER: &str =
    "# towline: this file is the tailnet's while the node runs; the one before it comes back after that";
/// In front of each line of the file before, so that it can be given back where no second file can be written.
const KEPT: &str = "#| ";

/// What the machine's programs are to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Resolvers in order; the system's library uses three at most.
    pub nameservers: Vec<IpAddr>,
    /// Domains that complete short names; those of the file before come after them.
    pub search: Vec<String>,
}

/// Who writes the machine's `/etc/resolv.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsOwner {
    /// Nobody in particular: it is rewritten and given back.
    Nobody,
    /// This program, or an earlier process of it.
    Towline,
    /// systemd-resolved: programs ask it and not the file's servers.
    SystemdResolved,
    /// NetworkManager, which may write it again.
    NetworkManager,
    /// One of the programs called resolvconf, which may write it again.
    Resolvconf,
}

/// What became of the file when it was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRestored {
    /// It is as it was.
    Restored,
    /// Somebody else had written it meanwhile, and it was left alone.
    LeftAlone,
}

/// The machine's `/etc/resolv.conf`.
#[derive(Clone, Debug)]
pub struct SystemDns {
    path: PathBuf,
    backup: PathBuf,
    resolved: PathBuf,
}

impl Default for SystemDns {
    fn default() -> Self {
        Self::at(RESOLV_CONF)
    }
}

impl SystemDns {
    /// A resolv.conf at another place.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mut backup = path.clone().into_os_string();
        backup.push(BACKUP_SUFFIX);
        Self { path, backup: backup.into(), resolved: RESOLVED.into() }
    }

    /// With the list of the servers that systemd-resolved asks at another place.
    #[must_use]
    pub fn with_resolved_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.resolved = path.into();
        self
    }

    /// Who writes the file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn owner(&self) -> Result<DnsOwner, HostError> {
        let target = fs::read_link(&self.path).unwrap_or_default();
        Ok(owner(&self.current()?.unwrap_or_default(), &target))
    }

    /// What the machine's programs asked before, for names that are not the tailnet's. It outlives a crash.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn base(&self) -> Result<ResolvConf, HostError> {
        let current = self.current()?.unwrap_or_default();
        let text = if is_ours(&current) { self.before(&current)?.unwrap_or_default() } else { current };
        Ok(ResolvConf::parse(&text))
    }

    /// Whom systemd-resolved asks, where the machine's programs ask that; nothing where they don't, or it does not say.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn resolved_servers(&self) -> Result<Option<ResolvConf>, HostError> {
        if self.owner()? != DnsOwner::SystemdResolved {
            return Ok(None);
        }
        match read_bounded(&self.resolved) {
            Ok(text) => Ok(Some(ResolvConf::parse(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HostError::new(Area::File, format!("read {}", self.resolved.display()), error)),
        }
    }

    /// The file that [`apply`](Self::apply) would leave.
    ///
    /// # Errors
    /// When the file can't be read, a search domain is none, or systemd-resolved is in charge.
    pub fn plan(&self, config: &DnsConfig) -> Result<String, HostError> {
        let current = self.current()?;
        self.check(config, current.as_deref().unwrap_or_default())?;
        let before = match current {
            Some(current) if is_ours(&current) => self.before(&current)?,
            current => current,
        };
        Ok(compose(config, before.as_deref()))
    }

    /// Writes the file; says whether it had to. The file before is kept beside it, or in its comments where nothing can
    /// be written beside it, as in a pod with a read-only root.
    ///
    /// # Errors
    /// When the file can't be written, a search domain is none, or systemd-resolved is in charge.
    pub fn apply(&self, config: &DnsConfig) -> Result<bool, HostError> {
        let text = self.plan(config)?;
        let current = self.current()?;
        if current.as_deref() == Some(text.as_str()) {
            return Ok(false);
        }
        if !current.as_deref().is_some_and(is_ours) {
            self.keep_backup();
        }
        replace(&self.path, &text).map_err(|error| self.failure("write", error))?;
        Ok(true)
    }

    /// Gives the file back as it was, also after a crash. A file that somebody else wrote meanwhile is left alone.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn restore(&self) -> Result<DnsRestored, HostError> {
        let current = self.current()?.unwrap_or_default();
        if !is_ours(&current) {
            let _ = fs::remove_file(&self.backup);
            return Ok(DnsRestored::LeftAlone);
        }
        // A rename brings a symbolic link back as one. A file that is mounted can't be renamed over.
        if fs::rename(&self.backup, &self.path).is_ok() {
            return Ok(DnsRestored::Restored);
        }
        let restored = match self.before(&current)? {
            Some(before) => replace(&self.path, &before),
            None => fs::remove_file(&self.path),
        };
        restored.map_err(|error| self.failure("restore", error))?;
        let _ = fs::remove_file(&self.backup);
        Ok(DnsRestored::Restored)
    }

    /// Watches for others who write the file, from now on.
    ///
    /// # Errors
    /// When the kernel can't watch files.
    pub fn watch(&self) -> Result<DnsWatch, HostError> {
        DnsWatch::new(&self.path).map_err(|error| self.failure("watch", error))
    }

    fn check(&self, config: &DnsConfig, current: &str) -> Result<(), HostError> {
        if let Some(domain) = config.search.iter().find(|domain| !resolv_conf::is_domain(domain)) {
            return Err(HostError::with_advice(
                format!("search names in {domain:?}"),
                io::Error::from_raw_os_error(libc::EINVAL),
                "a search domain is letters, digits, dashes and dots",
            ));
        }
        let target = fs::read_link(&self.path).unwrap_or_default();
        if owner(current, &target) == DnsOwner::SystemdResolved {
            return Err(HostError::with_advice(
                format!("set the resolvers in {}", self.path.display()),
                io::Error::from_raw_os_error(libc::EBUSY),
                "systemd-resolved is in charge of name resolution on this machine, which this version can't direct: \
                 run `resolvectl dns INTERFACE 100.100.100.100` and `resolvectl domain INTERFACE '~.'` with the \
                 tunnel's interface, or replace the file by a plain one",
            ));
        }
        Ok(())
    }

    /// The file as it is; nothing when there is none.
    fn current(&self) -> Result<Option<String>, HostError> {
        match read_bounded(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failure("read", error)),
        }
    }

    /// The file that ours took the place of; nothing when there was none.
    fn before(&self, ours: &str) -> Result<Option<String>, HostError> {
        match read_bounded(&self.backup) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(kept(ours)),
            Err(error) => Err(self.failure("read the backup of", error)),
        }
    }

    /// Keeps the file beside itself, a symbolic link as one. It may fail: the new file's comments have the lines too.
    fn keep_backup(&self) {
        let _ = fs::remove_file(&self.backup);
        let kept = match fs::read_link(&self.path) {
            Ok(target) => std::os::unix::fs::symlink(target, &self.backup),
            Err(_) => fs::copy(&self.path, &self.backup).map(drop),
        };
        if let Err(error) = kept {
            tracing::debug!(%error, "the resolver configuration before ours is kept in comments only");
        }
    }

    fn failure(&self, what: &str, error: io::Error) -> HostError {
        HostError::new(Area::File, format!("{what} {}", self.path.display()), error)
    }
}

/// Whether a process of ours wrote this text.
fn is_ours(text: &str) -> bool {
    text.lines().next() == Some(MARKER)
}

fn compose(config: &DnsConfig, before: Option<&str>) -> String {
    let base = ResolvConf::parse(before.unwrap_or_default());
    let mut search = config.search.clone();
    for domain in base.search {
        if !search.contains(&domain) {
            search.push(domain);
        }
    }
    let ours = ResolvConf { nameservers: config.nameservers.clone(), search, options: base.options };
    let kept = before.unwrap_or_default().lines().map(|line| format!("{KEPT}{line}\n"));
    format!("{MARKER}\n{}{ours}", if before.is_some() { kept.collect() } else { String::new() })
}

/// The lines of the file before, out of the comments of ours.
fn kept(ours: &str) -> Option<String> {
    let lines: Vec<_> = ours.lines().filter_map(|line| line.strip_prefix(KEPT)).collect();
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

fn owner(text: &str, target: &Path) -> DnsOwner {
    if is_ours(text) {
        return DnsOwner::Towline;
    }
    let stub = ResolvConf::parse(text).nameservers.contains(&IpAddr::from([127, 0, 0, 53]));
    let comments = || text.lines().filter(|line| line.starts_with(['#', ';']));
    let says = |word: &str| comments().any(|line| line.contains(word));
    match () {
        () if stub || target.ends_with("systemd/resolve/stub-resolv.conf") => DnsOwner::SystemdResolved,
        () if says("NetworkManager") => DnsOwner::NetworkManager,
        () if says("resolvconf") => DnsOwner::Resolvconf,
        () => DnsOwner::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "search home.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";

    fn config() -> DnsConfig {
        DnsConfig { nameservers: vec!["100.100.100.100".parse().unwrap()], search: vec!["taila31de.ts.net".to_owned()] }
    }

    fn written(text: Option<&str>) -> (tempfile::TempDir, SystemDns) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let dns = SystemDns::at(&path);
        (folder, dns)
    }

    #[test]
    fn search_domains_and_options_of_the_file_before_are_kept() {
        let (_folder, dns) = written(Some(POD));
        assert!(dns.apply(&config()).unwrap());
        let now = ResolvConf::parse(&fs::read_to_string(&dns.path).unwrap());
        assert_eq!(now.nameservers, config().nameservers);
        assert_eq!(now.search, ["taila31de.ts.net", "home.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(now.options, ["ndots:5"]);
        assert!(!dns.apply(&config()).unwrap(), "the second time nothing is written");
    }

    #[test]
    fn the_file_comes_back_byte_for_byte() {
        let (folder, dns) = written(Some(POD));
        dns.apply(&config()).unwrap();
        assert_eq!(dns.owner().unwrap(), DnsOwner::Towline);
        assert_eq!(dns.restore().unwrap(), DnsRestored::Restored);
        assert_eq!(fs::read_to_string(&dns.path).unwrap(), POD);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn after_a_crash_the_base_is_still_the_machines_own() {
        let (_folder, dns) = written(Some(POD));
        dns.apply(&config()).unwrap();
        let later = SystemDns::at(&dns.path);
        assert_eq!(later.base().unwrap(), ResolvConf::parse(POD));
        later.apply(&DnsConfig { search: Vec::new(), ..config() }).unwrap();
        assert_eq!(later.base().unwrap(), ResolvConf::parse(POD), "a change of ours keeps the first backup");
        later.restore().unwrap();
        assert_eq!(fs::read_to_string(&dns.path).unwrap(), POD);
    }

    #[test]
    fn without_a_backup_the_comments_give_the_file_back() {
        let (_folder, dns) = written(Some(POD));
        dns.apply(&config()).unwrap();
        fs::remove_file(&dns.backup).unwrap();
        assert_eq!(dns.base().unwrap(), ResolvConf::parse(POD));
        dns.restore().unwrap();
        assert_eq!(fs::read_to_string(&dns.path).unwrap(), POD);
    }

    #[test]
    fn a_file_that_was_not_there_is_gone_again() {
        let (folder, dns) = written(None);
        dns.apply(&config()).unwrap();
        dns.restore().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_symbolic_link_comes_back_as_one() {
        let (folder, dns) = written(None);
        fs::write(folder.path().join("other"), POD).unwrap();
        std::os::unix::fs::symlink("other", &dns.path).unwrap();
        dns.apply(&config()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("other")).unwrap(), POD, "the target is not written");
        assert_eq!(dns.base().unwrap(), ResolvConf::parse(POD));
        dns.restore().unwrap();
        assert_eq!(fs::read_link(&dns.path).unwrap(), Path::new("other"));
    }

    #[test]
    fn a_file_that_somebody_else_wrote_meanwhile_is_left_alone() {
        let (_folder, dns) = written(Some(POD));
        dns.apply(&config()).unwrap();
        fs::write(&dns.path, "nameserver 192.168.1.1\n").unwrap();
        assert_eq!(dns.base().unwrap().nameservers, ["192.168.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(dns.restore().unwrap(), DnsRestored::LeftAlone);
        assert_eq!(fs::read_to_string(&dns.path).unwrap(), "nameserver 192.168.1.1\n");
    }

    #[test]
    fn systemd_resolved_is_told_with_what_to_run() {
        let (_folder, dns) = written(Some("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"));
        assert_eq!(dns.owner().unwrap(), DnsOwner::SystemdResolved);
        let message = dns.apply(&config()).unwrap_err().to_string();
        assert!(message.contains("`resolvectl dns INTERFACE 100.100.100.100`"), "{message}");
    }

    #[test]
    fn whom_systemd_resolved_asks_is_known_where_programs_ask_it() {
        let (folder, dns) = written(Some("nameserver 127.0.0.53\n"));
        let asked = folder.path().join("asked");
        let dns = dns.with_resolved_at(&asked);
        assert_eq!(dns.resolved_servers().unwrap(), None);
        fs::write(&asked, POD).unwrap();
        assert_eq!(dns.resolved_servers().unwrap(), Some(ResolvConf::parse(POD)));
        fs::write(&dns.path, POD).unwrap();
        assert_eq!(dns.resolved_servers().unwrap(), None);
    }

    #[test]
    fn who_writes_the_file_is_known_by_its_comments() {
        let of = |text: &str| owner(text, Path::new(""));
        assert_eq!(of("# Generated by NetworkManager\nnameserver 1.1.1.1\n"), DnsOwner::NetworkManager);
        assert_eq!(of("# Dynamic resolv.conf(5) file generated by resolvconf(8)\n"), DnsOwner::Resolvconf);
        assert_eq!(of("nameserver 1.1.1.1\n"), DnsOwner::Nobody);
        let stub = Path::new("../run/systemd/resolve/stub-resolv.conf");
        assert_eq!(owner("", stub), DnsOwner::SystemdResolved);
    }

    #[test]
    fn a_search_domain_that_would_break_the_file_is_refused() {
        let (_folder, dns) = written(Some(POD));
        let hostile = DnsConfig { search: vec!["a\nnameserver 6.6.6.6".to_owned()], ..config() };
        assert!(dns.apply(&hostile).unwrap_err().to_string().contains("a search domain is"));
        assert_eq!(fs::read_to_string(&dns.path).unwrap(), POD);
    }
}
