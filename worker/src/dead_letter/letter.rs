//! One dead letter: its columns, and its shorter forms for a target that does not take it whole.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, BinaryViewArray, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::Schema,
    record_batch::RecordBatch,
};
use connector::{Error, ErrorKind};
use logic::ack::ChunkId;
use model::{Batch, Column, Cursor, Ops, SplitId};

use crate::task::{Letter, REFUSALS_MAX};

/// To what the data, the key and the error are cut, one after the other, until the target takes the letter. Base64 makes the
/// first fit into a record of 1 MiB, the second into a message of 256 KiB.
const CUTS: [usize; 4] = [512 << 10, 128 << 10, 16 << 10, 1 << 10];
/// What a letter takes beside its data, its key and its error.
const FRAME: usize = 512;

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    Arc::new(Schema::new(sql::dead_letter_columns().iter().map(Column::arrow).collect::<Vec<_>>()))
});

/// A letter on its way.
pub(super) struct Envelope {
    pub(super) chunk: ChunkId,
    pub(super) split: SplitId,
    pub(super) letter: Letter,
    refusals: u32,
    cut: Option<usize>,
}

impl Envelope {
    pub(super) fn new(chunk: ChunkId, split: SplitId, letter: Letter) -> Self {
        Self { chunk, split, letter, refusals: 0, cut: None }
    }

    /// Its size as JSON, about.
    pub(super) fn size(&self) -> usize {
        let data = self.data().len();
        data + data / 3 + self.key().len() + self.error().len() + FRAME
    }

    /// What it was cut to.
    pub(super) fn cut(&self) -> Option<usize> {
        self.cut
    }

    /// The target refused it, alone. How often that happened as it is, or nothing if there is no form left to try.
    pub(super) fn refused(&mut self) -> Option<u32> {
        self.refusals += 1;
        if self.refusals < REFUSALS_MAX {
            return Some(self.refusals);
        }
        let longest = self.data().len().max(self.key().len()).max(self.error().len());
        self.cut = Some(CUTS.into_iter().find(|cut| *cut < longest)?);
        Some(0)
    }

    fn data(&self) -> &[u8] {
        let data = &self.letter.record.payload;
        &data[..data.len().min(self.cut.unwrap_or(usize::MAX))]
    }

    fn key(&self) -> String {
        let key = &self.letter.record.key;
        String::from_utf8_lossy(&key[..key.len().min(self.cut.unwrap_or(usize::MAX))]).into_owned()
    }

    fn error(&self) -> &str {
        let error = &self.letter.error;
        &error[..error.floor_char_boundary(self.cut.unwrap_or(usize::MAX))]
    }
}

/// Letters as rows.
pub(super) fn batch(source: &str, letters: &[&Envelope]) -> connector::Result<Batch> {
    let texts = |text: &dyn Fn(&Envelope) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| text(letter))))
    };
    let records = || letters.iter().map(|envelope| &envelope.letter.record);
    let sub = |cursor: &Cursor| cursor.as_str().split_once(':').and_then(|(_, sub)| sub.parse::<i64>().ok());
    let arrival = records().map(|record| record.arrived_at.0.saturating_mul(1000));
    let lengths = records().map(|record| i64::try_from(record.payload.len()).unwrap_or(i64::MAX));
    let columns: Vec<ArrayRef> = vec![
        texts(&|_| source.to_owned()),
        texts(&|e| e.split.name().to_owned()),
        texts(&|e| e.letter.record.cursor.offset().to_owned()),
        Arc::new(Int64Array::from_iter(records().map(|record| sub(&record.cursor)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(arrival).with_timezone("UTC")),
        texts(&Envelope::key),
        Arc::new(BinaryViewArray::from_iter_values(letters.iter().map(|e| e.data()))),
        Arc::new(Int64Array::from_iter_values(lengths)),
        Arc::new(BooleanArray::from_iter(letters.iter().map(|e| Some(e.cut.is_some())))),
        texts(&|e| e.error().to_owned()),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&SCHEMA), columns)
        .map_err(|e| Error::new(ErrorKind::Bug, "dead letters do not fit their columns").because(e))?;
    let cursors = records().map(|record| record.cursor.clone()).collect();
    Ok(Batch { rows, ops: Ops::Inserts, cursors })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Creation, RawRecord, Timestamp};

    use super::*;

    fn envelope(data: usize, error: &str) -> Envelope {
        let record = RawRecord {
            cursor: Cursor::new("1"),
            key: Bytes::from_static(b"k"),
            payload: Bytes::from(vec![b'x'; data]),
            arrived_at: Timestamp(0),
        };
        Envelope::new(ChunkId(0), SplitId::new(Creation(1), "s"), Letter { record, error: error.to_owned() })
    }

    #[test]
    fn a_refused_letter_is_tried_a_few_times_and_then_shorter_and_shorter() {
        let mut letter = envelope(200 << 10, "bad");
        let forms: Vec<(Option<u32>, Option<usize>)> =
            (0..6).map(|_| (letter.refused(), letter.cut())).collect();
        assert_eq!(
            forms,
            [
                (Some(1), None),
                (Some(2), None),
                (Some(0), Some(128 << 10)),
                (Some(0), Some(16 << 10)),
                (Some(0), Some(1 << 10)),
                (None, Some(1 << 10)),
            ]
        );
        let mut small = envelope(10, "bad");
        assert_eq!([small.refused(), small.refused(), small.refused()], [Some(1), Some(2), None]);
        assert_eq!(small.cut(), None, "what is short is not cut");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let mut letter = envelope(0, &"é".repeat(1000));
        (0..3).for_each(|_| _ = letter.refused());
        assert_eq!((letter.cut(), letter.error().len()), (Some(1024), 1024));
        let mut letter = envelope(0, &format!("a{}", "é".repeat(1000)));
        (0..3).for_each(|_| _ = letter.refused());
        assert_eq!(letter.error().len(), 1023);
    }
}
