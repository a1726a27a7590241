use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a lease holds after it was renewed.
const DURATION: Duration = Duration::from_secs(15);

/// How often it is renewed, or looked at by who does not hold it.
const RENEW: Duration = Duration::from_secs(4);

/// How long before its end nobody writes any more: a request that is under way when the lease ends must be over.
const MARGIN: Duration = Duration::from_secs(3);

/// How long one look at the lease may take.
const CALL: Duration = Duration::from_secs(4);

/// Whether this process may write, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// How long a write may take that starts now; `None` when this process does not lead.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = (*self.0.borrow())?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Ends when this process leads.
    pub(crate) async fn won(&mut self) {
        // The sender lives as long as the process wants to lead at all.
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The one lease of all replicas.
pub(crate) struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    until: watch::Sender<Option<Instant>>,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let election = Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            until,
        };
        (election, Leadership(receiver))
    }

    /// Waits until it holds the lease, and renews it.
    ///
    /// # Errors
    ///
    /// When it held the lease and does not any more: the process must end, because what it wrote last is not known to it.
    pub(crate) async fn run(&self) -> Result<()> {
        let mut lease = self.win().await;
        tracing::info!(identity = self.identity, "leading");
        loop {
            let until = (*self.until.borrow()).context("it has been won")?;
            tokio::time::sleep(RENEW).await;
            lease = loop {
                match self.write(&lease, false).await {
                    Ok(lease) => break lease,
                    Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
                }
                if Instant::now() >= until {
                    self.until.send_replace(None);
                    bail!("the lease {} was lost: another replica may lead now", self.name);
                }
                if let Ok(Some(current)) = self.read().await {
                    if holder(&current) != Some(self.identity.as_str()) {
                        self.until.send_replace(None);
                        bail!("the lease {} was taken by {}", self.name, holder(&current).unwrap_or("nobody"));
                    }
                    lease = current;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
        }
    }

    /// Gives the lease up, so that another replica need not wait for its end. Nothing may be written afterwards.
    pub(crate) async fn release(&self) {
        if self.until.send_replace(None).is_none() {
            return;
        }
        let released = async {
            let Some(mut lease) = self.read().await? else { return Ok(()) };
            if holder(&lease) == Some(self.identity.as_str()) {
                let spec = lease.spec.get_or_insert_default();
                (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        match tokio::time::timeout(CALL, released).await {
            Ok(Ok(())) => tracing::info!("gave the lease up"),
            _ => tracing::warn!("the lease could not be given up; it ends by itself"),
        }
    }

    /// Waits until the lease is free: never held, given up, or not renewed for its whole duration by our own clock.
    async fn win(&self) -> Lease {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_win(&mut seen).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the lease could not be looked at"),
            }
            tokio::time::sleep(RENEW / 2).await;
        }
    }

    async fn try_win(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<Option<Lease>> {
        let Some(lease) = self.read().await? else {
            let lease =
                Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: None };
            return self.write(&lease, true).await.map(Some);
        };
        if holder(&lease).is_none() {
            return self.write(&lease, false).await.map(Some);
        }
        let version = lease.metadata.resource_version.clone();
        match seen {
            Some((before, since)) if *before == version => {
                let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
                let duration =
                    Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).max(Duration::from_secs(1));
                if since.elapsed() < duration.min(10 * DURATION) {
                    return Ok(None);
                }
                self.write(&lease, false).await.map(Some)
            }
            _ => {
                *seen = Some((version, Instant::now()));
                Ok(None)
            }
        }
    }

    /// Writes ourselves into the lease as it was read: somebody else's write in between makes this one fail.
    async fn write(&self, lease: &Lease, create: bool) -> Result<Lease> {
        let started = Instant::now();
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.clone().unwrap_or_default();
        let ours = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let mut next = lease.clone();
        next.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours { old.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(!ours && !create)),
            ..LeaseSpec::default()
        });
        let parameters = PostParams::default();
        let written = async {
            match create {
                true => self.leases.create(&parameters, &next).await,
                false => self.leases.replace(&self.name, &parameters, &next).await,
            }
        };
        let lease = tokio::time::timeout(CALL, written).await.context("the API server does not answer")??;
        self.until.send_replace(Some(started + DURATION - MARGIN));
        Ok(lease)
    }

    async fn read(&self) -> Result<Option<Lease>> {
        match tokio::time::timeout(CALL, self.leases.get(&self.name)).await.context("the API server does not answer")? {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading the lease {}", self.name)),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
impl Leadership {
    /// What holds for so long, whatever becomes of a lease.
    pub(crate) fn for_a_while(time: Duration) -> Self {
        Self(watch::channel(Some(Instant::now() + time)).1)
    }
}
