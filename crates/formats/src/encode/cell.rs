//! One cell as a JSON value, by SQL type.

use arrow::{
    array::{
        Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array,
        Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, StructArray,
        Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    datatypes::Field,
    record_batch::RecordBatch,
};
use model::SqlType;

use super::{
    modes::{Modes, TimestamptzMode},
    moment,
    object::member_prefixes,
};
use crate::{
    FormatError,
    calendar::EPOCH_FROM_CE,
    json::{Style, write_bytes_base64, write_jsonb, write_text},
};

/// A column of a batch, ready to be written cell by cell.
pub(super) enum Cell<'a> {
    Boolean(&'a BooleanArray),
    Smallint(&'a Int16Array),
    Integer(&'a Int32Array),
    Bigint(&'a Int64Array),
    Real(&'a Float32Array),
    Double(&'a Float64Array),
    /// Also numeric: both are strings.
    Varchar(&'a StringArray),
    Jsonb(&'a StringArray),
    Bytea(&'a BinaryViewArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray),
    Timestamptz(&'a TimestampMicrosecondArray),
    Interval(&'a IntervalMonthDayNanoArray),
    Struct(&'a StructArray, Vec<(Vec<u8>, Cell<'a>)>),
    List(&'a ListArray, Box<Cell<'a>>),
}

impl<'a> Cell<'a> {
    /// The column `index` of a batch.
    pub(super) fn of(rows: &'a RecordBatch, index: usize) -> Result<Self, FormatError> {
        if index >= rows.num_columns() {
            return Err(FormatError::new(format!("the batch has no column {index}")));
        }
        Self::new(rows.column(index), rows.schema_ref().field(index))
    }

    fn new(array: &'a ArrayRef, field: &Field) -> Result<Self, FormatError> {
        let wrong = || {
            let (name, found) = (field.name(), array.data_type());
            FormatError::new(format!(
                "column `{name}` of the batch has type {found}, which no column of a sink has"
            ))
        };
        fn as_a<T: 'static>(array: &ArrayRef) -> Option<&T> {
            array.as_any().downcast_ref()
        }
        let cell = match SqlType::of_arrow(field).ok_or_else(wrong)? {
            SqlType::Boolean => as_a(array).map(Self::Boolean),
            SqlType::Smallint => as_a(array).map(Self::Smallint),
            SqlType::Integer => as_a(array).map(Self::Integer),
            SqlType::Bigint => as_a(array).map(Self::Bigint),
            SqlType::Real => as_a(array).map(Self::Real),
            SqlType::Double => as_a(array).map(Self::Double),
            SqlType::Numeric | SqlType::Varchar => as_a(array).map(Self::Varchar),
            SqlType::Jsonb => as_a(array).map(Self::Jsonb),
            SqlType::Bytea => as_a(array).map(Self::Bytea),
            SqlType::Date => as_a(array).map(Self::Date),
            SqlType::Time => as_a(array).map(Self::Time),
            SqlType::Timestamp => as_a(array).map(Self::Timestamp),
            SqlType::Timestamptz => as_a(array).map(Self::Timestamptz),
            SqlType::Interval => as_a(array).map(Self::Interval),
            SqlType::Struct(_) => as_a(array).map(Self::new_struct).transpose()?,
            SqlType::List(_) => as_a(array).map(Self::new_list).transpose()?,
            SqlType::Map(..) => None,
        };
        cell.ok_or_else(wrong)
    }

    fn new_struct(array: &'a StructArray) -> Result<Self, FormatError> {
        let names = array.fields().iter().enumerate().map(|(i, field)| (field.name().as_str(), i));
        let members = member_prefixes(names)
            .into_iter()
            .map(|(prefix, i)| Ok((prefix, Self::new(array.column(i), &array.fields()[i])?)))
            .collect::<Result<_, FormatError>>()?;
        Ok(Self::Struct(array, members))
    }

    fn new_list(array: &'a ListArray) -> Result<Self, FormatError> {
        let arrow::datatypes::DataType::List(item) = array.data_type() else {
            return Err(FormatError::new("a list column has no list type"));
        };
        Ok(Self::List(array, Box::new(Self::new(array.values(), item)?)))
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(a) => a.is_null(row),
            Self::Smallint(a) => a.is_null(row),
            Self::Integer(a) => a.is_null(row),
            Self::Bigint(a) => a.is_null(row),
            Self::Real(a) => a.is_null(row),
            Self::Double(a) => a.is_null(row),
            Self::Varchar(a) | Self::Jsonb(a) => a.is_null(row),
            Self::Bytea(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Time(a) => a.is_null(row),
            Self::Timestamp(a) | Self::Timestamptz(a) => a.is_null(row),
            Self::Interval(a) => a.is_null(row),
            Self::Struct(a, _) => a.is_null(row),
            Self::List(a, _) => a.is_null(row),
        }
    }

    /// Appends the value of a row. After an error the end of `out` is garbage.
    pub(super) fn write(&self, row: usize, modes: &Modes, out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Self::Boolean(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Self::Smallint(a) => write_integer(i64::from(a.value(row)), out),
            Self::Integer(a) => write_integer(i64::from(a.value(row)), out),
            Self::Bigint(a) => write_integer(a.value(row), out),
            Self::Real(a) => write_float(f64::from(a.value(row)), out),
            Self::Double(a) => write_float(a.value(row), out),
            Self::Varchar(a) => write_text(a.value(row), out),
            Self::Jsonb(a) => return write_jsonb_cell(a.value(row), modes, out),
            Self::Bytea(a) => write_bytes_base64(a.value(row), out),
            Self::Date(a) => write_integer(i64::from(a.value(row)) + i64::from(EPOCH_FROM_CE), out),
            Self::Time(a) => moment::write_time(a.value(row), modes.time, out),
            Self::Timestamp(a) => write_integer(a.value(row).div_euclid(1000), out),
            Self::Timestamptz(a) => match modes.timestamptz {
                TimestamptzMode::Milli => write_integer(a.value(row).div_euclid(1000), out),
                TimestamptzMode::Micro => write_integer(a.value(row), out),
                TimestamptzMode::UtcString => moment::write_timestamp(a.value(row), b'T', "Z\"", out)?,
                TimestamptzMode::UtcWithoutSuffix => moment::write_timestamp(a.value(row), b' ', "\"", out)?,
            },
            Self::Interval(a) => moment::write_interval(a.value(row), out),
            Self::Struct(_, members) => {
                for (prefix, cell) in members {
                    out.extend_from_slice(prefix);
                    cell.write(row, modes, out)?;
                }
                out.extend_from_slice(if members.is_empty() { b"{}" } else { b"}" });
            }
            Self::List(a, item) => {
                let offsets = a.value_offsets();
                let index = |i: i32| usize::try_from(i).expect("offsets are not negative");
                out.push(b'[');
                for i in index(offsets[row])..index(offsets[row + 1]) {
                    if i > index(offsets[row]) {
                        out.push(b',');
                    }
                    item.write(i, modes, out)?;
                }
                out.push(b']');
            }
        }
        Ok(())
    }

    /// Appends the value of a row as `KEY ENCODE TEXT` wants it: no quotes, NULL as `NULL`.
    pub(super) fn write_key_text(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            _ if self.is_null(row) => out.extend_from_slice(b"NULL"),
            Self::Boolean(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Self::Smallint(a) => write_integer(i64::from(a.value(row)), out),
            Self::Integer(a) => write_integer(i64::from(a.value(row)), out),
            Self::Bigint(a) => write_integer(a.value(row), out),
            Self::Varchar(a) => out.extend_from_slice(a.value(row).as_bytes()),
            _ => unreachable!("check_sink lets no other type be a text key"),
        }
    }
}

/// Decimal digits.
pub(super) fn write_integer(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The shortest text that reads back to the same float; `null` if it is not finite.
fn write_float(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn write_jsonb_cell(text: &str, modes: &Modes, out: &mut Vec<u8>) -> Result<(), String> {
    let written = if modes.jsonb_dynamic {
        write_jsonb(text, Style::Compact, out)
    } else {
        let mut pretty = Vec::with_capacity(text.len() + text.len() / 4);
        write_jsonb(text, Style::Postgres, &mut pretty)
            .map(|()| write_text(std::str::from_utf8(&pretty).expect("jsonb of UTF-8 is UTF-8"), out))
    };
    written.map_err(|e| format!("a jsonb value is no JSON: {e}"))
}
