//! What the answer to a request means. The kind of an error decides: an outage is waited for, however long; only what the
//! destination *looked at and refused* meets `on_error`; a newer epoch or a broken promise ends the run.

use std::sync::atomic::Ordering::Relaxed;

use connector::{Error, ErrorKind, Rejected};
use logic::{
    mutant,
    outbox::{Failure as Again, Outcome, RequestId, Row},
};
use model::OnError;
use opentelemetry::KeyValue;
use tokio::time::Instant;

use super::{
    chunk::{Failure, Letter},
    decode::policy_name,
    held::Kept,
    intake::Intake,
    refusal::sample,
    shown::{Part, Trouble},
    writer::{UnderWay, Verdict, Writer},
};

impl<I: Intake> Writer<I> {
    /// Acks what is durable, keeps the rest. A failure means that the run must end.
    pub(super) fn resolve(&mut self, id: RequestId, verdict: Verdict) -> Option<Failure> {
        self.answered(id, &verdict);
        let doubt = self.refusals.answered(id);
        if doubt.is_none() && matches!(&verdict, Verdict::Answered(refused) if refused.is_empty()) {
            return self.conclude(id, &Outcome::Answered(Vec::new()), None);
        }
        let asked: Vec<usize> = match &doubt {
            Some(doubt) => doubt.asked.clone(),
            None => (0..self.pile.outbox.rows(id)).collect(),
        };
        // Of several rows that are refused together it is not known yet which one is meant, unless each was refused before.
        let meant = doubt.is_some() || asked.len() == 1;
        let (outcome, stop) = self.read(id, verdict, &asked, meant);
        let each = |failure| asked.iter().map(|row| (*row, failure)).collect();
        let failed = match outcome {
            Outcome::Answered(failed) => failed,
            whole if !meant => return self.conclude(id, &whole, stop),
            Outcome::NotSent => each(Again::Again),
            Outcome::Unknown => each(Again::Unknown),
            Outcome::Refused => each(Again::Refused),
        };
        match self.decide(id, doubt, failed) {
            Some(outcome) => self.conclude(id, &outcome, stop),
            None => stop,
        }
    }

    /// A request is not under way any more.
    fn answered(&mut self, id: RequestId, verdict: &Verdict) {
        let metrics = &self.tenure.commons.metrics;
        metrics.sink_inflight.add(-1, &self.label);
        let Some(UnderWay { began, span }) = self.under_way.remove(&id) else { return };
        metrics.sink_flush.record(began.elapsed().as_secs_f64(), &self.label);
        let Some(span) = span else { return };
        match verdict {
            Verdict::Answered(refused) if refused.is_empty() => {}
            Verdict::Answered(refused) => {
                let text = format!("{} rows were not taken", refused.len());
                span.failed(refused[0].error.kind().as_str(), text);
            }
            Verdict::Error(error) => span.failed(error.kind().as_str(), error.to_string()),
            Verdict::TimedOut => span.failed("timeout", "no answer within the time of one attempt"),
        }
        span.end();
    }

    /// It is clear what came of a request.
    pub(super) fn conclude(
        &mut self,
        id: RequestId,
        outcome: &Outcome,
        mut stop: Option<Failure>,
    ) -> Option<Failure> {
        let all_well = matches!(outcome, Outcome::Answered(failed) if failed.is_empty());
        let resolved = self.pile.outbox.resolve(id, outcome);
        self.count(resolved.done.len(), resolved.refused.len(), resolved.again);
        for rows in resolved.done.chunk_by(|a, b| a.chunk == b.chunk) {
            rows.iter().for_each(|row| _ = self.refusals.forget(*row));
            self.intake.acked(rows[0].chunk, rows.len());
        }
        if all_well && self.retry_at.is_none() && self.retry.worked() {
            self.tenure.shown.trouble(Part::Sink, None);
        }
        for row in resolved.refused {
            let error = self.refusals.forget(row).unwrap_or_else(|| "refused".to_owned());
            stop = stop.or(self.poison(row, error));
        }
        stop
    }

    /// What an attempt to send these rows of a request came to; `meant`: a refusal of all is one of each.
    fn read(
        &mut self,
        id: RequestId,
        verdict: Verdict,
        asked: &[usize],
        meant: bool,
    ) -> (Outcome, Option<Failure>) {
        match verdict {
            Verdict::Answered(refused) => self.rows_refused(id, refused, asked),
            Verdict::TimedOut => {
                let text = "no answer within the time of one attempt";
                (Outcome::Unknown, self.trouble(&Error::new(ErrorKind::Unavailable, text)))
            }
            Verdict::Error(error)
                if error.kind() == ErrorKind::Rejected || mutant::on("outage_uses_attempts") =>
            {
                for place in asked.iter().filter(|_| meant).filter_map(|row| self.pile.outbox.row(id, *row)) {
                    self.refusals.refused(place, error.to_string());
                }
                (Outcome::Refused, None)
            }
            Verdict::Error(error) => {
                let outcome = if error.ambiguous().is_some() { Outcome::Unknown } else { Outcome::NotSent };
                (outcome, self.trouble(&error))
            }
        }
    }

    fn count(&self, done: usize, refused: usize, again: usize) {
        let metrics = &self.tenure.commons.metrics;
        let [sink] = self.label.clone();
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
        asked: &[usize],
    ) -> (Outcome, Option<Failure>) {
        let (mut failed, mut stop, mut worst): (Vec<(usize, Again)>, _, Option<Error>) = (vec![], None, None);
        for Rejected { row, error } in refused {
            let place = asked.get(row).and_then(|row| Some((*row, self.pile.outbox.row(id, *row)?)));
            let Some((row, place)) = place else {
                let error = format!("the sink refused row {row} of a request that has no such row: {error}");
                return (Outcome::Unknown, Some(Failure { error, kind: "bug" }));
            };
            let code = error.vendor_code().unwrap_or(error.kind().as_str()).to_owned();
            let labels = [self.label[0].clone(), KeyValue::new("code", code)];
            self.tenure.commons.metrics.sink_partial_failures.add(1, &labels);
            if error.kind() == ErrorKind::Rejected {
                self.refusals.refused(place, error.to_string());
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

    /// Something outside makes the run wait, or ends it.
    pub(super) fn trouble(&mut self, error: &Error) -> Option<Failure> {
        let kind = error.kind();
        match kind {
            ErrorKind::Fenced => self.tenure.commons.metrics.fenced_writes.add(1, &[]),
            ErrorKind::Bug => {}
            _ => {
                // Many requests fail together in an outage: they count as one failure.
                if self.retry_at.is_none() {
                    let pause = self.retry.failed(kind);
                    let retry_at = Instant::now() + pause;
                    self.retry_at = Some(retry_at);
                    tracing::debug!(task = %self.tenure.task, %error, ?pause, "the destination makes the writer wait");
                    let trouble = Trouble { error: error.to_string(), kind: kind.as_str(), retry_at };
                    self.tenure.shown.trouble(Part::Sink, Some(trouble));
                }
                return None;
            }
        }
        Some(Failure { error: error.to_string(), kind: kind.as_str() })
    }

    /// A row that the destination refused has left the outbox: `on_error` decides.
    fn poison(&mut self, row: Row, error: String) -> Option<Failure> {
        // Not if it was given up meanwhile: a newer run of its split brings it again (P21).
        let Kept { split, chunk, .. } = self.pile.held.get(row.chunk)?;
        let split = split.clone();
        let policy = self.tenure.sink.common.on_error;
        self.tenure.count_poison(policy, "rejected");
        let index = row.index as usize;
        let record = chunk.raw_of(index).cloned();
        let cursor = chunk.cursor(index)?.clone();
        let sample = match (&record, &chunk.batch) {
            (Some(record), _) => record.payload.to_vec(),
            (None, Some(batch)) => sample(batch, index),
            (None, None) => Vec::new(),
        };
        let of =
            if self.tenure.task.split().is_some() { String::new() } else { format!("split `{split}`: ") };
        self.tenure.shown.bad(&cursor, &format!("{of}{error}"), &sample, policy_name(policy));
        match (policy, record) {
            (OnError::DeadLetter, Some(record)) if self.pile.letters.takes_rows() => {
                if mutant::on("dead_letter_after_ack") {
                    self.intake.acked(row.chunk, 1);
                }
                self.pile.letters.of_sink(row.chunk, &split, vec![Letter { record, error }]);
            }
            (OnError::Skip, ..) => {
                self.tenure.shown.totals.skipped.fetch_add(1, Relaxed);
                self.intake.acked(row.chunk, 1);
            }
            _ => {
                let error = format!("record {cursor} of split `{split}` was refused: {error}");
                let failure = Failure { error, kind: "rejected" };
                let failure = self.intake.refused(row.chunk, failure, &mut self.pile);
                self.leave_given_up();
                return failure;
            }
        }
        None
    }
}
