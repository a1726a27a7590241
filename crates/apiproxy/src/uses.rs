//! Whether anything is under way on a connection.

use std::time::Duration;

use tokio::sync::watch;

/// Counts what is under way on one connection.
#[derive(Debug, Default)]
pub(crate) struct Uses(watch::Sender<usize>);

/// Something that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Use(watch::Sender<usize>);

impl Uses {
    /// Something begins.
    pub(crate) fn begin(&self) -> Use {
        self.0.send_modify(|uses| *uses += 1);
        Use(self.0.clone())
    }

    /// Ends when nothing has been under way for so long, the time before this was called not counted.
    pub(crate) async fn idle(&self, time: Duration) {
        let mut uses = self.0.subscribe();
        loop {
            // The sender lives as long as this does.
            let _ = uses.wait_for(|uses| *uses == 0).await;
            if tokio::time::timeout(time, uses.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.send_modify(|uses| *uses -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const TIME: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_nothing_was_under_way_for_the_whole_time() {
        let (uses, began) = (Uses::default(), Instant::now());
        let (first, second) = (uses.begin(), uses.begin());
        let ends = async {
            tokio::time::advance(10 * TIME).await;
            drop(first);
            tokio::time::advance(TIME).await;
            drop(second);
            tokio::time::advance(TIME / 2).await;
            // However short: the time begins anew.
            drop(uses.begin());
        };
        futures_util::future::join(uses.idle(TIME), ends).await;
        assert!(began.elapsed() >= 12 * TIME + TIME / 2, "{:?}", began.elapsed());
    }
}
