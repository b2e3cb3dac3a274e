//! Specs, records and batches for the cases.

use arrow::{record_batch::RecordBatch, util::display::array_value_to_string};
use bytes::Bytes;
use model::{
    Batch, Column, Creation, Cursor, Encode, Field, Format, FormatClause, Include, IncludeKind, ObjectId,
    OnError, Ops, Options, RawRecord, SinkSpec, SourceSpec, SplitId, SqlType, Start, StartFrom, Timestamp,
};

pub fn columns(columns: &[(&str, SqlType)]) -> Vec<Column> {
    columns.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: kind.clone() }).collect()
}

pub fn struct_of(fields: &[(&str, SqlType)]) -> SqlType {
    SqlType::Struct(
        fields.iter().map(|(name, kind)| Field { name: (*name).to_owned(), kind: kind.clone() }).collect(),
    )
}

pub fn list_of(item: SqlType) -> SqlType {
    SqlType::List(Box::new(item))
}

pub fn clause(encode: Encode, options: &[(&str, &str)], key_encode: Option<Encode>) -> FormatClause {
    FormatClause { format: Format::Plain, encode, options: options.iter().copied().collect(), key_encode }
}

pub fn source(declared: &[(&str, SqlType)], encode: Encode, options: &[(&str, &str)]) -> SourceSpec {
    SourceSpec {
        id: ObjectId::from_parts(1, 1),
        name: "t".into(),
        connector: "kinesis".into(),
        options: Options::default(),
        columns: columns(declared),
        include: Vec::new(),
        primary_key: Vec::new(),
        format: clause(encode, options, None),
        on_error: OnError::Skip,
        start: Start::all(StartFrom::Horizon),
        creation: Creation(1),
        created_at: Timestamp(0),
        revision: 1,
    }
}

pub fn include(kind: IncludeKind, name: &str, sql: SqlType) -> Include {
    Include { kind, column: Column { name: name.into(), kind: sql } }
}

pub fn sink(
    declared: &[(&str, SqlType)],
    encode: Encode,
    options: &[(&str, &str)],
    key: &[&str],
) -> SinkSpec {
    SinkSpec {
        id: ObjectId::from_parts(1, 2),
        name: "s".into(),
        source: ObjectId::from_parts(1, 1),
        source_name: "t_kafka".into(),
        query: None,
        columns: columns(declared),
        connector: "kinesis".into(),
        options: Options::default(),
        primary_key: key.iter().map(|k| (*k).to_owned()).collect(),
        format: Some(clause(encode, options, None)),
        on_error: OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    }
}

pub fn record(payload: impl Into<Bytes>) -> RawRecord {
    RawRecord {
        cursor: Cursor::new("4959:3"),
        key: Bytes::from_static(b"p1"),
        payload: payload.into(),
        arrived_at: Timestamp(1_700_000_000_123),
    }
}

pub fn split() -> SplitId {
    SplitId::new(Creation(1), "shardId-000000000000")
}

/// The row as text, columns joined by `|`, NULL as `NULL`.
pub fn shown(batch: &RecordBatch, row: usize) -> String {
    let cell = |column: &arrow::array::ArrayRef| {
        if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() }
    };
    batch.columns().iter().map(cell).collect::<Vec<_>>().join("|")
}

/// The records of a source as a batch for a sink.
pub fn batch(source: &SourceSpec, payloads: &[&str]) -> Batch {
    let mut decoder = shardwright_formats::decoder(source, None).unwrap();
    for payload in payloads {
        decoder.decode(&record(payload.as_bytes().to_vec()), &split()).unwrap();
    }
    assert_eq!(decoder.bad_values(), 0, "the input of a sink's case is good");
    let rows = decoder.finish();
    let cursors = vec![Cursor::new("1"); rows.num_rows()];
    Batch { rows, ops: Ops::Inserts, cursors }
}
