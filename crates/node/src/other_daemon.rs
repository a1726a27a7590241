use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why this daemon does not start: another one has what it needs.
#[derive(Debug, thiserror::Error)]
pub enum OtherDaemon {
    /// Somebody answers at the socket.
    #[error(
        "another daemon answers at {}: stop it first (systemctl stop tailscaled), or give this one another --socket and --tun userspace-networking",
        .0.display()
    )]
    Socket(PathBuf),
    /// The interface is there.
    #[error(
        "the interface {0} is there already: stop the daemon that made it (systemctl stop tailscaled), or name another with --tun"
    )]
    Interface(String),
}

/// Where the stock daemon listens.
const STOCK_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// Looks for another daemon: at the socket that this one is to have, and where it would use the machine's routes, at the
/// stock daemon's own.
pub(crate) fn look(socket: Option<&Path>, interface: Option<&str>) -> Result<(), OtherDaemon> {
    let stock = interface.map(|_| Path::new(STOCK_SOCKET));
    for path in socket.into_iter().chain(stock) {
        if UnixStream::connect(path).is_ok() {
            return Err(OtherDaemon::Socket(path.to_owned()));
        }
    }
    match interface {
        Some(name) if Path::new("/sys/class/net").join(name).exists() => Err(OtherDaemon::Interface(name.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_that_answers_is_in_the_way_and_a_dead_socket_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let error = look(Some(&path), None).unwrap_err().to_string();
        assert!(error.contains("systemctl stop tailscaled"), "{error}");
        drop(listener);
        assert!(look(Some(&path), None).is_ok());
    }

    #[test]
    fn an_interface_that_is_there_is_in_the_way() {
        assert!(matches!(look(None, Some("lo")), Err(OtherDaemon::Interface(name)) if name == "lo"));
    }
}
