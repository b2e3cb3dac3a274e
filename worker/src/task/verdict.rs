//! What the answer to a request means. The kind of an error decides: an outage is waited for, however long; only what the
//! destination *looked at and refused* meets `on_error`; a newer epoch or a broken promise ends the run.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

use connector::{Error, ErrorKind, Rejected};
use logic::outbox::{Failure as Again, Outcome, RequestId, Row};
use model::OnError;
use opentelemetry::KeyValue;
use tokio::time::Instant;

use super::{
    chunk::{Failure, Letter},
    decode::policy_name,
    shown::{Part, Trouble},
    writer::{Verdict, Writer},
};

impl Writer {
    /// Acks what is durable, keeps the rest. A failure means that the run must end.
    pub(super) fn resolve(&mut self, id: RequestId, verdict: Verdict) -> Option<Failure> {
        self.job.commons.metrics.sink_inflight.add(-1, &[]);
        let mut errors = HashMap::new();
        let (outcome, mut stop) = match verdict {
            Verdict::Answered(refused) if refused.is_empty() => (Outcome::Answered(Vec::new()), None),
            Verdict::Answered(refused) => self.rows_refused(id, refused, &mut errors),
            Verdict::TimedOut => {
                let text = "no answer within the time of one attempt";
                (Outcome::Unknown, self.trouble(&Error::new(ErrorKind::Unavailable, text)))
            }
            Verdict::Error(error) => self.all_refused(id, error, &mut errors),
        };
        let all_well = matches!(&outcome, Outcome::Answered(failed) if failed.is_empty());
        let resolved = self.outbox.resolve(id, &outcome);
        self.count(resolved.done.len(), resolved.refused.len(), resolved.again);
        for rows in resolved.done.chunk_by(|a, b| a.chunk == b.chunk) {
            self.acks.ack(rows[0].chunk, rows.len());
        }
        if all_well && self.retry_at.is_none() && self.retry.worked() {
            self.job.shown.trouble(Part::Sink, None);
        }
        for row in resolved.refused {
            let error = errors.remove(&(row.chunk, row.index)).unwrap_or_else(|| "refused".to_owned());
            stop = stop.or(self.poison(row, error));
        }
        stop
    }

    fn count(&self, done: usize, refused: usize, again: usize) {
        let metrics = &self.job.commons.metrics;
        let sink = KeyValue::new("sink", self.job.sink.spec.name.clone());
        for (result, rows) in [("delivered", done), ("rejected", refused)] {
            if rows > 0 {
                metrics.sink_records.add(rows as u64, &[sink.clone(), KeyValue::new("result", result)]);
            }
        }
        if again > 0 {
            metrics.sink_retry_records.add(again as u64, &[sink]);
        }
    }

    fn rows_refused(
        &mut self,
        id: RequestId,
        refused: Vec<Rejected>,
        errors: &mut HashMap<(logic::ack::ChunkId, u32), String>,
    ) -> (Outcome, Option<Failure>) {
        let (mut failed, mut stop, mut worst): (Vec<(usize, Again)>, _, Option<Error>) = (vec![], None, None);
        for Rejected { row, error } in refused {
            let Some(place) = self.outbox.row(id, row) else {
                let error = format!("the sink refused row {row} of a request that has no such row: {error}");
                return (Outcome::Unknown, Some(Failure { error, kind: "bug" }));
            };
            if error.kind() == ErrorKind::Rejected {
                errors.insert((place.chunk, place.index), error.to_string());
                failed.push((row, Again::Refused));
                continue;
            }
            failed.push((row, if error.ambiguous().is_some() { Again::Unknown } else { Again::Again }));
            // One pause for the whole answer: the first row that was not merely throttled decides.
            if worst.as_ref().is_none_or(|w| w.kind() == ErrorKind::Throttled) {
                worst = Some(error);
            }
        }
        if let Some(error) = worst {
            stop = self.trouble(&error);
        }
        (Outcome::Answered(failed), stop)
    }

    fn all_refused(
        &mut self,
        id: RequestId,
        error: Error,
        errors: &mut HashMap<(logic::ack::ChunkId, u32), String>,
    ) -> (Outcome, Option<Failure>) {
        if error.kind() == ErrorKind::Rejected {
            if let Some(place) = self.outbox.row(id, 0) {
                errors.insert((place.chunk, place.index), error.to_string());
            }
            return (Outcome::Refused, None);
        }
        let outcome = if error.ambiguous().is_some() { Outcome::Unknown } else { Outcome::NotSent };
        (outcome, self.trouble(&error))
    }

    /// Something outside makes the run wait, or ends it.
    pub(super) fn trouble(&mut self, error: &Error) -> Option<Failure> {
        let kind = error.kind();
        match kind {
            ErrorKind::Fenced => self.job.commons.metrics.fenced_writes.add(1, &[]),
            ErrorKind::Bug => {}
            _ => {
                // Many requests fail together in an outage: they count as one failure.
                if self.retry_at.is_none() {
                    let pause = self.retry.failed(kind);
                    let retry_at = Instant::now() + pause;
                    self.retry_at = Some(retry_at);
                    tracing::debug!(task = %self.job.task, %error, ?pause, "the destination makes the writer wait");
                    let trouble = Trouble { error: error.to_string(), kind: kind.as_str(), retry_at };
                    self.job.shown.trouble(Part::Sink, Some(trouble));
                }
                return None;
            }
        }
        Some(Failure { error: error.to_string(), kind: kind.as_str() })
    }

    /// A row that the destination refused has left the outbox: `on_error` decides.
    fn poison(&mut self, row: Row, error: String) -> Option<Failure> {
        let policy = self.job.sink.common.on_error;
        self.job.count_poison(policy, "rejected");
        let chunk = self.held.get(row.chunk)?;
        let index = row.index as usize;
        let record = chunk.raw_of(index).cloned();
        let cursor = chunk.cursor(index)?.clone();
        let sample = record.as_ref().map(|r| r.payload.clone()).unwrap_or_default();
        self.job.shown.bad(&cursor, &error, &sample, policy_name(policy));
        match (policy, record, &mut self.sink_letters) {
            (OnError::DeadLetter, Some(record), Some(desk)) => desk.push(row.chunk, Letter { record, error }),
            (OnError::Skip, ..) => {
                self.job.shown.totals.skipped.fetch_add(1, Relaxed);
                self.acks.ack(row.chunk, 1);
            }
            _ => {
                let split = &self.job.task.split;
                let error = format!("record {cursor} of split `{split}` was refused: {error}");
                return Some(Failure { error, kind: "rejected" });
            }
        }
        None
    }
}
