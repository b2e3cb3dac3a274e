//! Pieces to chunks: the sink's `SELECT … WHERE`, the hashes of keys, and what becomes of records that are not what they should
//! be (`on_error`). The rows of a piece were made for all sinks that read it together; all that is here is one sink's own.
//! Nothing here waits.
//!
//! A bad record travels with its chunk: skipped and counted, put into the dead letters before the chunk is acked, or fatal;
//! then the chunk ends before it, and so does the position (I1).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use model::{Batch, Cursor, OnError, Ops, Position};
use opentelemetry::KeyValue;
use sql::Projection;

use super::{
    chunk::{Chunk, Failure, Letter},
    job::{Job, Tenure},
    keys::KeyHasher,
    refusal::sample,
};
use crate::{
    budget::Portion,
    reading::{Piece, Rows, Wants},
};

/// Builds chunks out of the records of one split.
pub(crate) struct Stage {
    job: Arc<Job>,
    wants: Wants,
    projection: Option<Projection>,
    hasher: Option<KeyHasher>,
    keep_raw: bool,
    at: Position,
}

impl Stage {
    pub(crate) fn new(job: &Arc<Job>, at: Position) -> Result<Self, Failure> {
        let (source, sink) = (&job.source.spec, &job.sink.spec);
        let config = |error: String| Failure { error, kind: "config" };
        if source.on_error == OnError::DeadLetter
            && job.source.letters.is_none()
            && job.sink.letters.is_none()
        {
            let name = &source.name;
            return Err(config(format!(
                "source `{name}` has on_error 'dead_letter' but no dead_letter.connector"
            )));
        }
        let projection = match &sink.query {
            Some(query) => {
                let columns: Vec<_> = source.all_columns().cloned().collect();
                Some(Projection::compile(query, &columns).map_err(|e| config(e.to_string()))?)
            }
            None => None,
        };
        let inputs = projection.as_ref().map(|projection| projection.inputs().into());
        let wants = inputs.map_or(Wants::All, Wants::Some);
        // Whether there can be one at all.
        wants.decoder(source).map_err(|e| config(e.to_string()))?;
        Ok(Self {
            job: Arc::clone(job),
            wants,
            projection,
            hasher: None,
            keep_raw: job.sink.letters.is_some(),
            at,
        })
    }

    /// The columns of the source that it needs.
    pub(crate) fn wants(&self) -> Wants {
        self.wants.clone()
    }

    /// The position after everything handed on.
    pub(crate) fn position(&self) -> &Position {
        &self.at
    }

    /// Nothing but this position came after what was handed on.
    pub(crate) fn pass(&mut self, cursor: Cursor) {
        self.at = Position::After(cursor);
    }

    /// The next piece as a chunk. With a failure the chunk, if there is one, holds what comes before it.
    pub(crate) fn take(
        &mut self,
        piece: &Piece,
        rows: &Rows,
        portion: Portion,
    ) -> (Option<Chunk>, Option<Failure>) {
        let (letters, malformed) = self.malformed(piece, rows);
        let end = malformed.as_ref().map_or(piece.records.len(), |(index, _)| *index);
        let malformed = malformed.map(|(_, failure)| failure);
        let Some(last) = piece.records[..end].last() else { return (None, malformed) };
        self.nulls(piece, rows, end);
        let mut chunk = Chunk {
            records: end as u64,
            portion: Some(portion),
            raw: if self.keep_raw { piece.records[..end].to_vec() } else { Vec::new() },
            letters,
            sizes: rows.sizes.clone(),
            ..Chunk::empty(Position::After(last.cursor.clone()))
        };
        let mut input = Batch { rows: rows.rows.clone(), ops: Ops::Inserts, cursors: rows.cursors.clone() };
        if malformed.is_some() {
            // No record before the first bad one is missing among the rows.
            input = head(&input, end);
            chunk.sizes.truncate(end);
        }
        if input.is_empty() {
            self.at = chunk.after.clone();
            return (Some(chunk), malformed);
        }
        let failure = match self.project(input, &mut chunk) {
            Ok(failure) => failure.or(malformed),
            Err(failure) => return (None, Some(failure)),
        };
        if let Err(failure) = self.hash_keys(&mut chunk) {
            return (None, Some(failure));
        }
        if failure.is_some() && chunk.records == 0 {
            return (None, failure);
        }
        self.at = chunk.after.clone();
        (Some(chunk), failure)
    }

    /// What becomes of the records that are no rows; with `fail`, the first of them and why the run ends before it.
    fn malformed(&self, piece: &Piece, rows: &Rows) -> (Vec<Letter>, Option<(usize, Failure)>) {
        let policy = self.job.source.spec.on_error;
        let mut letters = Vec::new();
        for (index, error) in &rows.malformed {
            let record = &piece.records[*index];
            self.job.count_poison(policy, "malformed");
            self.job.shown.bad(&record.cursor, error, &record.payload, policy_name(policy));
            match policy {
                OnError::Skip => {
                    self.job.shown.totals.skipped.fetch_add(1, Relaxed);
                }
                OnError::DeadLetter => {
                    letters.push(Letter { record: record.clone(), error: error.clone() });
                }
                OnError::Fail => {
                    let error = format!("record {} of split `{}`: {error}", record.cursor, self.job.split);
                    return (letters, Some((*index, Failure { error, kind: "rejected" })));
                }
            }
        }
        (letters, None)
    }

    /// Values that did not fit their column. One record that has one is a sample for all of its piece.
    fn nulls(&self, piece: &Piece, rows: &Rows, end: usize) {
        let Some(record) = rows.null_at.filter(|index| *index < end).map(|index| &piece.records[index])
        else {
            return;
        };
        self.job.count_nulls(rows.nulls);
        let error = "a value does not fit its column and became NULL";
        self.job.shown.bad(&record.cursor, error, &record.payload, "null");
    }

    /// Puts the projected rows into the chunk. `Ok(Some)`: the chunk ends before a row whose expressions fail.
    fn project(&mut self, input: Batch, chunk: &mut Chunk) -> Result<Option<Failure>, Failure> {
        let Some(projection) = &self.projection else {
            chunk.batch = Some(input);
            return Ok(None);
        };
        let broken = |error: String| Failure { error, kind: "bug" };
        let (mut out, mut bad) = projection.apply(input.clone()).map_err(|e| broken(e.to_string()))?;
        let policy = self.job.sink.common.on_error;
        let mut failure = None;
        if policy == OnError::Fail
            && let Some((row, error)) = bad.first().cloned()
        {
            let cursor = &input.cursors[row];
            self.job.count_poison(policy, "expression");
            self.job.shown.bad(cursor, &error, &sample(&input, row), policy_name(policy));
            let split = &self.job.split;
            failure = Some(Failure {
                error: format!("record {cursor} of split `{split}`: {error}"),
                kind: "rejected",
            });
            let before = head(&input, row);
            chunk.end_after(&before.cursors, &self.at);
            (out, bad) = projection.apply(before).map_err(|e| broken(e.to_string()))?;
        }
        for (row, error) in bad {
            self.refused_expression(&input, row, error, chunk);
        }
        chunk.sizes = sizes_of(&input.cursors, &chunk.sizes, &out.cursors);
        chunk.batch = Some(out);
        Ok(failure)
    }

    fn refused_expression(&self, input: &Batch, row: usize, error: String, chunk: &mut Chunk) {
        let cursor = &input.cursors[row];
        let policy = self.job.sink.common.on_error;
        self.job.count_poison(policy, "expression");
        let record = chunk.raw.iter().find(|r| r.cursor == *cursor).cloned();
        let sample = record.as_ref().map_or_else(|| sample(input, row), |record| record.payload.to_vec());
        self.job.shown.bad(cursor, &error, &sample, policy_name(policy));
        match record {
            Some(record) if policy == OnError::DeadLetter => {
                chunk.sink_letters.push(Letter { record, error });
            }
            _ => {
                self.job.shown.totals.skipped.fetch_add(1, Relaxed);
            }
        }
    }

    fn hash_keys(&mut self, chunk: &mut Chunk) -> Result<(), Failure> {
        let Some(batch) = &chunk.batch else { return Ok(()) };
        // Of rows that are sent on it is their partition that keeps the order.
        if self.job.partitions.is_none() {
            chunk.keys = self.job.sink.keys_of(&batch.rows, &mut self.hasher)?;
        }
        Ok(())
    }
}

impl Tenure {
    /// Values that did not fit their column.
    fn count_nulls(&self, values: u64) {
        if values > 0 {
            let labels = [
                KeyValue::new("sink", self.sink.spec.name.clone()),
                KeyValue::new("policy", "null"),
                KeyValue::new("reason", "value"),
            ];
            self.commons.metrics.poison.add(values, &labels);
        }
    }

    pub(crate) fn count_poison(&self, policy: OnError, reason: &'static str) {
        let labels = [
            KeyValue::new("sink", self.sink.spec.name.clone()),
            KeyValue::new("policy", policy_name(policy)),
            KeyValue::new("reason", reason),
        ];
        self.commons.metrics.poison.add(1, &labels);
    }
}

pub(crate) fn policy_name(policy: OnError) -> &'static str {
    match policy {
        OnError::Skip => "skip",
        OnError::Fail => "fail",
        OnError::DeadLetter => "dead_letter",
    }
}

fn head(batch: &Batch, rows: usize) -> Batch {
    Batch { rows: batch.rows.slice(0, rows), ops: batch.ops.clone(), cursors: batch.cursors[..rows].to_vec() }
}

/// The sizes of the rows that came through; both lists of cursors are in the order of the split.
fn sizes_of(before: &[Cursor], sizes: &[u32], after: &[Cursor]) -> Vec<u32> {
    if before.len() == after.len() {
        return sizes.to_vec();
    }
    let mut rows = before.iter().zip(sizes);
    after.iter().filter_map(|kept| rows.find(|(cursor, _)| *cursor == kept).map(|(_, size)| *size)).collect()
}
