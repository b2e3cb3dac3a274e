//! What is said of statements that are wrong, and what becomes of those that are right. The connectors are fakes with
//! the options of the real ones.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod fakes;

use fakes::{bind, bind_with_source, registry, source};
use model::{Encode, IncludeKind, OnError, SqlType};
use shardwright_sql as sql;
use sql::{Code, Statement};

/// `$IN` and `$OUT`: the options that every kinesis source and sink of these tests has.
fn expand(text: &str) -> String {
    let c = "aws.region='us-east-1', endpoint='http://127.0.0.1:1', aws.credentials.access_key_id='test', \
             aws.credentials.secret_access_key='test'";
    text.replace("$OUT", &format!("connector='kinesis', stream='out', {c}"))
        .replace("$IN", &format!("connector='kinesis', stream='in', {c}"))
}

fn refused(text: &str) -> sql::Error {
    match bind_with_source(&expand(text)) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

/// Texts, and what is said of them.
const UNPARSABLE: &[(&str, &str)] = &[
    ("CREATE SOURCE src", "sql parser error: expected description of the format, found: EOF"),
    ("CREATE SINK snk", "expected FROM or AS after CREATE SINK sink_name, found: EOF"),
    ("CREATE SINK snk FROM mv", "expected WITH, found: EOF"),
    ("CREATE SINK snk FROM mv WITH (connector='kafka', topic='t') format;", "expected identifier, found: ;"),
    (
        "CREATE SINK snk FROM mv WITH (connector='kafka', topic='t') format debezium;",
        "expected ENCODE, found: ;",
    ),
    ("create sink sk1 from tt where v1 % 10 = 0 with (connector='blackhole')", "expected WITH, found: where"),
    ("create source s (a int) with ($IN) row format xml", "expected JSON | UPSERT_JSON | PROTOBUF"),
    (
        "create source s (a int) with ($IN) format protobuf encode json",
        "expected PLAIN | UPSERT | DEBEZIUM after FORMAT",
    ),
    ("create source s (a int) with (stream) format plain encode json", "expected =, found: )"),
    ("create source s (a int) with (stream = x) format plain encode json", "expected option value"),
    ("create source s (a int with ($IN) format plain encode json", "expected ), found: with"),
    ("CREATE SINK k AS SELECT a b c FROM s WITH (x = '1')", "expected"),
    ("CREATE SINK k AS SELECT FROM", "sql parser error"),
    (
        "CREATE OR REPLACE TABLE t",
        "expected SOURCE, SINK or CREDENTIAL after CREATE OR REPLACE, found: TABLE",
    ),
    ("CREATE OR SINK k", "expected SOURCE or SINK after CREATE, found: OR"),
    (
        "CREATE OR REPLACE SINK IF NOT EXISTS k FROM s WITH ($OUT)",
        "OR REPLACE and IF NOT EXISTS contradict each other",
    ),
    (
        "CREATE OR REPLACE SOURCE IF NOT EXISTS s (a int) WITH ($IN) FORMAT PLAIN ENCODE JSON",
        "OR REPLACE and IF NOT EXISTS contradict each other",
    ),
    ("DROP SOURCE", "expected identifier, found: EOF"),
    ("DROP TABLE t", "expected SOURCE or SINK after DROP"),
    ("SHOW TABLES", "expected SOURCES, SINKS, CREDENTIALS, WORKERS, SPLITS, SCALE, "),
    ("EXPLAIN SELECT 1", "expected CREATE SINK or REBALANCE after EXPLAIN"),
    ("REBALANCE clicks", "expected"),
    ("SHOW ERRORS", "expected FOR, found: EOF"),
    ("SHOW ERRORS FOR", "expected identifier, found: EOF"),
    ("ALTER SINK s STOP", "expected PAUSE, RESUME or SET"),
    ("SHOW SINKS SINKS", "expected end of statement, found: SINKS"),
    ("SELECT 'abc", "sql parser error: unterminated string literal"),
    ("42", "expected one of CREATE, DROP"),
];

#[test]
fn texts_that_do_not_parse_say_what_was_expected() {
    for &(text, wanted) in UNPARSABLE {
        let error = sql::parse(&expand(text)).unwrap_err();
        assert_eq!(error.code, Code::Syntax, "{text}");
        assert!(error.message.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn the_caret_stands_below_the_token_or_one_past_the_end() {
    let shown = |text: &str| sql::parse(text).unwrap_err().message;
    assert_eq!(
        shown("CREATE SOURCE src"),
        "sql parser error: expected description of the format, found: EOF\n\
         LINE 1: CREATE SOURCE src\n\
         \u{20}                        ^"
    );
    let error = sql::parse("SHOW SOURCES;\n  SHOW SNIKS;").unwrap_err();
    assert!(error.message.ends_with("LINE 2:   SHOW SNIKS;\n               ^"), "{}", error.message);
    assert_eq!((error.line, error.column), (Some(2), Some(8)));
    assert_eq!(error.hint.as_deref(), Some("did you mean `SINKS`?"));
    // An error inside a query has its place in the whole text.
    let error = sql::parse("CREATE SINK k AS\nSELECT a, FROM s WITH (connector = 'x')").unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
}

#[test]
fn nothing_is_parsed_unless_all_of_it_is() {
    assert!(sql::parse("SHOW SOURCES; SHOW").is_err());
    let parsed = sql::parse(";;SHOW SOURCES; -- a comment\n/* another /* nested */ */ SHOW SINKS;").unwrap();
    assert_eq!(parsed.len(), 2);
    assert_eq!((parsed[1].place.line, parsed[1].place.column), (2, 28));
    assert_eq!(sql::parse("").unwrap(), []);
}

/// Statements, the family of the error, and a part of its text.
const SOURCES: &[(&str, Code, &str)] = &[
    ("create source s (a int) format plain encode json", Code::Bind, "missing WITH clause"),
    (
        "create source s (a int) with (stream='x') format plain encode json",
        Code::Config,
        "missing field 'connector'",
    ),
    (
        "create source s (a int) with (connector='kafka') format plain encode json",
        Code::Config,
        "connector \"kafka\" is not supported, accept [\"kinesis\"]",
    ),
    (
        "create source s (a int) with ($IN) format plain encode json key encode text",
        Code::Protocol,
        "key encode clause is not supported in source schema",
    ),
    (
        "create source s (a int) include key with ($IN) format upsert encode json",
        Code::Protocol,
        "connector kinesis does not support format UPSERT",
    ),
    (
        "create source s with ($IN) format plain encode avro (schema.location = 'file:///x')",
        Code::Protocol,
        "connector kinesis does not support format PLAIN with encode AVRO",
    ),
    (
        "create source s (a int) with ($IN) format debezium encode json",
        Code::Bind,
        "can't CREATE SOURCE with FORMAT DEBEZIUM.\n\nHint: use CREATE TABLE instead",
    ),
    (
        "create source s with ($IN) format plain encode json",
        Code::Protocol,
        "Schema definition is required, either from SQL or schema registry.",
    ),
    (
        "create source s (a int, b bytea) with ($IN) format plain encode bytes",
        Code::Protocol,
        "ENCODE BYTES only accepts one BYTEA type column",
    ),
    (
        "create source s (a int not null) with ($IN) format plain encode json",
        Code::Bind,
        "NOT NULL constraint is not supported in source schema",
    ),
    (
        "create source s (a int primary key, primary key (a)) with ($IN) format plain encode json",
        Code::Bind,
        "multiple primary keys are not allowed",
    ),
    (
        "create source s (a int, a int) with ($IN) format plain encode json",
        Code::DuplicateColumn,
        "column \"a\" specified more than once",
    ),
    (
        "create source s (a int) include offset as a with ($IN) format plain encode json",
        Code::DuplicateColumn,
        "column \"a\" specified more than once",
    ),
    (
        "create source s (a int, primary key (b)) with ($IN) format plain encode json",
        Code::UndefinedColumn,
        "column \"b\" named in key does not exist",
    ),
    (
        "create source s (a int) include header with ($IN) format plain encode json",
        Code::Bind,
        "additional column type header is not supported for connector kinesis, acceptable column types: ",
    ),
    (
        "create source s (a int) include timestamp 'x' with ($IN) format plain encode json",
        Code::Bind,
        "Only header column can have inner field, but got \"timestamp\"",
    ),
    (
        "create source s (a bytea) include payload with ($IN) format plain encode bytes",
        Code::Bind,
        "INCLUDE payload is only allowed when using ENCODE JSON",
    ),
    (
        "create source s (a int, *) with ($IN) format plain encode json",
        Code::Bind,
        "Wildcard in user-defined schema",
    ),
    (
        "create source s (a int) with ($IN) format plain encode json (timestamptz.handling.mode='mili')",
        Code::Protocol,
        "unrecognized",
    ),
    (
        "create source s (a int) with ($IN) format plain encode json (on_error='ignore')",
        Code::Protocol,
        "invalid value for option `on_error`: expected one of skip|fail|dead_letter, found \"ignore\"",
    ),
    (
        "create source s (a int) with ($IN) format plain encode json (on_error='dead_letter')",
        Code::Config,
        "missing field `dead_letter.connector`",
    ),
    (
        "create source s (a int) with ($IN, dead_letter.connector='void') format plain encode json",
        Code::Config,
        "dead_letter.connector needs on_error = 'dead_letter'",
    ),
    (
        "create source s (a int) with ($IN, dead_letter.connector='voyd') format plain encode json (on_error='dead_letter')",
        Code::Config,
        "unsupported sink type voyd",
    ),
    (
        "create source s (a int) with ($IN, dead_letter.connector='kinesis') format plain encode json (on_error='dead_letter')",
        Code::Config,
        "dead letters: missing field `stream`",
    ),
    (
        "create source s (a int) with ($IN, dead_letter.connector='void', dead_letter.on_error='skip') \
             format plain encode json (on_error='dead_letter')",
        Code::Config,
        "dead letters: `dead_letter.on_error` has no meaning",
    ),
    (
        "create source s (a int) with ($IN, strem='x') format plain encode json",
        Code::Config,
        "Unknown fields in the WITH clause: {\"strem\": \"x\"}",
    ),
    (
        "create source s (a int) with ($IN, stream='y') format plain encode json",
        Code::Config,
        "duplicate option `stream`",
    ),
    (
        "create source s (a int) with ($IN, kinesis.stream.name='y') format plain encode json",
        Code::Config,
        "duplicate option `stream`",
    ),
    (
        "create source s (a int) with (connector='kinesis') format plain encode json",
        Code::Config,
        "missing field `stream`",
    ),
    (
        "create source s (a int) with ($IN, credential='c') format plain encode json",
        Code::Config,
        "credential \"c\" does not exist",
    ),
    (
        "create source other.s (a int) with ($IN) format plain encode json",
        Code::UndefinedObject,
        "schema \"other\" does not exist",
    ),
    ("create source \"a/b\" (a int) with ($IN) format plain encode json", Code::Bind, "cannot be the name"),
];

#[test]
fn an_option_that_this_release_lacks_is_refused_with_the_nearest_way() {
    let error = refused("create source s (a int) with ($IN, source_rate_limit=10) format plain encode json");
    assert_eq!(error.code, Code::Unsupported, "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("`sink_rate_limit`")), "{error}");
}

#[test]
fn sources_are_refused_with_the_texts_of_the_spec() {
    for &(text, code, wanted) in SOURCES {
        let error = refused(text);
        assert!(error.message.contains(wanted), "{text}: {error}");
        assert_eq!(error.code, code, "{text}");
        assert!(error.message.starts_with(code.prefix()), "{text}: {error}");
    }
}

/// The same for sinks.
const SINKS: &[(&str, Code, &str)] = &[
    ("create sink k from s with ()", Code::Bind, "sink properties not provided"),
    ("create sink k from s with (topic='x')", Code::Config, "missing field 'connector'"),
    ("create sink k from s with (connector='kinesus')", Code::Config, "unsupported sink type kinesus"),
    (
        "create sink k from s with ($OUT) format plain encode json",
        Code::Config,
        "kinesis sink requires partition key (please define in `primary_key` field)",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id,invalid') format plain encode json",
        Code::Bind,
        "Sink primary key column not found: invalid.",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format plain encode json (force_append_only='maybe')",
        Code::InvalidInput,
        "`force_append_only` must be true or false",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format plain encode json \
             (force_append_only='true', ignore_delete='true')",
        Code::Bind,
        "only one of them can be specified",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format plain encode json (force_append_only='true') \
             key encode json",
        Code::Bind,
        "sink key encode unsupported: JSON, only TEXT and BYTES supported",
    ),
    (
        "create sink k from s with ($OUT, primary_key='v_bytea') format plain encode json key encode text",
        Code::Bind,
        "The key encode is TEXT, but the primary key column v_bytea has type bytea.",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id, name') format plain encode json key encode text",
        Code::Bind,
        "KEY ENCODE TEXT expects only one primary key, but got 2",
    ),
    (
        "create sink k from s with ($OUT, primary_key='v_bytea') format plain encode json key encode bytes",
        Code::Bind,
        "key encode bytes only works with kafka connector, but found kinesis",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format plain encode text",
        Code::Bind,
        "ENCODE TEXT is only valid as key encode.",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format upsert encode json",
        Code::Bind,
        "connector kinesis does not support format UPSERT",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id') format plain encode avro",
        Code::Bind,
        "connector kinesis does not support format PLAIN with encode AVRO",
    ),
    ("create sink k from s with ($OUT, primary_key='id')", Code::Bind, "missing FORMAT ... ENCODE ..."),
    (
        "create sink k from s with ($OUT, primary_key='id', type='append')",
        Code::InvalidInput,
        "`type` must be append-only, retract, upsert, or debezium",
    ),
    (
        "create sink k from s with (connector='void') format plain encode json",
        Code::Bind,
        "connector void is not supported by FORMAT ... ENCODE ... syntax",
    ),
    (
        "create sink k from s with (connector='kinesis', primary_key='id') format plain encode json",
        Code::Config,
        "missing field `stream`",
    ),
    (
        "create sink k from s with ($OUT, primary_key='id', foo='bar', Aa=1) format plain encode json",
        Code::Config,
        "Unknown fields in the WITH clause: {\"Aa\": \"1\", \"foo\": \"bar\"}",
    ),
    (
        "create sink k from s with (connector='void', in_flight=0)",
        Code::Config,
        "invalid value for option `in_flight`",
    ),
    (
        "create sink k from s with (connector='void', distribution='key(4)')",
        Code::Config,
        "sink void does not support distribution key",
    ),
    (
        "create sink k from s with (connector='kinesis', stream='d', primary_key='id', distribution='key(0)') format plain encode json",
        Code::Config,
        "`distribution` cannot be `key(0)`",
    ),
    (
        "create sink k from s with (connector='kinesis', stream='d', primary_key='id', distribution='key(4, nope)') format plain encode json",
        Code::Bind,
        "column \"nope\" of `distribution` does not exist",
    ),
    (
        "create sink k from s with (connector='void', on_error='dead_letter')",
        Code::Config,
        "missing field `dead_letter.connector`",
    ),
    (
        "create sink k from s with (connector='void', on_error='dead_letter', dead_letter.connector='void', \
             dead_letter.foo='x')",
        Code::Config,
        "dead letters: Unknown fields in the WITH clause: {\"foo\": \"x\"}",
    ),
    (
        "create sink k from s with (connector='void', on_error='dead_letter', dead_letter.connector='kinesis')",
        Code::Config,
        "dead letters: missing field `stream`",
    ),
    (
        "create sink k from s with (connector='void', on_error='dead_letter', dead_letter.connector='voidd')",
        Code::Config,
        "dead letters: unsupported sink type voidd",
    ),
    (
        "create sink k as select id, id from s with (connector='void')",
        Code::DuplicateColumn,
        "column \"id\" specified more than once",
    ),
    (
        "create sink k as select id + 1 from s with (connector='void')",
        Code::Bind,
        "expression 1 of the select list has no name",
    ),
    (
        "create sink k as select idd from s with (connector='void')",
        Code::UndefinedColumn,
        "column \"idd\" does not exist",
    ),
    ("create sink k as select id from s join t on true with (connector='void')", Code::Unsupported, "joins"),
];

#[test]
fn sinks_are_refused_with_the_texts_of_the_spec() {
    for &(text, code, wanted) in SINKS {
        let error = refused(text);
        assert!(error.message.contains(wanted), "{text}: {error}");
        assert_eq!(error.code, code, "{text}");
    }
}

#[test]
fn the_nearest_right_name_and_the_place_are_told() {
    let error =
        refused("create source s (a int)\nwith ($IN, scan.startup.mod='latest') format plain encode json");
    assert!(
        error.hint.as_deref().unwrap_or_default().contains("did you mean `scan.startup.mode`?"),
        "{error}"
    );
    assert_eq!((error.line, error.option.as_deref()), (Some(2), Some("scan.startup.mod")));
    let error = refused("create sink k from s with (connector='viod')");
    assert_eq!(error.hint.as_deref(), Some("did you mean `void`?"));
    let error = refused("create sink k from s with ($OUT, primary_key='nme') format plain encode json");
    assert_eq!(error.hint.as_deref(), Some("did you mean `name`?"));
    let error = refused("create source s (a int) include ofset with ($IN) format plain encode json");
    assert_eq!(error.hint.as_deref(), Some("did you mean `offset`?"));
    let error = sql::parse("CREAT SOURCE s").unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `CREATE`?"));
}

#[test]
fn a_misspelt_encode_option_is_a_notice_and_nothing_more() {
    let bound = bind(&expand(
        "create source s (a int) with ($IN) format plain encode json (timestamptz.handling.mod='mili')",
    ));
    let fakes::Bound::Source(bound) = bound.unwrap() else { panic!("not a source") };
    assert!(
        bound
            .notices
            .iter()
            .any(|n| n.starts_with("Unknown options for format/encode: timestamptz.handling.mod")),
        "{:?}",
        bound.notices
    );
    assert!(bound.spec.format.options.is_empty());
}

#[test]
fn a_source_is_bound_with_its_metadata_columns() {
    let text = "create source s (a int, \"B\" struct<x int[], y jsonb>, primary key (a),) include key include shard as p, \
                include sequence number include timestamp as t include payload with ($IN, scan.startup.mode='latest', \
                validate=false, dead_letter.connector='void',) \
                format plain encode json (on_error='dead_letter', timestamptz.handling.mode='milli')";
    let fakes::Bound::Source(bound) = bind(&expand(text)).unwrap() else { panic!("not a source") };
    let spec = bound.spec;
    assert!(!bound.validate && bound.notices.is_empty());
    assert_eq!((spec.name.as_str(), spec.connector.as_str()), ("s", "kinesis"));
    let columns: Vec<String> = spec.all_columns().map(|c| format!("{} {}", c.name, c.kind)).collect();
    assert_eq!(
        columns,
        [
            "a integer",
            "B struct<x integer[], y jsonb>",
            "_rw_kinesis_key bytea",
            "p character varying",
            "_rw_kinesis_offset character varying",
            "t timestamp with time zone",
            "_rw_kinesis_payload jsonb",
        ]
    );
    assert_eq!(spec.include[1].kind, IncludeKind::Partition);
    assert_eq!(spec.primary_key, ["a"]);
    assert_eq!(spec.on_error, OnError::DeadLetter);
    assert_eq!(spec.format.options.get("timestamptz.handling.mode"), Some("milli"));
    assert_eq!(spec.options.get("connector"), None);
    assert_eq!(spec.options.get("dead_letter.connector"), Some("void"));
}

#[test]
fn a_source_that_skips_says_so() {
    let fakes::Bound::Source(bound) =
        bind(&expand("create source s (a int) with ($IN) row format json")).unwrap()
    else {
        panic!("not a source")
    };
    assert_eq!(bound.spec.on_error, OnError::Skip);
    assert!(bound.notices[0].contains("sys.source_errors"), "{:?}", bound.notices);
    assert_eq!(bound.spec.format.encode, Encode::Json);
}

#[test]
fn sinks_are_bound_to_what_they_select() {
    let bind = |text: &str| match bind_with_source(&expand(text)).unwrap_or_else(|e| panic!("{text}: {e}")) {
        fakes::Bound::Sink(bound) => bound,
        fakes::Bound::Source(_) => panic!("not a sink"),
    };
    let bound = bind(
        "CREATE SINK IF NOT EXISTS k AS (SELECT id, upper(name) AS n FROM s WHERE id > 1) \
         WITH ($OUT, primary_key='id', ordering='none', on_error='skip') FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT",
    );
    assert_eq!(bound.spec.query.as_deref(), Some("SELECT id, upper(name) AS n FROM s WHERE id > 1"));
    assert_eq!(bound.spec.columns[1].kind, SqlType::Varchar);
    assert_eq!(bound.spec.primary_key, ["id"]);
    assert_eq!(bound.spec.on_error, OnError::Skip);
    assert_eq!(bound.spec.source, source().id);
    let format = bound.spec.format.clone().unwrap();
    assert_eq!((format.encode, format.key_encode), (Encode::Json, Some(Encode::Text)));
    assert_eq!(bound.projection.unwrap().inputs(), ["id", "name"]);
    assert_eq!(bound.spec.options.get("primary_key"), None);

    let bound = bind("create sink k from s with (connector='void')");
    assert_eq!((bound.spec.query, bound.spec.format), (None, None));
    assert_eq!(bound.spec.columns, source().all_columns().cloned().collect::<Vec<_>>());
    assert!(bound.common.validate);

    // The legacy form has another default for time zones.
    let bound = bind(
        "create sink k from s with ($OUT, type='append-only', force_append_only='true', primary_key='id')",
    );
    let format = bound.spec.format.unwrap();
    assert_eq!(format.options.get("timestamptz.handling.mode"), Some("utc_without_suffix"));
}

#[test]
fn alter_replaces_options_and_keeps_what_is_fixed() {
    let spec = source();
    let options = |text: &str| match sql::parse(text).unwrap().remove(0).statement {
        Statement::AlterSource { options, .. } => options,
        Statement::AlterSink { change: sql::SinkChange::Set(options), .. } => options,
        other => panic!("{other:?}"),
    };
    let changed = sql::alter_source(
        &spec,
        &options("ALTER SOURCE s SET (region = 'eu-west-1', on_error = 'fail')"),
        &registry(),
    )
    .unwrap();
    assert_eq!(changed.options.get("region"), Some("eu-west-1"));
    assert_eq!(changed.options.get("aws.region"), None, "an alias replaces the option");
    assert_eq!(changed.on_error, OnError::Fail);
    for text in [
        "ALTER SOURCE s SET (stream = 'other')",
        "ALTER SOURCE s SET (scan.startup.mode = 'latest')",
        "ALTER SOURCE s SET (connector = 'kafka')",
    ] {
        let error = sql::alter_source(&spec, &options(text), &registry()).unwrap_err();
        assert!(error.message.contains("cannot be changed"), "{text}: {error}");
    }
    let error =
        sql::alter_source(&spec, &options("ALTER SOURCE s SET (nonsense = 1)"), &registry()).unwrap_err();
    assert!(error.message.contains("Unknown fields"), "{error}");

    let fakes::Bound::Sink(bound) = bind_with_source("create sink k from s with (connector='void')").unwrap()
    else {
        panic!("not a sink")
    };
    let changed = sql::alter_sink(
        &bound.spec,
        &options("ALTER SINK k SET (in_flight = 2, on_error = 'skip')"),
        &registry(),
    )
    .unwrap();
    assert_eq!((changed.options.get("in_flight"), changed.on_error), (Some("2"), OnError::Skip));
    let error = sql::alter_sink(&bound.spec, &options("ALTER SINK k SET (primary_key = 'id')"), &registry())
        .unwrap_err();
    assert!(error.message.contains("cannot be changed"), "{error}");
}

#[test]
fn dead_letters_are_left_with_the_on_error_that_needed_them() {
    let options = |text: &str| match sql::parse(text).unwrap().remove(0).statement {
        Statement::AlterSource { options, .. } => options,
        Statement::AlterSink { change: sql::SinkChange::Set(options), .. } => options,
        other => panic!("{other:?}"),
    };
    let fakes::Bound::Sink(bound) = bind_with_source(
        "create sink k from s with (connector = 'void', on_error = 'dead_letter', dead_letter.connector = 'void', \
         dead_letter.in_flight = '2')",
    )
    .unwrap() else {
        panic!("not a sink")
    };
    let alter = |text: &str| sql::alter_sink(&bound.spec, &options(text), &registry());
    let left = alter("ALTER SINK k SET (on_error = 'skip')").unwrap();
    assert_eq!(left.on_error, OnError::Skip);
    assert!(!left.options.iter().any(|(name, _)| name.starts_with("dead_letter.")), "{:?}", left.options);
    let stays = alter("ALTER SINK k SET (on_error = 'dead_letter', in_flight = '3')").unwrap();
    assert_eq!(stays.options.get("dead_letter.in_flight"), Some("2"));
    let error = alter("ALTER SINK k SET (on_error = 'skip', dead_letter.in_flight = '3')").unwrap_err();
    assert!(error.message.contains("needs on_error = 'dead_letter'"), "{error}");

    let mut source = source();
    source.on_error = OnError::DeadLetter;
    source.options.insert("dead_letter.connector", "void");
    let changed = options("ALTER SOURCE s SET (on_error = 'fail')");
    let left = sql::alter_source(&source, &changed, &registry()).unwrap();
    assert_eq!((left.on_error, left.options.get("dead_letter.connector")), (OnError::Fail, None));
    let changed = options("ALTER SOURCE s SET (region = 'eu-west-1')");
    let stays = sql::alter_source(&source, &changed, &registry()).unwrap();
    assert_eq!(stays.options.get("dead_letter.connector"), Some("void"));
}

#[test]
fn what_is_shown_makes_the_same_object_again_without_its_secrets() {
    let text = expand(
        "create source s (a int, b timestamptz, primary key (a)) include key as k with ($IN) \
         format plain encode json (on_error = 'fail')",
    );
    let fakes::Bound::Source(first) = bind(&text).unwrap() else { panic!("not a source") };
    let ddl = sql::source_ddl(&first.spec);
    assert_eq!(
        ddl,
        "CREATE SOURCE s (a INT, b TIMESTAMP WITH TIME ZONE, PRIMARY KEY (a)) INCLUDE KEY AS k WITH (connector = 'kinesis', \
         aws.credentials.access_key_id = 'test', aws.credentials.secret_access_key = '********', aws.region = 'us-east-1', \
         endpoint = 'http://127.0.0.1:1', stream = 'in') FORMAT PLAIN ENCODE JSON (on_error = 'fail')"
    );
    let fakes::Bound::Source(mut again) = bind(&ddl).unwrap() else { panic!("not a source") };
    again.spec.options.insert("aws.credentials.secret_access_key", "test");
    assert_eq!(again.spec, first.spec);

    let text = expand(
        "create sink k as select id, name from s where id > 1 with ($OUT, primary_key='id,name', in_flight=4) \
         format plain encode json (jsonb.handling.mode = 'dynamic')",
    );
    let fakes::Bound::Sink(first) = bind_with_source(&text).unwrap() else { panic!("not a sink") };
    let ddl = sql::sink_ddl(&first.spec);
    assert!(
        ddl.starts_with("CREATE SINK k AS SELECT id, name FROM s WHERE id > 1 WITH (connector = 'kinesis', "),
        "{ddl}"
    );
    let fakes::Bound::Sink(mut again) = bind_with_source(&ddl).unwrap() else { panic!("not a sink") };
    again.spec.options.insert("aws.credentials.secret_access_key", "test");
    assert_eq!(again.spec, first.spec);
}

#[test]
fn a_distribution_is_kept_printed_and_changed() {
    let bind = |what: &str| bind_with_source(&expand(what));
    let fakes::Bound::Sink(bound) = bind(
        "create sink k from s with ($OUT, primary_key='id', distribution='key(4)') format plain encode json",
    )
    .unwrap() else {
        panic!("not a sink")
    };
    let by_key = |partitions: u32| model::Distribution::Key { partitions, columns: vec!["id".to_owned()] };
    assert_eq!(bound.spec.distribution, by_key(4), "without columns it is the key");
    let ddl = sql::sink_ddl(&bound.spec);
    assert!(ddl.contains("distribution = 'key(4, id)'"), "{ddl}");
    let fakes::Bound::Sink(again) = bind(&ddl).unwrap() else { panic!("not a sink") };
    assert_eq!(again.spec.distribution, bound.spec.distribution);

    let change = |text: &str| match sql::parse(text).unwrap().remove(0).statement {
        Statement::AlterSink { change: sql::SinkChange::Set(options), .. } => {
            sql::alter_sink(&bound.spec, &options, &registry())
        }
        other => panic!("{other:?}"),
    };
    let changed = change("ALTER SINK k SET (distribution = 'KEY ( 8 , \"id\" )')").unwrap();
    assert_eq!(changed.distribution, by_key(8));
    let changed = change("ALTER SINK k SET (distribution = 'split')").unwrap();
    assert_eq!(changed.distribution, model::Distribution::Split);
    let error = change("ALTER SINK k SET (distribution = 'key(2, name)')").unwrap_err();
    assert!(error.message.contains("must be part of `primary_key`"), "{error}");
}
