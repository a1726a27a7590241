use std::fmt;
use std::io;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;

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
        Box::pin(async move { Ok(self.0.lookup_ip(host).await.map_err(io::Error::other)?.iter().collect()) })
    }
}
