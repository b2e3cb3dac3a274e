//! Whatever is printed parses to the same statement, except for secrets, which are printed as stars.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use model::{Field, ObjectKind, SqlType};
use proptest::{collection::vec, option, prelude::*};
use shardwright_sql as sql;
use sql::{
    ColumnDef, CreateSink, CreateSource, Encoding, FormatSpec, IncludeItem, InspectTarget, ObjectName,
    OptionEntry, Place, Schema, SinkChange, SinkInput, Statement,
};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_][a-z0-9_]{0,8}",
        1 => "[A-Za-z0-9 \"'é.-]{1,8}",
        1 => prop::sample::select(vec!["primary", "include", "with", "select", "from", "format", "row", "key", "as", "null"])
            .prop_map(str::to_owned),
    ]
}

fn object_name() -> impl Strategy<Value = ObjectName> {
    (option::of(Just("public".to_owned())), name()).prop_map(|(schema, name)| ObjectName {
        schema,
        name,
        place: Place::default(),
    })
}

fn kind() -> impl Strategy<Value = SqlType> {
    let leaf = prop::sample::select(vec![
        SqlType::Boolean,
        SqlType::Smallint,
        SqlType::Integer,
        SqlType::Bigint,
        SqlType::Real,
        SqlType::Double,
        SqlType::Numeric,
        SqlType::Varchar,
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Interval,
        SqlType::Jsonb,
    ]);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| SqlType::List(Box::new(item))),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| SqlType::Map(Box::new(k), Box::new(v))),
            vec((name(), inner), 1..4).prop_map(|fields| {
                SqlType::Struct(fields.into_iter().map(|(name, kind)| Field { name, kind }).collect())
            }),
        ]
    })
}

fn options() -> impl Strategy<Value = Vec<OptionEntry>> {
    // A value is any text that is not taken for a URL with a password in it; a name is not one of a secret.
    vec(("[a-zA-Z_][a-z0-9_]{0,6}(\\.[a-z_]{1,6}){0,2}", "[^@]{0,12}"), 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .filter(|(name, _)| !model::is_secret_option(name))
            .map(|(name, value)| OptionEntry { name, value, place: Place::default() })
            .collect()
    })
}

fn encoding() -> impl Strategy<Value = Encoding> {
    (prop::sample::select(vec!["JSON", "AVRO", "PROTOBUF", "CSV", "BYTES", "TEXT"]), options())
        .prop_map(|(name, options)| Encoding { name: name.to_owned(), options, place: Place::default() })
}

fn format() -> impl Strategy<Value = FormatSpec> {
    (prop::sample::select(vec!["PLAIN", "UPSERT", "DEBEZIUM"]), encoding(), option::of(encoding())).prop_map(
        |(format, encode, key_encode)| FormatSpec {
            format: format.to_owned(),
            encode,
            key_encode,
            place: Place::default(),
        },
    )
}

fn schema() -> impl Strategy<Value = Schema> {
    let column =
        (name(), kind(), any::<bool>(), any::<bool>()).prop_map(|(name, kind, primary_key, not_null)| {
            ColumnDef { name, kind, primary_key, not_null, place: Place::default() }
        });
    (any::<bool>(), vec(column, 0..4), vec(vec(name(), 1..3), 0..2))
        .prop_map(|(wildcard, columns, primary_keys)| Schema { wildcard, columns, primary_keys })
}

fn include() -> impl Strategy<Value = IncludeItem> {
    let kinds =
        prop::sample::select(vec!["key", "partition", "offset", "timestamp", "payload", "header", "file"]);
    (kinds, option::of(("[a-z' ]{0,5}", option::of(kind()))), option::of(name())).prop_map(
        |(kind, inner, alias)| {
            let (inner, inner_kind) = inner.unzip();
            let inner_kind = inner_kind.flatten();
            IncludeItem { kind: kind.to_owned(), inner, inner_kind, alias, place: Place::default() }
        },
    )
}

/// `OR REPLACE` and `IF NOT EXISTS`: never both.
fn how() -> impl Strategy<Value = (bool, bool)> {
    prop::sample::select(vec![(false, false), (true, false), (false, true)])
}

fn source() -> impl Strategy<Value = Statement> {
    (how(), object_name(), option::of(schema()), vec(include(), 0..3), option::of(options()), format())
        .prop_map(|((or_replace, if_not_exists), name, schema, include, options, format)| {
            Statement::CreateSource(Box::new(CreateSource {
                or_replace,
                if_not_exists,
                name,
                schema,
                include,
                options,
                format,
            }))
        })
}

fn input() -> impl Strategy<Value = SinkInput> {
    let queries = prop::sample::select(vec![
        "SELECT * FROM s",
        "SELECT a, b -> 'x' ->> 0 AS c FROM s WHERE a > 1 AND b IS NOT NULL",
        "SELECT (c).f, s.d::VARCHAR AS \"D d\" FROM public.s AS s",
        "SELECT CASE WHEN a = 'it''s' THEN 1 ELSE 2 END AS n FROM s",
    ]);
    prop_oneof![
        object_name().prop_map(SinkInput::From),
        queries.prop_map(|text| {
            let whole = format!("CREATE SINK k AS {text} WITH (x = '1')");
            match sql::parse(&whole).unwrap().remove(0).statement {
                Statement::CreateSink(create) => create.input,
                other => panic!("{other:?}"),
            }
        }),
    ]
}

fn sink() -> impl Strategy<Value = CreateSink> {
    (how(), object_name(), input(), options(), option::of(format())).prop_map(
        |((or_replace, if_not_exists), name, input, options, format)| CreateSink {
            or_replace,
            if_not_exists,
            name,
            input,
            options,
            format,
        },
    )
}

fn short() -> impl Strategy<Value = Statement> {
    let object = || prop::sample::select(vec![ObjectKind::Source, ObjectKind::Sink]);
    let target = prop::sample::select(vec![
        InspectTarget::Sources,
        InspectTarget::Sinks,
        InspectTarget::Workers,
        InspectTarget::Splits,
    ]);
    let change =
        prop_oneof![Just(SinkChange::Pause), Just(SinkChange::Resume), options().prop_map(SinkChange::Set)];
    prop_oneof![
        (object(), any::<bool>(), object_name(), any::<bool>())
            .prop_map(|(kind, if_exists, name, cascade)| Statement::Drop { kind, if_exists, name, cascade }),
        (object_name(), options()).prop_map(|(name, options)| Statement::AlterSource { name, options }),
        (object_name(), change).prop_map(|(name, change)| Statement::AlterSink { name, change }),
        (target, option::of(object_name()), option::of("[a-z%_']{0,5}"))
            .prop_map(|(target, from, like)| Statement::Show { target, from, like }),
        (object(), object_name()).prop_map(|(kind, name)| Statement::ShowCreate { kind, name }),
        object_name().prop_map(|name| Statement::Describe { name }),
        object_name().prop_map(|name| Statement::ShowErrors { name }),
        sink().prop_map(|create| Statement::Explain(Box::new(create))),
        any::<bool>().prop_map(|explain| Statement::Rebalance { explain }),
        Just(Statement::Show { target: InspectTarget::Scale, from: None, like: None }),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![source(), sink().prop_map(|create| Statement::CreateSink(Box::new(create))), short()]
}

/// The text of a sink's query, as it is stored.
fn stored(query: &str) -> String {
    let whole = format!("CREATE SINK k AS {query} WITH (x = '1')");
    match sql::parse(&whole).unwrap_or_else(|e| panic!("{whole}: {e}")).remove(0).statement {
        Statement::CreateSink(create) => match create.input {
            SinkInput::Query { text, .. } => text,
            SinkInput::From(_) => panic!("{whole}"),
        },
        other => panic!("{other:?}"),
    }
}

/// What the literal in the select list says, when it is evaluated.
fn said(query: &str) -> String {
    use arrow::array::AsArray;
    let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    let batch = model::Batch {
        rows: arrow::array::RecordBatch::try_new_with_options(schema, vec![], &rows).unwrap(),
        ops: model::Ops::Inserts,
        cursors: vec![model::Cursor::new("1")],
    };
    let (out, bad) = sql::Projection::compile(query, &[]).unwrap().apply(batch).unwrap();
    assert!(bad.is_empty(), "{query}: {bad:?}");
    out.rows.column(0).as_string::<i32>().value(0).to_owned()
}

#[test]
fn two_signs_are_stored_as_two_signs() {
    let text = stored("SELECT - -a AS n FROM s");
    assert_eq!(stored(&text), text);
    assert!(text.contains("-(-a)"), "{text}");
}

proptest! {
    #[test]
    fn a_literal_is_stored_as_what_it_says(said_first in "[ab'\\\\\n]{0,6}") {
        let text = stored(&format!("SELECT '{}' AS x FROM s", said_first.replace('\'', "''")));
        prop_assert_eq!(said(&text), said_first.clone(), "{}", text);
        prop_assert_eq!(stored(&text), text);
    }

    #[test]
    fn a_printed_statement_parses_to_itself(statement in statement()) {
        let text = statement.to_string();
        let parsed = sql::parse(&text);
        prop_assert!(parsed.is_ok(), "{text}\n{}", parsed.unwrap_err());
        let parsed = parsed.unwrap();
        prop_assert_eq!(parsed.len(), 1, "{}", text);
        prop_assert_eq!(&parsed[0].statement, &statement, "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-zA-Z0-9 '\"();,.=<>*\\-\n\\[\\]]{0,60}") {
        _ = sql::parse(&text);
        _ = sql::parse(&format!("CREATE SOURCE {text}"));
        _ = sql::parse(&format!("CREATE SINK s AS SELECT {text}"));
    }
}
