//! The image registry: what it is started with, and the push into it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use image::{Digest, Image, Reference, Registry};

use crate::daemon::Daemon;
use crate::lab_box::LabBox;
use crate::readiness::Ready;

/// Plain HTTP: nodes and registry share one machine, and containerd is told so by [`HOSTS`].
const CONFIG: &str = r#"{
  "version": "0.1",
  "log": {"level": "warn", "accesslog": {"disabled": true}},
  "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}, "delete": {"enabled": true}},
  "http": {"addr": "0.0.0.0:80"}
}
"#;

/// containerd's `hosts.toml`, for Docker's registry as for the laboratory's own: pull from the laboratory's.
pub(crate) const HOSTS: &str = r#"server = "http://registry.towline.test"

[host."http://registry.towline.test"]
  capabilities = ["pull", "resolve"]
"#;

const LISTENS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// Starts the registry in its box.
pub(crate) fn serve(registry: &LabBox) -> Result<Daemon> {
    registry
        .daemon("registry", ["registry", "serve", "/etc/registry.json"])
        .config("/etc/registry.json", CONFIG)?
        .env("OTEL_TRACES_EXPORTER", "none")
        .ready(Ready::Tcp(LISTENS))
        .start()
}

/// Pushes an image; layers that the registry has are not sent again.
pub(crate) fn push(registry: &LabBox, image: &Image, reference: &Reference) -> Result<Digest> {
    registry.in_network(|| Registry::at(LISTENS).push(image, reference))?
}
