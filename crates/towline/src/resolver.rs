use std::io;
use std::net::IpAddr;

use anyhow::Context;
use hickory_resolver::TokioResolver;

/// Resolves names as the machine's `resolv.conf` and `hosts` file say, without libc: the one resolver of the process,
/// handed to everything that dials by name.
#[derive(Debug)]
pub(crate) struct SystemResolver(TokioResolver);

impl SystemResolver {
    /// Reads the machine's settings.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let builder = TokioResolver::builder_tokio().context("/etc/resolv.conf can't be read; is there one?")?;
        Ok(Self(builder.build().context("the name servers of /etc/resolv.conf can't be used")?))
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.lookup_ip(host).await.map_err(io::Error::other)?.iter().collect())
    }
}

impl api::Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> futures_util::future::BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(self.addresses(host))
    }
}

impl derp::client::Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> futures_util::future::BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(self.addresses(name))
    }
}
