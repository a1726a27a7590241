//! Robbinsdale's sshd, and the key that logs in there.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::folder::{WorldFolder, write_whole};
use crate::lab_box::LabBox;
use crate::readiness::Ready;

/// The user key of a world, in OpenSSH's own format.
#[derive(Clone)]
pub struct SshKey {
    /// Private key.
    pub private: String,
    /// Public key, one line.
    pub public: String,
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshKey").field("public", &self.public).finish_non_exhaustive()
    }
}

const SERVER_CONFIG: &str = "\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PrintMotd no
Subsystem sftp internal-sftp
";

/// What makes a first connection ask no question: in the laboratory no one is there to answer it.
const CLIENT_CONFIG: &str = "Host *\n    StrictHostKeyChecking accept-new\n    ConnectTimeout 10\n";

/// The world's key, made in `maker` when there is none yet.
pub(crate) fn user_key(folder: &WorldFolder, maker: &LabBox) -> Result<SshKey> {
    let path = folder.records().join("ssh/id_ed25519");
    let public_path = path.with_extension("pub");
    if !public_path.exists() {
        maker.shell("rm -f /tmp/key /tmp/key.pub && ssh-keygen -q -t ed25519 -N '' -C laboratory -f /tmp/key")?;
        write_whole(&path, &maker.read("/tmp/key")?, 0o600)?;
        write_whole(&public_path, &maker.read("/tmp/key.pub")?, 0o644)?;
    }
    let read = |path| fs::read_to_string(path).with_context(|| "reading the world's SSH key");
    Ok(SshKey { private: read(&path)?, public: read(&public_path)? })
}

/// Lets root of `client` log in wherever `key` is allowed.
pub(crate) fn equip_client(client: &LabBox, key: &SshKey) -> Result<()> {
    client.write("/root/.ssh/id_ed25519", &key.private, 0o600)?;
    client.write("/root/.ssh/config", CLIENT_CONFIG, 0o600)
}

/// Starts sshd in a box, where `key` logs in as root.
pub(crate) fn serve(server: &LabBox, key: &SshKey) -> Result<Daemon> {
    server.write("/root/.ssh/authorized_keys", &key.public, 0o600)?;
    // sshd refuses keys below a folder that others may write, and starts only where its own folder exists.
    server.shell(
        "chmod 700 /root /root/.ssh && mkdir -p /run/sshd && \
         if [ ! -e /etc/ssh/ssh_host_ed25519_key ]; then ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; fi",
    )?;
    server
        .daemon("sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/laboratory.conf"])
        .config("/etc/ssh/laboratory.conf", SERVER_CONFIG)?
        .ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 22))))
        .start()
}
