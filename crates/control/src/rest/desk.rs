//! Where policies are read, tried and asked about: one after another, away from the threads that serve connections, and
//! without holding up the tailnet that they are for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{ApiError, InTailnet};
use http::StatusCode;
use tailnet::{PolicyTrial, TailnetId};
use tokio::sync::Semaphore;

use super::{Identity, Rest};

/// How many are at the desk, or wait, before others are refused; and how many of one tailnet, which must not keep all the
/// others out.
const MOST: usize = 16;
const MOST_OF_ONE: usize = 4;

/// How many large policies are read or held at once, and how many of one tailnet. Each is of eight megabytes at most.
const MOST_LARGE: usize = 8;
const MOST_LARGE_OF_ONE: usize = 2;

/// After how many seconds it is worth to ask again.
const RETRY: u32 = 5;

/// One desk for all tailnets: a policy may be large, and its memory is there once.
#[derive(Debug)]
pub(crate) struct PolicyDesk {
    turn: Arc<Semaphore>,
    places: Places,
    large: Places,
}

/// Places that tailnets share.
#[derive(Debug)]
struct Places {
    taken: Arc<Mutex<BTreeMap<TailnetId, usize>>>,
    most: usize,
    most_of_one: usize,
    /// What is said to a tailnet that has taken all of its own, and where all are taken.
    own_are_taken: &'static str,
    all_are_taken: &'static str,
}

/// A place at the desk or in the queue, or one for a large policy.
#[derive(Debug)]
pub(crate) struct Place {
    tailnet: TailnetId,
    taken: Arc<Mutex<BTreeMap<TailnetId, usize>>>,
}

impl Default for PolicyDesk {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            places: Places {
                taken: Arc::default(),
                most: MOST,
                most_of_one: MOST_OF_ONE,
                own_are_taken: "too many policies of this tailnet are being checked",
                all_are_taken: "too many policies of this server are being checked",
            },
            large: Places {
                taken: Arc::default(),
                most: MOST_LARGE,
                most_of_one: MOST_LARGE_OF_ONE,
                own_are_taken: "too many large policies of this tailnet are being read",
                all_are_taken: "too many large policies of this server are being read",
            },
        }
    }
}

impl PolicyDesk {
    /// Does some work when its turn comes.
    ///
    /// # Errors
    /// Too many wait already, or the work failed.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        tailnet: TailnetId,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.places.take(tailnet)?;
        let stopped = || ApiError::internal("the policy could not be looked at");
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| stopped())?;
        // Place and turn go along: a caller that hangs up must not let another begin beside this one.
        let work = move || {
            let _held = (place, turn);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| stopped())?
    }

    /// Gives a large policy a place until it is answered.
    ///
    /// # Errors
    /// There are too many already.
    pub(crate) fn admit_large(&self, tailnet: TailnetId) -> Result<Place, ApiError> {
        self.large.take(tailnet)
    }
}

impl Places {
    fn take(&self, tailnet: TailnetId) -> Result<Place, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |status, why: &str| ApiError {
            retry_after: Some(RETRY),
            ..ApiError::new(status, format!("{why}; try again in {RETRY} seconds"))
        };
        let of_one = taken.get(&tailnet).copied().unwrap_or_default();
        if of_one >= self.most_of_one {
            return Err(busy(StatusCode::TOO_MANY_REQUESTS, self.own_are_taken));
        }
        if taken.values().sum::<usize>() >= self.most {
            return Err(busy(StatusCode::SERVICE_UNAVAILABLE, self.all_are_taken));
        }
        taken.insert(tailnet, of_one + 1);
        Ok(Place { tailnet, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_one) = taken.get_mut(&self.tailnet) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.remove(&self.tailnet);
            }
        }
    }
}

impl Rest {
    /// Has something tried on the tailnet that a path names, at the desk. The tailnet is only held while what is tried on is
    /// taken from it.
    pub(super) async fn try_out<T: Send + 'static>(
        &self,
        who: &Identity,
        at: &InTailnet,
        work: impl FnOnce(&PolicyTrial) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.look_at(who, at, |_| Ok(()))?;
        let (coordination, id) = (Arc::clone(&self.coordination), who.tailnet);
        let work = move || {
            let trial = coordination.server().tailnet(id).map(tailnet::Tailnet::policy_trial);
            work(&trial.ok_or_else(|| ApiError::not_found("the tailnet is gone"))?)
        };
        self.desk.work(id, work).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_works_at_a_time_and_a_tailnet_can_not_take_all_places() {
        let desk = Arc::new(PolicyDesk::default());
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let ask = |tailnet: u64| {
            let (desk, wait) = (desk.clone(), wait.clone());
            let work = move || {
                // Nobody else is at it meanwhile, or the lock would be held.
                wait.try_lock()
                    .map_err(|_| ApiError::internal("two at once"))?
                    .recv()
                    .map_err(|_| ApiError::internal(""))
            };
            tokio::spawn(async move { desk.work(TailnetId(tailnet), work).await })
        };
        let of_one: Vec<_> = (0..MOST_OF_ONE).map(|_| ask(1)).collect();
        while desk.places.taken.lock().unwrap().get(&TailnetId(1)) != Some(&MOST_OF_ONE) {
            tokio::task::yield_now().await;
        }
        let refused = ask(1).await.unwrap().unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (StatusCode::TOO_MANY_REQUESTS, Some(RETRY)));
        let others: Vec<_> = (2..).take(MOST - MOST_OF_ONE).map(ask).collect();
        while desk.places.taken.lock().unwrap().values().sum::<usize>() < MOST {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(99).await.unwrap().unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        (0..MOST).for_each(|_| go.send(()).unwrap());
        for done in of_one.into_iter().chain(others) {
            tokio::time::timeout(Duration::from_secs(60), done).await.unwrap().unwrap().unwrap();
        }
        assert!(desk.places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn large_policies_of_one_tailnet_leave_places_for_those_of_others() {
        let desk = PolicyDesk::default();
        let mut held: Vec<_> = (0..MOST_LARGE_OF_ONE).map(|_| desk.admit_large(TailnetId(1)).unwrap()).collect();
        assert_eq!(desk.admit_large(TailnetId(1)).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        held.extend((2..).take(MOST_LARGE - MOST_LARGE_OF_ONE).map(|id| desk.admit_large(TailnetId(id)).unwrap()));
        let refused = desk.admit_large(TailnetId(99)).unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY)));
        assert_eq!(refused.message, "too many large policies of this server are being read; try again in 5 seconds");
        held.pop();
        desk.admit_large(TailnetId(99)).unwrap();
    }

    #[tokio::test]
    async fn who_hangs_up_keeps_the_turn_until_the_work_is_done() {
        let desk = Arc::new(PolicyDesk::default());
        let (go, wait) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let task = tokio::spawn({
            let desk = desk.clone();
            async move {
                let work = move || {
                    let _ = began.send(());
                    wait.recv().map_err(|_| ApiError::internal("gone"))
                };
                desk.work(TailnetId(1), work).await
            }
        });
        begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(desk.turn.available_permits(), 0);
        go.send(()).unwrap();
        desk.work(TailnetId(1), || Ok(())).await.unwrap();
    }
}
