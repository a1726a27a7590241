use std::fmt;
use std::io;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// Turns names into addresses; never libc.
pub trait Resolve: Send + Sync + fmt::Debug + 'static {
    /// The addresses of a host name, of both families, best first.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The name servers of `/etc/resolv.conf`, as they were when it was made.
#[derive(Debug)]
pub struct SystemResolver(TokioResolver);

/// There are no name servers to ask.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The settings can't be read.
    #[error("/etc/resolv.conf can't be read ({0}); is there one?")]
    Settings(String),
    /// The settings can't be used.
    #[error("the name servers of /etc/resolv.conf can't be used: {0}")]
    Servers(String),
}

impl SystemResolver {
    /// Reads the system's settings.
    pub fn new() -> Result<Self, ResolverError> {
        let builder = TokioResolver::builder_tokio().map_err(|error| ResolverError::Settings(error.to_string()))?;
        Ok(Self(builder.build().map_err(|error| ResolverError::Servers(error.to_string()))?))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(self.0.lookup_ip(host).await.map_err(unresolved)?.iter().collect()) })
    }
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
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::*;

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
