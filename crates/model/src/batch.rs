//! Decoded rows on their way to a sink: Arrow columns plus one change op per row.

use arrow::record_batch::RecordBatch;

use crate::Cursor;

/// What happened to a row. An update is always the adjacent pair `UpdateDelete`, `UpdateInsert`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// `+`
    Insert,
    /// `-`
    Delete,
    /// `U-`
    UpdateDelete,
    /// `U+`
    UpdateInsert,
}

/// The ops of a batch; append-only sources pay nothing for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ops {
    /// Every row is an insert.
    Inserts,
    /// One op per row.
    Each(Vec<Op>),
}

impl Ops {
    /// The op of one row.
    #[must_use]
    pub fn get(&self, row: usize) -> Op {
        match self {
            Self::Inserts => Op::Insert,
            Self::Each(ops) => ops[row],
        }
    }
}

/// Rows in the order in which they must arrive. They come from one split, unless a partition of a sink is written.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The columns. Their types are those of `Column::arrow`.
    pub rows: RecordBatch,
    /// What happened to each row.
    pub ops: Ops,
    /// Where each row came from; as long as `rows`.
    pub cursors: Vec<Cursor>,
}

impl Batch {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// True when it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
