use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tailcfg::NodeId;
use tailnet::{Actor, Command, TailnetId};

use super::Coordination;

/// How often the places of devices are written down.
const WRITE_BEHIND: Duration = Duration::from_secs(5);

/// The longest sleep of the timers: so far, at most, does a change of the clock put them off.
const LONGEST: Duration = Duration::from_secs(60);
/// The shortest, so that something overdue that can't be done is not tried without end.
const SHORTEST: Duration = Duration::from_millis(200);

/// Places of devices that wait to be written: the newest of each, as JSON.
type Unwritten = BTreeMap<TailnetId, BTreeMap<NodeId, String>>;

impl Coordination {
    /// Lets time pass for the tailnets: devices that stay away, keys that expire, ephemeral devices to be deleted.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        loop {
            let wait = self.next_deadline().map_or(LONGEST, |at| until(self.now(), at));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.replan.notified() => {}
                () = tokio::time::sleep(wait) => self.pass_time().await,
            }
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let server = self.server();
        server.tailnets().flat_map(|tailnet| [tailnet.poll_timeout(), tailnet.poll_sweep()]).flatten().min()
    }

    async fn pass_time(self: &Arc<Self>) {
        let now = self.now();
        let ids: Vec<TailnetId> = self.server().tailnets().map(tailnet::Tailnet::id).collect();
        for id in ids {
            let passed = self.server_mut().tailnet_mut(id).map(|tailnet| tailnet.handle_timeout(now));
            if let Some(effects) = passed.filter(|effects| !effects.is_empty()) {
                self.spread(id, &effects);
            }
            let sweep = self.server().tailnet(id).and_then(tailnet::Tailnet::poll_sweep).is_some_and(|at| at <= now);
            if sweep && let Err(error) = self.execute(id, Command::Sweep, Actor::Server).await {
                tracing::warn!(tailnet = %id, %error, "devices that are gone could not be deleted; it is tried again");
            }
        }
    }

    /// Writes the places of devices down every few seconds, and once more at the end.
    pub(crate) async fn write_behind(self: Arc<Self>) {
        let mut unwritten = Unwritten::new();
        loop {
            let stopping = tokio::select! {
                () = self.stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_BEHIND) => false,
            };
            self.write_presence(&mut unwritten).await;
            if stopping {
                return;
            }
        }
    }

    async fn write_presence(&self, unwritten: &mut Unwritten) {
        let ids: Vec<TailnetId> = self.server().tailnets().map(tailnet::Tailnet::id).collect();
        for id in ids {
            let records = self.server_mut().tailnet_mut(id).map(tailnet::Tailnet::take_presence).unwrap_or_default();
            let rows =
                records.into_iter().filter_map(|record| Some((record.node, serde_json::to_string(&record).ok()?)));
            unwritten.entry(id).or_default().extend(rows);
        }
        for (id, rows) in unwritten.iter_mut().filter(|(_, rows)| !rows.is_empty()) {
            let batch: Vec<_> = rows.iter().map(|(node, document)| (*node, document.clone())).collect();
            match self.store.write_presence(*id, &batch).await {
                Ok(()) => rows.clear(),
                Err(error) => tracing::warn!(tailnet = %id, %error, "the places of devices could not be written yet"),
            }
        }
    }

    /// Writes what is still to be written, when everything else has ended.
    pub(crate) async fn finish(&self) {
        self.write_presence(&mut Unwritten::new()).await;
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    let wait = at.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(wait).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}
