//! The pinned Go programs: each one is a row in a table.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cache::{Cache, Entry, Key};

use crate::checkout::Checkout;
use crate::elf::expect_static;
use crate::fetch::module::{self, Omission};
use crate::progress::Step;

/// A Go program built from one of the modules under `tools/`.
pub(crate) struct Peer {
    /// Its file in the cache's `bin`.
    pub(crate) name: &'static str,
    /// The folder under `tools/` whose go.mod and go.sum pin it.
    pub(crate) folder: &'static str,
    package: &'static str,
    tags: &'static str,
    /// Module whose pinned version stands for `{version}` (without its `v`) in `stamps`.
    stamped_by: &'static str,
    /// Variables that the linker sets.
    stamps: &'static [&'static str],
    /// Whether C is compiled in; the program is linked statically all the same.
    with_c: bool,
    omission: Option<&'static Omission>,
}

const KUBERNETES: &[&str] = &[
    "k8s.io/component-base/version.gitVersion=v{version}",
    "k8s.io/component-base/version.gitMajor=1",
    "k8s.io/component-base/version.gitMinor=34",
    "k8s.io/component-base/version.gitTreeState=clean",
];
const TAILSCALE: &[&str] = &["tailscale.com/version.longStamp={version}", "tailscale.com/version.shortStamp={version}"];

/// The tags with which the stock container images are built: programs say that they run in a container.
const IN_CONTAINER: &str = "ts_kube,ts_package_container";

/// The stock client needs, for Windows alone, a field of a newer gvisor than its go.mod under `tools/` names.
const WINDOWS_CLOCK: Omission = Omission {
    module: "tailscale.com",
    file: "wgengine/netstack/netstack.go",
    line: "\t\topts.ClockResolution = 500 * time.Microsecond\n",
};

/// All of them, what is needed first at the front.
pub(crate) fn peers() -> &'static [Peer] {
    PEERS
}

const PEERS: &[Peer] = &[
    Peer {
        name: "runc",
        folder: "runc",
        package: "github.com/opencontainers/runc",
        tags: "seccomp,netgo,osusergo,urfave_cli_no_docs",
        stamped_by: "github.com/opencontainers/runc",
        stamps: &["main.version={version}"],
        with_c: true,
        omission: None,
    },
    kubernetes("kube-apiserver"),
    kubernetes("kubelet"),
    kubernetes("kube-controller-manager"),
    kubernetes("kube-scheduler"),
    kubernetes("kube-proxy"),
    kubernetes("kubectl"),
    Peer {
        name: "coredns",
        folder: "coredns",
        package: ".",
        tags: "",
        stamped_by: "github.com/coredns/coredns",
        stamps: &[],
        with_c: false,
        omission: None,
    },
    Peer {
        name: "registry",
        folder: "registry",
        package: "github.com/distribution/distribution/v3/cmd/registry",
        tags: "",
        stamped_by: "github.com/distribution/distribution/v3",
        stamps: &["github.com/distribution/distribution/v3/version.version=v{version}"],
        with_c: false,
        omission: None,
    },
    tailscale("tailscaled", "tailscale.com/cmd/tailscaled", ""),
    tailscale("tailscale", "tailscale.com/cmd/tailscale", ""),
    tailscale("derper", "tailscale.com/cmd/derper", ""),
    Peer {
        name: "derpprobe",
        folder: "derpprobe",
        package: ".",
        tags: "",
        stamped_by: "tailscale.com",
        stamps: &[],
        with_c: false,
        omission: None,
    },
    tailscale("tailscaled-container", "tailscale.com/cmd/tailscaled", IN_CONTAINER),
    tailscale("containerboot", "tailscale.com/cmd/containerboot", IN_CONTAINER),
    tailscale("k8s-operator", "tailscale.com/cmd/k8s-operator", IN_CONTAINER),
    Peer {
        name: "helm",
        folder: "helm",
        package: "helm.sh/helm/v3/cmd/helm",
        tags: "",
        stamped_by: "helm.sh/helm/v3",
        stamps: &["helm.sh/helm/v3/internal/version.version=v{version}"],
        with_c: false,
        omission: None,
    },
];

const fn kubernetes(name: &'static str) -> Peer {
    Peer {
        name,
        folder: "kubernetes",
        package: "", // beside the others of its module, by its name
        tags: "",
        stamped_by: "k8s.io/kubernetes",
        stamps: KUBERNETES,
        with_c: false,
        omission: None,
    }
}

const fn tailscale(name: &'static str, package: &'static str, tags: &'static str) -> Peer {
    Peer {
        name,
        folder: "tailscale",
        package,
        tags,
        stamped_by: "tailscale.com",
        stamps: TAILSCALE,
        with_c: false,
        omission: Some(&WINDOWS_CLOCK),
    }
}

impl Peer {
    /// The version that go.mod pins, without its `v`.
    pub(crate) fn version(&self, checkout: &Checkout) -> Result<String> {
        module::pinned_version(&self.folder(checkout), self.stamped_by)
    }

    /// The program, and what it is made from.
    pub(crate) fn entry(&self, checkout: &Checkout) -> Result<Entry> {
        let folder = self.folder(checkout);
        let mut key = Key::of("go build")
            .text("package", &self.package())
            .text("tags", self.tags)
            .text("linker flags", &self.linker_flags(checkout)?)
            .file(&folder.join("go.mod"))?
            .file(&folder.join("go.sum"))?
            .file(&folder.join("main.go"))?;
        if let Some(omission) = self.omission {
            key = key.texts("omission", [omission.file, omission.line]);
        }
        Ok(Entry::new(format!("bin/{}", self.name), key.finish()))
    }

    /// The folder with the sources of its module, when those are copied to leave a line out.
    pub(crate) fn sources(&self, cache: &Cache, checkout: &Checkout, step: &Step<'_>) -> Result<Option<PathBuf>> {
        let Some(omission) = self.omission else { return Ok(None) };
        let copy = module::without_line(cache, &self.folder(checkout), omission, step)?;
        Ok(Some(copy.join(omission.module)))
    }

    pub(super) fn make(&self, cache: &Cache, checkout: &Checkout, step: &Step<'_>, draft: &Path) -> Result<()> {
        let folder = self.folder(checkout);
        let modules = match self.omission {
            Some(omission) => Some(module::without_line(cache, &folder, omission, step)?),
            None => None,
        };
        let flags = self.linker_flags(checkout)?;
        step.run_over_network(4, || {
            let mut command = module::go(&folder);
            command.env("CGO_ENABLED", if self.with_c { "1" } else { "0" });
            command.args(["build", "-v", "-trimpath", "-tags", self.tags, "-ldflags", &flags]);
            if let Some(modules) = &modules {
                command.arg("-modfile").arg(modules.join("go.mod"));
            }
            command.arg("-o").arg(draft).arg(self.package());
            command
        })?;
        expect_static(step, draft)
    }

    fn package(&self) -> String {
        match self.package {
            "" => format!("{}/cmd/{}", self.stamped_by, self.name),
            package => package.to_owned(),
        }
    }

    fn folder(&self, checkout: &Checkout) -> PathBuf {
        checkout.path("tools").join(self.folder)
    }

    fn linker_flags(&self, checkout: &Checkout) -> Result<String> {
        let version = self.version(checkout)?;
        let stamps = self.stamps.iter().map(|stamp| format!(" -X {}", stamp.replace("{version}", &version)));
        let statically = if self.with_c { " -extldflags -static" } else { "" };
        Ok(format!("-s -w{statically}{}", stamps.collect::<String>()))
    }
}
