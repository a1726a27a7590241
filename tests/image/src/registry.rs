//! Pushing images into a registry that speaks the OCI distribution protocol over plain HTTP.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::blob::{Blob, Digest};
use crate::http::{Answer, Request, exchange};
use crate::layout::Reference;
use crate::manifest::{Image, MANIFEST};

/// A registry without TLS and without authentication.
pub struct Registry {
    host: String,
    connect: Box<dyn Fn() -> io::Result<TcpStream>>,
}

impl Registry {
    /// The registry that listens on `address`. Connections are made by the calling thread, in whatever network
    /// namespace it is.
    pub fn at(address: SocketAddr) -> Self {
        Self::through(address.to_string(), move || TcpStream::connect_timeout(&address, Duration::from_secs(10)))
    }

    /// The registry called `host`, reached over streams that `connect` makes.
    pub fn through(host: impl Into<String>, connect: impl Fn() -> io::Result<TcpStream> + 'static) -> Self {
        Self { host: host.into(), connect: Box::new(connect) }
    }

    /// Pushes the image and returns its digest; layers that the registry has are not sent again.
    ///
    /// # Errors
    /// Names the image and the step that failed, with what the registry answered.
    pub fn push(&self, image: &Image, reference: &Reference) -> Result<Digest> {
        self.push_parts(image, reference).with_context(|| format!("pushing {reference} to {}", self.host))
    }

    fn push_parts(&self, image: &Image, reference: &Reference) -> Result<Digest> {
        for blob in image.layers().iter().chain([&image.configuration()?]) {
            self.push_blob(&reference.repository, blob)?;
        }
        let manifest = image.manifest()?;
        let path = format!("/v2/{}/manifests/{}", reference.repository, reference.tag);
        let answer = self.exchange("PUT", path, MANIFEST, Some(&manifest))?;
        expect(&answer, 201, "taking the manifest")?;
        Ok(manifest.digest().clone())
    }

    fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let octets = "application/octet-stream";
        let held = self.exchange("HEAD", format!("/v2/{repository}/blobs/{}", blob.digest()), octets, None)?;
        match held.status {
            200 => return Ok(()),
            404 => {}
            _ => expect(&held, 404, "looking for a blob")?,
        }
        let begun = self.exchange("POST", format!("/v2/{repository}/blobs/uploads/"), octets, None)?;
        expect(&begun, 202, "beginning an upload")?;
        let Some(location) = &begun.location else { bail!("it began an upload and did not say where") };
        let path = path_of(location);
        let sign = if path.contains('?') { '&' } else { '?' };
        let sent = self.exchange("PUT", format!("{path}{sign}digest={}", blob.digest()), octets, Some(blob))?;
        expect(&sent, 201, "taking a blob")
    }

    fn exchange(
        &self,
        method: &'static str,
        path: String,
        media_type: &'static str,
        body: Option<&Blob>,
    ) -> Result<Answer> {
        let stream = (self.connect)().context("connecting")?;
        exchange(stream, &self.host, &Request { method, path, media_type, body })
    }
}

/// The path and query of a location, which may be a whole URL.
fn path_of(location: &str) -> &str {
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |start| &rest[start..]),
        None => location,
    }
}

fn expect(answer: &Answer, status: u16, what: &str) -> Result<()> {
    if answer.status != status {
        bail!("{what}: it answered {} in place of {status}: {}", answer.status, answer.text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_may_be_a_path_or_a_url() {
        assert_eq!(path_of("/v2/a/blobs/uploads/1?_state=x"), "/v2/a/blobs/uploads/1?_state=x");
        assert_eq!(path_of("http://registry:5000/v2/a?x"), "/v2/a?x");
    }

    #[test]
    fn an_unreachable_registry_is_named_with_the_image() {
        let registry = Registry::through("registry.test", || Err(io::ErrorKind::ConnectionRefused.into()));
        let image = Image::new(crate::Process::default(), vec![Blob::of(Vec::new())]);
        let message = format!("{:#}", registry.push(&image, &Reference::new("towline/a", "1")).unwrap_err());
        assert!(message.contains("towline/a:1") && message.contains("registry.test"), "{message}");
    }
}
