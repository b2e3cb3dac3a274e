//! Which partition a row goes to: a hash of the distribution columns that is the same on every machine and in every release
//! (`docs/sql.md` has its definition; golden values hold it still). Called by the run of a split for each chunk.

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, BinaryViewArray, BooleanArray, Float64Array, Int64Array,
        IntervalMonthDayNanoArray,
    },
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Schema, TimeUnit},
    record_batch::RecordBatch,
};
use twox_hash::XxHash3_64;

/// Hashes the distribution columns of batches of one schema.
pub(crate) struct Partitioner {
    columns: Vec<usize>,
    partitions: u32,
}

impl Partitioner {
    /// For the columns `names` of `schema`. An error says which of them cannot be part of a key.
    pub(crate) fn new(schema: &Schema, names: &[String], partitions: u32) -> Result<Self, String> {
        let column = |name: &String| {
            let index = schema.index_of(name).map_err(|_| format!("there is no column `{name}`"))?;
            let kind = schema.field(index).data_type();
            match form(kind) {
                Some(_) => Ok(index),
                None => Err(format!("column `{name}` of type {kind} cannot be part of a key")),
            }
        };
        Ok(Self {
            columns: names.iter().map(column).collect::<Result<_, _>>()?,
            partitions: partitions.max(1),
        })
    }

    /// The partition of each row.
    pub(crate) fn partitions(&self, batch: &RecordBatch) -> Result<Vec<u32>, String> {
        let n = u64::from(self.partitions);
        let of = |hash| u32::try_from(hash % n).unwrap_or(0);
        Ok(self.hashes(batch)?.into_iter().map(of).collect())
    }

    fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u64>, String> {
        let cells = |index: &usize| Cells::of(batch.column(*index)).map_err(|e| e.to_string());
        let columns: Vec<Cells> = self.columns.iter().map(cells).collect::<Result<_, _>>()?;
        let mut bytes = Vec::with_capacity(64);
        let hash = |row| {
            bytes.clear();
            columns.iter().for_each(|cells| cells.write(row, &mut bytes));
            XxHash3_64::oneshot(&bytes)
        };
        Ok((0..batch.num_rows()).map(hash).collect())
    }
}

/// The type whose bytes are hashed; values that are equal in SQL but of different width are the same.
fn form(kind: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match kind {
        T::Boolean => T::Boolean,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 => T::Int64,
        T::Date32 | T::Time64(TimeUnit::Microsecond) | T::Timestamp(TimeUnit::Microsecond, _) => T::Int64,
        T::Float32 | T::Float64 => T::Float64,
        T::Utf8 | T::Utf8View | T::LargeUtf8 | T::Binary | T::BinaryView | T::LargeBinary => T::BinaryView,
        T::Interval(IntervalUnit::MonthDayNano) => T::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// A column in that form.
enum Cells {
    Boolean(BooleanArray),
    Integer(Int64Array),
    Float(Float64Array),
    Bytes(BinaryViewArray),
    Interval(IntervalMonthDayNanoArray),
}

impl Cells {
    fn of(column: &ArrayRef) -> Result<Self, arrow::error::ArrowError> {
        let form = form(column.data_type()).unwrap_or(DataType::Null);
        let column = match column.data_type() {
            same if *same == form => column.clone(),
            // There is no shorter way from days to integers.
            DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &form)?,
            _ => cast(column, &form)?,
        };
        Ok(match form {
            DataType::Boolean => Self::Boolean(column.as_boolean().clone()),
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>().clone()),
            DataType::BinaryView => Self::Bytes(column.as_binary_view().clone()),
            DataType::Interval(_) => {
                Self::Interval(column.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            _ => Self::Integer(column.as_primitive::<Int64Type>().clone()),
        })
    }

    /// One byte 0 for NULL; else one byte 1 and the value, little-endian.
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let is_null = match self {
            Self::Boolean(cells) => cells.is_null(row),
            Self::Integer(cells) => cells.is_null(row),
            Self::Float(cells) => cells.is_null(row),
            Self::Bytes(cells) => cells.is_null(row),
            Self::Interval(cells) => cells.is_null(row),
        };
        out.push(u8::from(!is_null));
        if is_null {
            return;
        }
        match self {
            Self::Boolean(cells) => out.push(u8::from(cells.value(row))),
            Self::Integer(cells) => out.extend(cells.value(row).to_le_bytes()),
            Self::Float(cells) => out.extend(canonical(cells.value(row)).to_le_bytes()),
            Self::Bytes(cells) => {
                let bytes = cells.value(row);
                out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                out.extend(bytes);
            }
            Self::Interval(cells) => {
                let interval = cells.value(row);
                out.extend(interval.months.to_le_bytes());
                out.extend(interval.days.to_le_bytes());
                out.extend(interval.nanoseconds.to_le_bytes());
            }
        }
    }
}

/// One bit pattern for zero and one for everything that is no number.
fn canonical(value: f64) -> u64 {
    if value.is_nan() {
        0x7ff8_0000_0000_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, Date32Array, Float32Array, Int16Array, Int32Array, StringArray, StringViewArray,
        TimestampMicrosecondArray,
    };

    use super::*;

    fn hashes(columns: Vec<ArrayRef>) -> Vec<u64> {
        let names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
        let batch = RecordBatch::try_from_iter_with_nullable(
            names.iter().zip(columns).map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        Partitioner::new(&batch.schema(), &names, 4).unwrap().hashes(&batch).unwrap()
    }

    fn of(column: impl arrow::array::Array + 'static) -> Vec<u64> {
        hashes(vec![Arc::new(column)])
    }

    #[test]
    fn the_hash_is_that_of_its_specification() {
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(XxHash3_64::oneshot(&[0]), 0xc44b_dff4_074e_ecdb);
    }

    /// Never change these: rows of one key would go to two partitions while a cluster is updated.
    #[test]
    fn golden_values_hold_the_first_version_still() {
        let golden = [
            (
                of(BooleanArray::from(vec![Some(true), None])),
                vec![0x070d_80d6_a768_65f3, 0xc44b_dff4_074e_ecdb],
            ),
            (
                of(Int64Array::from(vec![0, 1, -1, 1_000_000_007])),
                vec![
                    0x313c_2dd2_ec99_6e80,
                    0xa048_b5cb_8216_2577,
                    0x53a5_f4bc_2fc0_168c,
                    0xd951_1704_6ef7_2748,
                ],
            ),
            (
                of(Float64Array::from(vec![0.0, 1.5, f64::NAN])),
                vec![0x313c_2dd2_ec99_6e80, 0x2b68_e3d9_5bc4_08b8, 0x6a33_929c_e40a_04d7],
            ),
            (
                of(StringArray::from(vec!["", "a", "user-4711"])),
                vec![0xd1dd_927e_d529_f768, 0xb901_fd8f_0004_7977, 0xedf9_270d_3867_7176],
            ),
            (
                hashes(vec![
                    Arc::new(StringArray::from(vec!["user-4711", "user-4711"])),
                    Arc::new(Int32Array::from(vec![Some(7), None])),
                ]),
                vec![0x97c1_5d86_9233_cb65, 0x6e84_73b0_3e55_6771],
            ),
        ];
        for (found, wanted) in golden {
            assert_eq!(found, wanted, "{found:#018x?}");
        }
    }

    #[test]
    fn equal_values_of_other_types_have_the_same_hash() {
        let seven = of(Int64Array::from(vec![7]));
        assert_eq!(of(Int16Array::from(vec![7])), seven);
        assert_eq!(of(Date32Array::from(vec![7])), seven);
        assert_eq!(of(TimestampMicrosecondArray::from(vec![7]).with_timezone("UTC")), seven);
        assert_eq!(of(Float32Array::from(vec![1.5, -0.0])), of(Float64Array::from(vec![1.5, 0.0])));
        assert_eq!(of(StringArray::from(vec!["abc"])), of(StringViewArray::from(vec!["abc"])));
        assert_eq!(of(StringArray::from(vec!["abc"])), of(BinaryArray::from(vec![b"abc".as_slice()])));
    }

    #[test]
    fn columns_do_not_run_into_each_other() {
        let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
        assert_ne!(hashes(vec![text("a"), text("bc")]), hashes(vec![text("ab"), text("c")]));
        assert_ne!(of(StringArray::from(vec![Some("")])), of(StringArray::from(vec![None::<&str>])));
    }

    #[test]
    fn rows_are_spread_evenly_and_a_slice_changes_nothing() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let partitioner = Partitioner::new(&batch.schema(), &["c".to_owned()], 7).unwrap();
        let all = partitioner.partitions(&batch).unwrap();
        for n in 0..7 {
            let rows = all.iter().filter(|p| **p == n).count();
            assert!((1200..1700).contains(&rows), "partition {n} has {rows} of 10,000 rows");
        }
        assert_eq!(partitioner.partitions(&batch.slice(100, 50)).unwrap(), all[100..150]);
    }

    #[test]
    fn a_column_that_cannot_be_a_key_is_named() {
        let kind = DataType::Struct(Vec::<arrow::datatypes::Field>::new().into());
        let schema = Schema::new(vec![arrow::datatypes::Field::new("s", kind, true)]);
        let error = |name: &str| Partitioner::new(&schema, &[name.to_owned()], 2).err().unwrap();
        assert!(error("s").contains("column `s`"), "{}", error("s"));
        assert_eq!(error("t"), "there is no column `t`");
    }
}
