//! The service's read limits, shard by shard: 5 reads and 2 MB a second, the latter overdrawn by a large answer, after which
//! the shard throttles until it is earned (10 MiB: about 5 s).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{Limits, faults::ShardKey};

#[derive(Clone, Copy)]
struct Meter {
    at: Instant,
    reads: f64,
    iterators: f64,
    bytes: f64,
}

impl Meter {
    fn full(limits: Limits) -> Self {
        let (reads, iterators) = (limits.reads_per_second, limits.reads_per_second);
        Self { at: Instant::now(), reads, iterators, bytes: limits.bytes_per_second }
    }

    fn earn(&mut self, limits: Limits) {
        let now = Instant::now();
        let seconds = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        let rate = limits.reads_per_second;
        self.reads = (self.reads + seconds * rate).min(rate);
        self.iterators = (self.iterators + seconds * rate).min(rate);
        self.bytes = (self.bytes + seconds * limits.bytes_per_second).min(limits.bytes_per_second);
    }
}

/// What the shards have left.
#[derive(Default)]
pub(super) struct Meters {
    shards: Mutex<HashMap<ShardKey, Meter>>,
}

impl Meters {
    fn with<T>(&self, shard: &ShardKey, limits: Limits, act: impl FnOnce(&mut Meter) -> T) -> T {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let meter = shards.entry(shard.clone()).or_insert_with(|| Meter::full(limits));
        meter.earn(limits);
        act(meter)
    }

    /// One `GetRecords`; false if it is too much.
    pub(super) fn read(&self, shard: &ShardKey, limits: Limits) -> bool {
        self.with(shard, limits, |meter| {
            let may = meter.reads >= 1.0 && meter.bytes >= 0.0;
            if may {
                meter.reads -= 1.0;
            }
            may
        })
    }

    /// One `GetShardIterator`; false if it is too much.
    pub(super) fn iterator(&self, shard: &ShardKey, limits: Limits) -> bool {
        self.with(shard, limits, |meter| {
            let may = meter.iterators >= 1.0;
            if may {
                meter.iterators -= 1.0;
            }
            may
        })
    }

    /// So much was given out.
    #[allow(clippy::cast_precision_loss, reason = "an answer has at most 10 MiB")]
    pub(super) fn gave(&self, shard: &ShardKey, limits: Limits, bytes: usize) {
        self.with(shard, limits, |meter| meter.bytes -= bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_reads_a_second() {
        let (meters, shard, limits) = (Meters::default(), (String::new(), String::new()), Limits::default());
        let mut read = 0;
        for _ in 0..400 {
            read += u32::from(meters.read(&shard, limits));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!((24..=26).contains(&read), "{read} reads in four seconds and the first five");
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_answer_costs_about_five_seconds() {
        let (meters, shard, limits) = (Meters::default(), (String::new(), String::new()), Limits::default());
        assert!(meters.read(&shard, limits));
        meters.gave(&shard, limits, 10 << 20);
        tokio::time::advance(Duration::from_millis(3900)).await;
        assert!(!meters.read(&shard, limits));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(meters.read(&shard, limits));
    }
}
