//! Records to chunks: decoding, the sink's `SELECT … WHERE`, the hashes of keys, and what becomes of records that are not what
//! they should be (`on_error`). Nothing here waits.
//!
//! A bad record travels with its chunk: skipped and counted, put into the dead letters before the chunk is acked, or fatal;
//! then the chunk ends before it, and so does the position (I1).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use formats::Decoder;
use logic::outbox::Order;
use model::{Batch, Cursor, OnError, Ops, Position, RawRecord};
use opentelemetry::KeyValue;
use sql::Projection;

use super::{
    chunk::{Chunk, Failure, Letter},
    job::Job,
    keys::KeyHasher,
    refusal::sample,
};
use crate::budget::Reservation;

/// Rows after which a chunk is handed on: enough to be cheap, few enough to keep everyone busy.
pub(crate) const CHUNK_ROWS: usize = 2048;

/// Builds chunks out of the records of one split.
pub(crate) struct Stage {
    job: Arc<Job>,
    decoder: Box<dyn Decoder>,
    projection: Option<Projection>,
    hasher: Option<KeyHasher>,
    keep_raw: bool,
    at: Position,
    /// Values that became NULL, of what was handed on.
    bad_values: u64,
    open: Open,
}

/// The chunk under construction.
#[derive(Default)]
struct Open {
    cursors: Vec<Cursor>,
    sizes: Vec<u32>,
    raw: Vec<RawRecord>,
    letters: Vec<Letter>,
    records: u64,
    bytes: u64,
    /// The last record, if it did not become a row.
    last_bad: Option<Cursor>,
    /// One record with values that became NULL is a sample for all of its chunk.
    tells_of_null: bool,
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
        let wanted = projection.as_ref().map(Projection::inputs);
        let decoder = formats::decoder(source, wanted).map_err(|e| config(e.to_string()))?;
        Ok(Self {
            job: Arc::clone(job),
            decoder,
            projection,
            hasher: None,
            keep_raw: job.sink.letters.is_some(),
            at,
            bad_values: 0,
            open: Open::default(),
        })
    }

    /// The position after everything handed on.
    pub(crate) fn position(&self) -> &Position {
        &self.at
    }

    /// Nothing but this position came after what was handed on.
    pub(crate) fn pass(&mut self, cursor: Cursor) {
        debug_assert_eq!(self.open.records, 0, "a chunk is handed on before the position moves past it");
        self.at = Position::After(cursor);
    }

    /// True when enough is there for a chunk.
    pub(crate) fn is_full(&self) -> bool {
        self.decoder.len() >= CHUNK_ROWS || self.open.letters.len() >= CHUNK_ROWS
    }

    /// Takes the next record. A failure means that the run must end before it.
    pub(crate) fn push(&mut self, record: RawRecord) -> Result<(), Failure> {
        let decoded = self.decoder.decode(&record, &self.job.split);
        if let Err(malformed) = decoded {
            self.malformed(&record, malformed.message)?;
            self.open.records += 1;
            self.open.bytes += record.size() as u64;
            self.open.last_bad = Some(record.cursor);
            return Ok(());
        }
        if !self.open.tells_of_null && self.decoder.bad_values() > self.bad_values {
            self.open.tells_of_null = true;
            let error = "a value does not fit its column and became NULL";
            self.job.shown.bad(&record.cursor, error, &record.payload, "null");
        }
        self.open.records += 1;
        self.open.bytes += record.size() as u64;
        self.open.last_bad = None;
        let size = record.payload.len() + record.key.len();
        self.open.sizes.push(u32::try_from(size).unwrap_or(u32::MAX));
        if self.keep_raw {
            self.open.cursors.push(record.cursor.clone());
            self.open.raw.push(record);
        } else {
            // Moved, not cloned: a cursor is text, and there is one per record.
            self.open.cursors.push(record.cursor);
        }
        Ok(())
    }

    fn malformed(&mut self, record: &RawRecord, error: String) -> Result<(), Failure> {
        let policy = self.job.source.spec.on_error;
        self.job.count_poison(policy, "malformed");
        self.job.shown.bad(&record.cursor, &error, &record.payload, policy_name(policy));
        match policy {
            OnError::Skip => {
                self.job.shown.totals.skipped.fetch_add(1, Relaxed);
                Ok(())
            }
            OnError::DeadLetter => {
                self.open.letters.push(Letter { record: record.clone(), error });
                Ok(())
            }
            OnError::Fail => Err(Failure {
                error: format!("record {} of split `{}`: {error}", record.cursor, self.job.split),
                kind: "rejected",
            }),
        }
    }

    /// What was pushed since the last cut, as a chunk, with its part of the reservation. With a failure the chunk, if there
    /// is one, holds what comes before it.
    pub(crate) fn cut(&mut self, reservation: &mut Reservation) -> (Option<Chunk>, Option<Failure>) {
        let mut open = std::mem::take(&mut self.open);
        let Some(last) = open.last_bad.take().or_else(|| open.cursors.last().cloned()) else {
            return (None, None);
        };
        let rows = self.decoder.finish();
        let bad_values = self.decoder.bad_values();
        self.job.count_nulls(bad_values - std::mem::replace(&mut self.bad_values, bad_values));
        let mut chunk = Chunk {
            records: open.records,
            reservation: Some(reservation.split(open.bytes)),
            raw: open.raw,
            letters: open.letters,
            sizes: open.sizes,
            ..Chunk::empty(Position::After(last))
        };
        if rows.num_rows() == 0 {
            self.at = chunk.after.clone();
            return (Some(chunk), None);
        }
        let input = Batch { rows, ops: Ops::Inserts, cursors: open.cursors };
        let failure = match self.project(input, &mut chunk) {
            Ok(failure) => failure,
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
        if !matches!(self.job.sink.order(), Order::Key | Order::Single) {
            return Ok(());
        }
        let config =
            |e: arrow::error::ArrowError| Failure { error: format!("primary key: {e}"), kind: "config" };
        if self.hasher.is_none() {
            let names = &self.job.sink.spec.primary_key;
            self.hasher = Some(KeyHasher::new(&batch.rows.schema(), names).map_err(config)?);
        }
        if let Some(hasher) = &self.hasher {
            chunk.keys = hasher.hash(&batch.rows).map_err(config)?;
        }
        Ok(())
    }
}

impl Job {
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
