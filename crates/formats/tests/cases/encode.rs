//! Rows to messages.

use arrow::array::cast::AsArray;
use model::{Batch, Cursor, Encode, IncludeKind, Op, Ops, SinkSpec, SqlType};
use shardwright_formats::{MessageEncoder, check_sink, decoder};

use crate::support::*;

const UTC_WITHOUT_SUFFIX: (&str, &str) = ("timestamptz.handling.mode", "utc_without_suffix");

/// (key, value) of each message, as text.
fn messages(sink: &SinkSpec, batch: &Batch) -> Vec<(Option<String>, String)> {
    let encoded = MessageEncoder::new(sink).unwrap().encode(batch).unwrap();
    assert!(encoded.refused.is_empty(), "{:?}", encoded.refused);
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    encoded.messages.iter().map(|m| (m.key.as_ref().map(text), text(&m.value))).collect()
}

/// The JSON that becomes of one value of a type, which came as JSON.
fn value(kind: &SqlType, options: &[(&str, &str)], json: &str) -> String {
    let declared = [("c", kind.clone())];
    let batch = batch(&source(&declared, Encode::Json, &[]), &[&format!("{{\"c\":{json}}}")]);
    let (_, text) = messages(&sink(&declared, Encode::Json, options, &[]), &batch).remove(0);
    text.strip_prefix("{\"c\":").and_then(|t| t.strip_suffix('}')).unwrap().to_owned()
}

fn t_kafka() -> Vec<(&'static str, SqlType)> {
    use SqlType::*;
    vec![
        ("id", Integer),
        ("v_varchar", Varchar),
        ("v_smallint", Smallint),
        ("v_integer", Integer),
        ("v_bigint", Bigint),
        ("v_float", Real),
        ("v_double", Double),
        ("v_timestamp", Timestamp),
        ("v_bytea", Bytea),
        ("v_interval", Interval),
        ("v_date", Date),
        ("v_time", Time),
        ("v_timestamptz", Timestamptz),
        ("v_jsonb", Jsonb),
    ]
}

#[test]
fn a_row_with_every_type_is_one_exact_line() {
    let row = r#"{"id":1,"v_varchar":"8DfUFencLe","v_smallint":31031,"v_integer":1872,"v_bigint":1872,"v_float":26261.416,
        "v_double":23956.39329760601,"v_timestamp":"2023-04-14 06:27:14.104742","v_bytea":"\\x00","v_interval":"0 second",
        "v_date":"0001-01-01","v_time":"00:00:01.123456","v_timestamptz":"0001-01-01T00:00:00.123456Z","v_jsonb":{}}"#;
    let batch = batch(&source(&t_kafka(), Encode::Json, &[]), &[row]);
    let found = messages(&sink(&t_kafka(), Encode::Json, &[UTC_WITHOUT_SUFFIX], &["id"]), &batch);
    let line = r#"{"id":1,"v_bigint":1872,"v_bytea":"AA==","v_date":1,"v_double":23956.39329760601,"v_float":26261.416015625,"v_integer":1872,"v_interval":"P0Y0M0DT0H0M0S","v_jsonb":"{}","v_smallint":31031,"v_time":1000,"v_timestamp":1681453634104,"v_timestamptz":"0001-01-01 00:00:00.123456","v_varchar":"8DfUFencLe"}"#;
    assert_eq!(found, [(Some(r#"{"id":1}"#.to_owned()), line.to_owned())]);
}

#[test]
fn half_a_surrogate_pair_is_a_bad_value_and_stops_no_row() {
    let half = r#""\ud83d""#;
    let deep = format!(r#"{{"a":[{{"b":{half}}}]}}"#);
    let name = format!(r#"{{{half}:1}}"#);
    let kind = struct_of(&[("j", SqlType::Jsonb)]);
    let declared =
        [("id", SqlType::Integer), ("j", SqlType::Jsonb), ("s", kind), ("l", list_of(SqlType::Jsonb))];
    let mut spec = source(&declared, Encode::Json, &[]);
    spec.include.push(include(IncludeKind::Payload, "p", SqlType::Jsonb));
    let mut sinks = declared.to_vec();
    sinks.push(("p", SqlType::Jsonb));
    for bad in [half, &deep, &name] {
        let mut decoder = decoder(&spec, None).unwrap();
        let row = format!(r#"{{"id":1,"j":{bad},"s":{{"j":{bad}}},"l":["\u0061",{bad}]}}"#);
        decoder.decode(&record(row), &split()).unwrap();
        decoder.decode(&record(r#"{"id":2,"j":"\ud83d\ude00"}"#), &split()).unwrap();
        assert_eq!(decoder.bad_values(), 4, "{bad}");
        let rows = decoder.finish();
        let batch = Batch { rows, ops: Ops::Inserts, cursors: vec![Cursor::new("1"); 2] };
        let found = messages(&sink(&sinks, Encode::Json, &[], &[]), &batch);
        assert_eq!(found[0].1, r#"{"id":1,"j":null,"l":["\"a\"",null],"p":null,"s":{"j":null}}"#, "{bad}");
        assert!(found[1].1.contains("\u{1f600}"), "{}", found[1].1);
    }
}

#[test]
fn null_is_a_member_like_any_other() {
    let batch = batch(&source(&t_kafka(), Encode::Json, &[]), &[r#"{"id":1}"#]);
    let (_, line) = messages(&sink(&t_kafka(), Encode::Json, &[], &[]), &batch).remove(0);
    let names = [
        "v_bigint",
        "v_bytea",
        "v_date",
        "v_double",
        "v_float",
        "v_integer",
        "v_interval",
        "v_jsonb",
        "v_smallint",
        "v_time",
        "v_timestamp",
        "v_timestamptz",
        "v_varchar",
    ];
    let nulls: String = names.iter().map(|name| format!(",\"{name}\":null")).collect();
    assert_eq!(line, format!("{{\"id\":1{nulls}}}"));
}

#[test]
fn each_type_is_written_as_its_row_of_the_table_says() {
    use SqlType::*;
    let tz = |mode| ("timestamptz.handling.mode", mode);
    type Case<'a> = (SqlType, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (Boolean, &[], "true", "true"),
        (Bigint, &[], "9223372036854775807", "9223372036854775807"),
        (Real, &[], "26261.416", "26261.416015625"),
        (Real, &[], "21217.777", "21217.77734375"),
        (Real, &[], "0", "0.0"),
        (Double, &[], "1", "1.0"),
        (Double, &[], "-0.0", "-0.0"),
        (Double, &[], "1e16", "1e16"),
        (Double, &[], "1e15", "1000000000000000.0"),
        (Double, &[], "1.5e300", "1.5e300"),
        (Double, &[], "0.0001", "0.0001"),
        (Double, &[], "0.00001", "0.00001"),
        (Double, &[], "0.000001", "1e-6"),
        (Double, &[], "\"NaN\"", "null"),
        (Double, &[], "\"-Infinity\"", "null"),
        (Numeric, &[], "1.50", "\"1.50\""),
        (Numeric, &[], "\"NaN\"", "\"NaN\""),
        (Varchar, &[], r#""a\"b\\\/\u0001\n\u00e9""#, "\"a\\\"b\\\\/\\u0001\\né\""),
        (Bytea, &[], r#""\\xDEADBEEF""#, "\"3q2+7w==\""),
        (Bytea, &[], r#""\\x""#, "\"\""),
        (Date, &[], "\"1970-01-01\"", "719163"),
        (Date, &[], "\"2000-01-01\"", "730120"),
        (Date, &[], "\"1999-12-01\"", "730089"),
        (Time, &[], "\"01:00:01.123456\"", "3601000"),
        (Time, &[], "\"00:01:01.123456\"", "61000"),
        (Time, &[("time.handling.mode", "milli")], "\"00:00:01.123456\"", "1123"),
        (Time, &[("time.handling.mode", "string")], "\"00:00:01.123456\"", "\"00:00:01.123456\""),
        (Timestamp, &[], "\"1970-01-01 00:16:40\"", "1000000"),
        (Timestamp, &[], "\"1969-12-31 23:59:59.9995\"", "-1"),
        (Timestamptz, &[], "\"2018-01-26T18:30:09.453Z\"", "\"2018-01-26T18:30:09.453000Z\""),
        (
            Timestamptz,
            &[UTC_WITHOUT_SUFFIX],
            "\"2018-01-26T18:30:09.453Z\"",
            "\"2018-01-26 18:30:09.453000\"",
        ),
        (Timestamptz, &[tz("milli")], "\"2018-01-26T18:30:09.453Z\"", "1516991409453"),
        (Timestamptz, &[tz("micro")], "\"2018-01-26T18:30:09.453Z\"", "1516991409453000"),
        (Interval, &[], "\"1 year 1 mon 2 days 1 second\"", "\"P1Y1M2DT0H0M1S\""),
        (Interval, &[], "\"05:01:00.1234567\"", "\"P0Y0M0DT5H1M0.123457S\""),
        (Interval, &[], "\"04:00:00.1234\"", "\"P0Y0M0DT4H0M0.1234S\""),
        (Interval, &[], "\"-1 hour\"", "\"P0Y0M0DT-1H0M0S\""),
        (Interval, &[], "\"-00:00:00.5\"", "\"P0Y0M0DT0H0M-0.5S\""),
        (Jsonb, &[], r#"{"b":[1,2],"a":1}"#, r#""{\"a\": 1, \"b\": [1, 2]}""#),
        (Jsonb, &[("jsonb.handling.mode", "dynamic")], r#"{"b":[1,2],"a":1}"#, r#"{"a":1,"b":[1,2]}"#),
        (list_of(Integer), &[], "[1,null,2]", "[1,null,2]"),
        (list_of(list_of(Date)), &[], "[[0],[]]", "[[719163],[]]"),
        (struct_of(&[("v5", Real), ("v4", Integer)]), &[], "{\"v4\":0,\"v5\":0}", "{\"v4\":0,\"v5\":0.0}"),
        (
            struct_of(&[("b", list_of(struct_of(&[("z", Varchar), ("a", Jsonb)])))]),
            &[],
            r#"{"b":[{"z":"q"},null]}"#,
            r#"{"b":[{"a":null,"z":"q"},null]}"#,
        ),
    ];
    for (kind, options, json, expected) in cases {
        assert_eq!(value(kind, options, json), *expected, "{kind} {options:?} {json}");
    }
}

#[test]
fn the_key_is_an_object_or_bare_text() {
    let declared = [("v", SqlType::Varchar), ("id", SqlType::Integer)];
    let batch = batch(&source(&declared, Encode::Json, &[]), &[r#"{"id":1,"v":"a"}"#, r#"{"id":2}"#]);
    let key = |sink: &SinkSpec, row: usize| messages(sink, &batch)[row].0.clone();
    let mut two = sink(&declared, Encode::Json, &[], &["v", "id"]);
    assert_eq!(key(&two, 0).as_deref(), Some(r#"{"id":1,"v":"a"}"#));
    two.format.as_mut().unwrap().key_encode = Some(Encode::Text);
    assert_eq!(
        check_sink(&two).unwrap_err().to_string(),
        "KEY ENCODE TEXT expects only one primary key, but got 2"
    );
    let mut one = two.clone();
    one.primary_key = vec!["id".into()];
    assert_eq!(key(&one, 0).as_deref(), Some("1"));
    one.primary_key = vec!["v".into()];
    assert_eq!((key(&one, 0).as_deref(), key(&one, 1).as_deref()), (Some("a"), Some("NULL")));
    assert_eq!(key(&sink(&declared, Encode::Json, &[], &[]), 0), None);
}

#[test]
fn schemas_wrap_key_and_value() {
    let declared = [
        ("id", SqlType::Integer),
        ("s", struct_of(&[("q", list_of(SqlType::Bigint))])),
        ("t", SqlType::Timestamptz),
    ];
    let batch = batch(&source(&declared, Encode::Json, &[]), &[r#"{"id":1}"#]);
    let found = messages(&sink(&declared, Encode::Json, &[("schemas.enable", "true")], &["id"]), &batch);
    let key = r#"{"payload":{"id":1},"schema":{"fields":[{"field":"id","optional":true,"type":"int32"}],"name":"dev.t_kafka","optional":false,"type":"struct"}}"#;
    let value = r#"{"payload":{"id":1,"s":null,"t":null},"schema":{"fields":[{"field":"id","optional":true,"type":"int32"},{"field":"s","fields":[{"field":"q","items":{"optional":true,"type":"int64"},"optional":true,"type":"array"}],"optional":true,"type":"struct"},{"field":"t","optional":true,"type":"string"}],"name":"dev.t_kafka","optional":false,"type":"struct"}}"#;
    assert_eq!(found, [(Some(key.to_owned()), value.to_owned())]);
}

#[test]
fn deletes_of_an_append_only_sink_are_dropped() {
    let declared = [("a", SqlType::Integer)];
    let rows = [r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#, r#"{"a":3}"#];
    let mut batch = batch(&source(&declared, Encode::Json, &[]), &rows);
    batch.ops = Ops::Each(vec![Op::Insert, Op::UpdateDelete, Op::UpdateInsert, Op::Insert, Op::Delete]);
    let encoder = MessageEncoder::new(&sink(&declared, Encode::Json, &[], &[])).unwrap();
    let encoded = encoder.encode(&batch).unwrap();
    let rows: Vec<usize> = encoded.messages.iter().map(|m| m.row).collect();
    assert_eq!(rows, [0, 2, 3]);
    assert_eq!(encoded.messages[1].value, r#"{"a":2}"#);
}

#[test]
fn bytes_leave_as_they_came_with_a_key_of_other_columns() {
    let mut spec = source(&[("data", SqlType::Bytea)], Encode::Bytes, &[]);
    spec.include.push(include(model::IncludeKind::Partition, "p", SqlType::Varchar));
    let payloads = ["short", "a payload that is longer than twelve bytes"];
    let batch = batch(&spec, &payloads);
    let declared = [("data", SqlType::Bytea), ("p", SqlType::Varchar)];
    let mut keyed = sink(&declared, Encode::Bytes, &[], &["p"]);
    keyed.format.as_mut().unwrap().key_encode = Some(Encode::Text);
    let encoded = MessageEncoder::new(&keyed).unwrap().encode(&batch).unwrap();
    for (message, payload) in encoded.messages.iter().zip(payloads) {
        assert_eq!(
            (&message.value[..], message.key.as_deref()),
            (payload.as_bytes(), Some(&b"shardId-000000000000"[..]))
        );
    }
    let held = batch.rows.column(0).as_binary_view().value(1).as_ptr();
    assert_eq!(encoded.messages[1].value.as_ptr(), held, "a long value is not copied");
    assert!(
        check_sink(&sink(&declared, Encode::Bytes, &[], &[])).is_err(),
        "two columns cannot both be the message"
    );
}

#[test]
fn one_row_that_cannot_be_written_spoils_no_other() {
    let declared = [("a", SqlType::Integer), ("t", SqlType::Timestamptz)];
    let rows = [r#"{"a":1,"t":0}"#, r#"{"a":2,"t":9223372036854775}"#, r#"{"a":3}"#];
    let source = source(&declared, Encode::Json, &[("timestamptz.handling.mode", "milli")]);
    let encoder = MessageEncoder::new(&sink(&declared, Encode::Json, &[], &["a"])).unwrap();
    let encoded = encoder.encode(&batch(&source, &rows)).unwrap();
    let found: Vec<_> = encoded.messages.iter().map(|m| (m.row, m.value.as_ref())).collect();
    assert_eq!(
        found,
        [(0, &br#"{"a":1,"t":"1970-01-01T00:00:00.000000Z"}"#[..]), (2, br#"{"a":3,"t":null}"#)]
    );
    assert_eq!(encoded.refused.len(), 1);
    assert!(encoded.refused[0].row == 1 && encoded.refused[0].reason.contains("beyond the calendar"));
}

#[test]
fn clauses_that_cannot_be_carried_out_are_refused() {
    use SqlType::*;
    let json = |options| sink(&[("v_bytea", Bytea)], Encode::Json, options, &["v_bytea"]);
    let with_key = |connector: &str, key| {
        let mut spec = json(&[]);
        spec.connector = connector.into();
        spec.format.as_mut().unwrap().key_encode = Some(key);
        spec
    };
    let map = Map(Box::new(Varchar), Box::new(Integer));
    for (spec, expected) in [
        (
            with_key("kinesis", Encode::Text),
            "The key encode is TEXT, but the primary key column v_bytea has type bytea. The key encode TEXT requires the primary key column to be of type varchar, bool, small int, int, big int",
        ),
        (
            with_key("kinesis", Encode::Json),
            "sink key encode unsupported: JSON, only TEXT and BYTES supported",
        ),
        (
            with_key("kinesis", Encode::Bytes),
            "key encode bytes only works with kafka connector, but found kinesis",
        ),
        (sink(&[("a", Varchar)], Encode::Text, &[], &[]), "ENCODE TEXT is only valid as key encode."),
        (
            sink(&[("a", list_of(map))], Encode::Json, &[], &[]),
            "unsupported data type map(character varying,integer) of column `a`: JSON sinks cannot write it",
        ),
        (
            sink(&[("a", Varchar)], Encode::Json, &[], &["b"]),
            "Sink primary key column not found: b. Please use ',' as the delimiter for different primary key columns.",
        ),
        (json(&[("timestamptz.handling.mode", "x")]), "unrecognized timestamptz.handling.mode value x"),
        (json(&[("jsonb.handling.mode", "x")]), "unrecognized jsonb.handling.mode value x"),
        (json(&[("time.handling.mode", "x")]), "unrecognized time.handling.mode value x"),
        (json(&[("schemas.enable", "x")]), "schemas.enable is expected to be `true` or `false`, got x"),
        (json(&[("force_append_only", "x")]), "`force_append_only` must be true or false"),
    ] {
        assert_eq!(check_sink(&spec).unwrap_err().to_string(), expected);
    }
    assert!(check_sink(&with_key("kafka", Encode::Bytes)).is_ok());
}
