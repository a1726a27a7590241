//! Notices that somebody else wrote the file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::file::read_bounded;
use super::is_ours;
use crate::events;

/// Watches a resolv.conf. It must be made, and waited for, within a tokio runtime.
#[derive(Debug)]
pub struct DnsWatch {
    events: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl DnsWatch {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let replaced = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        inotify::add_watch(&events, folder, replaced)?;
        // A file that is mounted is not the one in its folder.
        match inotify::add_watch(&events, path, WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self { events: events::register(events)?, path: path.to_owned() })
    }

    /// Waits until the file is written or removed and is not ours. May be dropped and called again at any time; what
    /// happened meanwhile is not missed.
    ///
    /// # Errors
    /// When the kernel's watch fails.
    pub async fn overwritten(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            let drained = ready.try_io(|events| drain(events.get_ref()));
            match drained {
                Ok(drained) => drained?,
                Err(_would_block) => continue,
            }
            if !read_bounded(&self.path).is_ok_and(|text| is_ours(&text)) {
                return Ok(());
            }
        }
    }
}

/// Takes all events: what they say is found out from the file.
fn drain(events: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut some = false;
    loop {
        match rustix::io::read(events, &mut buffer) {
            Ok(_) => some = true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if some => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
