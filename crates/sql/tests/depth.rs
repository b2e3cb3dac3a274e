//! The longest expression that is accepted fits on the stack of a thread, from the parser to the drop.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::{sync::Arc, thread};

use arrow::{
    array::{ArrayRef, Int32Array, RecordBatch, StringArray},
    datatypes::Schema,
};
use model::{Batch, Column, Cursor, Ops, SqlType};
use shardwright_sql as sql;
use sql::{Projection, Relation, SinkInput, Statement};

/// What tokio gives its threads, less what is on it before a statement is looked at.
const STACK: usize = (2 << 20) - (256 << 10);

fn columns() -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    vec![
        column("a", SqlType::Integer),
        column("b", SqlType::Boolean),
        column("s", SqlType::Varchar),
        column("p", SqlType::Numeric),
        column("j", SqlType::Jsonb),
    ]
}

fn rows(wanted: &[String]) -> Batch {
    let all: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(Int32Array::from(vec![1, 0]))),
        ("b", Arc::new(arrow::array::BooleanArray::from(vec![true, false]))),
        ("s", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("p", Arc::new(StringArray::from(vec!["1.5", "0"]))),
        ("j", Arc::new(StringArray::from(vec![r#"{"a":1}"#, "[]"]))),
    ];
    let columns: Vec<Column> = columns().into_iter().filter(|c| wanted.contains(&c.name)).collect();
    let schema = Arc::new(Schema::new(columns.iter().map(Column::arrow).collect::<Vec<_>>()));
    let two = arrow::array::RecordBatchOptions::new().with_row_count(Some(2));
    let arrays = all.into_iter().filter(|(n, _)| wanted.iter().any(|w| w == n)).map(|(_, a)| a).collect();
    Batch {
        rows: RecordBatch::try_new_with_options(schema, arrays, &two).unwrap(),
        ops: Ops::Inserts,
        cursors: (0..2).map(|n| Cursor::new(n.to_string())).collect(),
    }
}

/// An expression of so many parts.
type Shape = Box<dyn Fn(usize) -> String>;

/// All ways to make one long.
fn shapes() -> Vec<(&'static str, Shape)> {
    fn chain(first: &'static str, link: &'static str) -> Shape {
        Box::new(move |n| format!("{first}{}", link.repeat(n)))
    }
    fn nest(open: &'static str, core: &'static str, close: &'static str) -> Shape {
        Box::new(move |n| format!("{}{core}{}", open.repeat(n), close.repeat(n)))
    }
    vec![
        ("sum", chain("a", " + a")),
        ("sum of literals", chain("1", " + 1")),
        ("mixed", chain("a", " * 2 - a / 3")),
        ("decimals", chain("p", " + 1.5")),
        ("or", chain("a = 1", " OR a = 2")),
        ("and or", chain("b", " AND a > 1 OR b")),
        ("texts", chain("s", " || s")),
        // The planner takes its time over calls within calls; 300 of them fit on the stack, too.
        ("json", Box::new(|n| format!("j{}", " -> 'a'".repeat(n.min(50))))),
        ("casts", chain("a", "::bigint::int")),
        ("casts to text", chain("s", "::varchar")),
        ("is null", chain("b", " IS NULL")),
        ("like", chain("s", " LIKE 'x'")),
        ("between", chain("a", " + a BETWEEN 1 AND 2 OR a")),
        ("at time zone", chain("now()", " AT TIME ZONE 'UTC'")),
        ("subscripts", chain("j", "[1]")),
        ("fields", chain("(a)", ".b")),
        ("array type", chain("a::int", "[]")),
        ("not", nest("NOT ", "b", "")),
        ("minus", nest("-(", "a", ")")),
        ("parentheses", nest("(", "a", ")")),
        ("sums in parentheses", nest("(1 + ", "a", ")")),
        ("functions", nest("upper(", "s", ")")),
        ("coalesce", nest("coalesce(a, ", "a", ")")),
        ("case", nest("CASE WHEN b THEN ", "a", " ELSE 1 END")),
        ("case flat", Box::new(|n| format!("CASE {} END", "WHEN a = 1 THEN 2 ".repeat(n)))),
        ("in", nest("a IN (1, ", "a", ")")),
        ("casts around", nest("CAST(", "a", " AS bigint)")),
        ("interval", nest("INTERVAL ", "'1 day'", "")),
        ("array type around", nest("a::ARRAY<", "int", ">")),
        ("queries", nest("(SELECT ", "1", ")")),
        ("list", Box::new(|n| format!("a IN ({})", vec!["1"; n * 4].join(", ")))),
        (
            "long sums in a list",
            Box::new(|n| {
                let sum = format!("a{}", " + 1".repeat(n));
                format!("a IN ({sum}, {sum})")
            }),
        ),
    ]
}

/// Whatever becomes of it, it becomes so on this stack: parsed, compiled, evaluated and dropped.
fn sink(expression: &str) -> Result<(), String> {
    let text = format!("CREATE SINK k AS {} WITH (x = '1')", of(expression));
    let parsed = sql::parse(&text).map_err(|e| e.to_string())?;
    let Statement::CreateSink(create) = &parsed[0].statement else { panic!("{text}") };
    let SinkInput::Query { text, .. } = &create.input else { panic!("{text}") };
    let projection = Projection::compile(text, &columns()).map_err(|e| e.to_string())?;
    _ = projection.apply(rows(projection.inputs())).unwrap();
    Ok(())
}

fn relation(expression: &str) -> Result<(), String> {
    let parsed = sql::parse(&of(expression)).map_err(|e| e.to_string())?;
    let Statement::Select { text, .. } = &parsed[0].statement else { panic!("{expression}") };
    query(text)
}

fn of(expression: &str) -> String {
    format!("SELECT {expression} AS x FROM t WHERE b")
}

fn query(text: &str) -> Result<(), String> {
    sql::parse(text).map_err(|e| e.to_string())?;
    let row = vec![
        Some("1".to_owned()),
        Some("true".to_owned()),
        Some("x".to_owned()),
        Some("1".to_owned()),
        Some("{}".to_owned()),
    ];
    let table = Relation { schema: "public", name: "t".to_owned(), columns: columns(), rows: vec![row] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(sql::select(text, vec![table])).map(drop).map_err(|e| e.to_string())
}

fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap()
}

const TOO_DEEP: &str = "the query is too deep: ";

/// The most parts with which a shape is not too deep.
fn longest(shape: &dyn Fn(usize) -> String) -> usize {
    let fits = |n: usize| match sql::parse(&of(&shape(n))) {
        Ok(_) => true,
        Err(error) => !error.message.contains(TOO_DEEP),
    };
    let (mut fit, mut not) = (1_usize, 300);
    while fit + 1 < not {
        let middle = fit.midpoint(not);
        if fits(middle) { fit = middle } else { not = middle }
    }
    fit
}

#[test]
fn the_longest_expression_fits_on_the_stack_from_the_parser_to_the_drop() {
    let mut evaluated = 0;
    for (name, shape) in shapes() {
        let expression = shape(longest(&*shape));
        let same = expression.clone();
        for outcome in [on_small_stack(move || sink(&expression)), on_small_stack(move || relation(&same))] {
            // What is wrong with it otherwise is not looked at here.
            evaluated += usize::from(outcome.is_ok());
            assert!(!outcome.is_err_and(|e| e.contains(TOO_DEEP)), "{name}");
        }
    }
    assert!(evaluated > 30, "only {evaluated} were of the right types");
}

#[test]
fn what_is_deeper_is_refused_before_it_is_parsed() {
    let sum = format!("SELECT 1{}", "+1".repeat(100_000));
    assert!(on_small_stack(move || sql::parse(&sum)).unwrap_err().message.contains(TOO_DEEP));
    for link in [
        " + 1",
        " OR a = 2",
        "::int",
        " IS NULL",
        " - - 1",
        ".b",
        "[1]",
        " COLLATE x",
        "[]",
        " AT TIME ZONE 'UTC'",
    ] {
        let long = format!("a{}", link.repeat(1000));
        for text in [
            format!("SELECT {long}"),
            format!("SELECT 1 FROM t WHERE coalesce(1, {long}, 2) = 1"),
            format!("SELECT CASE WHEN {long} THEN 1 END FROM t"),
            format!("CREATE SINK k AS SELECT {long} FROM t WITH (x = '1')"),
            format!("CREATE OR REPLACE SINK k AS SELECT 1, {long} FROM t WITH (x = '1')"),
            format!("EXPLAIN CREATE SINK k AS SELECT * FROM t WHERE {long} WITH (x = '1')"),
        ] {
            let error = on_small_stack(move || sql::parse(&text)).unwrap_err();
            assert!(error.message.contains(TOO_DEEP), "{link}: {}", error.message);
        }
        // A text that was stored by an older release.
        let text = format!("SELECT {long} FROM t");
        let error = on_small_stack(move || Projection::compile(&text, &columns())).unwrap_err();
        assert!(error.message.contains(TOO_DEEP), "{link}");
    }
    for (open, close) in
        [("(", ")"), ("upper(", ")"), ("NOT ", ""), ("INTERVAL ", ""), ("- ", ""), ("CASE WHEN ", "")]
    {
        let text = format!("SELECT {}1{}", open.repeat(1000), close.repeat(1000));
        let error = on_small_stack(move || sql::parse(&text)).unwrap_err();
        assert!(error.message.contains(TOO_DEEP), "{open}: {}", error.message);
    }
    for text in [
        format!("SELECT 1{}", " UNION SELECT 1".repeat(1000)),
        format!("SELECT 1 FROM t{}", " JOIN t ON true".repeat(1000)),
        format!("SELECT 1 FROM t{}", ", t".repeat(1000)),
        format!(
            "SELECT 1 FROM (WITH t0 AS (SELECT 1){} SELECT 1)",
            (1..1000).map(|n| format!(", t{n} AS (SELECT * FROM t{})", n - 1)).collect::<String>()
        ),
    ] {
        let error = on_small_stack(move || sql::parse(&text)).unwrap_err();
        assert!(error.message.contains(TOO_DEEP), "{}", error.message);
    }
}

#[test]
fn what_is_wide_is_not_deep() {
    let columns: Vec<String> = (0..1000).map(|n| format!("coalesce(a, {n})::bigint AS c{n}")).collect();
    let text = format!("SELECT {} FROM t WHERE a IN ({})", columns.join(", "), vec!["-1"; 5000].join(", "));
    sql::parse(&text).unwrap();
    let joined =
        format!("SELECT 1 FROM t{}", (0..20).map(|n| format!(" JOIN t AS t{n} ON true")).collect::<String>());
    on_small_stack(move || query(&joined)).unwrap();
    let united = format!("SELECT a FROM t{}", " UNION ALL SELECT a FROM t".repeat(80));
    on_small_stack(move || query(&united)).unwrap();
}
