//! Decoded records between the reader and the writer of a run.

use daemon::trace::Span;
use model::{Batch, Cursor, Position, RawRecord, Timestamp};

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
    /// The batch, if it is traced.
    pub(crate) span: Option<Span>,
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
            span: None,
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
