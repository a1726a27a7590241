use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the ticker wants its turn.
const TICK: Duration = Duration::from_millis(20);

/// Takes the time of something, and beside it how late the machine was meanwhile: a ticker that wants a moment of a processor
/// every 20 ms counts how long it was kept waiting.
///
/// The worlds of tests share their machine's few processors with compilers and other worlds. Each process that takes part in a
/// change waits for its turn as the ticker does.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    stops: Arc<AtomicBool>,
    ticker: JoinHandle<Duration>,
}

/// How long something took, and how late the machine was meanwhile, all delays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// By the clock.
    pub time: Duration,
    /// Of that the ticker waited for its turn.
    pub lag: Duration,
}

impl Stopwatch {
    /// Begins.
    pub fn start() -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let stopped = stops.clone();
        let ticker = std::thread::spawn(move || {
            let mut lag = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // tidy: sleep, how late it ends is what is measured
                std::thread::sleep(TICK);
                lag += asked.elapsed().saturating_sub(TICK);
            }
            lag
        });
        Self { began: Instant::now(), stops, ticker }
    }

    /// Ends.
    pub fn stop(self) -> Took {
        let time = self.began.elapsed();
        self.stops.store(true, Ordering::Relaxed);
        // A ticker that panicked saw no delay.
        let lag = self.ticker.join().unwrap_or_default();
        Took { time, lag }
    }
}
