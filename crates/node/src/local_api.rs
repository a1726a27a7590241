//! The LocalAPI: what command lines ask of the daemon, over a Unix socket.
//!
//! The socket is the only way in, whoever connects is known by the kernel's word, and a browser is turned away: no request
//! with an Origin or a Referer, or for another host, is answered.

mod access;
mod bus;
mod certificate;
mod flows;
mod own;
mod places;
mod reply;
mod routes;

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::node::{NodeError, WeakNode};
use access::Standing;
use places::Places;
use reply::Refusal;

/// How long a caller may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// How many callers beyond those that are served are told so at once, and how long each of them may take to hear it.
const REFUSALS: usize = 32;
const REFUSAL: Duration = Duration::from_secs(2);

/// The socket, which goes away with this.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket, in place of one that a daemon before left.
pub(crate) fn bind(path: &Path) -> Result<Socket, NodeError> {
    let failed = |source| NodeError::Socket { path: path.display().to_string(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Everybody may ask; what each may do is decided by who they are.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(Socket { listener, path: path.to_owned() })
}

/// Serves the socket until the node ends.
pub(crate) fn serve(socket: Socket, node: WeakNode, ends: CancellationToken) {
    tokio::spawn(ends.clone().run_until_cancelled_owned(async move {
        let (places, refusals) = (Places::default(), Arc::new(Semaphore::new(REFUSALS)));
        loop {
            let stream = match socket.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the socket for commands can't accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let caller = stream.peer_cred().ok().map(|credentials| credentials.uid());
            let Some(standing) = node.get().map(|node| Standing::at(caller, &node)) else { return };
            match places.take(caller, standing) {
                Ok(place) => {
                    let attended = attend(stream, caller, node.clone());
                    tokio::spawn(ends.clone().run_until_cancelled_owned(async move {
                        attended.await;
                        drop(place);
                    }));
                }
                Err(refusal) => {
                    // Who can't even be told is one of very many who ask in vain.
                    let Ok(permit) = refusals.clone().try_acquire_owned() else { continue };
                    tokio::spawn(ends.clone().run_until_cancelled_owned(async move {
                        refuse(stream, refusal).await;
                        drop(permit);
                    }));
                }
            }
        }
    }));
}

/// Answers what a caller asks by one connection.
async fn attend(stream: UnixStream, caller: Option<u32>, node: WeakNode) {
    let service = service_fn(|request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(routes::answer(request, caller, node).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a command's connection ended");
    }
}

/// Answers one request with why there is no answer.
async fn refuse(stream: UnixStream, refusal: Refusal) {
    let service = service_fn(|_: Request<Incoming>| {
        let refusal = refusal.clone();
        async move { Ok::<_, Infallible>(refusal.into_reply()) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if !tokio::time::timeout(REFUSAL, connection).await.is_ok_and(|ended| ended.is_ok()) {
        tracing::trace!("a command's connection ended before it was refused");
    }
}
