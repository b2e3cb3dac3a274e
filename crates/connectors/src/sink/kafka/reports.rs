//! The delivery reports of one write: who is still waited for, and what failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

/// The reports of one write.
#[derive(Default)]
pub(super) struct Reports {
    state: Mutex<State>,
    all: Notify,
}

#[derive(Default)]
struct State {
    waiting: usize,
    asked: usize,
    failed: Vec<(usize, RDKafkaErrorCode)>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message more is waited for.
    pub(super) fn expect(self: &Arc<Self>, row: usize) -> Box<Report> {
        let mut state = self.state();
        state.waiting += 1;
        state.asked += 1;
        drop(state);
        Box::new(Report { row, reports: Arc::clone(self) })
    }

    /// Messages of the write.
    pub(super) fn asked(&self) -> usize {
        self.state().asked
    }

    /// Messages that nobody has reported on.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Waits for the last report. Cancel safe.
    pub(super) async fn complete(&self) {
        loop {
            let notified = self.all.notified();
            if self.waiting() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Rows that failed so far, in their order.
    pub(super) fn failed(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        let mut failed = self.state().failed.clone();
        failed.sort_unstable_by_key(|(row, _)| *row);
        failed
    }

    fn settle(&self, failed: Option<(usize, RDKafkaErrorCode)>) {
        let mut state = self.state();
        state.failed.extend(failed);
        state.waiting -= 1;
        if state.waiting == 0 {
            self.all.notify_waiters();
        }
    }
}

/// The report of one message; goes through the client and comes back with its outcome.
pub(super) struct Report {
    row: usize,
    reports: Arc<Reports>,
}

impl Report {
    /// All replicas have it.
    pub(super) fn delivered(self) {
        self.reports.settle(None);
    }

    /// It was not taken, or nobody knows.
    pub(super) fn failed(self, code: RDKafkaErrorCode) {
        self.reports.settle(Some((self.row, code)));
    }

    /// It was never handed over.
    pub(super) fn withdrawn(self) {
        self.reports.settle(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_completes_with_the_last_report_in_any_order() {
        let reports = Arc::new(Reports::default());
        let boxes: Vec<_> = (0..3).map(|row| reports.expect(row)).collect();
        let waiter = tokio::spawn({
            let reports = Arc::clone(&reports);
            async move { reports.complete().await }
        });
        for report in boxes.into_iter().rev() {
            assert!(!waiter.is_finished());
            tokio::task::yield_now().await;
            if report.row == 1 {
                report.delivered();
            } else {
                report.failed(RDKafkaErrorCode::MessageTimedOut);
            }
        }
        waiter.await.unwrap();
        let rows: Vec<usize> = reports.failed().iter().map(|(row, _)| *row).collect();
        assert_eq!((rows, reports.waiting()), (vec![0, 2], 0));
        reports.complete().await;
    }
}
