use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why this daemon does not start: another one has what it needs.
#[derive(Debug, thiserror::Error)]
pub enum OtherDaemon {
    /// Our own daemon answers at the socket.
    #[error(
        "Towline's node runs already and answers at {}: stop it first (systemctl stop towline-node), or give this one a --socket, a --state and a --port of its own, and --tun userspace-networking",
        .0.display()
    )]
    Own(PathBuf),
    /// Somebody else answers at the socket.
    #[error(
        "another daemon answers at {}: stop it first (systemctl stop tailscaled), or give this one a --socket, a --state and a --port of its own, and --tun userspace-networking",
        .0.display()
    )]
    Socket(PathBuf),
    /// The interface is there.
    #[error(
        "the interface {0} is there already: stop the daemon that made it (systemctl stop towline-node, or tailscaled for the stock one), or name another with --tun"
    )]
    Interface(String),
}

/// Where daemons that change the machine's routes listen: ours as a service, and the stock one.
const SOCKETS: [&str; 2] = ["/run/towline/towlined.sock", "/var/run/tailscale/tailscaled.sock"];
/// How long a daemon may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks for another daemon: at the socket that this one is to have, and where it would use the machine's routes, at those
/// of services.
pub(crate) fn look(socket: Option<&Path>, interface: Option<&str>) -> Result<(), OtherDaemon> {
    let services = SOCKETS.iter().map(Path::new).filter(|_| interface.is_some());
    for path in socket.into_iter().chain(services) {
        if let Ok(stream) = UnixStream::connect(path) {
            let is_own = is_own(stream).unwrap_or_default();
            return Err(if is_own { OtherDaemon::Own(path.to_owned()) } else { OtherDaemon::Socket(path.to_owned()) });
        }
    }
    match interface {
        Some(name) if Path::new("/sys/class/net").join(name).exists() => Err(OtherDaemon::Interface(name.to_owned())),
        _ => Ok(()),
    }
}

/// Whether it is our own daemon that answers: each says its version with whatever it answers.
fn is_own(mut stream: UnixStream) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /localapi/v0/status?peers=false HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n\r\n",
    )?;
    let mut head = [0; 1024];
    let mut filled = 0;
    while filled < head.len() && !head[..filled].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let head = String::from_utf8_lossy(&head[..filled]).to_ascii_lowercase();
    let version = head.lines().find_map(|line| line.strip_prefix("tailscale-version:"));
    Ok(version.is_some_and(|version| version.trim_end().ends_with("-towline")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is said of a daemon that answers with this version.
    fn told(version: &'static str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nTailscale-Version: {version}\r\n\r\n{{}}").as_bytes())
                .unwrap();
        });
        let error = look(Some(&path), None).unwrap_err().to_string();
        answers.join().unwrap();
        // A socket that nobody serves any more is in nobody's way.
        assert!(look(Some(&path), None).is_ok());
        error
    }

    #[test]
    fn a_daemon_that_answers_is_named_with_how_it_is_stopped() {
        let own = told(crate::VERSION);
        assert!(own.starts_with("Towline's node runs already") && own.contains("systemctl stop towline-node"), "{own}");
        let stock = told("1.104.2-t0");
        assert!(stock.contains("another daemon answers at") && stock.contains("systemctl stop tailscaled"), "{stock}");
        // What two daemons can't have in common.
        for option in ["--socket", "--state", "--port", "--tun userspace-networking"] {
            assert!(own.contains(option) && stock.contains(option), "{option}: {own}, {stock}");
        }
    }

    #[test]
    fn an_interface_that_is_there_is_in_the_way() {
        assert!(matches!(look(None, Some("lo")), Err(OtherDaemon::Interface(name)) if name == "lo"));
    }
}
