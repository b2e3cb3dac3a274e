//! How long to wait before asking again: exponential, capped, with full jitter, so that many who failed together do not
//! come back together.

use std::time::Duration;

/// Waits between attempts. The caller brings the randomness.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Grows from `first` to `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, failures: 0 }
    }

    /// After another failure: a wait of up to `first · 2^failures`, at most `cap`. `chance` is uniform in 0…1.
    pub fn failed(&mut self, chance: f64) -> Duration {
        let ceiling =
            self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.cap);
        self.failures = self.failures.saturating_add(1).min(30);
        ceiling.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// It worked: the next failure starts small again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grows_and_stops_growing() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let waits: Vec<u128> = (0..9).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.worked();
        assert_eq!(backoff.failed(1.0).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn never_longer_than_the_cap(n in 1_usize..200, chance in 0.0_f64..=1.0) {
            let cap = Duration::from_secs(10);
            let mut backoff = Backoff::new(Duration::from_millis(100), cap);
            for _ in 0..n {
                prop_assert!(backoff.failed(chance) <= cap);
            }
        }
    }
}
