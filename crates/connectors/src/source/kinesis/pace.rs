//! How fast a shard may be asked (docs/kinesis.md 3.4). One [`Pace`] per shard, shared by every reader of this process,
//! because the service counts all of them together; other workers keep to their own part (`readers`).
//!
//! Readers of one shard take turns: each waits for its [`Slot`] in the order in which they came. Otherwise one that reads as often as
//! it may leaves nothing to one that has just begun, for as long as chance will have it.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use logic::pace::Bucket;
use tokio::time::Instant;

use super::config::Quota;

/// How much may be read at once after a rest, in seconds of the quota. Small: the service looks at single seconds.
const BURST: f64 = 0.4;
/// A slot that waited so long (for memory) is none any more: others have read meanwhile, and the service looks at single seconds.
const SLOT_AGE_MAX: Duration = Duration::from_secs(1);
/// `GetShardIterator` calls a second.
const ITERATORS: f64 = 5.0;
/// The largest answer; after one the shard throttles for as long as its quota needs for so much (about 5 s).
const LARGEST_ANSWER: usize = 10 << 20;

struct State {
    readers: u32,
    reads: Bucket,
    bytes: Bucket,
    iterators: Bucket,
}

/// The pace of one shard.
pub(crate) struct Pace {
    quota: Quota,
    origin: Instant,
    state: Mutex<State>,
    /// Whose turn it is to wait for a slot; it hands itself on in order.
    turn: tokio::sync::Mutex<()>,
}

/// One `GetRecords` within the quota. Dropped unused it is given back.
pub(crate) struct Slot {
    pace: Arc<Pace>,
    at: Instant,
    used: bool,
}

impl Slot {
    /// Uses it. False if it is too old to be used.
    pub(crate) fn take(mut self) -> bool {
        self.used = self.at.elapsed() < SLOT_AGE_MAX;
        self.used
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.used {
            let now = self.pace.now();
            self.pace.state().reads.give_back(1.0, now);
        }
    }
}

impl Pace {
    pub(crate) fn new(quota: Quota, readers: u32) -> Self {
        let origin = Instant::now();
        let part = quota.share / f64::from(readers.max(1));
        let state = State {
            readers,
            // One call at a time: five in a row and then five a second would be ten in the first second.
            reads: Bucket::new(quota.reads * part, 1.0, Duration::ZERO),
            bytes: Bucket::new(quota.bytes * part, quota.bytes * part * BURST, Duration::ZERO),
            iterators: Bucket::new(ITERATORS * part, 1.0_f64.max(ITERATORS * part), Duration::ZERO),
        };
        Self { quota, origin, state: Mutex::new(state), turn: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// So many workers read this shard from now on.
    pub(crate) fn set_readers(&self, readers: u32) {
        let now = self.now();
        let mut state = self.state();
        if state.readers == readers {
            return;
        }
        let part = self.quota.share / f64::from(readers.max(1));
        state.readers = readers;
        state.reads.set(self.quota.reads * part, 1.0, now);
        state.bytes.set(self.quota.bytes * part, self.quota.bytes * part * BURST, now);
        state.iterators.set(ITERATORS * part, 1.0_f64.max(ITERATORS * part), now);
    }

    /// Waits until one more `GetRecords` is within the quota, behind those who wait already, and counts it. Poll it or drop it: the
    /// others wait for it.
    pub(crate) async fn slot(self: &Arc<Self>) -> Slot {
        let _turn = self.turn.lock().await;
        self.before_read().await;
        Slot { pace: Arc::clone(self), at: Instant::now(), used: false }
    }

    /// The same for one that has no slot, or not any more; it may lose to others, who need not wait for it.
    pub(crate) async fn before_read(&self) {
        self.wait(|state, now| {
            let wait = state.reads.wait(1.0, now).max(state.bytes.wait(0.0, now));
            if wait.is_zero() {
                state.reads.take(1.0, now);
            }
            wait
        })
        .await;
    }

    /// So much came.
    pub(crate) fn after_read(&self, bytes: usize) {
        let now = self.now();
        let mut state = self.state();
        #[allow(clippy::cast_precision_loss)]
        state.bytes.take(bytes as f64, now);
        if bytes >= LARGEST_ANSWER / 20 * 19 {
            #[allow(clippy::cast_precision_loss)]
            let rest = Duration::from_secs_f64(LARGEST_ANSWER as f64 / self.quota.bytes);
            state.bytes.pause(rest, now);
        }
    }

    /// Waits until one more `GetShardIterator` is within the quota, and counts it.
    pub(crate) async fn before_iterator(&self) {
        self.wait(|state, now| {
            let wait = state.iterators.wait(1.0, now);
            if wait.is_zero() {
                state.iterators.take(1.0, now);
            }
            wait
        })
        .await;
    }

    async fn wait(&self, take: impl Fn(&mut State, Duration) -> Duration) {
        loop {
            let now = self.now();
            let wait = take(&mut self.state(), now);
            if wait.is_zero() {
                return;
            }
            // The timer has whole milliseconds: never wake just before the moment.
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { reads: 5.0, bytes: 2_097_152.0, share: 1.0 };

    async fn reads_in(pace: &Pace, span: Duration, bytes: usize) -> u32 {
        let end = Instant::now() + span;
        let mut reads = 0;
        while tokio::time::timeout_at(end, pace.before_read()).await.is_ok() {
            pace.after_read(bytes);
            reads += 1;
        }
        reads
    }

    #[tokio::test(start_paused = true)]
    async fn five_reads_a_second_for_all_readers_together() {
        let pace = Pace::new(QUOTA, 1);
        let (a, b) = tokio::join!(
            reads_in(&pace, Duration::from_secs(10), 10),
            reads_in(&pace, Duration::from_secs(10), 10)
        );
        assert!((49..=51).contains(&(a + b)), "{a} + {b}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_workers_take_half_each() {
        let pace = Pace::new(QUOTA, 1);
        pace.set_readers(2);
        let reads = reads_in(&pace, Duration::from_secs(10), 10).await;
        assert!((24..=26).contains(&reads), "{reads}");
    }

    /// A run that starts again must not wait for as long as another one of its shard happens to be quicker.
    #[tokio::test(start_paused = true)]
    async fn readers_of_a_shard_take_turns() {
        let pace = Arc::new(Pace::new(QUOTA, 1));
        let order = Arc::new(Mutex::new(String::new()));
        let reader = |name: char, looks: Duration| {
            let (pace, order) = (Arc::clone(&pace), Arc::clone(&order));
            async move {
                for _ in 0..4 {
                    let slot = pace.slot().await;
                    tokio::time::sleep(looks).await;
                    assert!(slot.take());
                    order.lock().unwrap().push(name);
                }
            }
        };
        let ms = Duration::from_millis;
        tokio::join!(reader('a', ms(1)), reader('b', ms(3)), reader('c', ms(7)));
        assert_eq!(*order.lock().unwrap(), "abcabcabcabc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_not_used_is_given_back_and_an_old_one_is_none() {
        let pace = Arc::new(Pace::new(QUOTA, 1));
        let began = Instant::now();
        drop(pace.slot().await);
        assert!(pace.slot().await.take());
        assert_eq!(began.elapsed(), Duration::ZERO);
        let old = pace.slot().await;
        tokio::time::sleep(SLOT_AGE_MAX).await;
        assert!(!old.take());
    }

    #[tokio::test(start_paused = true)]
    async fn two_megabytes_a_second() {
        let pace = Pace::new(QUOTA, 1);
        let reads = reads_in(&pace, Duration::from_secs(20), 1 << 20).await;
        assert!((39..=42).contains(&reads), "{reads}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_answer_is_followed_by_a_rest() {
        let pace = Pace::new(QUOTA, 1);
        pace.before_read().await;
        pace.after_read(10 << 20);
        let began = Instant::now();
        pace.before_read().await;
        assert!(began.elapsed() >= Duration::from_millis(4900), "{:?}", began.elapsed());
    }
}
