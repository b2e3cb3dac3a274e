//! The byte budget (I8): memory is reserved before a read is begun, settled when the answer is known, and free again when the
//! records are acked. Backpressure so stops reading before a record is in hand.
//!
//! The bound of a worker is its budget plus what concurrent reads may bring beyond their reservations (10 MiB each, and their
//! number is capped). Records that several tasks have are counted once in the budget (a [`Reservation`], free when the last of
//! them lets go), and with each of the tasks (a [`Portion`]), which stops taking more by what it has itself.

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

    /// Waits until so many bytes are free, for records that no single task has. Cancel safe.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.grant(bytes).await;
        Reservation { budget: Arc::clone(self), bytes }
    }

    async fn grant(&self, bytes: u64) {
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

    /// However many tasks stand still, together they leave a third of the budget to those that move: each may hold so much,
    /// and as much again may wait for it in a window.
    pub(crate) fn soft(&self) -> u64 {
        let tasks = self.budget.accounts.load(Ordering::SeqCst).max(1);
        self.soft.min(self.budget.size / (3 * tasks)).max(1)
    }

    /// Waits until the task holds less than its soft limit. Only the one reader of a task calls it. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.used.load(Ordering::SeqCst) < self.soft() {
                return;
            }
            freed.await;
        }
    }

    /// The task has so many bytes of what `reservation` holds.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64, reservation: Arc<Reservation>) -> Portion {
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Portion { account: Arc::clone(self), bytes, _reservation: reservation }
    }
}

/// Bytes held; free again when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// The estimate becomes the truth; an overdraft blocks further reads until it is paid back.
    pub(crate) fn settle(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::SeqCst);
        } else {
            self.budget.free(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Takes a part of it out, to be freed on its own.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.free(self.bytes);
    }
}

/// One task's part of bytes that may be held by several; counted with the task until it is dropped.
#[derive(Debug)]
pub(crate) struct Portion {
    account: Arc<Account>,
    bytes: u64,
    _reservation: Arc<Reservation>,
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.account.used.fetch_sub(self.bytes, Ordering::SeqCst);
        self.account.freed.notify_one();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.accounts.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn portion(account: &Arc<Account>, bytes: u64) -> Portion {
        let reservation = account.budget.reserve(bytes).now_or_never().expect("it is free");
        account.take(bytes, Arc::new(reservation))
    }

    #[tokio::test]
    async fn a_read_waits_until_memory_is_free() {
        let budget = Budget::new(100);
        let held = budget.reserve(80).await;
        let mut waiting = Box::pin(budget.reserve(40));
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
        let mut held = budget.reserve(50).await;
        held.settle(150);
        assert_eq!(budget.used(), 150);
        let mut waiting = Box::pin(budget.reserve(10));
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
        let held = portion(&a, 60);
        let mut waiting = Box::pin(a.room());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(b.room().now_or_never().is_some());
        drop(held);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_several_tasks_have_is_counted_once_until_the_last_lets_go() {
        let budget = Budget::new(1000);
        let (a, b) = (Account::new(Arc::clone(&budget), 50), Account::new(Arc::clone(&budget), 50));
        let shared = Arc::new(budget.reserve(60).await);
        let (of_a, of_b) = (a.take(60, Arc::clone(&shared)), b.take(60, shared));
        assert_eq!(budget.used(), 60);
        drop(of_a);
        assert_eq!(budget.used(), 60);
        assert!(a.room().now_or_never().is_some() && b.room().now_or_never().is_none());
        drop(of_b);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_reservation_larger_than_the_budget_is_granted_alone() {
        assert!(Budget::new(10).reserve(50).now_or_never().is_some());
    }
}
