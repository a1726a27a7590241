//! Descriptors that tell of events, within a tokio runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that is not blocking with the runtime of the calling task.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Registering panics outside of a runtime.
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    // SAFETY: an `OwnedFd` holds its descriptor open and the same until it is dropped, which the `AsyncFd` that owns it
    // does only after it has taken the registration back.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(|refused| refused.into_parts().1)
}
