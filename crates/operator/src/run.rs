use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::FutureExt;
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use telemetry::{Health, Metrics, Shutdown};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::context::Context;
use crate::control::{Control, RestControl};
use crate::leader::Election;
use crate::queue::{Key, Queue};
use crate::reconcile::reconcile;
use crate::watches::Stores;
use crate::writer::Writer;

/// How many objects are looked at at the same time.
const WORKERS: usize = 8;

/// How often everything is looked at again, though nothing changed: changes by hand are undone then.
const RESYNC: Duration = Duration::from_secs(600);

/// The first and the longest pause before something that failed is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs the operator until it is asked to stop.
///
/// All replicas watch; the one that holds the lease writes.
///
/// # Errors
///
/// When the lease was lost, or the API server's address or the admin listener can't be used. A server that does not
/// answer, or a credential that is not there yet, is waited for.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let health = Health::new();
    let metrics = Metrics::new();
    let listener = TcpListener::bind(config.admin_listen)
        .await
        .with_context(|| format!("listening on {} for probes and metrics", config.admin_listen))?;
    let mut tasks = JoinSet::new();
    let admin = telemetry::serve_admin(listener, metrics.clone(), health.clone(), shutdown.clone());
    tasks.spawn(async { admin.await.context("answering probes and metrics") });
    let client = connect(&config)?;
    let rest = Arc::new(RestControl::new(config.control.clone()));
    tasks.spawn(probe(rest.clone(), health.condition("coordination server"), shutdown.clone()).map(Ok));
    let mut leading = std::pin::pin!(lead(&config, client, rest, &health, &metrics, &shutdown));
    let ran = loop {
        tokio::select! {
            ended = &mut leading => break ended,
            Some(ended) = tasks.join_next() => match ended {
                // Probes end when the operator is asked to stop; the lease is still to be given up.
                Ok(Ok(())) if shutdown.is_requested() => {}
                Ok(Ok(())) => break Err(anyhow::anyhow!("a part of the operator ended by itself")),
                Ok(Err(error)) => break Err(error),
                Err(error) => break Err(error).context("a part of the operator broke"),
            },
        }
    };
    tasks.abort_all();
    ran
}

/// A client of the cluster's API server.
pub(crate) fn connect(config: &Config) -> Result<Client> {
    Client::try_from(config.cluster.clone()).context("making a client of the cluster's API server")
}

/// Watches, and works while it holds the lease.
pub(crate) async fn lead(
    config: &Config,
    client: Client,
    control: Arc<dyn Control>,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<()> {
    let settings = &config.settings;
    let queue = Arc::new(Queue::default());
    let watching = health.condition("watches");
    let (stores, mut watches) = Stores::watch(&client, settings, &queue, &watching);
    let (election, leadership) = Election::new(client.clone(), &settings.namespace, &config.lease, &config.identity);
    let writer = Writer::new(client.clone(), &settings.namespace, &config.identity, leadership.clone());
    let context = Arc::new(Context::new(client, settings.clone(), stores.clone(), writer, control, queue.clone()));
    let leading = metrics.register("operator_leading", "Whether this replica holds the lease", Gauge::<i64>::default());
    let mut works = leadership.clone();
    let work = async {
        works.won().await;
        leading.set(1);
        stores.ready().await;
        work(&context, metrics).await
    };
    let ended = tokio::select! {
        () = shutdown.requested() => Ok(()),
        ended = election.run() => ended,
        ended = work => ended,
        Some(ended) = watches.join_next() => match ended {
            Ok(()) => Err(anyhow::anyhow!("a watch ended by itself")),
            Err(error) => Err(error).context("a watch broke"),
        },
    };
    leading.set(0);
    election.release().await;
    ended
}

/// Takes from the queue for ever.
async fn work(context: &Arc<Context>, metrics: &Metrics) -> Result<()> {
    let counters = Counters::new(metrics);
    let failures: Arc<Mutex<HashMap<Key, u32>>> = Arc::default();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (context, counters, failures) = (context.clone(), counters.clone(), failures.clone());
        workers.spawn(async move {
            loop {
                let key = context.queue.next().await;
                look(&context, &counters, &failures, &key).await;
                context.queue.done(&key);
            }
        });
    }
    let context = context.clone();
    workers.spawn(async move {
        loop {
            for key in context.stores.all_keys(&context.settings) {
                context.queue.push(key);
            }
            tokio::time::sleep(RESYNC).await;
        }
    });
    match workers.join_next().await {
        Some(Err(error)) => Err(error).context("a worker broke"),
        _ => bail!("a worker ended by itself"),
    }
}

#[derive(Clone)]
struct Counters {
    looks: Counter,
    failed: Counter,
}

impl Counters {
    fn new(metrics: &Metrics) -> Self {
        Self {
            looks: metrics.register("operator_reconciles", "Objects that were looked at", Counter::default()),
            failed: metrics.register(
                "operator_reconcile_failures",
                "Looks that failed and are tried again",
                Counter::default(),
            ),
        }
    }
}

async fn look(context: &Context, counters: &Counters, failures: &Mutex<HashMap<Key, u32>>, key: &Key) {
    counters.looks.inc();
    match reconcile(context, key).await {
        Ok(next) => {
            failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            if let Some(after) = next {
                context.queue.push_after(key.clone(), after);
            }
        }
        Err(error) => {
            counters.failed.inc();
            let count = {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                let count = failures.entry(key.clone()).or_default();
                *count += 1;
                *count
            };
            let pause = pause(key, count);
            // The name of an object of the cluster, and of no device: without it nobody could look at the right one.
            tracing::warn!(?key, %error, count, pause_ms = pause.as_millis(), "a look failed");
            context.queue.push_after(key.clone(), pause);
        }
    }
}

/// Twice as long each time, and a little different for each object, so that they don't all come back at once.
fn pause(key: &Key, count: u32) -> Duration {
    let pause = (FIRST_PAUSE * 2_u32.saturating_pow(count.saturating_sub(1).min(16))).min(LONGEST_PAUSE);
    let spread = kubeapi::name::fingerprint(format!("{key:?} {count}").as_bytes()) % 1000;
    pause + pause.mul_f64(f64::from(u32::try_from(spread).unwrap_or_default()) / 4000.0)
}

/// Asks the coordination server now and then whether it takes our credential, and says so where probes look.
async fn probe(control: Arc<RestControl>, condition: telemetry::Condition, shutdown: Shutdown) {
    // Replicas that wait for a credential are alive and can lead: only the reason is shown.
    let mut known = None;
    loop {
        let pause = match control.probe().await {
            Ok(()) => {
                condition.met();
                known = None;
                Duration::from_secs(300)
            }
            Err(error) => {
                if known.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the coordination server can't be used");
                }
                condition.unmet(error.to_string());
                known = Some(error);
                Duration::from_secs(10)
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_end_and_differ_between_objects() {
        let key = |name: &str| Key::Connector(name.to_owned());
        assert!(pause(&key("a"), 1) < Duration::from_secs(1));
        assert!(pause(&key("a"), 40) <= LONGEST_PAUSE.mul_f64(1.25));
        assert_ne!(pause(&key("a"), 3), pause(&key("b"), 3));
    }
}
