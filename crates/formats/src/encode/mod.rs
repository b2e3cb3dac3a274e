//! Rows to messages: key and value of each row, as the sink's clause says.

mod bytes_column;
mod cell;
mod check;
mod connect;
mod modes;
mod moment;
mod object;

use bytes::Bytes;
use model::{Batch, Encode, Op, SinkSpec};

use self::{
    bytes_column::BytesColumn,
    cell::Cell,
    modes::Modes,
    object::{BoundObject, ObjectPlan},
};
use crate::FormatError;

pub use check::check_sink;

/// Names that the parentheses after `ENCODE` of a sink may hold. Others are a notice, not an error.
pub const OPTIONS_SINK: &[&str] = &[
    "force_append_only",
    "ignore_delete",
    "timestamptz.handling.mode",
    "jsonb.handling.mode",
    "time.handling.mode",
    "schemas.enable",
];

/// What is sent for one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The index of the row in the batch.
    pub row: usize,
    /// Present if the sink has a `primary_key`.
    pub key: Option<Bytes>,
    /// The encoded row.
    pub value: Bytes,
}

/// A row that has no message. For a writer it is a rejected row: `on_error` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The index of the row in the batch.
    pub row: usize,
    /// Why, in plain words.
    pub reason: String,
}

/// The messages of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// In the order of the rows. Rows that are dropped by the format (deletes of an append-only sink) have none.
    pub messages: Vec<Message>,
    /// Rows that cannot be written in this format; empty is the happy case.
    pub refused: Vec<Refused>,
}

/// Encodes the rows of one sink. Made once per sink and shared.
pub struct MessageEncoder {
    key: Option<Key>,
    value: Value,
    modes: Modes,
}

enum Key {
    Object(ObjectPlan),
    Text(usize),
    Bytes(usize),
}

enum Value {
    Object(ObjectPlan),
    Bytes(usize),
}

impl MessageEncoder {
    /// The encoder that the sink's clause asks for.
    ///
    /// # Errors
    /// What [`check_sink`] refuses, or a sink without a `FORMAT` clause.
    pub fn new(spec: &SinkSpec) -> Result<Self, FormatError> {
        check_sink(spec)?;
        let clause = spec
            .format
            .as_ref()
            .ok_or_else(|| FormatError::new(format!("sink \"{}\" has no FORMAT clause", spec.name)))?;
        let modes = Modes::read(&clause.options)?;
        let column = |name: &String| spec.columns.iter().position(|c| c.name == *name);
        let key_columns: Vec<usize> = spec.primary_key.iter().filter_map(column).collect();
        let key = match (key_columns.as_slice(), clause.key_encode) {
            ([], _) => None,
            ([column, ..], Some(Encode::Text)) => Some(Key::Text(*column)),
            ([column, ..], Some(Encode::Bytes)) => Some(Key::Bytes(*column)),
            (columns, _) => Some(Key::Object(ObjectPlan::new(spec, columns, &modes))),
        };
        let value = match clause.encode {
            Encode::Bytes => Value::Bytes(check::payload_column(spec)?),
            _ => Value::Object(ObjectPlan::new(spec, &(0..spec.columns.len()).collect::<Vec<_>>(), &modes)),
        };
        Ok(Self { key, value, modes })
    }

    /// The messages of a batch. All of them share one buffer; `ENCODE BYTES` shares the bytes of the batch itself.
    ///
    /// # Errors
    /// The batch does not have the columns of the sink.
    pub fn encode(&self, batch: &Batch) -> Result<Encoded, FormatError> {
        let cells = self.bind(batch)?;
        let mut draft = Draft::default();
        for row in 0..batch.len() {
            if matches!(batch.ops.get(row), Op::Insert | Op::UpdateInsert)
                && let Err(reason) = self.encode_row(row, &cells, &mut draft)
            {
                draft.refuse(row, reason);
            }
        }
        Ok(draft.finish())
    }

    fn bind<'a>(&'a self, batch: &'a Batch) -> Result<Bound<'a>, FormatError> {
        let bytes = |index: usize| BytesColumn::new(&batch.rows, index);
        Ok(Bound {
            key: match &self.key {
                None => None,
                Some(Key::Object(plan)) => Some(BoundPart::Object(plan.bind(&batch.rows)?)),
                Some(Key::Text(index)) => Some(BoundPart::Text(Cell::of(&batch.rows, *index)?)),
                Some(Key::Bytes(index)) => Some(BoundPart::Bytes(bytes(*index)?)),
            },
            value: match &self.value {
                Value::Object(plan) => BoundPart::Object(plan.bind(&batch.rows)?),
                Value::Bytes(index) => BoundPart::Bytes(bytes(*index)?),
            },
        })
    }

    fn encode_row(&self, row: usize, bound: &Bound<'_>, draft: &mut Draft) -> Result<(), String> {
        let key = match &bound.key {
            None => None,
            Some(part) => self.encode_part(row, part, draft)?,
        };
        let value = self
            .encode_part(row, &bound.value, draft)?
            .ok_or_else(|| "a message cannot be made of NULL".to_owned())?;
        draft.rows.push((row, key, value));
        Ok(())
    }

    /// `None` is NULL.
    fn encode_part(
        &self,
        row: usize,
        part: &BoundPart<'_>,
        draft: &mut Draft,
    ) -> Result<Option<Part>, String> {
        let from = draft.buffer.len();
        match part {
            BoundPart::Bytes(column) => return Ok(column.get(row).map(Part::Whole)),
            BoundPart::Object(object) => object.write(row, &self.modes, &mut draft.buffer)?,
            BoundPart::Text(cell) => cell.write_key_text(row, &mut draft.buffer),
        }
        Ok(Some(Part::Range(from, draft.buffer.len())))
    }
}

struct Bound<'a> {
    key: Option<BoundPart<'a>>,
    value: BoundPart<'a>,
}

enum BoundPart<'a> {
    Object(BoundObject<'a>),
    Text(Cell<'a>),
    Bytes(BytesColumn<'a>),
}

enum Part {
    /// Of the shared buffer.
    Range(usize, usize),
    Whole(Bytes),
}

/// Messages whose buffer still grows.
#[derive(Default)]
struct Draft {
    buffer: Vec<u8>,
    rows: Vec<(usize, Option<Part>, Part)>,
    refused: Vec<Refused>,
}

impl Draft {
    /// Whatever the row wrote stays unused in the buffer.
    fn refuse(&mut self, row: usize, reason: String) {
        self.refused.push(Refused { row, reason });
    }

    fn finish(self) -> Encoded {
        let buffer = Bytes::from(self.buffer);
        let part = |part| match part {
            Part::Range(from, to) => buffer.slice(from..to),
            Part::Whole(bytes) => bytes,
        };
        let messages = self
            .rows
            .into_iter()
            .map(|(row, key, value)| Message { row, key: key.map(part), value: part(value) })
            .collect();
        Encoded { messages, refused: self.refused }
    }
}
