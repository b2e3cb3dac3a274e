//! Rows that the destination refused, until it is clear that it means it: each is tried a few times before `on_error` decides
//! (docs/kinesis.md 3.10). An outage in between is no attempt.
//!
//! Meanwhile their request counts as under way, so nothing newer of their keys is sent, and what landed beside them is not sent
//! again. A row that lands after all makes the later rows of its key go again (`logic::outbox::Failure::Late`).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use arrow::{array::AsArray as _, util::display::array_value_to_string};
use logic::{
    ack::ChunkId,
    outbox::{Failure as Again, Outbox, Outcome, RequestId, Row},
};
use model::Batch;
use tokio::time::Instant;

use super::{intake::Intake, shown::SAMPLE_MAX, writer::Writer};

/// How often a row, or a dead letter, is refused before that is believed.
pub(crate) const REFUSALS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait before a row is tried once more that was refused so often.
pub(crate) fn pause_after_refusal(times: u32) -> Duration {
    PAUSE * (1 << times.saturating_sub(1).min(8))
}

/// Rows of one request (by index), all of the others landed.
type Failed = BTreeMap<usize, Again>;

/// A request whose refused rows are tried once more.
pub(super) struct Doubt {
    failed: Failed,
    /// Those of them that are tried.
    pub(super) asked: Vec<usize>,
    /// When; `None` while that is under way.
    due: Option<Instant>,
}

/// What a row was refused with so far.
struct Refusal {
    times: u32,
    error: String,
}

/// The refused rows of a run.
#[derive(Default)]
pub(super) struct Refusals {
    doubts: HashMap<RequestId, Doubt>,
    rows: HashMap<(u64, u32), Refusal>,
}

impl Refusals {
    /// A row was refused: the how-many-th time is kept.
    pub(super) fn refused(&mut self, row: Row, error: String) {
        let refusal =
            self.rows.entry((row.chunk.0, row.index)).or_insert(Refusal { times: 0, error: String::new() });
        refusal.times += 1;
        refusal.error = error;
    }

    /// Nothing more needs to be known of a row: why it was refused, if it was.
    pub(super) fn forget(&mut self, row: Row) -> Option<String> {
        if self.rows.is_empty() {
            return None;
        }
        self.rows.remove(&(row.chunk.0, row.index)).map(|refusal| refusal.error)
    }

    fn times(&self, row: Row) -> u32 {
        self.rows.get(&(row.chunk.0, row.index)).map_or(0, |refusal| refusal.times)
    }

    /// The doubt that an answer belongs to.
    pub(super) fn answered(&mut self, id: RequestId) -> Option<Doubt> {
        self.doubts.remove(&id)
    }

    /// Requests of which nothing is under way right now.
    pub(super) fn waiting(&self) -> usize {
        self.doubts.values().filter(|doubt| doubt.due.is_some()).count()
    }

    /// When the next rows are tried once more.
    pub(super) fn due(&self) -> Option<Instant> {
        self.doubts.values().filter_map(|doubt| doubt.due).min()
    }
}

impl<I: Intake> Writer<I> {
    /// What came of a request, now that `failed` of the rows that were `asked` did not land. `None`: some are tried once more.
    pub(super) fn decide(
        &mut self,
        id: RequestId,
        doubt: Option<Doubt>,
        failed: Vec<(usize, Again)>,
    ) -> Option<Outcome> {
        let mut all: Failed = BTreeMap::new();
        if let Some(doubt) = doubt {
            all = doubt.failed;
            all.extend(doubt.asked.iter().map(|row| (*row, Again::Late)));
        }
        all.extend(failed);
        let times =
            |row: usize| self.pile.outbox.row(id, row).map_or(REFUSALS_MAX, |row| self.refusals.times(row));
        let is_open =
            |(row, failure): &(&usize, &Again)| **failure == Again::Refused && times(**row) < REFUSALS_MAX;
        let asked: Vec<usize> = all.iter().filter(is_open).map(|(row, _)| *row).collect();
        let outage = all.values().any(|failure| matches!(failure, Again::Again | Again::Unknown))
            || asked.iter().any(|row| self.pile.outbox.is_given_up(id, *row));
        if asked.is_empty() || outage || self.settling {
            for row in asked {
                all.insert(row, Again::Again);
            }
            return Some(Outcome::Answered(all.into_iter().collect()));
        }
        let times = asked.iter().map(|row| times(*row)).max().unwrap_or(1);
        let due = Some(Instant::now() + pause_after_refusal(times));
        self.refusals.doubts.insert(id, Doubt { failed: all, asked, due });
        None
    }

    /// The rows of a request that are due to be tried once more; they count as under way from now on.
    pub(super) fn ask_again(&mut self) -> Option<(RequestId, Vec<Row>)> {
        if self.retry_at.is_some() {
            return None;
        }
        let now = Instant::now();
        let due = |doubt: &Doubt| doubt.due.is_some_and(|at| at <= now);
        let (id, doubt) = self.refusals.doubts.iter_mut().find(|(_, doubt)| due(doubt))?;
        doubt.due = None;
        let id = *id;
        let rows = doubt.asked.iter().filter_map(|row| self.pile.outbox.row(id, *row)).collect();
        self.pile.outbox.restart(id, self.now());
        Some((id, rows))
    }

    /// The run ends: what waits to be tried once more is left to the next one.
    pub(super) fn give_up_doubts(&mut self) {
        self.settling = true;
        self.leave(|_, _| true);
    }

    /// Some rows may have been given up: requests whose doubts are about such are over.
    pub(super) fn leave_given_up(&mut self) {
        if self.refusals.rows.is_empty() {
            return;
        }
        self.leave(|outbox, (id, doubt)| doubt.asked.iter().any(|row| outbox.is_given_up(id, *row)));
        let held = &self.pile.held;
        self.refusals.rows.retain(|(chunk, _), _| held.get(ChunkId(*chunk)).is_some());
    }

    fn leave(&mut self, which: impl Fn(&Outbox, (RequestId, &Doubt)) -> bool) {
        let outbox = &self.pile.outbox;
        let waits = |(id, doubt): &(&RequestId, &Doubt)| doubt.due.is_some() && which(outbox, (**id, *doubt));
        let waiting: Vec<RequestId> = self.refusals.doubts.iter().filter(waits).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(doubt) = self.refusals.answered(id) else { continue };
            let failed = doubt.asked.iter().map(|row| (*row, Again::Again)).collect();
            if let Some(outcome) = self.decide(id, Some(doubt), failed) {
                self.conclude(id, &outcome, None);
            }
        }
    }
}

/// The beginning of a row whose record was not kept, as `column=value, …`.
pub(super) fn sample(batch: &Batch, row: usize) -> Vec<u8> {
    let mut sample = Vec::new();
    for (field, column) in batch.rows.schema_ref().fields().iter().zip(batch.rows.columns()) {
        if sample.len() >= SAMPLE_MAX {
            break;
        }
        if !sample.is_empty() {
            sample.extend_from_slice(b", ");
        }
        sample.extend_from_slice(field.name().as_bytes());
        sample.push(b'=');
        match column.as_binary_view_opt().filter(|_| column.is_valid(row)) {
            Some(bytes) => sample.extend(bytes.value(row).iter().take(SAMPLE_MAX)),
            None => {
                sample.extend(array_value_to_string(column, row).unwrap_or_default().bytes().take(SAMPLE_MAX))
            }
        }
    }
    sample.truncate(SAMPLE_MAX);
    sample
}
