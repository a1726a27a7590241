//! Who is asked for the addresses of names: the servers that the machine has now.

mod settings;
mod sockets;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use hickory_resolver::Resolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::system_conf::parse_resolv_conf;

pub use settings::NameSettings;
use settings::ResolvConf;
pub use sockets::NameSocketSetup;
use sockets::Sockets;

/// Turns names into addresses; never libc.
pub trait Resolve: Send + Sync + fmt::Debug + 'static {
    /// The addresses of a host name, of both families, best first.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The name servers of `/etc/resolv.conf`, or of other settings in its format, as they are when a name is asked for.
///
/// A machine changes networks while its programs run, and may have none yet when they start: the settings are read for
/// each name. While they name no server, those that they named before are asked.
#[derive(Debug)]
pub struct SystemResolver {
    settings: Box<dyn NameSettings>,
    sockets: Sockets,
    asked: Mutex<Asked>,
}

/// Who is asked, and by which settings.
#[derive(Debug)]
struct Asked {
    /// The settings as they were read last; nothing when they could not be.
    settings: Option<String>,
    servers: Result<Resolver<Sockets>, ResolverError>,
}

/// There are no name servers to ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolverError {
    /// The settings can't be read.
    #[error("/etc/resolv.conf can't be read ({0}); is there one?")]
    Settings(String),
    /// The settings name nobody.
    #[error("/etc/resolv.conf names no name server: is this machine in a network?")]
    Nobody,
    /// The settings can't be used.
    #[error("the name servers of /etc/resolv.conf can't be used: {0}")]
    Servers(String),
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::of(ResolvConf)
    }
}

impl SystemResolver {
    /// Asks the name servers that these settings name at the time.
    pub fn of(settings: impl NameSettings) -> Self {
        let asked = Asked { settings: None, servers: Err(ResolverError::Nobody) };
        Self { settings: Box::new(settings), sockets: Sockets::default(), asked: Mutex::new(asked) }
    }

    /// Has every socket set up by this before it asks.
    #[must_use]
    pub fn with_socket_setup(mut self, setup: NameSocketSetup) -> Self {
        self.sockets = Sockets::new(setup);
        self
    }

    /// Who is to be asked now.
    fn servers(&self) -> Result<Resolver<Sockets>, ResolverError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.settings.read() {
            Ok(settings) if asked.settings.as_ref() == Some(&settings) => return asked.servers.clone(),
            Ok(settings) => {
                let found = servers(&settings, self.sockets.clone());
                asked.settings = Some(settings);
                found
            }
            Err(error) => {
                asked.settings = None;
                Err(ResolverError::Settings(error.to_string()))
            }
        };
        match found {
            // Whoever writes the file may be halfway through, or between two networks.
            Err(reason) if asked.servers.is_ok() => tracing::debug!(%reason, "the name servers of before are asked"),
            found => asked.servers = found,
        }
        asked.servers.clone()
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(self.servers()?.lookup_ip(host).await.map_err(unresolved)?.iter().collect()) })
    }
}

impl From<ResolverError> for io::Error {
    fn from(error: ResolverError) -> Self {
        Self::new(io::ErrorKind::HostUnreachable, error)
    }
}

/// The servers that settings name.
fn servers(settings: &str, sockets: Sockets) -> Result<Resolver<Sockets>, ResolverError> {
    if !settings.lines().any(|line| line.trim_start().starts_with("nameserver")) {
        return Err(ResolverError::Nobody);
    }
    let unusable = |error: NetError| ResolverError::Servers(error.to_string());
    let (config, options) = parse_resolv_conf(settings).map_err(unusable)?;
    Resolver::builder_with_config(config, sockets).with_options(options).build().map_err(unusable)
}

/// Why a name has no address, in words: the library's own text shows its query as a value of Rust.
fn unresolved(error: NetError) -> io::Error {
    let (kind, text) = match error {
        NetError::Dns(DnsError::NoRecordsFound(answer)) => match answer.response_code {
            ResponseCode::NXDomain => (io::ErrorKind::NotFound, "the DNS has no such name".to_owned()),
            ResponseCode::NoError => (io::ErrorKind::NotFound, "the DNS has no address of that name".to_owned()),
            other => (io::ErrorKind::Other, format!("the name servers answered \"{other}\"")),
        },
        NetError::Timeout => (io::ErrorKind::TimedOut, "the name servers do not answer".to_owned()),
        NetError::NoConnections => (io::ErrorKind::HostUnreachable, "no name server can be reached".to_owned()),
        other => return io::Error::other(other),
    };
    io::Error::new(kind, text)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::*;

    const HOME: &str = "192.0.2.1";
    const CAFE: &str = "192.0.2.2";

    /// A name server on loopback that has one address for every name, for as long as the tests run.
    fn server(answer: &str) -> IpAddr {
        let answer: Ipv4Addr = answer.parse().unwrap();
        let process = std::process::id();
        // Name servers have one port, so that each needs an address that no other process took.
        let mut candidates = (1..=250).map(|last| Ipv4Addr::from(0x7f35_0000 | ((process & 0xff) << 8) | last));
        let socket = candidates.find_map(|address| UdpSocket::bind((address, 53)).ok());
        let socket = socket.expect("these tests serve names at port 53 of loopback: run them as root");
        let address = socket.local_addr().unwrap().ip();
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let _ = socket.send_to(&answered(&question[..length], answer), from);
            }
        });
        address
    }

    /// The answer to a question: this address where one is asked for, and nothing else.
    fn answered(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
        let name = question[12..].iter().position(|byte| *byte == 0).unwrap() + 13;
        let (kind, end) = (&question[name..name + 2], name + 4);
        let has_one = kind == [0, 1];
        let counts = [0, 1, 0, u8::from(has_one), 0, 0, 0, 0];
        let mut answer = [&question[..2], &[0x81, 0x80], &counts, &question[12..end]].concat();
        if has_one {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4]);
            answer.extend(address.octets());
        }
        answer
    }

    fn naming(server: IpAddr) -> String {
        format!("nameserver {server}\n")
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        (folder, path)
    }

    #[derive(Debug)]
    struct File(std::path::PathBuf);

    impl NameSettings for File {
        fn read(&self) -> io::Result<String> {
            std::fs::read_to_string(&self.0)
        }
    }

    async fn control(resolver: &SystemResolver) -> io::Result<Vec<IpAddr>> {
        resolver.resolve("control.example.").await
    }

    fn is(answer: &str) -> Vec<IpAddr> {
        vec![answer.parse().unwrap()]
    }

    #[tokio::test]
    async fn a_machine_in_another_network_asks_the_servers_there() {
        let (_folder, path) = file();
        let resolver = SystemResolver::of(File(path.clone()));
        std::fs::write(&path, naming(server(HOME))).unwrap();
        assert_eq!(control(&resolver).await.unwrap(), is(HOME));
        std::fs::write(&path, naming(server(CAFE))).unwrap();
        assert_eq!(control(&resolver).await.unwrap(), is(CAFE));
    }

    #[tokio::test]
    async fn a_machine_that_starts_without_a_network_asks_once_there_is_one() {
        let (_folder, path) = file();
        let resolver = SystemResolver::of(File(path.clone()));
        let told = control(&resolver).await.unwrap_err().to_string();
        assert!(told.starts_with("/etc/resolv.conf can't be read ("), "{told}");
        std::fs::write(&path, "# nobody yet\nsearch example\n").unwrap();
        let told = control(&resolver).await.unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::HostUnreachable);
        assert_eq!(told.to_string(), ResolverError::Nobody.to_string());
        std::fs::write(&path, naming(server(HOME))).unwrap();
        assert_eq!(control(&resolver).await.unwrap(), is(HOME));
    }

    #[tokio::test]
    async fn while_the_settings_name_nobody_the_servers_of_before_are_asked() {
        let (_folder, path) = file();
        let resolver = SystemResolver::of(File(path.clone()));
        std::fs::write(&path, naming(server(HOME))).unwrap();
        control(&resolver).await.unwrap();
        for useless in ["", "nameserver nonsense\n", "nameserver 192.0.2.9\nsearch a..b\n"] {
            std::fs::write(&path, useless).unwrap();
            for _ in 0..2 {
                assert_eq!(control(&resolver).await.unwrap(), is(HOME), "{useless:?}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(control(&resolver).await.unwrap(), is(HOME));
    }

    /// Settings that are read once for each text that is left.
    #[derive(Debug)]
    struct Told(Mutex<VecDeque<String>>);

    impl NameSettings for Told {
        fn read(&self) -> io::Result<String> {
            let mut texts = self.0.lock().unwrap();
            if texts.len() > 1 { Ok(texts.pop_front().unwrap()) } else { Ok(texts[0].clone()) }
        }
    }

    #[test]
    fn what_is_wrong_with_settings_that_never_named_anybody_is_told() {
        let texts = ["nameserver nonsense\n", "nameserver nonsense\n", "", ""].map(str::to_owned);
        let resolver = SystemResolver::of(Told(Mutex::new(texts.into())));
        for _ in 0..2 {
            assert!(matches!(resolver.servers().unwrap_err(), ResolverError::Servers(_)));
        }
        for _ in 0..2 {
            assert_eq!(resolver.servers().unwrap_err(), ResolverError::Nobody);
        }
    }

    #[tokio::test]
    async fn sockets_are_set_up_before_they_ask() {
        let (_folder, path) = file();
        std::fs::write(&path, naming(server(HOME))).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let resolver = SystemResolver::of(File(path)).with_socket_setup(Arc::new(move |_: BorrowedFd<'_>| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }));
        control(&resolver).await.unwrap();
        assert!(count.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn a_name_without_an_address_is_told_in_words() {
        let told = |code| {
            let query = Query::query(Name::from_ascii("nobody.").unwrap(), RecordType::AAAA);
            unresolved(NoRecords::new(query, code).into()).to_string()
        };
        assert_eq!(told(ResponseCode::NXDomain), "the DNS has no such name");
        assert_eq!(told(ResponseCode::NoError), "the DNS has no address of that name");
        assert_eq!(told(ResponseCode::ServFail), "the name servers answered \"Server Failure\"");
    }
}
