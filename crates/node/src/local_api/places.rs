//! Connections that are open at once, and whose they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::access::Standing;
use super::reply::Refusal;

/// How many connections may be open at once.
const ALL: usize = 256;
/// How many of them one user may have who does not own the daemon.
const EACH: usize = 64;
/// How many of them those may have together who may only look.
const READERS: usize = 160;
// Whatever readers and the operator do, its owner is heard: the rest is root's.
const _: () = assert!(READERS + EACH < ALL);

/// The connections that may be open at once. Some never end, such as those that watch the bus, and everybody on the
/// machine may open one: nobody can take all of them, and those who may change the node are not kept out by others.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    /// By user; those whom the kernel does not name are one.
    users: BTreeMap<Option<u32>, usize>,
    readers: usize,
    all: usize,
}

/// The place of one connection, which is free again when this is gone.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    caller: Option<u32>,
    is_reader: bool,
}

impl Places {
    /// Takes a place for a caller.
    ///
    /// # Errors
    /// When there is none for such a caller.
    pub(super) fn take(&self, caller: Option<u32>, standing: Standing) -> Result<Place, Refusal> {
        let mut taken = self.taken();
        let own = taken.users.get(&caller).copied().unwrap_or_default();
        let is_reader = standing == Standing::Reader;
        if standing != Standing::Owner && own >= EACH {
            let text =
                format!("this user has {EACH} requests open at the daemon, and may have no more: end one that runs");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text));
        }
        if taken.all >= ALL || (is_reader && taken.readers >= READERS) {
            let text = "the daemon has too many requests open: try again when some have ended, or as root";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        taken.users.insert(caller, own + 1);
        taken.readers += usize::from(is_reader);
        taken.all += 1;
        drop(taken);
        Ok(Place { places: self.clone(), caller, is_reader })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        taken.readers -= usize::from(self.is_reader);
        if let Some(own) = taken.users.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.users.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Option<u32> = Some(0);

    fn take(places: &Places, count: usize, caller: Option<u32>, standing: Standing) -> Vec<Place> {
        (0..count).map(|_| places.take(caller, standing).unwrap()).collect()
    }

    #[test]
    fn one_user_takes_a_part_of_the_places_and_gets_them_back() {
        let places = Places::default();
        let mut held = take(&places, EACH, Some(1000), Standing::Reader);
        let refused = places.take(Some(1000), Standing::Reader).unwrap_err();
        assert_eq!(refused.into_reply().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(places.take(Some(1001), Standing::Reader).is_ok());
        held.pop();
        assert!(places.take(Some(1000), Standing::Reader).is_ok());
        drop(held);
        let taken = places.taken();
        assert_eq!((taken.all, taken.readers, taken.users.len()), (0, 0, 0));
    }

    #[test]
    fn readers_keep_neither_the_operator_nor_root_out() {
        let places = Places::default();
        let callers = (0..READERS).map(|number| Some(1000 + u32::try_from(number / EACH).unwrap()));
        let _readers: Vec<_> = callers.map(|caller| places.take(caller, Standing::Reader).unwrap()).collect();
        let refused = places.take(Some(2000), Standing::Reader).unwrap_err();
        assert_eq!(refused.into_reply().status(), StatusCode::SERVICE_UNAVAILABLE);
        let _operators = take(&places, EACH, Some(3000), Standing::Operator);
        assert!(places.take(Some(3000), Standing::Operator).is_err());
        let _owners = take(&places, ALL - READERS - EACH, ROOT, Standing::Owner);
        assert!(places.take(ROOT, Standing::Owner).is_err());
    }

    #[test]
    fn who_is_not_named_by_the_kernel_is_one_user() {
        let places = Places::default();
        let _held = take(&places, EACH, None, Standing::Reader);
        assert!(places.take(None, Standing::Reader).is_err());
    }
}
