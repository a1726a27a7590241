use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// How long after a change the folder is looked at: a swap is several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Tells when entries of a folder are swapped, made or removed. Where the kernel won't tell, it never does.
pub(super) struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    pub(super) fn of(folder: &Path) -> Self {
        match watch(folder) {
            Ok(watched) => Self(Some(watched)),
            Err(error) => {
                tracing::debug!(%error, "the configuration is looked at from time to time");
                Self(None)
            }
        }
    }

    pub(super) async fn next(&mut self) {
        let Some(watched) = &self.0 else { return std::future::pending().await };
        let ready = watched.readable().await;
        match ready {
            Ok(mut guard) => {
                drain(watched.get_ref());
                guard.clear_ready();
            }
            Err(error) => {
                tracing::debug!(%error, "the configuration is looked at from time to time");
                self.0 = None;
            }
        }
        tokio::time::sleep(SETTLE).await;
    }
}

#[expect(
    deprecated,
    reason = "an OwnedFd keeps its descriptor, which is what `register` has its caller promise by unsafe"
)]
fn watch(folder: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&inotify, folder, flags)?;
    AsyncFd::new(inotify)
}

/// What changed is found by reading the folder, so the events themselves tell nothing.
fn drain(inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match events.next() {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
