//! Self-fencing (P2): after the deadline nothing of a worker's runs is polled any more, for good.
//!
//! The deadline is the sending of the newest heartbeat that was answered plus `fence_after`. Every future that talks to a
//! destination is wrapped in [`Guarded`], which looks at the deadline *before* it polls: a process that was suspended past it
//! does not send the request it was about to send. A later answer revives nothing; new runs get a new fence.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use connector::{Error, ErrorKind};
use logic::mutant;
use tokio::time::Instant;

const OVER: u64 = 0;
const UNSET: u64 = u64::MAX;

/// The deadline of a worker's runs. Once over, it stays so.
#[derive(Debug)]
pub(crate) struct Fence {
    origin: Instant,
    /// Microseconds since `origin`, plus one; `OVER` for good, `UNSET` until the first answer.
    deadline: AtomicU64,
}

impl Fence {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), deadline: AtomicU64::new(UNSET) })
    }

    fn micros(&self, at: Instant) -> u64 {
        let micros = at.saturating_duration_since(self.origin).as_micros();
        u64::try_from(micros).unwrap_or(UNSET - 2).saturating_add(1)
    }

    /// A heartbeat that was sent long enough ago to end at `deadline` was answered. False: too late, it is over.
    pub(crate) fn extend(&self, deadline: Instant) -> bool {
        let never = Duration::from_secs(if mutant::on("no_self_fencing") { 3600 } else { 0 });
        let (now, new) = (self.micros(Instant::now()), self.micros(deadline + never));
        let extended = self.deadline.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| match old {
            OVER => None,
            UNSET => Some(new),
            old if old <= now && !mutant::on("late_answer_revives") => Some(OVER),
            old => Some(old.max(new)),
        });
        extended.is_ok() && self.holds()
    }

    /// True while runs may talk to destinations.
    pub(crate) fn holds(&self) -> bool {
        match self.deadline.load(Ordering::SeqCst) {
            OVER => false,
            UNSET => true,
            deadline if self.micros(Instant::now()) < deadline => true,
            _ => {
                if !mutant::on("late_answer_revives") {
                    self.end();
                }
                false
            }
        }
    }

    /// Over, for good.
    pub(crate) fn end(&self) {
        self.deadline.store(OVER, Ordering::SeqCst);
    }

    /// When it will be over if nothing is answered; `None` before the first answer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::SeqCst) {
            OVER => Some(self.origin),
            UNSET => None,
            deadline => Some(self.origin + Duration::from_micros(deadline - 1)),
        }
    }

    /// Wraps a call to a destination.
    pub(crate) fn guard<F>(self: &Arc<Self>, future: F) -> Guarded<F> {
        Guarded { fence: Arc::clone(self), future }
    }
}

/// A call to a destination that ends when the fence is over.
pub(crate) struct Guarded<F> {
    fence: Arc<Fence>,
    future: F,
}

impl<T, F: Future<Output = connector::Result<T>> + Unpin> Future for Guarded<F> {
    type Output = connector::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if mutant::on("deadline_after_polling")
            && let Poll::Ready(done) = Pin::new(&mut self.future).poll(cx)
        {
            return Poll::Ready(done);
        }
        if !self.fence.holds() {
            let why = "no coordinator answered within `fence_after`: this run is over";
            // What was polled before may have been sent, and may still land.
            let error = Error::new(ErrorKind::Fenced, why).ambiguous_since(std::time::Instant::now());
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_revives_nothing() {
        let fence = Fence::new();
        assert!(fence.extend(Instant::now() + AFTER));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(fence.holds());
        assert!(fence.extend(Instant::now() + AFTER));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!fence.extend(Instant::now() + AFTER), "the deadline passed before the answer came");
        assert!(!fence.extend(Instant::now() + AFTER) && !fence.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_looked_at_before_the_request_is_polled() {
        let fence = Fence::new();
        assert!(fence.extend(Instant::now() + AFTER));
        let mut polled = 0;
        let request = Box::pin(std::future::poll_fn(|_| {
            polled += 1;
            Poll::<connector::Result<()>>::Pending
        }));
        let mut guarded = fence.guard(request);
        assert!(futures::poll!(&mut guarded).is_pending());
        tokio::time::advance(AFTER).await;
        let Poll::Ready(Err(error)) = futures::poll!(&mut guarded) else { panic!("still pending") };
        assert_eq!(error.kind(), ErrorKind::Fenced);
        drop(guarded);
        assert_eq!(polled, 1, "polled past the deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_does_not_shorten_the_deadline() {
        let fence = Fence::new();
        let start = Instant::now();
        assert!(fence.extend(start + AFTER));
        assert!(fence.extend(start + Duration::from_secs(2)));
        assert_eq!(fence.deadline(), Some(start + AFTER));
    }
}
