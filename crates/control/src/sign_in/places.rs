use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where people have signed in from, by login name, since the server started.
///
/// Both are bounded: of names, the one under which nobody signed in for longest is forgotten, and of a name's places the
/// one that was not used for longest. Only who signs in adds any.
#[derive(Debug)]
pub(super) struct KnownPlaces {
    names: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Counts what is remembered.
    clock: u64,
    /// Each name's places, the one used last at the end, and when that was.
    names: HashMap<String, (u64, Vec<IpAddr>)>,
}

impl KnownPlaces {
    /// How many places of a name are remembered.
    const OF_NAME: usize = 8;

    /// Remembers places of so many names.
    pub(super) fn new(names: usize) -> Self {
        Self { names, known: Mutex::default() }
    }

    /// Whether somebody has signed in under a name from a place.
    pub(super) fn knows(&self, name: &str, place: IpAddr) -> bool {
        self.locked().names.get(name).is_some_and(|(_, places)| places.contains(&place))
    }

    /// Somebody has signed in under a name from a place.
    pub(super) fn remember(&self, name: String, place: IpAddr) {
        let mut known = self.locked();
        known.clock += 1;
        let clock = known.clock;
        if !known.names.contains_key(&name)
            && known.names.len() >= self.names
            && let Some(oldest) = known.names.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone())
        {
            known.names.remove(&oldest);
        }
        let (at, places) = known.names.entry(name).or_default();
        *at = clock;
        places.retain(|before| *before != place);
        if places.len() >= Self::OF_NAME {
            places.remove(0);
        }
        places.push(place);
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn places_are_known_for_the_name_that_somebody_signed_in_under() {
        let known = KnownPlaces::new(10);
        known.remember("a@b".to_owned(), place(1));
        assert!(known.knows("a@b", place(1)));
        assert!(!known.knows("a@b", place(2)) && !known.knows("c@d", place(1)));
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let known = KnownPlaces::new(2);
        for number in [1, 2, 3, 4, 5, 6, 7, 8, 1, 9] {
            known.remember("a@b".to_owned(), place(number));
        }
        assert!(known.knows("a@b", place(1)) && known.knows("a@b", place(9)));
        assert!(!known.knows("a@b", place(2)));
        known.remember("c@d".to_owned(), place(1));
        known.remember("a@b".to_owned(), place(1));
        known.remember("e@f".to_owned(), place(1));
        assert!(known.knows("a@b", place(1)) && known.knows("e@f", place(1)) && !known.knows("c@d", place(1)));
        assert_eq!(known.locked().names.len(), 2);
    }
}
