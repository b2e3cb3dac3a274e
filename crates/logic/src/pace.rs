//! Token buckets: how fast a service may be asked. Moments are durations since any fixed origin of the caller's.

use std::time::Duration;

/// The wait of a bucket that nothing flows into: ask again then.
const FOREVER: Duration = Duration::from_secs(3600);

/// A bucket that fills at `rate` tokens a second up to `burst`. It may be overdrawn (an answer turned out larger than
/// expected); then it gives nothing until it is above zero again.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: f64, burst: f64, now: Duration) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    /// Changes how fast it fills and how much it holds.
    pub fn set(&mut self, rate: f64, burst: f64, now: Duration) {
        self.fill(now);
        (self.rate, self.burst) = (rate, burst);
        self.tokens = self.tokens.min(burst);
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    /// How long until `want` tokens are there (at most a full bucket is ever waited for); zero means take them now.
    #[must_use]
    pub fn wait(&mut self, want: f64, now: Duration) -> Duration {
        self.fill(now);
        let missing = want.min(self.burst.max(f64::EPSILON)) - self.tokens;
        if missing <= 0.0 || (self.rate > 0.0 && missing <= 1e-9) {
            Duration::ZERO
        } else if self.rate > 0.0 {
            Duration::from_secs_f64(missing / self.rate)
        } else {
            FOREVER
        }
    }

    /// Takes tokens, also if there are not enough.
    pub fn take(&mut self, tokens: f64, now: Duration) {
        self.fill(now);
        self.tokens -= tokens;
    }

    /// Puts tokens back that were taken and not used.
    pub fn give_back(&mut self, tokens: f64, now: Duration) {
        self.fill(now);
        self.tokens = (self.tokens + tokens).min(self.burst);
    }

    /// Nothing comes in for a while: the service said so.
    pub fn pause(&mut self, pause: Duration, now: Duration) {
        self.fill(now);
        self.tokens = self.tokens.min(1.0 - pause.as_secs_f64() * self.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn gives_five_a_second() {
        let mut bucket = Bucket::new(5.0, 5.0, ms(0));
        for _ in 0..5 {
            assert_eq!(bucket.wait(1.0, ms(0)), ms(0));
            bucket.take(1.0, ms(0));
        }
        assert_eq!(bucket.wait(1.0, ms(0)), ms(200));
        assert_eq!(bucket.wait(1.0, ms(200)), ms(0));
    }

    #[test]
    fn a_bucket_of_nothing_gives_nothing() {
        let mut bucket = Bucket::new(0.0, 0.0, ms(0));
        assert_eq!(bucket.wait(1.0, ms(0)), FOREVER);
        assert_eq!(bucket.wait(1.0, ms(100_000)), FOREVER);
    }

    #[test]
    fn an_overdraft_is_paid_back() {
        let mut bucket = Bucket::new(2.0, 2.0, ms(0));
        bucket.take(10.0, ms(0));
        assert_eq!(bucket.wait(0.0, ms(0)), ms(4000));
    }

    #[test]
    fn what_is_given_back_is_there_again_and_no_more() {
        let mut bucket = Bucket::new(5.0, 1.0, ms(0));
        bucket.take(1.0, ms(0));
        bucket.give_back(1.0, ms(0));
        bucket.give_back(1.0, ms(0));
        assert_eq!(bucket.wait(1.0, ms(0)), ms(0));
        bucket.take(1.0, ms(0));
        assert_eq!(bucket.wait(1.0, ms(0)), ms(200));
    }

    proptest! {
        /// In any window the bucket gives at most its burst plus what came in.
        #[test]
        fn never_gives_more_than_rate_and_burst(steps in prop::collection::vec(0_u64..500, 1..100)) {
            let mut bucket = Bucket::new(5.0, 5.0, ms(0));
            let (mut now, mut taken) = (0_u64, 0.0_f64);
            for step in steps {
                now += step;
                if bucket.wait(1.0, ms(now)).is_zero() {
                    bucket.take(1.0, ms(now));
                    taken += 1.0;
                }
                prop_assert!(taken <= 5.0 + ms(now).as_secs_f64() * 5.0 + 1e-6);
            }
        }
    }
}
