//! What a run shows of itself: written by its reader and writer, read by the session for reports and progress. Nothing here
//! decides anything.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use daemon::trace::Span;
use model::{Cursor, Position, Timestamp};
use proto::v1;
use tokio::{sync::Notify, time::Instant};

/// Bad records kept for the next report.
const BAD_MAX: usize = 10;
/// Bytes of a bad record that are shown.
pub(super) const SAMPLE_MAX: usize = 256;
/// Batches with a span that wait for a checkpoint.
const DELIVERED_MAX: usize = 64;

/// Totals of a run.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) read: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
}

/// Which part of a run waits for something outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Source,
    Sink,
    DeadLetter,
}

/// Something outside that makes a part wait.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) error: String,
    pub(crate) kind: &'static str,
    pub(crate) retry_at: Instant,
}

/// How far the run is.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub(crate) position: Position,
    pub(crate) records: u64,
    pub(crate) caught_up_at: Option<Timestamp>,
    /// What was gone before it could be read, the newest find.
    pub(crate) gap: Option<String>,
}

#[derive(Debug)]
struct Face {
    gated: bool,
    draining: bool,
    lag: Option<Duration>,
    troubles: [Option<Trouble>; 3],
    waits_for: String,
    unacked_since: Option<Instant>,
    bad: VecDeque<v1::BadRecord>,
    reached: Reached,
    split_ended: bool,
    /// Batches with a span that are delivered.
    delivered: Vec<Span>,
}

impl Face {
    fn state(&self) -> v1::RunState {
        if self.draining {
            v1::RunState::Draining
        } else if self.troubles.iter().any(Option::is_some) {
            v1::RunState::Retrying
        } else if self.gated {
            v1::RunState::Gated
        } else {
            v1::RunState::Running
        }
    }
}

/// Shared between a run and the session.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) totals: Totals,
    face: Mutex<Face>,
    wake: Arc<Notify>,
}

impl Shown {
    pub(crate) fn new(start: Position, wake: Arc<Notify>) -> Arc<Self> {
        let reached = Reached { position: start, records: 0, caught_up_at: None, gap: None };
        Arc::new(Self {
            totals: Totals::default(),
            face: Mutex::new(Face {
                gated: true,
                draining: false,
                lag: None,
                troubles: [const { None }; 3],
                waits_for: String::new(),
                unacked_since: None,
                bad: VecDeque::new(),
                reached,
                split_ended: false,
                delivered: Vec::new(),
            }),
            wake,
        })
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn gate_opened(&self) {
        self.face().gated = false;
    }

    pub(crate) fn draining(&self) {
        self.face().draining = true;
    }

    pub(crate) fn lag(&self, lag: Duration) {
        self.face().lag = Some(lag);
    }

    pub(crate) fn trouble(&self, part: Part, trouble: Option<Trouble>) {
        self.face().troubles[part as usize] = trouble;
    }

    pub(crate) fn waits_for(&self, what: &str) {
        let mut face = self.face();
        if face.waits_for != what {
            what.clone_into(&mut face.waits_for);
        }
    }

    /// How the writer stands: since when its oldest chunk waits, and what for.
    pub(crate) fn writer(&self, unacked_since: Option<Instant>, waits_for: &str) {
        let mut face = self.face();
        face.unacked_since = unacked_since;
        if face.waits_for != waits_for {
            waits_for.clone_into(&mut face.waits_for);
        }
    }

    /// The reader saw the end: the session says so at once.
    pub(crate) fn split_ended(&self) {
        self.face().split_ended = true;
        self.wake.notify_one();
    }

    /// True once, after the reader saw the end.
    pub(crate) fn take_split_ended(&self) -> bool {
        std::mem::take(&mut self.face().split_ended)
    }

    /// Where the run really starts, when the destination knows better than the checkpoint.
    pub(crate) fn starts_at(&self, position: Position) {
        self.face().reached.position = position;
    }

    /// The prefix moved. The end of a split does not wait for the checkpoint interval.
    pub(crate) fn reach(&self, position: Position, records: u64, caught_up_at: Option<Timestamp>) {
        let is_end = position.is_end();
        let mut face = self.face();
        face.reached.position = position;
        face.reached.records += records;
        face.reached.caught_up_at = caught_up_at.or(face.reached.caught_up_at);
        drop(face);
        self.totals.delivered.fetch_add(records, Ordering::Relaxed);
        if is_end {
            self.wake.notify_one();
        }
    }

    /// All of these batches is delivered; told before the position that covers them.
    pub(crate) fn delivered(&self, batches: Vec<Span>) {
        if !batches.is_empty() {
            let mut face = self.face();
            // Nobody asks while there is no leader; then the oldest end here.
            let over = (face.delivered.len() + batches.len()).saturating_sub(DELIVERED_MAX);
            let over = over.min(face.delivered.len());
            face.delivered.drain(..over);
            face.delivered.extend(batches);
        }
    }

    /// The batches that were delivered since this was asked last.
    pub(crate) fn take_delivered(&self) -> Vec<Span> {
        std::mem::take(&mut self.face().delivered)
    }

    pub(crate) fn reached(&self) -> Reached {
        self.face().reached.clone()
    }

    /// Keeps a bad record for the next report.
    pub(crate) fn bad(&self, cursor: &Cursor, error: &str, sample: &[u8], policy: &str) {
        let mut face = self.face();
        if face.bad.len() >= BAD_MAX {
            face.bad.pop_front();
        }
        face.bad.push_back(v1::BadRecord {
            cursor: cursor.as_str().to_owned(),
            error: error.to_owned(),
            sample: sample[..sample.len().min(SAMPLE_MAX)].to_vec(),
            at_ms: chrono::Utc::now().timestamp_millis(),
            policy: policy.to_owned(),
        });
    }

    /// The bad records that no report has told of.
    pub(crate) fn take_bad(&self) -> Vec<v1::BadRecord> {
        self.face().bad.drain(..).collect()
    }

    /// Records were gone before they could be read: said with every position from now on.
    pub(crate) fn gap(&self, gap: String) {
        self.face().reached.gap = Some(gap);
    }

    /// One word for how it is, and whether there are bad records to tell of.
    pub(crate) fn state(&self) -> (v1::RunState, bool) {
        let face = self.face();
        (face.state(), !face.bad.is_empty())
    }

    /// Everything but identity and rates. Bad records are handed out once.
    pub(crate) fn report(&self, now: Instant) -> v1::Report {
        v1::Report { bad: self.take_bad(), ..self.look(now) }
    }

    /// The same without bad records.
    pub(crate) fn look(&self, now: Instant) -> v1::Report {
        let face = self.face();
        let trouble = face.troubles.iter().flatten().next().cloned();
        let state = face.state();
        let total = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let until = |at: Instant| wire_duration(at.saturating_duration_since(now));
        let since = |at: Instant| wire_duration(now.saturating_duration_since(at));
        v1::Report {
            state: state.into(),
            lag_ms: face.lag.map(|lag| {
                // What is read but not delivered is behind too, however new the last answer of the source was.
                let waits = face.unacked_since.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                u64::try_from(lag.max(waits).as_millis()).unwrap_or(u64::MAX)
            }),
            error: trouble.as_ref().map(|t| t.error.clone()).unwrap_or_default(),
            error_kind: trouble.as_ref().map(|t| t.kind.to_owned()).unwrap_or_default(),
            next_retry: trouble.map(|t| until(t.retry_at)),
            waits_for: face.waits_for.clone(),
            oldest_unacked: face.unacked_since.map(since),
            records_read: total(&self.totals.read),
            records_delivered: total(&self.totals.delivered),
            records_skipped: total(&self.totals.skipped),
            records_dead_lettered: total(&self.totals.dead_lettered),
            ..v1::Report::default()
        }
    }
}

/// A duration as the wire has it.
fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
