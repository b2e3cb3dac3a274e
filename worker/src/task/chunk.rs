//! Decoded records between the reader and the writer of a run, and cutting requests out of them without copying rows where
//! that can be had.

use std::collections::VecDeque;

use arrow::{
    array::UInt64Array,
    compute::{concat_batches, take_record_batch},
    record_batch::RecordBatch,
};
use logic::{ack::ChunkId, outbox::Row};
use model::{Batch, Cursor, Op, Ops, Position, RawRecord, Timestamp};

use crate::budget::Portion;

/// What the reader hands to the writer, in the order of the split.
#[derive(Debug)]
pub(crate) enum Feed {
    Chunk(Box<Chunk>),
    /// The split is closed and everything in it was handed over.
    End,
    /// The run must end here, once everything before is delivered.
    Failed(Failure),
}

/// Why a run ends by itself.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    pub(crate) kind: &'static str,
}

/// Decoded records that follow one another.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Their rows; fewer than records where a `WHERE` or a policy took some out.
    pub(crate) batch: Option<Batch>,
    /// Size of each row.
    pub(crate) sizes: Vec<u32>,
    /// Hash of each row's key; empty when order does not ask for it.
    pub(crate) keys: Vec<u64>,
    /// The position once all of it is delivered.
    pub(crate) after: Position,
    /// Records of the source in it.
    pub(crate) records: u64,
    /// The memory it holds, perhaps with other sinks.
    pub(crate) portion: Option<Portion>,
    /// The records themselves, when a refused row must go to the dead letters.
    pub(crate) raw: Vec<RawRecord>,
    /// Records that could not be decoded and must be durable elsewhere before this chunk is done.
    pub(crate) letters: Vec<Letter>,
    /// The same for records whose expressions failed: they go where the sink's refused rows go.
    pub(crate) sink_letters: Vec<Letter>,
    /// Set when the chunk ends at the present of its split.
    pub(crate) caught_up_at: Option<Timestamp>,
}

/// A record on its way to the dead letters.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) record: RawRecord,
    pub(crate) error: String,
}

impl Chunk {
    /// One without rows and records, that only says how far things are.
    pub(crate) fn empty(after: Position) -> Self {
        Self {
            batch: None,
            sizes: Vec::new(),
            keys: Vec::new(),
            after,
            records: 0,
            portion: None,
            raw: Vec::new(),
            letters: Vec::new(),
            sink_letters: Vec::new(),
            caught_up_at: None,
        }
    }

    /// Keeps only the first rows: those before a record that the run must end at. `start` is the position before the chunk.
    /// Dead letters stay, also those of later records: they are then there twice.
    pub(crate) fn end_after(&mut self, rows: &[Cursor], start: &Position) {
        self.after = rows.last().map_or_else(|| start.clone(), |cursor| Position::After(cursor.clone()));
        self.records = rows.len() as u64;
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.as_ref().map_or(0, Batch::len)
    }

    /// The record that a row came from, if records were kept.
    pub(crate) fn raw_of(&self, row: usize) -> Option<&RawRecord> {
        let cursor = self.cursor(row)?;
        self.raw.iter().find(|record| record.cursor == *cursor)
    }

    pub(crate) fn cursor(&self, row: usize) -> Option<&Cursor> {
        self.batch.as_ref()?.cursors.get(row)
    }
}

/// Chunks that are not acked yet, by id.
#[derive(Debug, Default)]
pub(crate) struct Held {
    first: u64,
    chunks: VecDeque<Chunk>,
}

impl Held {
    pub(crate) fn push(&mut self, id: ChunkId, chunk: Chunk) {
        if self.chunks.is_empty() {
            self.first = id.0;
        }
        debug_assert_eq!(id.0, self.first + self.chunks.len() as u64, "chunks are held without gaps");
        self.chunks.push_back(chunk);
    }

    pub(crate) fn get(&self, id: ChunkId) -> Option<&Chunk> {
        self.chunks.get(usize::try_from(id.0.checked_sub(self.first)?).ok()?)
    }

    /// Lets go of every chunk up to `id`; the newest moment at which one of them was all there is.
    pub(crate) fn free(&mut self, id: ChunkId) -> Option<Timestamp> {
        let mut caught_up_at = None;
        while self.first <= id.0 {
            let Some(chunk) = self.chunks.pop_front() else { break };
            caught_up_at = chunk.caught_up_at.or(caught_up_at);
            drop(chunk.portion);
            self.first += 1;
        }
        caught_up_at
    }

    /// The rows of a request as one batch.
    pub(crate) fn assemble(&self, rows: &[Row]) -> Option<Batch> {
        let mut parts: Vec<Batch> = rows
            .chunk_by(|a, b| a.chunk == b.chunk)
            .filter_map(|rows| part(self.get(rows[0].chunk)?.batch.as_ref()?, rows))
            .collect();
        if parts.len() <= 1 {
            return parts.pop();
        }
        let schema = parts[0].rows.schema();
        let columns = concat_batches(&schema, parts.iter().map(|p| &p.rows)).ok()?;
        let plain = parts.iter().all(|p| p.ops == Ops::Inserts);
        let ops: Vec<Op> = if plain {
            Vec::new()
        } else {
            parts.iter().flat_map(|p| (0..p.len()).map(|row| p.ops.get(row))).collect()
        };
        Some(Batch {
            rows: columns,
            ops: if plain { Ops::Inserts } else { Ops::Each(ops) },
            cursors: parts.into_iter().flat_map(|p| p.cursors).collect(),
        })
    }
}

/// Some rows of one chunk, in order: a slice where they are neighbours.
fn part(batch: &Batch, rows: &[Row]) -> Option<Batch> {
    let index = |row: &Row| row.index as usize;
    let (first, last) = (index(rows.first()?), index(rows.last()?));
    let (columns, ops, cursors): (RecordBatch, Ops, Vec<Cursor>) = if last + 1 - first == rows.len() {
        let ops = match &batch.ops {
            Ops::Inserts => Ops::Inserts,
            Ops::Each(ops) => Ops::Each(ops[first..=last].to_vec()),
        };
        (batch.rows.slice(first, rows.len()), ops, batch.cursors[first..=last].to_vec())
    } else {
        let indices = UInt64Array::from_iter_values(rows.iter().map(|row| u64::from(row.index)));
        let ops = match &batch.ops {
            Ops::Inserts => Ops::Inserts,
            Ops::Each(ops) => Ops::Each(rows.iter().map(|row| ops[index(row)]).collect()),
        };
        let cursors = rows.iter().map(|row| batch.cursors[index(row)].clone()).collect();
        (take_record_batch(&batch.rows, &indices).ok()?, ops, cursors)
    };
    Some(Batch { rows: columns, ops, cursors })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray as _, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;

    fn chunk(values: std::ops::Range<i32>) -> Chunk {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int32, true)]));
        let cursors = values.clone().map(|v| Cursor::new(v.to_string())).collect();
        let column = Arc::new(Int32Array::from_iter_values(values));
        let batch =
            Batch { rows: RecordBatch::try_new(schema, vec![column]).unwrap(), ops: Ops::Inserts, cursors };
        Chunk { batch: Some(batch), ..Chunk::empty(Position::End) }
    }

    fn rows(picks: &[(u64, u32)]) -> Vec<Row> {
        picks.iter().map(|(c, i)| Row { chunk: ChunkId(*c), index: *i, bytes: 1, key: 0 }).collect()
    }

    #[test]
    fn a_request_has_the_picked_rows_of_all_chunks_in_order() {
        let mut held = Held::default();
        held.push(ChunkId(4), chunk(0..5));
        held.push(ChunkId(5), chunk(5..10));
        let batch = held.assemble(&rows(&[(4, 1), (4, 2), (5, 0), (5, 3)])).unwrap();
        assert_eq!(batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec(), [1, 2, 5, 8]);
        let cursors: Vec<&str> = batch.cursors.iter().map(Cursor::as_str).collect();
        assert_eq!(cursors, ["1", "2", "5", "8"]);
        held.free(ChunkId(4));
        assert!(held.get(ChunkId(4)).is_none());
        assert_eq!(held.assemble(&rows(&[(5, 1)])).unwrap().cursors[0].as_str(), "6");
    }
}
