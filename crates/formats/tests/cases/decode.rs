//! Records to rows.

use arrow::array::{Array, cast::AsArray};
use bytes::Bytes;
use model::{Encode, IncludeKind, SqlType};
use shardwright_formats::{Decoder, check_source, decoder};

use crate::support::*;

/// One column `c` of a type, fed one value; the value as text, `NULL!` if it did not fit.
fn value(kind: &SqlType, options: &[(&str, &str)], json: &str) -> String {
    let mut decoder = decoder(&source(&[("c", kind.clone())], Encode::Json, options), None).unwrap();
    decoder.decode(&record(format!("{{\"x\":[{json}],\"c\":{json}}}")), &split()).unwrap();
    let bad = if decoder.bad_values() > 0 { "!" } else { "" };
    format!("{}{bad}", shown(&decoder.finish(), 0))
}

#[test]
fn each_type_takes_what_its_row_of_the_table_says() {
    use SqlType::*;
    let cases: &[(SqlType, &[(&str, &str)])] = &[
        (Boolean, &[("true", "true"), ("null", "NULL"), ("\"true\"", "NULL!"), ("1", "NULL!")]),
        (
            Smallint,
            &[("32767", "32767"), ("32768", "NULL!"), ("\"-5\"", "-5"), ("1.5", "NULL!"), ("2.0", "2")],
        ),
        (
            Integer,
            &[("99999999999", "NULL!"), ("-2147483648", "-2147483648"), ("[]", "NULL!"), ("true", "NULL!")],
        ),
        (
            Bigint,
            &[
                ("9223372036854775807", "9223372036854775807"),
                ("9223372036854775808", "NULL!"),
                ("\"x\"", "NULL!"),
            ],
        ),
        (
            Real,
            &[("1.5", "1.5"), ("1e39", "NULL!"), ("\"NaN\"", "NaN"), ("\"Infinity\"", "inf"), ("7", "7.0")],
        ),
        (Double, &[("1e308", "1e308"), ("1e309", "NULL!"), ("\"2.5\"", "2.5"), ("{}", "NULL!")]),
        (
            Numeric,
            &[
                ("1.50", "1.50"),
                ("\"1.50\"", "1.50"),
                ("12345678901234567890.12", "12345678901234567890.12"),
                ("\"NaN\"", "NaN"),
                ("true", "NULL!"),
            ],
        ),
        (
            Varchar,
            &[
                ("\"a\\u00e9\\n\"", "aé\n"),
                ("1.50", "1.50"),
                ("true", "true"),
                ("{ \"b\" : [1, 2] }", "{\"b\":[1,2]}"),
                ("\"\\ud800\"", "NULL!"),
            ],
        ),
        (
            Date,
            &[("\"2000-01-01\"", "2000-01-01"), ("1", "1970-01-02"), ("\"x\"", "NULL!"), ("1.5", "NULL!")],
        ),
        (
            Time,
            &[("\"00:00:01.123456\"", "00:00:01.123456"), ("1000000", "00:00:01"), ("86400000000", "NULL!")],
        ),
        (
            Timestamp,
            &[
                ("\"2023-04-14 06:27:14.104742\"", "2023-04-14T06:27:14.104742"),
                ("\"2023-04-14T06:27:14\"", "2023-04-14T06:27:14"),
                ("1681453634", "2023-04-14T06:27:14"),
                ("1681453634104", "2023-04-14T06:27:14.104"),
                ("1681453634104742", "2023-04-14T06:27:14.104742"),
                ("1681453634104742999", "2023-04-14T06:27:14.104742"),
                ("\"2023-04-14 06:27:14Z\"", "NULL!"),
            ],
        ),
        (
            Bytea,
            &[
                ("\"\\\\xDEADBEEF\"", "deadbeef"),
                ("\"abc\"", "616263"),
                ("\"a\\\\000\"", "6100"),
                ("\"\\\\xq\"", "NULL!"),
                ("1", "NULL!"),
            ],
        ),
        (
            Jsonb,
            &[
                ("{ \"a\" : [ 1.50 , null ] }", "{\"a\":[1.50,null]}"),
                ("\"t\\n\"", "\"t\\n\""),
                ("1e2", "1e2"),
                ("null", "NULL"),
                ("false", "false"),
            ],
        ),
        (
            Interval,
            &[
                ("\"P1Y1M2DT0H0M1S\"", "13 mons 2 days 1.000000000 secs"),
                ("\"4 hour\"", "4 hours"),
                ("5", "NULL!"),
            ],
        ),
        (
            list_of(Integer),
            &[
                ("[1, null, 2]", "[1, , 2]"),
                ("[]", "[]"),
                ("[1, \"x\"]", "[1, ]!"),
                ("{}", "NULL!"),
                ("\"[1]\"", "NULL!"),
            ],
        ),
        (list_of(list_of(Varchar)), &[("[[\"a\"],[],null]", "[[a], [], ]")]),
        (
            struct_of(&[("v4", Integer), ("v5", Real)]),
            &[
                ("{\"V5\":1,\"v4\":0,\"z\":{}}", "{v4: 0, v5: 1.0}"),
                ("{}", "{v4: , v5: }"),
                ("\"{\\\"v4\\\": 7}\"", "{v4: 7, v5: }"),
                ("\"{\\\"v4\\\": 7\"", "NULL!"),
                ("[]", "NULL!"),
                ("{\"v4\":\"x\"}", "{v4: , v5: }!"),
            ],
        ),
        (
            Map(Box::new(Varchar), Box::new(Integer)),
            &[("{\"a\":1,\"b\":null}", "{a: 1, b: }"), ("{}", "{}"), ("[]", "NULL!")],
        ),
        (
            Map(Box::new(Integer), Box::new(Varchar)),
            &[("{\"1\":\"x\"}", "{1: x}"), ("{\"1\":\"x\",\"q\":\"y\"}", "NULL!")],
        ),
    ];
    for (kind, values) in cases {
        for (json, expected) in *values {
            assert_eq!(value(kind, &[], json), *expected, "{kind} from {json}");
        }
    }
}

#[test]
fn timestamptz_keeps_its_mode() {
    let inputs =
        ["100", "1712800800123456", "\"2024-04-11T02:00:00.654321Z\"", "\"2024-04-11 02:00:00.234321\""];
    let (z, naive) = ("2024-04-11T02:00:00.654321Z", "2024-04-11T02:00:00.234321Z");
    let micro = "2024-04-11T02:00:00.123456Z";
    for (mode, expected) in [
        ("guess_number_unit", ["1970-01-01T00:01:40Z", micro, z, "NULL!"]),
        ("milli", ["1970-01-01T00:00:00.100Z", "+56246-07-01T08:02:03.456Z", z, "NULL!"]),
        ("micro", ["1970-01-01T00:00:00.000100Z", micro, z, "NULL!"]),
        ("utc_string", ["NULL!", "NULL!", z, "NULL!"]),
        ("utc_without_suffix", ["NULL!", "NULL!", "NULL!", naive]),
    ] {
        let options = [("timestamptz.handling.mode", mode)];
        let found = inputs.map(|json| value(&SqlType::Timestamptz, &options, json));
        assert_eq!(found, expected, "{mode}");
    }
    let wrong = source(&[("c", SqlType::Integer)], Encode::Json, &[("timestamptz.handling.mode", "mili")]);
    assert_eq!(
        check_source(&wrong).unwrap_err().to_string(),
        "unrecognized timestamptz.handling.mode value mili"
    );
}

fn two_columns() -> Box<dyn Decoder> {
    let declared = [("a", SqlType::Integer), ("b", SqlType::Varchar)];
    decoder(&source(&declared, Encode::Json, &[]), None).unwrap()
}

#[test]
fn members_find_their_columns() {
    let mut decoder = two_columns();
    let records = [
        (r#"{"a":1,"b":"x"}"#, "1|x"),
        (r#"{"A":2}"#, "2|NULL"),
        (r#"{"a":99999999999}"#, "NULL|NULL"),
        ("", "NULL|NULL"),
        ("{}", "NULL|NULL"),
        (r#" { "b" : "y" , "c" : {"a":[5]} , "a" : 3 } "#, "3|y"),
        (r#"{"a":1,"A":2}"#, "1|NULL"),
        (r#"{"A":2,"a":1}"#, "1|NULL"),
        (r#"{"a":1,"a":2}"#, "2|NULL"),
        (r#"{"\u0061":4}"#, "4|NULL"),
    ];
    for (json, _) in records {
        decoder.decode(&record(json), &split()).unwrap();
    }
    assert_eq!((decoder.len(), decoder.bad_values()), (records.len(), 1));
    let batch = decoder.finish();
    for (row, (json, expected)) in records.iter().enumerate() {
        assert_eq!(shown(&batch, row), *expected, "{json}");
    }
    assert!(decoder.is_empty());
}

#[test]
fn a_malformed_record_leaves_nothing_behind() {
    let nested = struct_of(&[("l", list_of(SqlType::Varchar)), ("j", SqlType::Jsonb)]);
    let map = SqlType::Map(Box::new(SqlType::Varchar), Box::new(list_of(SqlType::Bigint)));
    let declared = [("a", SqlType::Boolean), ("s", nested), ("m", map), ("y", SqlType::Bytea)];
    let mut spec = source(&declared, Encode::Json, &[]);
    spec.include.push(include(IncludeKind::Offset, "o", SqlType::Varchar));
    let mut decoder = decoder(&spec, None).unwrap();
    let good =
        r#"{"a":true,"s":{"l":["x","y"],"j":{"k":1}},"m":{"q":[1,2]},"y":"\\x000102030405060708090a0b0c0d"}"#;
    let bad: Vec<Bytes> = [
        "[]",
        "1",
        "null",
        "{",
        r#"{"a":true"#,
        r#"{"a":true}}"#,
        r#"{"a":true,"s":{"l":["x",tru"#,
        r#"{"m":{"q":[1,2],"r":[3"#,
        r#"{"y":"\\x00010203040506070809aabbccddee","a":}"#,
        r#"{"s":{"j":{"k":"#,
    ]
    .into_iter()
    .map(Bytes::from)
    .chain([Bytes::from_static(b"{\"a\":\"\xff\"}"), Bytes::from(good.as_bytes()[..good.len() - 1].to_vec())])
    .collect();
    for payload in &bad {
        decoder.decode(&record(good), &split()).unwrap();
        let malformed = decoder.decode(&record(payload.clone()), &split());
        assert!(malformed.is_err(), "{payload:?}");
    }
    assert_eq!((decoder.len(), decoder.bad_values()), (bad.len(), 0));
    let batch = decoder.finish();
    for row in 0..bad.len() {
        assert_eq!(
            shown(&batch, row),
            "true|{l: [x, y], j: {\"k\":1}}|{q: [1, 2]}|000102030405060708090a0b0c0d|4959"
        );
    }
}

#[test]
fn a_record_without_its_key_is_malformed_for_every_sink() {
    let mut spec = source(&[("id", SqlType::Integer), ("v", SqlType::Varchar)], Encode::Json, &[]);
    spec.primary_key.push("id".into());
    for wanted in [None, Some(vec!["v".to_owned()])] {
        let mut decoder = decoder(&spec, wanted.as_deref()).unwrap();
        for bad in ["{}", "", r#"{"id":null,"v":"x"}"#, r#"{"id":"x","v":"x"}"#] {
            let malformed = decoder.decode(&record(bad), &split()).unwrap_err();
            assert_eq!(malformed.message, "key column `id` has no value");
        }
        decoder.decode(&record(r#"{"id":1,"v":"x"}"#), &split()).unwrap();
        assert_eq!((decoder.len(), decoder.bad_values()), (1, 0));
        assert_eq!(decoder.finish().num_rows(), 1);
    }
}

#[test]
fn only_wanted_columns_are_built_in_the_order_wanted() {
    let declared = [("a", SqlType::Integer), ("b", SqlType::Varchar), ("c", SqlType::Integer)];
    let mut spec = source(&declared, Encode::Json, &[]);
    spec.include.push(include(IncludeKind::Partition, "p", SqlType::Varchar));
    let wanted = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let mut some = decoder(&spec, Some(&wanted(&["c", "p", "a"]))).unwrap();
    some.decode(&record(r#"{"a":1,"b":{"deep":[1,2]},"c":3}"#), &split()).unwrap();
    assert_eq!(shown(&some.finish(), 0), "3|shardId-000000000000|1");
    let mut none = decoder(&spec, Some(&[])).unwrap();
    none.decode(&record(r#"{"a":1}"#), &split()).unwrap();
    let batch = none.finish();
    assert_eq!((batch.num_rows(), batch.num_columns()), (1, 0));
    let unknown = decoder(&spec, Some(&wanted(&["z"]))).err().unwrap();
    assert_eq!(unknown.to_string(), "column \"z\" not found in source \"t\"");
}

#[test]
fn include_columns_are_filled() {
    let mut spec = source(&[("a", SqlType::Integer)], Encode::Json, &[]);
    spec.include = vec![
        include(IncludeKind::Key, "_rw_kinesis_key", SqlType::Bytea),
        include(IncludeKind::Partition, "_rw_kinesis_partition", SqlType::Varchar),
        include(IncludeKind::Offset, "_rw_kinesis_offset", SqlType::Varchar),
        include(IncludeKind::Timestamp, "_rw_kinesis_timestamp", SqlType::Timestamptz),
        include(IncludeKind::Payload, "_rw_kinesis_payload", SqlType::Jsonb),
    ];
    let mut decoder = decoder(&spec, None).unwrap();
    decoder.decode(&record("{ \"a\" : 1, \"z\" : [ 2 ] }"), &split()).unwrap();
    decoder.decode(&record(""), &split()).unwrap();
    let batch = decoder.finish();
    let rest = "7031|shardId-000000000000|4959|2023-11-14T22:13:20.123Z";
    assert_eq!(shown(&batch, 0), format!("1|{rest}|{{\"a\":1,\"z\":[2]}}"));
    assert_eq!(shown(&batch, 1), format!("NULL|{rest}|{{}}"));
}

#[test]
fn large_bytes_are_shared_and_small_ones_lie_side_by_side() {
    let mut spec = source(&[("data", SqlType::Bytea)], Encode::Bytes, &[]);
    spec.include.push(include(IncludeKind::Key, "k", SqlType::Bytea));
    let mut decoder = decoder(&spec, None).unwrap();
    let payloads = [
        Bytes::new(),
        Bytes::from_static(b"exactly 12 B"),
        Bytes::from_static(b"more than twelve"),
        Bytes::from(vec![7; 5000]),
        Bytes::from_static(b"\xff\x00 is no text either"),
        Bytes::from(vec![8; 4096]),
    ];
    // A second batch of the same decoder has nothing of the first.
    for payloads in [&payloads[..], &payloads[2..]] {
        for payload in payloads {
            decoder.decode(&record(payload.clone()), &split()).unwrap();
        }
        let batch = decoder.finish();
        let data = batch.column(0).as_binary_view();
        assert_eq!((data.len(), data.null_count(), data.data_buffers().len()), (payloads.len(), 0, 2));
        for (row, payload) in payloads.iter().enumerate() {
            assert_eq!(data.value(row), payload);
            let shared = data.value(row).as_ptr() == payload.as_ptr();
            assert_eq!(shared, payload.len() == 5000, "row {row}");
        }
        assert_eq!(batch.column(1).as_binary_view().value(3), b"p1");
    }
}

#[test]
fn clauses_that_cannot_be_carried_out_are_refused() {
    let text = |spec| check_source(&spec).unwrap_err().to_string();
    let one_bytea = "ENCODE BYTES only accepts one BYTEA type column";
    assert_eq!(text(source(&[("a", SqlType::Integer)], Encode::Bytes, &[])), one_bytea);
    assert_eq!(text(source(&[("a", SqlType::Bytea), ("b", SqlType::Bytea)], Encode::Bytes, &[])), one_bytea);
    assert!(text(source(&[], Encode::Json, &[])).starts_with("Schema definition is required"));
    let mut payload = source(&[("a", SqlType::Bytea)], Encode::Bytes, &[]);
    payload.include.push(include(IncludeKind::Payload, "p", SqlType::Jsonb));
    assert_eq!(text(payload), "INCLUDE payload is only allowed when using ENCODE JSON");
    assert_eq!(
        text(source(&[("a", SqlType::Varchar)], Encode::Text, &[])),
        "ENCODE TEXT is only valid as key encode."
    );
}
