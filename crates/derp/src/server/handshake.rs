use std::io;
use std::net::SocketAddr;

use crypto::{NodePublic, SystemEntropy};
use packet::derp::{Frame, FrameError, Limits, PresenceFlags};

use super::admission::Refusal;
use super::shared::Shared;
use crate::info::{self, ClientInfo, InfoError, ServerInfo};
use crate::link::{Link, LinkError, Outgoing};

/// Who a client has proven to be.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) key: NodePublic,
    pub(crate) flags: PresenceFlags,
}

/// Why a client was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it sent another frame than its info")]
    Order,
    #[error(transparent)]
    Info(#[from] InfoError),
    #[error("its application's name is not at most 32 printable ASCII characters")]
    AppName,
    #[error("its mesh key is not this relay's")]
    MeshKey,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("it took too long")]
    TimedOut,
}

impl From<LinkError> for HandshakeError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Io(error) => Self::Io(error),
            LinkError::Frame(error) => Self::Frame(error),
        }
    }
}

/// Has a client prove its key, and asks whether it is admitted. Nothing that it sends before is relayed.
pub(crate) async fn shake_hands(
    shared: &Shared,
    link: &mut Link,
    source: SocketAddr,
) -> Result<Proven, HandshakeError> {
    link.push(Outgoing::frame(&Frame::ServerKey(shared.public)));
    link.send().await?;
    let frame = link.receive().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let Frame::ClientInfo { key, sealed } = Frame::parse(frame.kind, &frame.body)? else {
        return Err(HandshakeError::Order);
    };
    let info: ClientInfo = info::open(sealed, &shared.key, &key)?;
    if !info.has_valid_app_name() {
        return Err(HandshakeError::AppName);
    }
    let is_mesh_peer = is_mesh_peer(shared, &info)?;
    if !is_mesh_peer {
        shared.admission.admits(&key, source.ip()).await?;
    }
    // What a stock client does with an announced limit is to drop packets beyond it, where reading slowly makes it slow
    // down: so the limit is kept and not announced.
    let answer = ServerInfo { version: info::VERSION, ..ServerInfo::default() };
    let sealed = info::seal(&answer, &shared.key, &key, &mut SystemEntropy)?;
    link.push(Outgoing::frame(&Frame::ServerInfo { sealed: &sealed }));
    link.set_limits(Limits::CLIENT);
    Ok(Proven { key, flags: flags(is_mesh_peer, info.is_prober) })
}

fn is_mesh_peer(shared: &Shared, info: &ClientInfo) -> Result<bool, HandshakeError> {
    match &shared.mesh_key {
        _ if info.mesh_key.is_empty() || info.mesh_key.bytes().all(|digit| digit == b'0') => Ok(false),
        Some(key) if key.is(&info.mesh_key) => Ok(true),
        _ => Err(HandshakeError::MeshKey),
    }
}

fn flags(is_mesh_peer: bool, is_prober: bool) -> PresenceFlags {
    if is_mesh_peer {
        PresenceFlags::MESH_PEER
    } else if is_prober {
        PresenceFlags::PROBER
    } else {
        PresenceFlags::REGULAR
    }
}
