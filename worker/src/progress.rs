//! What is said of a run to the leader: its newest position, until it says that it is durable, and how fast it goes.

use std::time::Duration;

use model::{Epoch, Position, TaskId};
use proto::v1;
use tokio::time::Instant;

use crate::task::Reached;

/// A position that no leader confirmed for so long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(5);

/// The newest position of one run, as sent.
#[derive(Debug)]
pub(crate) struct Progress {
    task: v1::Task,
    epoch: Epoch,
    start: Position,
    interval: Duration,
    sent: Option<(Reached, v1::TaskProgress)>,
    sent_at: Instant,
    sent_on: u64,
    committed: u64,
    committed_at: Instant,
}

impl Progress {
    pub(crate) fn new(task: &TaskId, epoch: Epoch, start: Position, interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            task: task.into(),
            epoch,
            start,
            interval,
            sent: None,
            sent_at: now,
            sent_on: 0,
            committed: 0,
            committed_at: now,
        }
    }

    fn moved(&self, reached: &Reached) -> bool {
        match &self.sent {
            None => reached.position != self.start || reached.caught_up_at.is_some() || reached.gap.is_some(),
            Some((sent, _)) => {
                sent.position != reached.position
                    || sent.caught_up_at != reached.caught_up_at
                    || sent.gap != reached.gap
            }
        }
    }

    fn advance(&mut self, reached: Reached) {
        let serial = self.sent.as_ref().map_or(0, |(_, sent)| sent.serial) + 1;
        let message = v1::TaskProgress {
            task: Some(self.task.clone()),
            epoch: Some(self.epoch.into()),
            position: Some(proto::position_to_wire(&reached.position)),
            serial,
            records: reached.records,
            caught_up_at_ms: reached.caught_up_at.map(|at| at.0),
            gap: reached.gap.clone().unwrap_or_default(),
            traceparent: String::new(),
        };
        self.sent = Some((reached, message));
    }

    /// What to send on session `link` now: a newer position every interval, or at the leader's pace (the end at once), or the newest one again when it
    /// was sent on another session, or long ago, and is not durable.
    pub(crate) fn due(
        &mut self,
        reached: Reached,
        link: u64,
        (now, pace): (Instant, Duration),
    ) -> Option<v1::TaskProgress> {
        let waited = now.saturating_duration_since(self.sent_at);
        if self.moved(&reached) && (waited >= self.interval.max(pace) || reached.position.is_end()) {
            self.advance(reached);
        } else {
            let serial = self.sent.as_ref()?.1.serial;
            if serial <= self.committed || (self.sent_on == link && waited < RESEND_AFTER) {
                return None;
            }
        }
        (self.sent_at, self.sent_on) = (now, link);
        self.sent.as_ref().map(|(_, message)| message.clone())
    }

    /// The position that goes with the end of the run.
    pub(crate) fn last(&mut self, reached: Reached) -> Option<v1::TaskProgress> {
        if self.moved(&reached) {
            self.advance(reached);
        }
        self.sent.as_ref().map(|(_, message)| message.clone())
    }

    /// The leader says that this is durable.
    pub(crate) fn committed(&mut self, serial: u64, now: Instant) {
        if serial > self.committed {
            (self.committed, self.committed_at) = (serial, now);
        }
    }

    /// How long a position has been waiting to become durable.
    pub(crate) fn age(&self, reached: &Reached, now: Instant) -> Duration {
        let pending = self.sent.as_ref().is_some_and(|(_, sent)| sent.serial > self.committed);
        if pending || self.moved(reached) {
            now.saturating_duration_since(self.committed_at)
        } else {
            Duration::ZERO
        }
    }
}

/// Records and bytes a second, smoothed over a few heartbeats.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    records: u64,
    bytes: u64,
    at: Option<Instant>,
    per_second: (f64, f64),
}

impl Rate {
    /// The rate with these totals seen now.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn seen(&mut self, records: u64, bytes: u64, now: Instant) -> (f64, f64) {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        if passed > 0.0 {
            let new = ((records - self.records) as f64 / passed, (bytes - self.bytes) as f64 / passed);
            let weight = (passed / 5.0).min(1.0);
            self.per_second.0 += weight * (new.0 - self.per_second.0);
            self.per_second.1 += weight * (new.1 - self.per_second.1);
        }
        (self.records, self.bytes, self.at) = (records, bytes, Some(now));
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use model::{Creation, Cursor, ObjectId, SplitId, StartFrom};

    use super::*;

    fn reached(n: u32) -> Reached {
        Reached {
            position: Position::After(Cursor::new(n.to_string())),
            records: n.into(),
            caught_up_at: None,
            gap: None,
        }
    }

    fn progress() -> Progress {
        let task = TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "s"));
        let start = Position::Start(StartFrom::Horizon);
        Progress::new(&task, Epoch::default(), start, Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_position_is_sent_once_an_interval() {
        let (mut progress, start) = (progress(), Instant::now());
        assert!(
            progress.due(reached(1), 1, (start, Duration::ZERO)).is_none(),
            "the interval has not passed"
        );
        let sent = progress.due(reached(2), 1, (start + Duration::from_secs(1), Duration::ZERO)).unwrap();
        assert_eq!((sent.serial, sent.records), (1, 2));
        assert!(progress.due(reached(2), 1, (start + Duration::from_secs(2), Duration::ZERO)).is_none());
        let end = Reached { position: Position::End, ..reached(2) };
        assert_eq!(
            progress.due(end, 1, (start + Duration::from_millis(1001), Duration::ZERO)).unwrap().serial,
            2
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_durable_is_sent_again_to_the_next_leader() {
        let (mut progress, at) = (progress(), Instant::now() + Duration::from_secs(1));
        progress.due(reached(2), 1, (at, Duration::ZERO)).unwrap();
        let again = progress.due(reached(2), 2, (at, Duration::ZERO)).unwrap();
        assert_eq!(again.serial, 1);
        progress.committed(1, at);
        assert!(progress.due(reached(2), 3, (at + Duration::from_secs(60), Duration::ZERO)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_position_is_newer_than_what_was_sent_before() {
        let (mut progress, at) = (progress(), Instant::now() + Duration::from_secs(1));
        assert!(
            progress.last(Reached { position: Position::Start(StartFrom::Horizon), ..reached(0) }).is_none()
        );
        progress.due(reached(2), 1, (at, Duration::ZERO)).unwrap();
        assert_eq!(progress.last(reached(2)).unwrap().serial, 1);
        assert_eq!(progress.last(reached(3)).unwrap().serial, 2);
    }
}
