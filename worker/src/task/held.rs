//! Chunks that are not acked yet, and cutting requests out of them without copying rows where that can be had.

use std::collections::BTreeMap;

use arrow::{
    array::UInt64Array,
    compute::{concat_batches, take_record_batch},
    record_batch::RecordBatch,
};
use daemon::trace::Span;
use logic::{ack::ChunkId, outbox::Row};
use model::{Batch, Cursor, Op, Ops, SplitId, Timestamp};

use super::chunk::Chunk;

/// A chunk and where it came from.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) split: SplitId,
    pub(crate) chunk: Chunk,
}

/// Chunks that are not acked yet, by id.
#[derive(Debug, Default)]
pub(crate) struct Held(BTreeMap<ChunkId, Kept>);

impl Held {
    pub(crate) fn push(&mut self, id: ChunkId, kept: Kept) {
        self.0.insert(id, kept);
    }

    pub(crate) fn get(&self, id: ChunkId) -> Option<&Kept> {
        self.0.get(&id)
    }

    /// Lets go of one chunk.
    pub(crate) fn remove(&mut self, id: ChunkId) {
        self.0.remove(&id);
    }

    /// Lets go of every chunk up to `id`; the newest moment at which one of them was all there is, and the spans of them.
    pub(crate) fn free(&mut self, id: ChunkId) -> (Option<Timestamp>, Vec<Span>) {
        let (mut caught_up_at, mut spans) = (None, Vec::new());
        while let Some(first) = self.0.first_entry().filter(|first| *first.key() <= id) {
            let Chunk { caught_up_at: at, span, .. } = first.remove().chunk;
            caught_up_at = at.or(caught_up_at);
            spans.extend(span);
        }
        (caught_up_at, spans)
    }

    /// The spans of the batches that the rows of a request are of.
    pub(crate) fn spans(&self, rows: &[Row]) -> Vec<Span> {
        let chunks = rows.chunk_by(|a, b| a.chunk == b.chunk);
        chunks.filter_map(|rows| self.get(rows[0].chunk)?.chunk.span.clone()).collect()
    }

    /// The rows of a request as one batch.
    pub(crate) fn assemble(&self, rows: &[Row]) -> Option<Batch> {
        let mut parts: Vec<Batch> = rows
            .chunk_by(|a, b| a.chunk == b.chunk)
            .filter_map(|rows| part(self.get(rows[0].chunk)?.chunk.batch.as_ref()?, rows))
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
    use model::{Creation, Position};

    use super::*;

    fn chunk(values: std::ops::Range<i32>) -> Kept {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int32, true)]));
        let cursors = values.clone().map(|v| Cursor::new(v.to_string())).collect();
        let column = Arc::new(Int32Array::from_iter_values(values));
        let batch =
            Batch { rows: RecordBatch::try_new(schema, vec![column]).unwrap(), ops: Ops::Inserts, cursors };
        let chunk = Chunk { batch: Some(batch), ..Chunk::empty(Position::End) };
        Kept { split: SplitId::new(Creation(1), "s"), chunk }
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
