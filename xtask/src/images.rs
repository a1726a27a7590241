//! The OCI images: each one is a row in a table.

mod selection;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cache::{Cache, Entry, Key};
use image::{Image, LayerBuilder, Layout, Process, Reference};

use crate::checkout::Checkout;
use crate::fetch::{peers, tree_entry, tree_path};
use selection::Selection;

/// How an image is made.
pub(crate) struct Recipe {
    /// Its folder in the cache's `images`.
    pub(crate) name: &'static str,
    repository: &'static str,
    tag: Tag,
    /// Debian packages, with those that they need, out of the boxes' tree: the lowest layer. None: no such layer.
    packages: &'static [&'static str],
    /// Programs of the cache: the second layer, with the links.
    pub(crate) programs: &'static [Program],
    /// Symbolic links, each a path and what it leads to.
    links: &'static [(&'static str, &'static str)],
    user: &'static str,
    entrypoint: &'static [&'static str],
}

enum Tag {
    Fixed(&'static str),
    /// The version of this pinned program, after a `v`.
    VersionOf(&'static str),
}

/// A program of the cache and its place in an image.
pub(crate) struct Program {
    pub(crate) program: &'static str,
    path: &'static str,
}

/// Variables of every image that has a shell.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the stock images have below their programs: certificates, iptables, iproute2, ping, and a shell with sysctl.
const STOCK: &[&str] = &[
    "base-files",
    "ca-certificates",
    "coreutils",
    "dash",
    "grep",
    "iproute2",
    "iptables",
    "iputils-ping",
    "nftables",
    "procps",
    "sed",
];

/// As in the stock images, the tool's older back end answers to its plain name.
const STOCK_LINKS: &[(&str, &str)] =
    &[("/usr/sbin/iptables", "iptables-legacy"), ("/usr/sbin/ip6tables", "ip6tables-legacy")];

pub(crate) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "pause",
        repository: "towline/pause",
        tag: Tag::Fixed("1"),
        packages: &[],
        programs: &[Program { program: "pause", path: "/pause" }],
        links: &[],
        user: "65535:65535",
        entrypoint: &["/pause"],
    },
    Recipe {
        name: "coredns",
        repository: "coredns/coredns",
        tag: Tag::VersionOf("coredns"),
        packages: &[],
        programs: &[Program { program: "coredns", path: "/coredns" }],
        links: &[],
        user: "",
        entrypoint: &["/coredns"],
    },
    Recipe {
        name: "userland",
        repository: "towline/userland",
        tag: Tag::Fixed("1"),
        packages: &[
            "base-files",
            "bash",
            "bind9-dnsutils",
            "busybox",
            "ca-certificates",
            "coreutils",
            "curl",
            "dash",
            "findutils",
            "grep",
            "hostname",
            "iperf3",
            "iproute2",
            "iputils-ping",
            "libc-bin",
            "mawk",
            "netcat-openbsd",
            "openssh-client",
            "procps",
            "sed",
            "socat",
            "tar",
        ],
        programs: &[],
        links: &[],
        user: "",
        entrypoint: &["/bin/bash"],
    },
    Recipe {
        name: "tailscale",
        repository: "tailscale/tailscale",
        tag: Tag::VersionOf("tailscaled-container"),
        packages: STOCK,
        programs: &[
            Program { program: "containerboot", path: "/usr/local/bin/containerboot" },
            Program { program: "tailscaled-container", path: "/usr/local/bin/tailscaled" },
            Program { program: "tailscale", path: "/usr/local/bin/tailscale" },
        ],
        links: STOCK_LINKS,
        user: "",
        entrypoint: &["/usr/local/bin/containerboot"],
    },
    Recipe {
        name: "k8s-operator",
        repository: "tailscale/k8s-operator",
        tag: Tag::VersionOf("k8s-operator"),
        packages: STOCK,
        programs: &[Program { program: "k8s-operator", path: "/usr/local/bin/operator" }],
        links: STOCK_LINKS,
        user: "",
        entrypoint: &["/usr/local/bin/operator"],
    },
];

impl Recipe {
    /// The image, and what it is made from.
    pub(crate) fn entry(&self, checkout: &Checkout) -> Result<Entry> {
        let reference = self.reference(checkout)?;
        let mut key = Key::of("image, layout 1")
            .text("reference", &reference.to_string())
            .text("user", self.user)
            .texts("entrypoint", self.entrypoint.iter().copied())
            .texts("package", self.packages.iter().copied())
            .texts("link", self.links.iter().flat_map(|(path, to)| [*path, *to]));
        if !self.packages.is_empty() {
            key = key.key("tree", tree_entry(checkout)?.key());
        }
        for program in self.programs {
            key = key.text("path", program.path).key("program", program_entry(program, checkout)?.key());
        }
        Ok(Entry::new(format!("images/{}", self.name), key.finish()))
    }

    /// Packs the image as a layout in `draft`.
    pub(crate) fn make(&self, cache: &Cache, checkout: &Checkout, draft: &Path) -> Result<()> {
        let mut layers = Vec::new();
        let mut env = Vec::new();
        if !self.packages.is_empty() {
            let tree = tree_path(cache, checkout)?;
            let selection = Selection::of(&tree, self.packages)?;
            layers.push(selection.layer()?.build_in(draft)?);
            env.push(PATH.to_owned());
        }
        if !self.programs.is_empty() {
            let mut layer = LayerBuilder::new();
            for program in self.programs {
                layer = layer.file(program.path, cache.path(&program_entry(program, checkout)?), 0o755);
            }
            for (path, to) in self.links {
                layer = layer.link(path, to);
            }
            layers.push(layer.build_in(draft)?);
        }
        let process = Process {
            user: self.user.to_owned(),
            env,
            entrypoint: self.entrypoint.iter().map(|&word| word.to_owned()).collect(),
            ..Process::default()
        };
        Layout::write(draft, &Image::new(process, layers), &self.reference(checkout)?)?.verify()
    }

    fn reference(&self, checkout: &Checkout) -> Result<Reference> {
        let tag = match self.tag {
            Tag::Fixed(tag) => tag.to_owned(),
            Tag::VersionOf(name) => {
                let peer = peers().iter().find(|peer| peer.name == name).context("a tag names no pinned program")?;
                format!("v{}", peer.version(checkout)?)
            }
        };
        Ok(Reference::new(self.repository, tag))
    }
}

fn program_entry(program: &Program, checkout: &Checkout) -> Result<Entry> {
    match peers().iter().find(|peer| peer.name == program.program) {
        Some(peer) => peer.entry(checkout),
        None => crate::fetch::pause_entry(checkout),
    }
}

/// Packs the image of our own binary, which holds nothing else, as a layout in `draft`.
pub(crate) fn pack_towline(binary: &Path, draft: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(draft).with_context(|| format!("making {}", draft.display()))?;
    let layer = LayerBuilder::new().file("/towline", binary, 0o755).build_in(draft)?;
    let process = Process {
        user: "65532:65532".to_owned(),
        // So that probes and `kubectl exec` can name the program without a path.
        env: vec!["PATH=/".to_owned()],
        entrypoint: vec!["/towline".to_owned()],
        ..Process::default()
    };
    Layout::write(draft, &Image::new(process, vec![layer]), &Reference::new("towline/towline", version))?.verify()
}
