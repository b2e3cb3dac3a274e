//! The byte budget (I8): memory is reserved before a read is begun, settled when the answer is known, and free again when the
//! records are acked. Backpressure so stops reading before a record is in hand.
//!
//! The bound of a worker is its budget plus what concurrent reads may bring beyond their reservations (10 MiB each, and their
//! number is capped).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Mutex, Notify};

/// Bytes of all tasks of a worker together.
#[derive(Debug)]
pub(crate) struct Budget {
    size: u64,
    used: AtomicU64,
    /// Tasks that have a part of it.
    accounts: AtomicU64,
    freed: Notify,
    /// First come, first served: one waiter at a time looks at `used`.
    turn: Mutex<()>,
}

impl Budget {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            size,
            used: AtomicU64::new(0),
            accounts: AtomicU64::new(0),
            freed: Notify::new(),
            turn: Mutex::new(()),
        })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    async fn reserve(&self, bytes: u64) {
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            let fits = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                (used == 0 || used + bytes <= self.size).then_some(used + bytes)
            });
            if fits.is_ok() {
                return;
            }
            freed.await;
        }
    }

    fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.freed.notify_one();
    }
}

/// One task's part of the budget. It may begin another read only while it holds less than its soft limit, so one slow
/// destination cannot take the memory of all others.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    soft: u64,
    used: AtomicU64,
    freed: Notify,
}

impl Account {
    pub(crate) fn new(budget: Arc<Budget>, soft: u64) -> Arc<Self> {
        budget.accounts.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self { budget, soft, used: AtomicU64::new(0), freed: Notify::new() })
    }

    /// However many tasks stand still, together they leave half of the budget to those that move.
    fn soft(&self) -> u64 {
        let tasks = self.budget.accounts.load(Ordering::SeqCst).max(1);
        self.soft.min(self.budget.size / (2 * tasks)).max(1)
    }

    /// Waits until so many bytes are free. Only the one reader of a task calls it. Cancel safe.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        loop {
            let freed = self.freed.notified();
            if self.used.load(Ordering::SeqCst) < self.soft() {
                break;
            }
            freed.await;
        }
        self.budget.reserve(bytes).await;
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Reservation { account: Arc::clone(self), bytes }
    }
}

/// Bytes held; free again when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    bytes: u64,
}

impl Reservation {
    /// The estimate becomes the truth; an overdraft blocks further reads until it is paid back.
    pub(crate) fn settle(&mut self, bytes: u64) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.account.budget.used.fetch_add(more, Ordering::SeqCst);
            self.account.used.fetch_add(more, Ordering::SeqCst);
        } else {
            self.account.free(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Takes a part of it out, to be freed on its own.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { account: Arc::clone(&self.account), bytes }
    }
}

impl Account {
    fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.freed.notify_one();
        self.budget.free(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.accounts.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.free(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_read_waits_until_memory_is_free() {
        let budget = Budget::new(100);
        let (a, b) = (Account::new(Arc::clone(&budget), 1000), Account::new(Arc::clone(&budget), 1000));
        let held = a.reserve(80).await;
        let mut waiting = Box::pin(b.reserve(40));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        let held = waiting.await;
        assert_eq!(budget.used(), 40);
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn an_overdraft_blocks_until_it_is_paid_back_and_parts_are_freed_alone() {
        let budget = Budget::new(100);
        let account = Account::new(Arc::clone(&budget), 1000);
        let mut held = account.reserve(50).await;
        held.settle(150);
        assert_eq!(budget.used(), 150);
        let mut waiting = Box::pin(account.reserve(10));
        assert!(waiting.as_mut().now_or_never().is_none());
        let part = held.split(110);
        drop(part);
        let _next = waiting.await;
        assert_eq!(budget.used(), 50);
    }

    #[tokio::test]
    async fn one_task_stops_at_its_soft_limit_while_others_go_on() {
        let budget = Budget::new(1000);
        let (a, b) = (Account::new(Arc::clone(&budget), 50), Account::new(Arc::clone(&budget), 50));
        let _held = a.reserve(60).await;
        assert!(a.reserve(1).now_or_never().is_none());
        assert!(b.reserve(40).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_reservation_larger_than_the_budget_is_granted_alone() {
        let budget = Budget::new(10);
        let account = Account::new(Arc::clone(&budget), 1000);
        assert!(account.reserve(50).now_or_never().is_some());
    }
}
