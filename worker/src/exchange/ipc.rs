//! Parts as Arrow IPC (lz4) and back. What is known of each row travels as columns behind those of the sink, so that it is
//! compressed with them: sequence numbers of one split have most of their digits in common.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray as _, BinaryArray, Int64Array, StringArray, UInt8Array, UInt32Array},
    buffer::Buffer,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt8Type, UInt32Type},
    error::ArrowError,
    record_batch::RecordBatch,
};
use arrow_ipc::{
    CompressionType, MetadataVersion, root_as_message,
    writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
};
use bytes::Bytes;
use model::{Batch, Cursor, Op, Ops, RawRecord, Timestamp};
use proto::v1;

use super::part::{Part, Rows, compact, is_slack};

/// No column of a sink can have such a name.
const PREFIX: &str = "\u{1}";
const CURSOR: &str = "\u{1}cursor";
const SIZE: &str = "\u{1}size";
const OP: &str = "\u{1}op";
const RAW: [&str; 3] = ["\u{1}key", "\u{1}payload", "\u{1}arrived"];

type Result<T, E = ArrowError> = std::result::Result<T, E>;

/// Writes the parts of one stream.
pub(super) struct Encoder {
    options: IpcWriteOptions,
    context: CompressionContext,
    /// The schema that the other side knows.
    known: Option<SchemaRef>,
}

impl Encoder {
    pub(super) fn new() -> Result<Self> {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        Ok(Self { options, context: CompressionContext::default(), known: None })
    }

    pub(super) fn encode(&mut self, part: &Part) -> Result<v1::Part> {
        let batch = widen(&part.rows)?;
        let (generator, mut dictionaries) = (IpcDataGenerator::default(), DictionaryTracker::new(false));
        let mut schema = Vec::new();
        if self.known.as_ref() != Some(batch.schema_ref()) {
            let known = batch.schema_ref();
            schema = generator
                .schema_to_bytes_with_dictionary_tracker(known, &mut dictionaries, &self.options)
                .ipc_message;
            self.known = Some(Arc::clone(known));
        }
        let (_, data) = generator.encode(&batch, &mut dictionaries, &self.options, &mut self.context)?;
        Ok(v1::Part {
            number: part.number,
            bytes: part.bytes,
            schema: schema.into(),
            header: data.ipc_message.into(),
            body: data.arrow_data.into(),
            traceparent: part.traceparent.clone(),
        })
    }
}

fn widen(rows: &Rows) -> Result<RecordBatch> {
    let (batch, count) = (&rows.batch, rows.len());
    let columns = if is_slack(&batch.rows) { compact(&batch.rows)? } else { batch.rows.clone() };
    let mut fields: Vec<Arc<Field>> = columns.schema_ref().fields().iter().cloned().collect();
    let mut arrays: Vec<ArrayRef> = columns.columns().to_vec();
    let mut add = |name: &str, array: ArrayRef| {
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        arrays.push(array);
    };
    add(CURSOR, Arc::new(StringArray::from_iter_values(batch.cursors.iter().map(Cursor::as_str))));
    add(SIZE, Arc::new(UInt32Array::from(rows.sizes.clone())));
    if let Ops::Each(ops) = &batch.ops {
        add(OP, Arc::new(UInt8Array::from_iter_values(ops.iter().map(|op| op_to_wire(*op)))));
    }
    if rows.raw.len() == count && count > 0 {
        let raw = &rows.raw;
        add(RAW[0], Arc::new(BinaryArray::from_iter_values(raw.iter().map(|r| &r.key))));
        add(RAW[1], Arc::new(BinaryArray::from_iter_values(raw.iter().map(|r| &r.payload))));
        add(RAW[2], Arc::new(Int64Array::from_iter_values(raw.iter().map(|r| r.arrived_at.0))));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// Reads the parts of one stream.
#[derive(Default)]
pub(super) struct Decoder {
    schema: Option<SchemaRef>,
}

impl Decoder {
    pub(super) fn decode(&mut self, part: v1::Part) -> Result<Part> {
        let broken = |what: &str| ArrowError::IpcError(format!("a part {what}"));
        if !part.schema.is_empty() {
            let message = root_as_message(&part.schema).map_err(|e| broken(&e.to_string()))?;
            let schema = message.header_as_schema().ok_or_else(|| broken("has no schema where it should"))?;
            self.schema = Some(Arc::new(arrow_ipc::convert::fb_to_schema(schema)));
        }
        let schema = self.schema.clone().ok_or_else(|| broken("comes before its schema"))?;
        let message = root_as_message(&part.header).map_err(|e| broken(&e.to_string()))?;
        let rows = message.header_as_record_batch().ok_or_else(|| broken("has no rows"))?;
        let (body, none) = (Buffer::from(part.body), HashMap::new());
        let batch =
            arrow_ipc::reader::read_record_batch(&body, rows, schema, &none, None, &MetadataVersion::V5)?;
        let traceparent = part.traceparent;
        Ok(Part { number: part.number, bytes: part.bytes, rows: narrow(&batch)?, traceparent })
    }
}

fn narrow(batch: &RecordBatch) -> Result<Rows> {
    let schema = batch.schema_ref();
    let own: Vec<usize> =
        (0..schema.fields().len()).filter(|i| !schema.field(*i).name().starts_with(PREFIX)).collect();
    let column = |name: &str, kind: &DataType| match batch.column_by_name(name) {
        Some(column) if column.data_type() == kind => Ok(Some(column)),
        Some(_) => Err(ArrowError::IpcError(format!("a part has a wrong `{}`", &name[1..]))),
        None => Ok(None),
    };
    let needed = |column: Option<ArrayRef>, name: &str| {
        column.ok_or_else(|| ArrowError::IpcError(format!("a part has no `{}`", &name[1..])))
    };
    let cursors = needed(column(CURSOR, &DataType::Utf8)?.cloned(), CURSOR)?;
    let cursors: Vec<Cursor> =
        cursors.as_string::<i32>().iter().map(|c| Cursor::new(c.unwrap_or_default())).collect();
    let sizes = needed(column(SIZE, &DataType::UInt32)?.cloned(), SIZE)?;
    let ops = match column(OP, &DataType::UInt8)? {
        Some(ops) => {
            Ops::Each(ops.as_primitive::<UInt8Type>().values().iter().map(|op| wire_to_op(*op)).collect())
        }
        None => Ops::Inserts,
    };
    let mut raw = Vec::new();
    if let Some(keys) = column(RAW[0], &DataType::Binary)? {
        let payloads = needed(column(RAW[1], &DataType::Binary)?.cloned(), RAW[1])?;
        let arrivals = needed(column(RAW[2], &DataType::Int64)?.cloned(), RAW[2])?;
        let (keys, payloads) = (keys.as_binary::<i32>(), payloads.as_binary::<i32>());
        let arrivals = arrivals.as_primitive::<Int64Type>().values();
        raw = (0..batch.num_rows())
            .map(|row| RawRecord {
                cursor: cursors[row].clone(),
                key: Bytes::copy_from_slice(keys.value(row)),
                payload: Bytes::copy_from_slice(payloads.value(row)),
                arrived_at: Timestamp(arrivals[row]),
            })
            .collect();
    }
    let sizes = sizes.as_primitive::<UInt32Type>().values().to_vec();
    Ok(Rows { batch: Batch { rows: batch.project(&own)?, ops, cursors }, sizes, raw })
}

fn op_to_wire(op: Op) -> u8 {
    match op {
        Op::Insert => 0,
        Op::Delete => 1,
        Op::UpdateDelete => 2,
        Op::UpdateInsert => 3,
    }
}

fn wire_to_op(op: u8) -> Op {
    match op {
        1 => Op::Delete,
        2 => Op::UpdateDelete,
        3 => Op::UpdateInsert,
        _ => Op::Insert,
    }
}

#[cfg(test)]
mod tests {
    use super::super::part::tests::{cursors, rows};
    use super::*;

    fn part(number: u64, rows: Rows) -> Part {
        Part { number, bytes: rows.bytes(), rows, traceparent: String::new() }
    }

    #[test]
    fn a_part_survives_the_wire() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let mut sent = part(3, rows(10..15, true));
        sent.rows.batch.ops =
            Ops::Each(vec![Op::Insert, Op::Delete, Op::UpdateDelete, Op::UpdateInsert, Op::Insert]);
        let got = decoder.decode(encoder.encode(&sent).unwrap()).unwrap();
        assert_eq!((got.number, got.bytes), (3, sent.bytes));
        assert_eq!(got.rows.batch.rows, sent.rows.batch.rows);
        assert_eq!((&got.rows.batch.ops, &got.rows.sizes), (&sent.rows.batch.ops, &sent.rows.sizes));
        assert_eq!(cursors(&got.rows), cursors(&sent.rows));
        let record = &got.rows.raw[2];
        assert_eq!(
            (&record.key[..], &record.payload[..], record.arrived_at.0),
            (&b"k12"[..], &b"p12"[..], 12)
        );
    }

    #[test]
    fn the_schema_travels_once_and_again_when_it_changes() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let first = encoder.encode(&part(0, rows(0..3, false))).unwrap();
        let second = encoder.encode(&part(1, rows(3..5, false))).unwrap();
        let third = encoder.encode(&part(2, rows(5..6, true))).unwrap();
        assert!(!first.schema.is_empty() && second.schema.is_empty() && !third.schema.is_empty());
        assert!(Decoder::default().decode(second.clone()).is_err(), "rows without a schema");
        for (message, wanted) in [(first, vec!["0", "1", "2"]), (second, vec!["3", "4"]), (third, vec!["5"])]
        {
            assert_eq!(cursors(&decoder.decode(message).unwrap().rows), wanted);
        }
    }

    #[test]
    fn a_slice_sends_only_its_own_bytes() {
        let mut all = rows(0..2000, false);
        let first = all.cut(500);
        let message = Encoder::new().unwrap().encode(&part(0, first)).unwrap();
        assert!(message.body.len() < 2000, "{} bytes for five rows", message.body.len());
    }

    #[test]
    fn nonsense_is_refused() {
        let mut message = Encoder::new().unwrap().encode(&part(0, rows(0..3, false))).unwrap();
        message.header = Bytes::from_static(b"nonsense");
        assert!(Decoder::default().decode(message).is_err());
    }
}
