//! Statements that only look, and how a call with several statements goes.

use proto::StatusExt;

use crate::setup::{Coordinator, sink, source};

#[tokio::test]
async fn show_and_describe_list_what_is_there() {
    let cluster = Coordinator::start().await;
    let text = "CREATE SOURCE clicks (id INT, at TIMESTAMPTZ, PRIMARY KEY (id)) INCLUDE KEY WITH (connector = 'fake', \
                stream = '3', password = 'hunter2') FORMAT PLAIN ENCODE JSON";
    let answers = cluster.run(text).await;
    assert!(answers.notices[0].contains("sys.source_errors"), "{answers:?}");
    cluster.run(&source("other", "")).await;
    cluster.run("CREATE SINK k AS SELECT id, id * 2 AS d FROM clicks WHERE id > 1 WITH (connector = 'fake', stream = '1', primary_key = 'id')").await;
    let shown = cluster.run("SHOW SOURCES").await;
    assert_eq!(shown.columns, ["Name", "Type", "Connector"]);
    assert_eq!(
        shown.rows,
        [
            "public.clicks|source|fake",
            "public.clicks_progress|progress|",
            "public.other|source|fake",
            "public.other_progress|progress|",
        ]
    );
    assert_eq!(cluster.run("SHOW SOURCES FROM public LIKE 'o%s'").await.rows.len(), 1);
    cluster.refuses("SHOW SOURCES FROM nope", "42P01", "schema \"nope\" does not exist").await;
    let shown = cluster.run("SHOW CREATE SOURCE clicks").await;
    assert_eq!(shown.columns, ["Source Name", "Create Sql"]);
    assert_eq!(
        shown.rows,
        [
            "public.clicks|CREATE SOURCE clicks (id INT, at TIMESTAMP WITH TIME ZONE, PRIMARY KEY (id)) INCLUDE KEY AS _key \
          WITH (connector = 'fake', password = '********', stream = '3') FORMAT PLAIN ENCODE JSON"
        ]
    );
    let shown = cluster.run("SHOW CREATE SINK k").await;
    assert_eq!(
        shown.rows,
        [
            "public.k|CREATE SINK k AS SELECT id, id * 2 AS d FROM clicks WHERE id > 1 WITH (connector = 'fake', stream = '1', \
          primary_key = 'id')"
        ]
    );
    let shown = cluster.run("DESCRIBE clicks").await;
    assert_eq!(shown.columns, ["Name", "Type", "Is Hidden", "Description"]);
    assert_eq!(
        shown.rows,
        [
            "id|integer|false|NULL",
            "at|timestamp with time zone|false|NULL",
            "_key|bytea|false|NULL",
            "primary key|id|NULL|NULL",
        ]
    );
    assert_eq!(cluster.run("DESC k").await.rows[1], "d|bigint|false|NULL");
    assert_eq!(
        cluster.run("DESCRIBE clicks_progress").await.rows[0],
        "shard_id|character varying|false|NULL"
    );
    assert_eq!(
        cluster.run("DESCRIBE sys.source_errors").await.rows[0],
        "source|character varying|false|NULL"
    );
    let status = cluster.refused("DESCRIBE clics").await;
    assert_eq!(status.fact("hint").as_deref(), Some("did you mean `clicks`?"));
}

#[tokio::test]
async fn progress_is_a_relation() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", source("s", ""), sink("k", "s", ""))).await;
    let shown = cluster.run("SELECT * FROM s_progress ORDER BY shard_id DESC").await;
    assert_eq!(
        shown.columns,
        [
            "shard_id",
            "sequence_number",
            "millis_behind_latest",
            "state",
            "parent_shard_id",
            "worker",
            "updated_at",
            "sink"
        ]
    );
    assert_eq!(
        shown.rows,
        ["split-1|NULL|NULL|unassigned|NULL|NULL|NULL|k", "split-0|NULL|NULL|unassigned|NULL|NULL|NULL|k"]
    );
    let counted = cluster.run("SELECT state, count(*) AS n FROM public.s_progress GROUP BY state").await;
    assert_eq!(counted.rows, ["unassigned|2"]);
    assert!(cluster.run("SELECT * FROM sys.source_errors WHERE source = 's'").await.rows.is_empty());
    assert_eq!(cluster.run("SHOW SPLITS FROM s LIKE '%1'").await.rows.len(), 1);
    cluster.refuses("SELECT * FROM s", "0A000", "not supported: SELECT from source \"s\"").await;
    cluster.refuses("SELECT nope FROM s_progress", "42703", "column \"nope\" does not exist").await;
    let status = cluster.refused("SELECT * FROM s_progres").await;
    assert_eq!(status.reason().as_deref(), Some("42P01"));
    assert_eq!(status.fact("hint").as_deref(), Some("did you mean `s_progress`?"));
}

#[tokio::test]
async fn explain_tells_the_plan_and_makes_nothing() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "")).await;
    let text = "EXPLAIN CREATE SINK k AS SELECT id, upper(name) AS n FROM s WHERE id > 1 \
                WITH (connector = 'fake', stream = '1', primary_key = 'id', reach = 'never')";
    let plan = cluster.run(text).await.rows;
    for wanted in [
        "source|s (fake)",
        "columns read|id, name",
        "projection|SELECT id, upper(name) AS n FROM s WHERE id > 1",
        "output|id integer, n character varying",
        "key|id",
        "tasks now|2, one per split of the source",
        "guarantees|at least once, ordered per key",
    ] {
        assert!(plan.iter().any(|row| row == wanted), "{wanted}: {plan:#?}");
    }
    assert!(plan.iter().any(|row| row.starts_with("gate|after a lost owner")), "{plan:#?}");
    assert!(cluster.run("SHOW SINKS").await.rows.is_empty());
}

#[tokio::test]
async fn the_first_refusal_ends_a_call_and_says_which_statement() {
    let cluster = Coordinator::start().await;
    let text = format!("{}; DROP SINK nope; {}", source("a", ""), source("b", ""));
    let status = cluster.refused(&text).await;
    assert_eq!(status.fact("statement").as_deref(), Some("1"));
    assert_eq!(cluster.run("SHOW SOURCES").await.rows.len(), 2, "a is there, b is not");
    // A text that does not parse does nothing at all.
    let status = cluster.refused(&format!("{};\n SHOW SORCES", source("c", ""))).await;
    assert_eq!(status.reason().as_deref(), Some("42601"));
    let place = (status.fact("line"), status.fact("column"), status.fact("hint"));
    assert_eq!(place, (Some("2".into()), Some("7".into()), Some("did you mean `SOURCES`?".into())));
    assert!(status.message().contains("LINE 2:  SHOW SORCES\n              ^"), "{}", status.message());
    assert_eq!(cluster.run("SHOW SOURCES").await.rows.len(), 2);
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_answer() {
    let cluster = Coordinator::start().await;
    let create = source("s", "");
    let first = cluster.execute(&create, "r1").await.unwrap();
    let again = cluster.execute(&create, "r1").await.unwrap();
    assert_eq!(first, again);
    let status = cluster.execute(&create, "r2").await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("42P07"));
    // A refusal is an answer, too.
    cluster.run("DROP SOURCE s").await;
    let status = cluster.execute(&create, "r2").await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("42P07"));
    let status = cluster.execute("SHOW SINKS", "r1").await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("REQUEST_ID"));
}

#[tokio::test]
async fn no_answer_ever_has_a_secret() {
    let cluster = Coordinator::start().await;
    let with = "password = 'hunter2', dead_letter.connector = 'fake'";
    let status = cluster.refused(&source("s", with)).await;
    assert!(!format!("{status:?}").contains("hunter2"));
    let status = cluster
        .refused(&source("s", "password = 'hunter2', passwor = 'x', passwort.password = 'hunter2'"))
        .await;
    assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    for text in [
        "password 'hunter2'",
        "password = 'hunter2', x",
        "password = 'hunter2', in_flight = 2",
        "passwrd = 'hunter2'",
    ] {
        let status = cluster.refused(&source("s", text)).await;
        assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
        assert!(status.message().contains("\nLINE 1: CREATE SOURCE s"), "{}", status.message());
    }
    cluster.run(&source("s", "password = 'hunter2'")).await;
    for text in ["SHOW CREATE SOURCE s", "DESCRIBE s", "SHOW SOURCES", "SELECT * FROM s_progress"] {
        assert!(!format!("{:?}", cluster.run(text).await).contains("hunter2"), "{text}");
    }
}
