use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often something may be tried by each of many: a bucket of tokens per key, and a bound on how many are remembered.
///
/// A key that is forgotten starts with a full bucket; only those whose buckets are full again, or, when all are in use,
/// the one unused for longest, are forgotten.
#[derive(Debug)]
pub(crate) struct RateLimit<K> {
    burst: f64,
    refill: Duration,
    capacity: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// Allows `burst` tries at once and one more every `refill`, for up to `capacity` keys.
    pub(crate) fn new(burst: u32, refill: Duration, capacity: usize) -> Self {
        Self { burst: f64::from(burst), refill, capacity, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one try of `key`, or says how long it has to wait for the next.
    pub(crate) fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = buckets.get(key).map_or(self.burst, |bucket| self.filled(*bucket, now));
        if tokens < 1.0 {
            return Err(self.refill.mul_f64(1.0 - tokens));
        }
        if !buckets.contains_key(key) && buckets.len() >= self.capacity {
            self.forget(&mut buckets, now);
        }
        buckets.insert(key.clone(), Bucket { tokens: tokens - 1.0, at: now });
        Ok(())
    }

    /// Gives the tries of `key` back: it has shown that it is welcome.
    pub(crate) fn clear(&self, key: &K) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() / self.refill.as_secs_f64();
        (bucket.tokens + gained).min(self.burst)
    }

    fn forget(&self, buckets: &mut HashMap<K, Bucket>, now: Instant) {
        buckets.retain(|_, bucket| self.filled(*bucket, now) < self.burst);
        if buckets.len() >= self.capacity {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            oldest.map(|key| buckets.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tries_come_back_with_time() {
        let (limit, now) = (RateLimit::new(2, SECOND, 10), Instant::now());
        assert_eq!(limit.take(&"a", now), Ok(()));
        assert_eq!(limit.take(&"a", now), Ok(()));
        assert_eq!(limit.take(&"a", now), Err(SECOND));
        assert_eq!(limit.take(&"b", now), Ok(()));
        assert_eq!(limit.take(&"a", now + SECOND), Ok(()));
        assert!(limit.take(&"a", now + SECOND).is_err());
    }

    #[test]
    fn a_refused_try_costs_nothing_and_a_welcome_one_clears() {
        let (limit, now) = (RateLimit::new(1, SECOND, 10), Instant::now());
        assert!(limit.take(&1, now).is_ok());
        for _ in 0..100 {
            assert!(limit.take(&1, now).is_err());
        }
        limit.clear(&1);
        assert!(limit.take(&1, now).is_ok());
    }

    #[test]
    fn no_flood_of_keys_grows_the_memory() {
        let (limit, now) = (RateLimit::new(1, SECOND, 100), Instant::now());
        for key in 0..10_000_u32 {
            assert!(limit.take(&key, now).is_ok());
        }
        assert!(limit.buckets.lock().unwrap().len() <= 100);
    }
}
