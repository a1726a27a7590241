use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use crypto::{Entropy, SystemEntropy};
use futures_util::Stream;
use hyper::body::Frame;
use tailcfg::MapResponse;
use tailcfg::frame::{FrameError, FrameWriter, Packing};
use tokio::sync::mpsc;

/// Where the messages of one node's map stream come from.
pub(crate) trait MapSource: Send + 'static {
    /// Waits until there is something to say and says all of it in one message, as JSON; `None` ends the stream.
    ///
    /// It is called when the client has taken the message before, so whatever happened in between comes in one.
    /// It must be safe to drop the future and call again.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// How often a stream with nothing to say shows that it is alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    /// Time without a message.
    pub interval: Duration,
    /// Up to this much more, so that clients don't all wake at once.
    pub jitter: Duration,
    /// How long a client may leave a message untaken before the stream ends.
    pub patience: Duration,
}

impl Default for KeepAlive {
    /// Clients reconnect after 120 s of silence.
    fn default() -> Self {
        Self { interval: Duration::from_secs(50), jitter: Duration::from_secs(9), patience: Duration::from_secs(110) }
    }
}

impl KeepAlive {
    fn pause(&self) -> Duration {
        self.interval + Duration::from_millis(SystemEntropy.below(self.jitter.as_millis() as u64 + 1))
    }
}

/// Frames what `source` says into the body of a long poll, with signs of life between.
///
/// One message is under way and one waits; the source is asked for the next when the client has room for it.
pub(super) fn frames<M: MapSource>(
    source: M,
    packing: Packing,
    keep_alive: KeepAlive,
) -> impl Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(pump(source, packing, keep_alive, sender));
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (Ok(Frame::data(bytes)), receiver))
    })
}

thread_local! {
    /// A writer holds a megabyte once it has compressed something: one for each thread, not one for each device.
    static WRITER: RefCell<Option<FrameWriter>> = const { RefCell::new(None) };
}

fn frame(message: &[u8], packing: Packing) -> Result<Vec<u8>, FrameError> {
    WRITER.with_borrow_mut(|slot| {
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => FrameWriter::new()?,
        };
        let framed = writer.frame(message, packing);
        *slot = Some(writer);
        framed
    })
}

async fn pump<M: MapSource>(mut source: M, packing: Packing, keep_alive: KeepAlive, sender: mpsc::Sender<Bytes>) {
    let alive = serde_json::to_vec(&MapResponse::<tailcfg::Node>::keep_alive()).unwrap_or_default();
    loop {
        let Ok(Ok(permit)) = tokio::time::timeout(keep_alive.patience, sender.reserve()).await else { return };
        let message = tokio::select! {
            message = source.next() => message,
            () = tokio::time::sleep(keep_alive.pause()) => Some(Bytes::copy_from_slice(&alive)),
            () = sender.closed() => None,
        };
        let Some(message) = message else { return };
        match frame(&message, packing) {
            Ok(frame) => permit.send(frame.into()),
            Err(error) => {
                tracing::error!(%error, bytes = message.len(), "a map message can't be framed; the stream ends");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    struct Numbers(tokio::sync::watch::Receiver<u32>);

    impl MapSource for Numbers {
        async fn next(&mut self) -> Option<Bytes> {
            self.0.changed().await.ok()?;
            Some(self.0.borrow_and_update().to_string().into())
        }
    }

    fn text(frame: Result<Frame<Bytes>, std::convert::Infallible>) -> String {
        let Ok(frame) = frame;
        String::from_utf8(frame.into_data().unwrap()[4..].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_happens_while_the_client_is_busy_comes_as_one_message() {
        let (sender, receiver) = tokio::sync::watch::channel(0);
        let stream = frames(Numbers(receiver), Packing::Plain, KeepAlive::default());
        tokio::pin!(stream);
        sender.send_replace(1);
        assert_eq!(text(stream.next().await.unwrap()), "1");
        for number in 2..100 {
            sender.send_replace(number);
        }
        let mut last = String::new();
        let mut count = 0;
        while last != "99" {
            last = text(stream.next().await.unwrap());
            count += 1;
        }
        assert!(count <= 2, "{count} messages for one standing value");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_shows_that_it_is_alive() {
        let (_sender, receiver) = tokio::sync::watch::channel(0);
        let stream = frames(Numbers(receiver), Packing::Plain, KeepAlive::default());
        tokio::pin!(stream);
        let before = tokio::time::Instant::now();
        assert_eq!(text(stream.next().await.unwrap()), r#"{"KeepAlive":true}"#);
        let waited = before.elapsed();
        assert!((50..=60).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test]
    async fn a_source_that_ends_ends_the_stream() {
        let (sender, receiver) = tokio::sync::watch::channel(0);
        let stream = frames(Numbers(receiver), Packing::Plain, KeepAlive::default());
        tokio::pin!(stream);
        drop(sender);
        assert!(stream.next().await.is_none());
    }
}
