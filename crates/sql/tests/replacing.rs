//! `CREATE OR REPLACE`: what may take the place of what, what it changes, and what is said where it may not.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

#[allow(dead_code, reason = "other tests bind without a source")]
mod fakes;

use fakes::{registry, source};
use model::{ObjectId, SinkSpec, SourceSpec, Timestamp};
use shardwright_sql as sql;
use sql::{Code, Replacement, Statement};

const SOURCE: &str = "CREATE OR REPLACE SOURCE s (id INT, name VARCHAR, v_bytea BYTEA) \
                      WITH (connector = 'kinesis', stream = 'in', aws.region = 'us-east-1') FORMAT PLAIN ENCODE JSON";

const SINK: &str = "CREATE OR REPLACE SINK k AS SELECT id, name FROM s WHERE id > 1 \
                    WITH (connector = 'kinesis', stream = 'out', aws.region = 'us-east-1', primary_key = 'id', \
                    aws.credentials.access_key_id = 'a', aws.credentials.secret_access_key = 'hunter2') \
                    FORMAT PLAIN ENCODE JSON";

fn statement(text: &str) -> Statement {
    sql::parse(text).unwrap().remove(0).statement
}

fn replaced_source(old: &SourceSpec, text: &str) -> sql::Result<Option<Replacement<SourceSpec>>> {
    let Statement::CreateSource(create) = statement(text) else { panic!("{text}") };
    let new = sql::bind_source(&create, &registry())?.spec;
    sql::replace_source(old, &create, new, &registry()).map_err(|error| error.within(text))
}

/// The source of [`SOURCE`], as it is in a catalog.
fn known_source() -> SourceSpec {
    SourceSpec { id: ObjectId::from_parts(1, 1), created_at: Timestamp(7), revision: 4, ..source() }
}

fn replaced_sink(old: &SinkSpec, text: &str) -> sql::Result<Option<Replacement<SinkSpec>>> {
    let Statement::CreateSink(create) = statement(text) else { panic!("{text}") };
    let source = known_source();
    let new = sql::bind_sink(&create, &registry(), &source)?.spec;
    sql::replace_sink(old, &create, new, (&source, &registry())).map_err(|error| error.within(text))
}

/// The sink of a text, as it is in a catalog.
fn known_sink(text: &str) -> SinkSpec {
    let Statement::CreateSink(create) = statement(text) else { panic!("{text}") };
    let spec = sql::bind_sink(&create, &registry(), &known_source()).unwrap().spec;
    let (id, created_at) = (ObjectId::from_parts(1, 2), Timestamp(8));
    SinkSpec { id, created_at, revision: 3, paused: true, instance: 5, ..spec }
}

#[test]
fn a_text_that_says_the_same_changes_nothing() {
    let sink = known_sink(SINK);
    for text in [
        SINK.to_owned(),
        SINK.replace("OR REPLACE ", ""),
        SINK.replace("SELECT id, name FROM s WHERE id > 1", "select  id,name from s where id>1"),
        SINK.replace("aws.region", "region"),
        SINK.replace("stream = 'out', aws.region = 'us-east-1'", "aws.region = 'us-east-1', stream = 'out'"),
    ] {
        assert_eq!(replaced_sink(&sink, &text), Ok(None), "{text}");
    }
    for text in [SOURCE.to_owned(), SOURCE.replace("stream =", "kinesis.stream.name =")] {
        assert_eq!(replaced_source(&known_source(), &text), Ok(None), "{text}");
    }
}

#[test]
fn what_show_create_shows_is_what_is_there() {
    let open = |text: &str| {
        text.replace("'hunter2'", "'public'").replace("aws.credentials.secret_access_key", "endpoint")
    };
    for text in [
        open(SINK),
        open(SINK)
            .replace("primary_key = 'id'", "primary_key = 'id', distribution = 'key(4)', on_error = 'skip'"),
        open(SINK).replace("FORMAT PLAIN ENCODE JSON", "FORMAT PLAIN ENCODE JSON KEY ENCODE TEXT"),
        "CREATE SINK k FROM s WITH (connector = 'void', primary_key = 'name,id', type = 'append-only')"
            .to_owned(),
    ] {
        let sink = known_sink(&text);
        let shown = sql::sink_ddl(&sink).replacen("CREATE", "CREATE OR REPLACE", 1);
        assert_eq!(replaced_sink(&sink, &shown), Ok(None), "{shown}");
    }
    for text in [
        SOURCE.to_owned(),
        SOURCE.replace(
            "v_bytea BYTEA)",
            "v_bytea BYTEA, PRIMARY KEY (id)) INCLUDE KEY INCLUDE TIMESTAMP AS at",
        ),
        SOURCE.replace("ENCODE JSON", "ENCODE JSON (on_error = 'fail', timestamptz.handling.mode = 'milli')"),
    ] {
        let Statement::CreateSource(create) = statement(&text) else { panic!("{text}") };
        let source = sql::bind_source(&create, &registry()).unwrap().spec;
        let shown = sql::source_ddl(&source).replacen("CREATE", "CREATE OR REPLACE", 1);
        assert_eq!(replaced_source(&source, &shown), Ok(None), "{shown}");
    }
    assert_eq!(statement(SINK).summary(), "CREATE OR REPLACE SINK k");
    assert_eq!(statement(&SOURCE.replace("OR REPLACE ", "")).summary(), "CREATE SOURCE s");
}

#[test]
fn a_sink_keeps_who_it_is_and_says_what_changes() {
    let old = known_sink(SINK);
    let text = SINK
        .replace("id > 1", "id > 2")
        .replace("'out'", "'elsewhere'")
        .replace("primary_key", "in_flight = 2, primary_key");
    let replaced = replaced_sink(&old, &text).unwrap().unwrap();
    assert_eq!(replaced.changes, ["query", "`in_flight`", "`stream`"]);
    assert!(replaced.notices.is_empty(), "{replaced:?}");
    let spec = replaced.spec;
    assert_eq!((spec.id, spec.created_at, spec.revision), (old.id, old.created_at, old.revision));
    assert!(spec.paused && spec.instance == old.instance, "{spec:?}");
    assert_eq!(spec.query.as_deref(), Some("SELECT id, name FROM s WHERE id > 2"));
    assert_eq!(spec.options.get("stream"), Some("elsewhere"));
    // Columns outside the key come and go.
    let more = replaced_sink(&old, &SINK.replace("id, name FROM", "id, name, id * 2 AS d FROM")).unwrap();
    assert_eq!(more.unwrap().spec.columns.len(), 3);
}

#[test]
fn another_connector_is_said_and_begins_a_new_instance() {
    let void = "CREATE OR REPLACE SINK k FROM s WITH (connector = 'void', primary_key = 'id')";
    let old = known_sink(&SINK.replace("AS SELECT id, name FROM s WHERE id > 1", "FROM s"));
    let replaced = replaced_sink(&old, void).unwrap().unwrap();
    assert_eq!(replaced.spec.instance, old.instance + 1);
    assert_eq!(
        replaced.notices,
        [
            "the positions of sink \"k\" say what kinesis has got: void gets what comes after that, and nothing from before"
        ]
    );
    assert_eq!(replaced.changes[..2], ["connector", "format"]);
}

/// What of [`SINK`] becomes what, what is said of it, and what the caret stands below.
const REFUSED_SINKS: &[(&str, &str, &str, &str)] = &[
    (
        "primary_key = 'id'",
        "primary_key = 'name'",
        "sink \"k\" cannot be replaced: its key would change from 'id' to 'name'",
        "primary_key = 'name'",
    ),
    (
        "primary_key = 'id'",
        "primary_key = 'id,name'",
        "its key would change from 'id' to 'id, name'",
        "primary_key",
    ),
    (
        "ENCODE JSON",
        "ENCODE JSON KEY ENCODE TEXT",
        "its key would change from 'id' to 'id' KEY ENCODE TEXT",
        "primary_key",
    ),
    (
        "SELECT id,",
        "SELECT id + 1 AS id,",
        "column \"id\" of its key would change from integer to bigint",
        "SELECT id + 1",
    ),
    (
        "SELECT id, name",
        "SELECT length(name) AS id, name",
        "column \"id\" of its key would change from `id` to `length(name)`",
        "SELECT length",
    ),
    (
        "primary_key = 'id'",
        "primary_key = 'id', distribution = 'key(4)'",
        "its `distribution` would change from 'split' to 'key(4, id)'",
        "distribution = 'key(4)'",
    ),
    (
        "primary_key = 'id'",
        "primary_key = 'name', distribution = 'key(2)'",
        "its key would change from 'id' to 'name', its `distribution` would change from 'split' to 'key(2, name)'",
        "primary_key = 'name'",
    ),
];

#[test]
fn a_sink_with_another_key_or_distribution_is_refused_at_its_place() {
    for &(part, by, wanted, below) in REFUSED_SINKS {
        let text = SINK.replace(part, by);
        let refused = replaced_sink(&known_sink(SINK), &text).expect_err(&text);
        assert_eq!(refused.code, Code::Bind, "{text}");
        assert!(refused.message.contains(wanted), "{text}: {refused}");
        let column = usize::try_from(refused.column.unwrap()).unwrap();
        assert!(text[column - 1..].starts_with(below), "{text}: {refused}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
        assert!(refused.hint.is_some(), "{refused}");
    }
    let text = SINK.replace("primary_key = 'id'", "primary_key = 'id', distribution = 'key(4)'");
    let hint = replaced_sink(&known_sink(SINK), &text).unwrap_err().hint.unwrap();
    assert!(hint.contains("ALTER SINK k SET (distribution = 'key(4, id)')"), "{hint}");
}

#[test]
fn the_same_key_in_other_words_is_the_same() {
    let old = known_sink(&SINK.replace("SELECT id, name FROM s", "SELECT s.id, name FROM s"));
    let text = SINK.replace("SELECT id, name FROM s WHERE id > 1", "SELECT x.id AS id FROM s AS x");
    assert_eq!(replaced_sink(&old, &text).unwrap().unwrap().changes, ["query"]);
    // By its columns rows find their writers, key or not.
    let keyed = SINK.replace("primary_key = 'id'", "primary_key = 'id, name', distribution = 'key(4, name)'");
    let text = keyed.replace("SELECT id, name", "SELECT id, upper(name) AS name");
    let refused = replaced_sink(&known_sink(&keyed), &text).unwrap_err();
    assert!(refused.message.contains("column \"name\" of its key would change from `name` to"), "{refused}");
}

#[test]
fn a_sink_on_another_source_is_refused() {
    let mut old = known_sink(SINK);
    (old.source, old.source_name) = (ObjectId::from_parts(9, 9), "other".to_owned());
    let refused = replaced_sink(&old, SINK).unwrap_err();
    assert!(refused.message.contains("its source would change from \"other\" to \"s\""), "{refused}");
    assert_eq!(refused.column, SINK.find("s WHERE").map(|at| at as u64 + 1));
}

#[test]
fn what_a_secret_is_shown_as_is_not_taken_for_one() {
    let old = known_sink(SINK);
    let shown = sql::sink_ddl(&old).replacen("CREATE", "CREATE OR REPLACE", 1).replace("> 1", "> 2");
    let refused = replaced_sink(&old, &shown).unwrap_err();
    assert!(refused.message.contains("`********` is what a secret is shown as"), "{refused}");
    assert_eq!(refused.option.as_deref(), Some("aws.credentials.secret_access_key"));
}

#[test]
fn a_source_keeps_its_start_and_takes_other_columns() {
    let start = model::Start::all(model::StartFrom::At(Timestamp(77)));
    let old = SourceSpec { creation: model::Creation(5), start, ..known_source() };
    let text = SOURCE
        .replace("name VARCHAR", "name VARCHAR, extra INT")
        .replace("aws.region = 'us-east-1'", "aws.region = 'us-east-1', validate = 'false'");
    let replaced = replaced_source(&old, &text).unwrap().unwrap();
    assert_eq!(replaced.changes, ["columns", "`validate`"]);
    let spec = replaced.spec;
    assert_eq!((spec.id, spec.revision, spec.creation), (old.id, old.revision, old.creation));
    assert_eq!((&spec.start, spec.columns.len()), (&old.start, 4));
}

#[test]
fn a_source_that_would_read_something_else_is_refused_at_its_place() {
    for (part, by, wanted) in [
        ("stream = 'in'", "stream = 'other'", "its `stream` would change from 'in' to 'other'"),
        ("stream = 'in'", "kinesis.stream.name = 'other'", "its `stream` would change from 'in' to 'other'"),
        ("'us-east-1'", "'eu-west-1'", "its `aws.region` would change from 'us-east-1' to 'eu-west-1'"),
        (
            "stream = 'in'",
            "endpoint = 'http://u:hunter2@h:1', stream = 'in'",
            "its `endpoint` would change from nothing to 'http://",
        ),
        (
            "stream = 'in'",
            "scan.startup.mode = 'latest', stream = 'in'",
            "its `scan.startup.mode` would change from nothing to 'latest'",
        ),
    ] {
        let text = SOURCE.replace(part, by);
        let refused = replaced_source(&known_source(), &text).expect_err(&text);
        assert_eq!(refused.code, Code::Bind);
        assert!(refused.message.contains(wanted), "{text}: {refused}");
        assert!(refused.message.contains("\nLINE 1: ") && refused.option.is_some(), "{refused}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
    let moved = SOURCE.replace("'us-east-1'", "'eu-west-1'");
    let hint = replaced_source(&known_source(), &moved).unwrap_err().hint.unwrap();
    assert!(hint.contains("ALTER SOURCE s SET"), "{hint}");
}

#[test]
fn sinks_follow_other_columns_of_their_source_or_are_in_the_way() {
    let wider = |columns: &str| {
        let text = SOURCE.replace("id INT, name VARCHAR, v_bytea BYTEA", columns);
        replaced_source(&known_source(), &text).unwrap().unwrap().spec
    };
    let narrow = known_sink(SINK);
    let whole = known_sink("CREATE SINK w FROM s WITH (connector = 'void', primary_key = 'id')");
    let more = wider("id INT, name VARCHAR, v_bytea BYTEA, extra INT");
    assert_eq!(sql::rebind_sink(&narrow, &more, &registry()), Ok(None), "it selects what it did");
    let rebound = sql::rebind_sink(&whole, &more, &registry()).unwrap().unwrap();
    assert_eq!((rebound.columns.len(), rebound.revision, rebound.id), (4, whole.revision, whole.id));

    let refused = |sink: &SinkSpec, columns: &str| {
        let error = sql::rebind_sink(sink, &wider(columns), &registry()).unwrap_err();
        assert!(error.hint.is_some(), "{error}");
        (error.code, error.message)
    };
    let (code, text) = refused(&narrow, "id INT");
    assert_eq!(code, Code::UndefinedColumn);
    assert_eq!(text, "Catalog error: sink \"k\" reads source \"s\": column \"name\" does not exist");
    let (_, text) = refused(&whole, "name VARCHAR");
    assert!(
        text.contains("sink \"w\" reads source \"s\": column \"id\" of its key does not exist"),
        "{text}"
    );
    for sink in [&whole, &narrow] {
        let (code, text) = refused(sink, "id BIGINT, name VARCHAR");
        assert_eq!(code, Code::Bind);
        assert!(text.contains("column \"id\" of its key would change from integer to bigint"), "{text}");
    }
}
