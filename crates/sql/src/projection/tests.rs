use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, Float64Array, Int32Array, Int64Array, StringArray, StructArray,
};
use model::{Cursor, Field};

use super::*;

fn column(name: &str, kind: SqlType) -> Column {
    Column { name: name.into(), kind }
}

fn source() -> Vec<Column> {
    vec![
        column("id", SqlType::Integer),
        column("name", SqlType::Varchar),
        column("price", SqlType::Numeric),
        column("data", SqlType::Bytea),
        column("doc", SqlType::Jsonb),
        column(
            "at",
            SqlType::Struct(vec![
                Field { name: "x".into(), kind: SqlType::Double },
                Field { name: "Y".into(), kind: SqlType::Varchar },
            ]),
        ),
        column("Big", SqlType::Bigint),
    ]
}

/// Four rows; what is asked for only.
fn rows(wanted: &[String]) -> Batch {
    let at = SqlType::Struct(vec![
        Field { name: "x".into(), kind: SqlType::Double },
        Field { name: "Y".into(), kind: SqlType::Varchar },
    ]);
    let arrow::datatypes::DataType::Struct(fields) = at.arrow() else { unreachable!() };
    let place: ArrayRef = Arc::new(StructArray::new(
        fields,
        vec![
            Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5, 3.5])),
            Arc::new(StringArray::from(vec!["a", "b", "c", "d"])),
        ],
        None,
    ));
    let all: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(0), None]))),
        ("name", Arc::new(StringArray::from(vec![Some("12"), Some("x"), Some("14"), None]))),
        ("price", Arc::new(StringArray::from(vec![Some("1.50"), Some("2"), Some("NaN"), None]))),
        (
            "data",
            Arc::new(BinaryViewArray::from(vec![
                Some(br#"{"field1":"x"}"#.as_slice()),
                Some(br#"{"field1":7}"#.as_slice()),
                Some(b"\xff".as_slice()),
                None,
            ])),
        ),
        (
            "doc",
            Arc::new(StringArray::from(vec![
                Some(r#"{"a":{"b":[1,2.50,null]},"s":"q\"t"}"#),
                Some(r#"{"a":1}"#),
                Some("[1,2]"),
                None,
            ])),
        ),
        ("at", place),
        ("Big", Arc::new(Int64Array::from(vec![i64::MAX, 2, 3, 4]))),
    ];
    let columns: Vec<Column> = source().into_iter().filter(|c| wanted.contains(&c.name)).collect();
    let arrays = all.into_iter().filter(|(n, _)| wanted.iter().any(|w| w == n)).map(|(_, a)| a).collect();
    Batch {
        rows: batch(&schema_of(&columns), arrays, 4).unwrap(),
        ops: Ops::Inserts,
        cursors: (0..4).map(|n| Cursor::new(n.to_string())).collect(),
    }
}

/// The rows as text, the bad ones, and the types.
fn run(query: &str) -> (Vec<String>, Vec<(usize, String)>, String) {
    let projection = Projection::compile(query, &source()).unwrap_or_else(|e| panic!("{query}: {e}"));
    let (out, bad) = projection.apply(rows(projection.inputs())).unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(out.rows.schema(), schema_of(projection.columns()), "{query}");
    assert_eq!(out.cursors.len(), out.len(), "{query}");
    let text: Vec<ArrayRef> = out.rows.columns().iter().map(|c| to_text(c).unwrap()).collect();
    let shown = (0..out.len())
        .map(|row| {
            let values: Vec<String> =
                text.iter().map(|c| text_at(c, row).unwrap_or_else(|| "NULL".into())).collect();
            format!("{}: {}", out.cursors[row], values.join("|"))
        })
        .collect();
    (shown, bad, crate::columns_text(projection.columns()))
}

#[test]
fn columns_pass_through_untouched_and_only_what_is_needed_is_asked_for() {
    let (rows, bad, types) = run("SELECT price, id AS n FROM clicks");
    assert_eq!(rows, ["0: 1.50|1", "1: 2|2", "2: NaN|0", "3: NULL|NULL"]);
    assert_eq!(types, "price numeric, n integer");
    assert!(bad.is_empty());
    let projection = Projection::compile("SELECT id FROM clicks WHERE name IS NOT NULL", &source()).unwrap();
    assert_eq!(projection.inputs(), ["id", "name"]);
    assert_eq!(projection.relation(), "clicks");
}

#[test]
fn where_keeps_rows_ops_and_cursors_in_step() {
    let (rows, _, _) = run("SELECT id, name FROM clicks WHERE id > 0");
    assert_eq!(rows, ["0: 1|12", "1: 2|x"]);
    let (rows, _, _) = run("SELECT * FROM clicks WHERE false");
    assert!(rows.is_empty());
    let projection = Projection::compile("SELECT id FROM c WHERE id <> 1", &source()).unwrap();
    let mut batch = rows_of_two_updates();
    batch.ops = Ops::Each(vec![Op::UpdateDelete, Op::UpdateInsert, Op::UpdateDelete, Op::UpdateInsert]);
    let (out, _) = projection.apply(batch).unwrap();
    // Row 0 is filtered: its other half becomes an insert. Row 3 is null: its other half becomes a delete.
    assert_eq!(out.ops, Ops::Each(vec![Op::Insert, Op::Delete]));
}

fn rows_of_two_updates() -> Batch {
    rows(&["id".to_owned()])
}

#[test]
fn a_row_that_fails_is_named_and_spoils_no_other() {
    let (rows, bad, types) = run("SELECT id, name::int AS n FROM clicks");
    assert_eq!(rows, ["0: 1|12", "2: 0|14", "3: NULL|NULL"]);
    assert_eq!(types, "id integer, n integer");
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].0, 1);
    assert!(bad[0].1.contains("cannot cast string 'x'"), "{}", bad[0].1);
    let (rows, bad, _) = run("SELECT 10 / id AS q FROM clicks");
    assert_eq!(rows, ["0: 10", "1: 5", "3: NULL"]);
    assert_eq!(bad, [(2, "divide by zero error".to_owned())]);
    let (rows, bad, _) = run("SELECT id FROM clicks WHERE 10 / id = 5");
    assert_eq!((rows.len(), bad.len()), (1, 1));
}

#[test]
fn numerics_are_decimals_inside_and_canonical_text_outside() {
    let (rows, bad, types) = run("SELECT price + 1 AS p, price::varchar AS t FROM clicks WHERE id > 0");
    assert_eq!(rows, ["0: 2.5|1.5", "1: 3|2"]);
    assert_eq!(types, "p numeric, t character varying");
    assert!(bad.is_empty() || bad[0].0 == 2, "only NaN may fail: {bad:?}");
    let (rows, _, types) = run("SELECT '1.20'::numeric AS n, 7::decimal(5,2) AS d FROM clicks WHERE id = 1");
    assert_eq!((rows, types.as_str()), (vec!["0: 1.2|7".to_owned()], "n numeric, d numeric"));
    let (_, bad, _) = run("SELECT price * 2 AS p FROM clicks");
    assert_eq!(bad.len(), 1, "NaN has no decimal: {bad:?}");
    assert_eq!(bad[0].0, 2);
}

#[test]
fn a_fractional_literal_beside_a_numeric_is_what_was_written() {
    let exact = |condition: &str| {
        let one = SqlType::Numeric;
        let input = [column("price", one), column("dbl", SqlType::Double)];
        let query = format!("SELECT {condition} AS x FROM c");
        let projection = Projection::compile(&query, &input).unwrap_or_else(|e| panic!("{query}: {e}"));
        let all: Vec<(&str, ArrayRef)> = vec![
            ("price", Arc::new(StringArray::from(vec!["8.7"]))),
            ("dbl", Arc::new(Float64Array::from(vec![8.7]))),
        ];
        let used: Vec<Column> =
            input.iter().filter(|c| projection.inputs().contains(&c.name)).cloned().collect();
        let arrays =
            all.into_iter().filter(|(n, _)| used.iter().any(|c| c.name == *n)).map(|(_, a)| a).collect();
        let rows = batch(&schema_of(&used), arrays, 1).unwrap();
        let (out, bad) =
            projection.apply(Batch { rows, ops: Ops::Inserts, cursors: vec![Cursor::new("1")] }).unwrap();
        assert!(bad.is_empty(), "{query}: {bad:?}");
        let kind = projection.columns()[0].kind.to_string();
        format!("{kind} {}", text_at(&to_text(out.rows.column(0)).unwrap(), 0).unwrap())
    };
    for (condition, wanted) in [
        ("price = 8.7", "boolean true"),
        ("8.7 = price", "boolean true"),
        ("price <= 8.7", "boolean true"),
        ("price > 8.7", "boolean false"),
        ("-price < -8.6", "boolean true"),
        ("price IN (1.5, 8.7)", "boolean true"),
        ("price NOT BETWEEN 8.7 AND 8.8", "boolean false"),
        ("price * 1.1", "numeric 9.57"),
        ("price * 1.1 + 0.03", "numeric 9.6"),
        ("(1 + 0.1) * price", "numeric 9.57"),
        ("price / 0.3", "numeric 29"),
        ("coalesce(price, 0.1)", "numeric 8.7"),
        ("CASE WHEN price > 8 THEN 0.1 ELSE price END", "numeric 0.1"),
        ("CASE price WHEN 8.7 THEN 1 ELSE 2 END", "bigint 1"),
        // Beside a double it stays one.
        ("dbl = 8.7", "boolean true"),
        ("dbl * 2.5", "double precision 21.75"),
        ("price * dbl > 75.0", "boolean true"),
    ] {
        assert_eq!(exact(condition), wanted, "{condition}");
    }
}

#[test]
fn a_row_that_where_leaves_out_cannot_fail() {
    // Row 2 has a price of NaN.
    let (rows, bad, _) = run("SELECT id, price * 2 AS p FROM c WHERE id > 0");
    assert_eq!(rows, ["0: 1|3", "1: 2|4"]);
    assert!(bad.is_empty(), "{bad:?}");
    let (rows, bad, _) = run("SELECT price + id AS p FROM c WHERE price < 2 AND id < 5");
    assert_eq!(rows, ["0: 2.5"]);
    assert_eq!((bad.len(), bad[0].0), (1, 2), "{bad:?}");
    let projection = Projection::compile("SELECT price + 1 AS p FROM c WHERE id > 0", &source()).unwrap();
    assert_eq!(projection.inputs(), ["id", "price"]);
}

#[test]
fn integers_do_not_wrap_and_nothing_is_divided_by_zero() {
    for query in [
        "SELECT id * 2000000000 * \"Big\" AS x FROM c",
        "SELECT \"Big\" + 1 AS x FROM c WHERE \"Big\" > 4",
        "SELECT -\"Big\" - 2 AS x FROM c",
        "SELECT id FROM c WHERE id = 1 AND \"Big\" * 2 > 0",
    ] {
        let (_, bad, _) = run(query);
        assert!(bad.iter().any(|(row, why)| *row == 0 && why.contains("verflow")), "{query}: {bad:?}");
    }
    let (rows, bad, types) = run("SELECT -(-\"Big\" - 1) AS x FROM c WHERE id = 1");
    assert!(rows.is_empty() && bad[0].1.contains("verflow"), "{rows:?} {bad:?} {types}");
    // Row 2 is the zero, row 3 a null.
    let (rows, bad, _) = run("SELECT 1.5 / id AS x, id / 2.0 AS y FROM c");
    assert_eq!(rows, ["0: 1.5|0.5", "1: 0.75|1", "3: NULL|NULL"]);
    assert_eq!(bad, [(2, "divide by zero error".to_owned())]);
    let (rows, bad, _) =
        run("SELECT CASE WHEN id = 0 THEN -1.0 ELSE (at).x / id END AS x FROM c WHERE id <> 1");
    assert_eq!((rows.len(), bad.len()), (2, 0), "{rows:?} {bad:?}");
    let (rows, _, _) = run("SELECT id FROM c WHERE id <> 0 AND 1.0 / id < 1");
    assert_eq!(rows, ["1: 2"]);
}

#[test]
fn json_members_elements_and_texts() {
    let (rows, bad, types) = run(
        "SELECT doc->'a' AS a, doc->'a'->'b'->1 AS e, doc->'a'->'b'->-1 AS l, doc->>'s' AS s, doc->'a'->'b'->>2 AS n, \
         doc->0 AS z FROM clicks",
    );
    assert_eq!(
        rows,
        [
            r#"0: {"b":[1,2.50,null]}|2.50|null|q"t|NULL|NULL"#,
            "1: 1|NULL|NULL|NULL|NULL|NULL",
            "2: NULL|NULL|NULL|NULL|NULL|1",
            "3: NULL|NULL|NULL|NULL|NULL|NULL",
        ]
    );
    assert_eq!(types, "a jsonb, e jsonb, l jsonb, s character varying, n character varying, z jsonb");
    assert!(bad.is_empty());
    // The example of the requirement: bytes to JSON in one expression.
    let (rows, bad, _) = run("SELECT CONVERT_FROM(data,'utf8')::jsonb->>'field1' AS field_1 FROM clicks");
    assert_eq!(rows, ["0: x", "1: 7", "3: NULL"]);
    assert_eq!(bad, [(2, "not valid UTF-8 at byte 0".to_owned())]);
    let (_, bad, types) = run("SELECT name::jsonb FROM clicks");
    assert_eq!((bad.len(), bad[0].0, types.as_str()), (1, 1, "name jsonb"));
    let (_, _, types) = run("SELECT doc::text AS t, doc || '' AS u FROM clicks");
    assert_eq!(types, "t character varying, u character varying");
}

#[test]
fn fields_qualified_names_and_quoted_names() {
    let (rows, _, types) =
        run(r#"SELECT (at).x AS x, (at)."Y", at.x * 2 AS d, c."Big" FROM clicks AS c WHERE c.id = 1"#);
    assert_eq!(rows, ["0: 0.5|a|1|9223372036854775807"]);
    assert_eq!(types, "x double precision, Y character varying, d double precision, Big bigint");
    let (rows, _, types) = run("SELECT public.clicks.id, clicks.* FROM public.clicks WHERE clicks.id = 2");
    assert_eq!(rows.len(), 1);
    assert!(types.starts_with("id integer, id integer, name character varying"), "{types}");
}

#[test]
fn functions_that_must_be_simplified_work() {
    let (rows, _, types) = run(
        "SELECT coalesce(name, 'none') AS n, nullif(id, 1) AS i, upper(name) AS u, substr(name, 1, 1) AS s, \
         CASE WHEN id > 1 THEN 'big' ELSE 'small' END AS c FROM clicks",
    );
    assert_eq!(rows[0], "0: 12|NULL|12|1|small");
    assert_eq!(rows[3], "3: none|NULL|NULL|NULL|small");
    assert_eq!(
        types,
        "n character varying, i bigint, u character varying, s character varying, c character varying"
    );
    let (rows, _, types) = run(
        "SELECT id IN (1, 2) AS i, name LIKE '1%' AS l, name || '!' AS c, true AND id = 1 AS b FROM clicks",
    );
    assert_eq!(rows[0], "0: true|true|12!|true");
    assert_eq!(types, "i boolean, l boolean, c character varying, b boolean");
    let (rows, _, types) =
        run("SELECT '2023-11-11 18:30:09.453+00'::timestamptz AS t, DATE '1999-12-01' AS d, \
                                '0001-01-01 00:00:00.123456'::timestamp AS o FROM clicks WHERE id = 1");
    assert_eq!(types, "t timestamp with time zone, d date, o timestamp without time zone");
    assert_eq!(rows, ["0: 2023-11-11 18:30:09.453+00:00|1999-12-01|0001-01-01 00:00:00.123456"]);
}

#[test]
fn the_present_is_not_frozen_when_the_query_is_compiled() {
    for (call, kind) in [
        ("proctime()", SqlType::Timestamptz),
        ("now()", SqlType::Timestamptz),
        ("current_timestamp", SqlType::Timestamptz),
        ("current_time", SqlType::Time),
        ("localtime", SqlType::Time),
    ] {
        let projection = Projection::compile(&format!("SELECT {call} AS t FROM c"), &source()).unwrap();
        assert_eq!(projection.columns()[0].kind, kind, "{call}");
        let at = |p: &Projection| {
            let (out, _) = p.apply(rows(&[])).unwrap();
            text_at(&to_text(out.rows.column(0)).unwrap(), 0).unwrap()
        };
        let first = at(&projection);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while at(&projection) == first {
            assert!(std::time::Instant::now() < deadline, "{call} stands still");
        }
    }
}

#[test]
fn what_a_sink_cannot_do_is_refused_by_name() {
    for (query, wanted) in [
        ("SELECT nme FROM c", "column \"nme\" does not exist"),
        ("SELECT count(*) FROM c", "not supported: aggregates"),
        ("SELECT DISTINCT id FROM c", "not supported: DISTINCT"),
        ("SELECT id FROM c GROUP BY id", "not supported: GROUP BY"),
        ("SELECT id FROM c ORDER BY id", "not supported: ORDER BY"),
        ("SELECT id FROM c LIMIT 1", "not supported: LIMIT"),
        ("SELECT id FROM c JOIN d ON true", "not supported: joins"),
        ("SELECT id FROM (SELECT 1 AS id)", "not supported: subqueries"),
        ("SELECT id FROM c WHERE id IN (SELECT 1)", "not supported: subqueries"),
        ("SELECT id FROM c WHERE id + 1", "must be boolean, not bigint"),
        ("SELECT id FROM c UNION SELECT 1", "not supported: UNION"),
        ("SELECT id FROM c TABLESAMPLE BERNOULLI (10)", "not supported: TABLESAMPLE"),
        ("SELECT b FROM c AS x(b, a)", "not supported: other names for the columns"),
        ("SELECT id FROM c FOR UPDATE", "not supported: FOR"),
        ("(SELECT id FROM c) FOR SHARE", "not supported: FOR"),
        ("SELECT id FROM c FETCH FIRST 2 ROWS ONLY", "not supported: LIMIT"),
        ("SELECT id FROM c OFFSET 1", "not supported: LIMIT"),
        ("SELECT id FROM c(1)", "not supported: functions in FROM"),
        ("SELECT id FROM c WINDOW w AS (ORDER BY id)", "not supported: WINDOW"),
        ("SELECT now() OVER () AS n FROM c", "not supported: aggregates"),
        ("SELECT upper(name) OVER () AS n FROM c", "not supported: aggregates"),
        ("SELECT upper(name) FILTER (WHERE id > 1) AS n FROM c", "not supported: aggregates"),
        ("SELECT upper(DISTINCT name) AS n FROM c", "not supported: aggregates"),
        ("SELECT NULL AS n FROM c", "has no type of its own"),
        ("SELECT nofunction(id) FROM c", "Bind error: invalid function 'nofunction'"),
        ("SELECT id->'x' FROM c", "the left side of -> and ->> must be jsonb"),
        ("SELECT d.id FROM c", "does not exist"),
    ] {
        let error = Projection::compile(query, &source()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{query}: {error}");
    }
    let error = Projection::compile("SELECT nme FROM c", &source()).unwrap_err();
    assert_eq!((error.code, error.hint.as_deref()), (Code::UndefinedColumn, Some("did you mean `name`?")));
}

#[test]
fn a_batch_without_a_needed_column_is_an_error_of_the_caller() {
    let projection = Projection::compile("SELECT id FROM c WHERE name = 'x'", &source()).unwrap();
    assert!(projection.apply(rows(&["id".to_owned()])).is_err());
}
