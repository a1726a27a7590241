use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::net::UnixStream;

use super::LocalApiError;

/// Where our daemon listens, on a device and in a pod; images of containers have no `/var/run` that leads there.
pub const OUR_SOCKET: &str = "/run/towline/towlined.sock";
/// Where the stock daemon listens.
pub const STOCK_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// Which daemon to ask.
#[derive(Debug, Clone, Default, Args)]
pub struct SocketArguments {
    /// The daemon's socket; otherwise /run/towline/towlined.sock, then /var/run/tailscale/tailscaled.sock
    #[arg(long, global = true, env = "TOWLINE_SOCKET", value_name = "PATH", help_heading = "Daemon")]
    pub socket: Option<PathBuf>,
}

impl SocketArguments {
    fn candidates(&self) -> Vec<PathBuf> {
        match &self.socket {
            Some(path) => vec![path.clone()],
            None => vec![OUR_SOCKET.into(), STOCK_SOCKET.into()],
        }
    }

    /// Finds the first socket behind which somebody listens.
    pub(super) async fn find(&self) -> Result<PathBuf, LocalApiError> {
        let candidates = self.candidates();
        for path in &candidates {
            match UnixStream::connect(path).await {
                Ok(_) => return Ok(path.clone()),
                Err(error) if nobody_listens(&error) => {}
                Err(error) => return Err(connecting(path, error)),
            }
        }
        Err(LocalApiError::NotRunning { sockets: candidates })
    }
}

/// Connects to a socket that was found.
pub(super) async fn connect(path: &Path) -> Result<UnixStream, LocalApiError> {
    UnixStream::connect(path).await.map_err(|error| connecting(path, error))
}

fn nobody_listens(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | NotADirectory)
}

fn connecting(path: &Path, error: io::Error) -> LocalApiError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => LocalApiError::SocketDenied { socket: path.to_owned() },
        _ if nobody_listens(&error) => LocalApiError::NotRunning { sockets: vec![path.to_owned()] },
        _ => LocalApiError::Connection { socket: path.to_owned(), source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_serves_says_how_to_start_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Some(folder.path().join("sock"));
        let error = SocketArguments { socket: socket.clone() }.find().await.unwrap_err();
        assert!(error.to_string().contains("towline node"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(socket.as_ref().unwrap()).unwrap());
        let error = SocketArguments { socket }.find().await.unwrap_err();
        assert!(matches!(error, LocalApiError::NotRunning { .. }), "{error}");
    }
}
