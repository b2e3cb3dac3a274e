//! How many bytes of parts may be under way to the partitions of this worker. The pool is cut evenly among all streams that are
//! open, so a partition that stands still holds no more than the windows of its own streams, and takes nothing from the others.
//!
//! It is no part of the readers' budget: readers that wait for a dead partition keep theirs, and living partitions would starve.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// The least that a stream may have under way: else each part would wait for the ack of the one before.
const WINDOW_MIN: u64 = 32 << 10;
/// The most; more makes nothing faster.
const WINDOW_MAX: u64 = 4 << 20;

/// The memory of parts in one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    size: u64,
    streams: AtomicU64,
    window: watch::Sender<u64>,
}

impl Pool {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        let window = watch::Sender::new(window(size, 1));
        Arc::new(Self { size, streams: AtomicU64::new(0), window })
    }

    /// Another stream is open until the place is dropped.
    pub(crate) fn place(self: &Arc<Self>) -> Place {
        self.count(self.streams.fetch_add(1, Ordering::SeqCst) + 1);
        Place(Arc::clone(self))
    }

    /// What each stream may have under way, now and whenever it changes.
    pub(crate) fn window(&self) -> watch::Receiver<u64> {
        self.window.subscribe()
    }

    fn count(&self, streams: u64) {
        let new = window(self.size, streams);
        self.window.send_if_modified(|old| std::mem::replace(old, new) != new);
    }
}

/// A power of two, so that it does not change with every stream that comes.
fn window(size: u64, streams: u64) -> u64 {
    let even = (size / streams.max(1)).max(1);
    (1 << even.ilog2()).clamp(WINDOW_MIN, WINDOW_MAX)
}

/// One open stream's place in the pool.
#[derive(Debug)]
pub(crate) struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count(self.0.streams.fetch_sub(1, Ordering::SeqCst) - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_so_that_many_streams_stay_within_the_pool() {
        let pool = Pool::new(64 << 20);
        let window = pool.window();
        let mut places: Vec<Place> = (0..4).map(|_| pool.place()).collect();
        assert_eq!(*window.borrow(), WINDOW_MAX);
        places.extend((4..1000).map(|_| pool.place()));
        assert_eq!(*window.borrow(), 64 << 10);
        assert!(1000 * *window.borrow() <= 64 << 20);
        places.truncate(16);
        assert_eq!(*window.borrow(), WINDOW_MAX);
    }
}
