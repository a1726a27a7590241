use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long to wait between two looks at something that tells no events.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` is content, at most for `limit`; its last complaint is the error.
///
/// For what only a command shows. What tells events is to be awaited by these.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {} s", limit.as_secs()));
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}
