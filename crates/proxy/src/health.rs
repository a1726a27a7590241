use std::io::{self, Read};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use telemetry::{Health, Shutdown};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// How long a probe waits for an answer; kubelet's own patience is a second unless the pod says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 * 1024;
/// What a proxy that is ready answers.
const READY: &str = "ready";

/// Why a proxy is not well, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// Nobody answers.
    #[error("the proxy does not answer at {}: {source}", path.display())]
    Silent {
        /// Where it was asked.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It answers, and traffic can't flow.
    #[error("{0}")]
    NotReady(String),
}

/// Asks the proxy whose socket this is how it stands: whether traffic can flow, or only whether it answers at all.
///
/// # Errors
/// One line that says what is missing.
pub fn ask(path: &Path, alive: bool) -> Result<(), Unwell> {
    let answer = read(path).map_err(|source| Unwell::Silent { path: path.to_owned(), source })?;
    match answer.trim() {
        READY => Ok(()),
        _ if alive => Ok(()),
        missing => Err(Unwell::NotReady(missing.to_owned())),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

/// Opens the socket that probes ask at, in place of one that an earlier container of the pod left.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers probes, for as long as anything of the process runs.
pub(crate) async fn serve(listener: UnixListener, health: Health, shutdown: Shutdown) {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let answer = answer(&health, &shutdown);
                // A probe that has gone away wants no answer.
                let _ = tokio::time::timeout(PATIENCE, async {
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await
                })
                .await;
            }
            Err(error) => {
                tracing::warn!(%error, "a probe could not be answered");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn answer(health: &Health, shutdown: &Shutdown) -> String {
    if shutdown.is_requested() {
        return "stopping: flows that are open go on, new ones are not taken\n".to_owned();
    }
    let unmet = health.unmet();
    if unmet.is_empty() {
        return format!("{READY}\n");
    }
    let mut parts: Vec<String> = Vec::new();
    for (index, (name, reason)) in unmet.iter().enumerate() {
        // What hinders several things is said once.
        if unmet[..index].iter().all(|(_, said)| said != reason) {
            parts.push(format!("{name}: {}", one_line(reason)));
        }
    }
    format!("{}\n", parts.join("; "))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn probe(path: &Path, alive: bool) -> Result<(), String> {
        let path = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || ask(&path, alive)).await.unwrap();
        asked.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_probe_is_told_what_is_missing_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/health.sock");
        let (health, shutdown) = (Health::new(), Shutdown::new(Duration::from_secs(1)));
        let (login, rules) = (health.condition("login"), health.condition("rules"));
        let server = tokio::spawn(serve(bind(&path).unwrap(), health, shutdown.clone()));

        login.unmet("the key was\nrefused");
        assert_eq!(probe(&path, false).await, Err("login: the key was refused; rules: not started".to_owned()));
        assert_eq!(probe(&path, true).await, Ok(()));
        rules.unmet("the key was\nrefused");
        assert_eq!(probe(&path, false).await, Err("login: the key was refused".to_owned()));
        login.met();
        rules.met();
        assert_eq!(probe(&path, false).await, Ok(()));
        shutdown.request();
        assert!(probe(&path, false).await.unwrap_err().starts_with("stopping"));
        server.abort();
    }

    #[tokio::test]
    async fn nobody_there_is_neither_ready_nor_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        assert!(probe(&path, true).await.unwrap_err().contains("does not answer"));
        drop(bind(&path).unwrap());
        assert!(probe(&path, true).await.unwrap_err().contains("does not answer"));
    }

    #[tokio::test]
    async fn a_socket_that_an_earlier_container_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        drop(bind(&path).unwrap());
        assert!(bind(&path).is_ok());
    }
}
