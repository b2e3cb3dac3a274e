//! Rows of one chunk that go to one partition: cutting a chunk into them, and cutting them smaller when credit is short.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, UInt32Array},
    compute::take_record_batch,
    datatypes::DataType,
    error::ArrowError,
    record_batch::RecordBatch,
};
use model::{Batch, Cursor, Op, Ops, RawRecord};

/// What a row counts as beyond its bytes.
const ROW_OVERHEAD: u64 = 64;

/// Rows on their way to one partition, in the order of their split.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) batch: Batch,
    /// Size of each row.
    pub(crate) sizes: Vec<u32>,
    /// The record of each row, when a refused one must go to the dead letters; else empty.
    pub(crate) raw: Vec<RawRecord>,
}

/// Rows under way, with their number in the stream (P19).
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) number: u64,
    /// What it counts as until it is acked.
    pub(crate) bytes: u64,
    pub(crate) rows: Rows,
    /// The span that it goes on with; empty if it is not traced.
    pub(crate) traceparent: String,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    /// What all of it counts as.
    pub(crate) fn bytes(&self) -> u64 {
        (0..self.len()).map(|row| self.row_bytes(row)).sum()
    }

    /// The raw record shares nothing with the columns once it has crossed, so it counts on its own.
    fn row_bytes(&self, row: usize) -> u64 {
        let raw = self.raw.get(row).map_or(0, |record| record.size() as u64);
        u64::from(self.sizes.get(row).copied().unwrap_or(0)) + raw + ROW_OVERHEAD
    }

    /// The first rows that together are not larger than `bytes`, at least one; the others stay.
    pub(crate) fn cut(&mut self, bytes: u64) -> Self {
        let mut sum = 0;
        let fits = |row: &usize| {
            sum += self.row_bytes(*row);
            sum <= bytes
        };
        let rows = (0..self.len()).take_while(fits).count().max(1);
        if rows >= self.len() {
            return std::mem::replace(self, self.slice(0..0));
        }
        let first = self.slice(0..rows);
        *self = self.slice(rows..self.len());
        first
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        let ops = match &self.batch.ops {
            Ops::Inserts => Ops::Inserts,
            Ops::Each(ops) => Ops::Each(ops[rows.clone()].to_vec()),
        };
        let raw = if self.raw.is_empty() { Vec::new() } else { self.raw[rows.clone()].to_vec() };
        Self {
            batch: Batch {
                rows: self.batch.rows.slice(rows.start, rows.len()),
                ops,
                cursors: self.batch.cursors[rows.clone()].to_vec(),
            },
            sizes: self.sizes[rows].to_vec(),
            raw,
        }
    }
}

/// Cuts rows by their partition; partitions without rows are left out.
pub(crate) fn split(rows: Rows, partitions: &[u32], count: u32) -> Result<Vec<(u32, Rows)>, ArrowError> {
    let mut indices: Vec<Vec<u32>> = vec![Vec::new(); count as usize];
    for (row, partition) in partitions.iter().enumerate() {
        if let Some(list) = indices.get_mut(*partition as usize) {
            list.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
    }
    let with_rows = indices.iter().filter(|list| !list.is_empty()).count();
    if let (1, Some(only)) = (with_rows, partitions.first()) {
        return Ok(vec![(*only, rows)]);
    }
    let Rows { batch: Batch { rows: columns, ops, cursors }, sizes, raw } = rows;
    let (mut cursors, mut raw): (Vec<Option<Cursor>>, Vec<Option<RawRecord>>) =
        (cursors.into_iter().map(Some).collect(), raw.into_iter().map(Some).collect());
    let mut parts = Vec::with_capacity(with_rows);
    for (partition, list) in (0..).zip(indices).filter(|(_, list)| !list.is_empty()) {
        let at = || list.iter().map(|row| *row as usize);
        let part = Rows {
            sizes: at().filter_map(|row| sizes.get(row).copied()).collect(),
            raw: at().filter_map(|row| raw.get_mut(row)?.take()).collect(),
            batch: Batch {
                ops: match &ops {
                    Ops::Inserts => Ops::Inserts,
                    Ops::Each(ops) => Ops::Each(at().map(|row| ops[row]).collect::<Vec<Op>>()),
                },
                cursors: at().filter_map(|row| cursors.get_mut(row)?.take()).collect(),
                rows: compact(&take_record_batch(&columns, &UInt32Array::from(list.clone()))?)?,
            },
        };
        parts.push((partition, part));
    }
    Ok(parts)
}

/// Views keep all bytes of the chunk alive that they came from: what waits for one partition must not hold those of the others.
pub(super) fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let column = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            _ => column.clone(),
        }
    };
    RecordBatch::try_new(batch.schema(), batch.columns().iter().map(column).collect())
}

/// Each buffer of a view column is compressed by itself: of more than these there is nothing left to compress.
const BUFFERS_MAX: usize = 4;

/// True when a view column holds more than its rows need, or in pieces.
pub(super) fn is_slack(batch: &RecordBatch) -> bool {
    let slack = |column: &ArrayRef| match column.data_type() {
        DataType::BinaryView => {
            let views = column.as_binary_view();
            let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
            views.data_buffers().len() > BUFFERS_MAX
                || held > 2 * views.iter().flatten().map(<[u8]>::len).sum::<usize>()
        }
        DataType::Utf8View => true,
        _ => false,
    };
    !batch.columns().is_empty() && batch.columns().iter().any(slack)
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::array::{BinaryViewArray, Int32Array};
    use bytes::Bytes;
    use model::Timestamp;

    use super::*;

    pub(in crate::exchange) fn rows(numbers: Range<i32>, raw: bool) -> Rows {
        let texts: Vec<String> = numbers.clone().map(|n| format!("the value of number {n}")).collect();
        let data: ArrayRef = Arc::new(BinaryViewArray::from_iter_values(texts.iter().map(String::as_bytes)));
        let number: ArrayRef = Arc::new(Int32Array::from_iter_values(numbers.clone()));
        let cursor = |n: i32| Cursor::new(n.to_string());
        let record = |n: i32| RawRecord {
            cursor: cursor(n),
            key: Bytes::from(format!("k{n}")),
            payload: Bytes::from(format!("p{n}")),
            arrived_at: Timestamp(n.into()),
        };
        Rows {
            batch: Batch {
                rows: RecordBatch::try_from_iter([("n", number), ("data", data)]).unwrap(),
                ops: Ops::Inserts,
                cursors: numbers.clone().map(cursor).collect(),
            },
            sizes: numbers.clone().map(|_| 36).collect(),
            raw: if raw { numbers.map(record).collect() } else { Vec::new() },
        }
    }

    pub(in crate::exchange) fn cursors(rows: &Rows) -> Vec<&str> {
        rows.batch.cursors.iter().map(Cursor::as_str).collect()
    }

    #[test]
    fn each_row_goes_to_its_partition_with_all_that_belongs_to_it() {
        let parts = split(rows(0..6, true), &[2, 0, 2, 0, 2, 2], 4).unwrap();
        assert_eq!(parts.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 2]);
        let (first, second) = (&parts[0].1, &parts[1].1);
        assert_eq!((cursors(first), cursors(second)), (vec!["1", "3"], vec!["0", "2", "4", "5"]));
        assert_eq!(first.raw.iter().map(|r| r.cursor.as_str()).collect::<Vec<_>>(), ["1", "3"]);
        let data = first.batch.rows.column(1).as_binary_view();
        assert_eq!(data.value(1), b"the value of number 3");
        let held: usize = data.data_buffers().iter().map(|buffer| buffer.len()).sum();
        assert!(held < 60, "the other partition's bytes are kept: {held}");
    }

    #[test]
    fn a_part_is_cut_into_pieces_of_the_given_size_and_at_least_a_row() {
        let mut all = rows(0..5, true);
        let bytes = all.bytes();
        let first = all.cut(bytes / 2);
        assert_eq!((cursors(&first), cursors(&all)), (vec!["0", "1"], vec!["2", "3", "4"]));
        assert_eq!((first.raw.len(), all.raw.len(), first.sizes.len()), (2, 3, 2));
        assert_eq!(cursors(&all.cut(1)), ["2"]);
        assert_eq!((cursors(&all.cut(u64::MAX)), all.len()), (vec!["3", "4"], 0));
    }
}
