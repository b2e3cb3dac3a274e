//! A growing column. Unlike Arrow's builders it can take rows back, so that a malformed record leaves nothing behind, and
//! it knows its SQL type, so that values can be judged as they arrive.

use std::{mem::take, sync::Arc};

use arrow::array::NullBufferBuilder;
use arrow::{
    array::{
        ArrayRef, BinaryViewArray, BooleanArray, BooleanBufferBuilder, ListArray, MapArray, PrimitiveArray,
        StringArray, StructArray, make_view,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use bytes::Bytes;
use model::SqlType;

use super::fields::Members;

/// The cells of a column, by SQL type.
pub(super) enum Cells {
    Boolean(BooleanBufferBuilder),
    Smallint(Vec<i16>),
    Integer(Vec<i32>),
    Bigint(Vec<i64>),
    Real(Vec<f32>),
    Double(Vec<f64>),
    Numeric(Texts),
    Varchar(Texts),
    Jsonb(Texts),
    Bytea(Views),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    Timestamptz(Vec<i64>),
    Interval(Vec<IntervalMonthDayNano>),
    Struct(Members, Vec<Column>),
    List(Offsets, Box<Column>),
    Map(Offsets, Box<Column>, Box<Column>),
}

/// See the module.
pub(super) struct Column {
    arrow: DataType,
    nulls: NullBufferBuilder,
    /// As many as there are rows, but for the row being written.
    pub(super) cells: Cells,
}

impl Column {
    /// An empty column.
    pub(super) fn new(kind: &SqlType) -> Self {
        let boxed = |kind: &SqlType| Box::new(Self::new(kind));
        let cells = match kind {
            SqlType::Boolean => Cells::Boolean(BooleanBufferBuilder::new(0)),
            SqlType::Smallint => Cells::Smallint(Vec::new()),
            SqlType::Integer => Cells::Integer(Vec::new()),
            SqlType::Bigint => Cells::Bigint(Vec::new()),
            SqlType::Real => Cells::Real(Vec::new()),
            SqlType::Double => Cells::Double(Vec::new()),
            SqlType::Numeric => Cells::Numeric(Texts::default()),
            SqlType::Varchar => Cells::Varchar(Texts::default()),
            SqlType::Jsonb => Cells::Jsonb(Texts::default()),
            SqlType::Bytea => Cells::Bytea(Views::default()),
            SqlType::Date => Cells::Date(Vec::new()),
            SqlType::Time => Cells::Time(Vec::new()),
            SqlType::Timestamp => Cells::Timestamp(Vec::new()),
            SqlType::Timestamptz => Cells::Timestamptz(Vec::new()),
            SqlType::Interval => Cells::Interval(Vec::new()),
            SqlType::Struct(fields) => Cells::Struct(
                Members::new(fields.iter().map(|f| f.name.as_str())),
                fields.iter().map(|f| Self::new(&f.kind)).collect(),
            ),
            SqlType::List(item) => Cells::List(Offsets::default(), boxed(item)),
            SqlType::Map(key, value) => Cells::Map(Offsets::default(), boxed(key), boxed(value)),
        };
        Self { arrow: kind.arrow(), nulls: NullBufferBuilder::new(0), cells }
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// True when the last row is NULL.
    pub(super) fn last_is_null(&self) -> bool {
        self.len().checked_sub(1).is_none_or(|last| !self.nulls.is_valid(last))
    }

    /// Marks the cell just pushed as a row.
    pub(super) fn valid(&mut self) {
        self.nulls.append_non_null();
    }

    /// A row that is NULL.
    pub(super) fn push_null(&mut self) {
        self.nulls.append_null();
        match &mut self.cells {
            Cells::Boolean(cells) => cells.append(false),
            Cells::Smallint(cells) => cells.push(0),
            Cells::Integer(cells) | Cells::Date(cells) => cells.push(0),
            Cells::Bigint(cells)
            | Cells::Time(cells)
            | Cells::Timestamp(cells)
            | Cells::Timestamptz(cells) => cells.push(0),
            Cells::Real(cells) => cells.push(0.0),
            Cells::Double(cells) => cells.push(0.0),
            Cells::Numeric(cells) | Cells::Varchar(cells) | Cells::Jsonb(cells) => cells.end(),
            Cells::Bytea(cells) => cells.views.push(0),
            Cells::Interval(cells) => cells.push(IntervalMonthDayNano::ZERO),
            Cells::Struct(_, children) => children.iter_mut().for_each(Self::push_null),
            Cells::List(offsets, item) => offsets.end(item.len()),
            Cells::Map(offsets, key, _) => offsets.end(key.len()),
        }
    }

    /// A text row; for text columns only.
    pub(super) fn push_text(&mut self, text: &str) {
        if let Cells::Varchar(cells) | Cells::Jsonb(cells) | Cells::Numeric(cells) = &mut self.cells {
            cells.bytes.extend_from_slice(text.as_bytes());
            cells.end();
            self.valid();
        }
    }

    /// A row of bytes; for bytea columns only.
    pub(super) fn push_bytes(&mut self, bytes: &Bytes) {
        if let Cells::Bytea(cells) = &mut self.cells {
            cells.push(bytes);
            self.valid();
        }
    }

    /// Takes back all rows after the first `rows`, and what was begun of the next.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.nulls.truncate(rows);
        match &mut self.cells {
            Cells::Boolean(cells) => cells.truncate(rows),
            Cells::Smallint(cells) => cells.truncate(rows),
            Cells::Integer(cells) | Cells::Date(cells) => cells.truncate(rows),
            Cells::Bigint(cells)
            | Cells::Time(cells)
            | Cells::Timestamp(cells)
            | Cells::Timestamptz(cells) => cells.truncate(rows),
            Cells::Real(cells) => cells.truncate(rows),
            Cells::Double(cells) => cells.truncate(rows),
            Cells::Numeric(cells) | Cells::Varchar(cells) | Cells::Jsonb(cells) => cells.truncate(rows),
            Cells::Bytea(cells) => cells.views.truncate(rows),
            Cells::Interval(cells) => cells.truncate(rows),
            Cells::Struct(_, children) => children.iter_mut().for_each(|c| c.truncate(rows)),
            Cells::List(offsets, item) => item.truncate(offsets.truncate(rows)),
            Cells::Map(offsets, key, value) => {
                let entries = offsets.truncate(rows);
                key.truncate(entries);
                value.truncate(entries);
            }
        }
    }

    /// Hands out the rows and starts anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let rows = self.len();
        let nulls = self.nulls.finish();
        let arrow = &self.arrow;
        match &mut self.cells {
            Cells::Boolean(cells) => Arc::new(BooleanArray::new(cells.finish(), nulls)),
            Cells::Smallint(cells) => primitive::<Int16Type>(cells, nulls, arrow),
            Cells::Integer(cells) => primitive::<Int32Type>(cells, nulls, arrow),
            Cells::Bigint(cells) => primitive::<Int64Type>(cells, nulls, arrow),
            Cells::Real(cells) => primitive::<Float32Type>(cells, nulls, arrow),
            Cells::Double(cells) => primitive::<Float64Type>(cells, nulls, arrow),
            Cells::Date(cells) => primitive::<Date32Type>(cells, nulls, arrow),
            Cells::Time(cells) => primitive::<Time64MicrosecondType>(cells, nulls, arrow),
            Cells::Timestamp(cells) | Cells::Timestamptz(cells) => {
                primitive::<TimestampMicrosecondType>(cells, nulls, arrow)
            }
            Cells::Interval(cells) => primitive::<IntervalMonthDayNanoType>(cells, nulls, arrow),
            Cells::Numeric(cells) | Cells::Varchar(cells) | Cells::Jsonb(cells) => {
                let (ends, bytes) = (take(&mut cells.ends), take(&mut cells.bytes));
                Arc::new(StringArray::new(ends.finish(), Buffer::from_vec(bytes), nulls))
            }
            Cells::Bytea(cells) => {
                let (views, blocks) = cells.finish();
                Arc::new(BinaryViewArray::new(ScalarBuffer::from(views), blocks, nulls))
            }
            Cells::Struct(_, children) => {
                let DataType::Struct(fields) = arrow else {
                    unreachable!("a struct column has a struct type")
                };
                let children: Vec<ArrayRef> = children.iter_mut().map(Self::finish).collect();
                Arc::new(if children.is_empty() {
                    StructArray::new_empty_fields(rows, nulls)
                } else {
                    StructArray::new(fields.clone(), children, nulls)
                })
            }
            Cells::List(offsets, item) => {
                let DataType::List(field) = arrow else { unreachable!("a list column has a list type") };
                Arc::new(ListArray::new(field.clone(), take(offsets).finish(), item.finish(), nulls))
            }
            Cells::Map(offsets, key, value) => {
                let DataType::Map(field, sorted) = arrow else { unreachable!("a map column has a map type") };
                let DataType::Struct(pair) = field.data_type() else {
                    unreachable!("a map's entry is a struct")
                };
                let entries = StructArray::new(pair.clone(), vec![key.finish(), value.finish()], None);
                Arc::new(MapArray::new(field.clone(), take(offsets).finish(), entries, nulls, *sorted))
            }
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(
    cells: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    arrow: &DataType,
) -> ArrayRef {
    let values = ScalarBuffer::from(take(cells));
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(arrow.clone()))
}

/// Ends of variable-length cells; begins with 0.
pub(super) struct Offsets(Vec<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Offsets {
    /// Ends a cell at `at`.
    pub(super) fn end(&mut self, at: usize) {
        self.0.push(i32::try_from(at).expect("a batch is far smaller than 2 GiB"));
    }

    fn truncate(&mut self, rows: usize) -> usize {
        self.0.truncate(rows + 1);
        usize::try_from(self.0[rows]).expect("offsets are not negative")
    }

    fn finish(self) -> OffsetBuffer<i32> {
        OffsetBuffer::new(ScalarBuffer::from(self.0))
    }
}

/// Cells of text, one after the other.
#[derive(Default)]
pub(super) struct Texts {
    ends: Offsets,
    /// UTF-8. Write the cell here, then `end` it.
    pub(super) bytes: Vec<u8>,
}

impl Texts {
    /// Ends the cell that was written to `bytes`.
    pub(super) fn end(&mut self) {
        self.ends.end(self.bytes.len());
    }

    fn truncate(&mut self, rows: usize) {
        let end = self.ends.truncate(rows);
        self.bytes.truncate(end);
    }
}

/// Cells of bytes: up to 12 are held in the view itself, small ones side by side in the first block, large ones where they
/// are.
#[derive(Default)]
pub(super) struct Views {
    views: Vec<u128>,
    small: Vec<u8>,
    /// How many small bytes the last batch had.
    expected: usize,
    large: Vec<Buffer>,
}

impl Views {
    /// Appends a cell. To share a few bytes costs more than to copy them, and keeps their whole neighbourhood in memory.
    pub(super) fn push(&mut self, bytes: &Bytes) {
        const INLINE: usize = 12;
        const SMALL: usize = 4 << 10;
        if bytes.len() <= INLINE {
            self.views.push(make_view(bytes, 0, 0));
            return;
        }
        let offset = u32::try_from(self.small.len());
        if let (Ok(offset), true) = (offset, bytes.len() <= SMALL) {
            if self.small.capacity() == 0 {
                self.small.reserve(self.expected);
            }
            self.views.push(make_view(bytes, 0, offset));
            self.small.extend_from_slice(bytes);
        } else {
            self.large.push(Buffer::from(bytes.clone()));
            let block = u32::try_from(self.large.len()).expect("a batch has fewer than 2^32 rows");
            self.views.push(make_view(bytes, block, 0));
        }
    }

    fn finish(&mut self) -> (Vec<u128>, Vec<Buffer>) {
        self.expected = self.small.len();
        let small = Buffer::from_vec(take(&mut self.small));
        let blocks = std::iter::once(small).chain(take(&mut self.large));
        (take(&mut self.views), blocks.collect())
    }
}
