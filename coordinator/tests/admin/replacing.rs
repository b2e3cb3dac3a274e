//! `CREATE OR REPLACE SOURCE | SINK` of what is there: what changes, what stays, what is refused, and who may.

use std::collections::BTreeMap;

use model::{Checkpoint, SinkSpec, SourceSpec, Timestamp};
use proto::StatusExt;
use store::{CheckpointKey, Guard, Keyspace, Spec, View};
use tokio_stream::StreamExt;

use crate::{
    login::{Caller, guarded, strict},
    setup::{Coordinator, sink, source},
};

/// A declared text, as it may be applied after each upgrade.
fn declared() -> String {
    format!("{}; {}", or_replace(&source("s", "")), or_replace(SINK))
}

const SINK: &str = "CREATE SINK k AS SELECT id, name FROM s WHERE id > 1 \
                    WITH (connector = 'fake', stream = '1', primary_key = 'id')";

fn or_replace(text: &str) -> String {
    text.replacen("CREATE", "CREATE OR REPLACE", 1)
}

fn sink_of(view: &View, name: &str) -> SinkSpec {
    let found = view.objects.values().find_map(|object| match &object.value.spec {
        Spec::Sink(spec) if spec.name == name && !object.value.dropping => Some(spec.as_ref().clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no sink {name}"))
}

fn source_of(view: &View, name: &str) -> SourceSpec {
    let found = view.objects.values().find_map(|object| match &object.value.spec {
        Spec::Source(spec) if spec.name == name => Some(spec.as_ref().clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no source {name}"))
}

/// Every object with the revision of the store at which it was written: what is the same was not written.
async fn written(cluster: &Coordinator) -> BTreeMap<model::ObjectId, u64> {
    cluster.view().await.objects.iter().map(|(id, object)| (*id, object.mod_revision)).collect()
}

/// How many events of this kind there were.
async fn told(cluster: &Coordinator, kind: &str) -> usize {
    let request = proto::v1::WatchEventsRequest::default();
    let events = cluster.client.clone().watch_events(request).await.unwrap().into_inner();
    let events: Vec<_> = events.collect().await;
    events.into_iter().filter(|event| event.as_ref().unwrap().kind == kind).count()
}

#[tokio::test]
async fn a_declared_text_creates_and_then_changes_nothing() {
    let cluster = Coordinator::start().await;
    let first = cluster.run(&declared()).await;
    assert_eq!(first.tags, ["CREATE SOURCE", "CREATE SINK"]);
    assert!(first.notices.is_empty(), "{first:?}");
    let before = written(&cluster).await;
    for _ in 0..2 {
        let again = cluster.run(&declared()).await;
        assert_eq!(again.notices, ["source \"s\" is unchanged", "sink \"k\" is unchanged"]);
        assert_eq!(again.tags, ["CREATE SOURCE", "CREATE SINK"]);
    }
    assert_eq!(written(&cluster).await, before, "nothing was written, so nothing restarts");
    assert_eq!(told(&cluster, "sink_replaced").await + told(&cluster, "source_replaced").await, 0);
    let shown = cluster.run("SHOW CREATE SINK k").await.rows;
    assert!(shown[0].contains("CREATE SINK k AS SELECT") && !shown[0].contains("OR REPLACE"), "{shown:?}");
    // What is not reached now was not asked: it is there already.
    cluster.run("ALTER SOURCE s SET (reach = 'never', validate = 'false')").await;
    let text = or_replace(&source("s", "reach = 'never', validate = 'false'"));
    assert_eq!(cluster.run(&text).await.notices, ["source \"s\" is unchanged"]);
}

#[tokio::test]
async fn a_changed_sink_keeps_its_positions_and_its_pause() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; ALTER SINK k PAUSE", declared())).await;
    let view = cluster.view().await;
    let before = sink_of(&view, "k");
    // A position, as a run would leave it.
    let split = view.splits.keys().next().unwrap().1.clone();
    let task = model::TaskId::reads(before.id, split);
    let checkpoint = Checkpoint {
        position: model::Position::After(model::Cursor::new("41")),
        epoch: model::Epoch::default(),
        serial: 7,
        caught_up_at: None,
        records: 9,
        run_records: 9,
        at: Timestamp(1),
        gap: None,
    };
    let keys = Keyspace::new(&shardwright_coordinator::Config::default().cluster);
    let (key, put) = (keys.key::<CheckpointKey>(&task), keys.put::<CheckpointKey>(&task, &checkpoint));
    cluster.store.commit(&[Guard::Absent(key)], vec![put]).await.unwrap();

    let answers = cluster.run(&or_replace(&SINK.replace("id > 1", "id > 2"))).await;
    assert_eq!(answers.notices, ["sink \"k\" keeps its positions; changed: query"]);
    let view = cluster.view().await;
    let after = sink_of(&view, "k");
    assert_eq!(after.query.as_deref(), Some("SELECT id, name FROM s WHERE id > 2"));
    assert_eq!((after.id, after.created_at, after.instance), (before.id, before.created_at, before.instance));
    assert_eq!(after.revision, before.revision + 1, "its runs restart, once");
    assert!(after.paused);
    assert_eq!(view.checkpoints[&task].value, checkpoint);
    assert_eq!(cluster.run("SHOW SINKS").await.rows, ["public.k|plain|fake|paused"]);
    assert!(cluster.run("SHOW CREATE SINK k").await.rows[0].contains("id > 2"));
    assert_eq!(told(&cluster, "sink_replaced").await, 1);
}

#[tokio::test]
async fn what_positions_rest_on_is_refused_with_the_way_out() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", declared(), source("t", ""))).await;
    let before = written(&cluster).await;
    for (part, by, wanted) in [
        ("primary_key = 'id'", "primary_key = 'name'", "its key would change from 'id' to 'name'"),
        (
            "primary_key = 'id'",
            "primary_key = 'id', distribution = 'key(2)'",
            "its `distribution` would change from 'split' to 'key(2, id)'",
        ),
        ("FROM s", "FROM t", "its source would change from \"s\" to \"t\""),
    ] {
        let text = or_replace(&SINK.replace(part, by));
        cluster.refuses(&text, "22023", &format!("sink \"k\" cannot be replaced: {wanted}")).await;
        let status = cluster.refused(&text).await;
        assert!(status.message().contains("\nLINE 1: CREATE OR REPLACE SINK k"), "{status:?}");
        assert!(status.fact("hint").is_some() && status.fact("column").is_some(), "{status:?}");
    }
    let text = or_replace(&source("s", "")).replace("stream = '2'", "stream = '3'");
    cluster.refuses(&text, "22023", "its `stream` would change from '2' to '3'").await;
    let text = or_replace(&source("s", "scan.startup.mode = 'latest'"));
    cluster.refuses(&text, "22023", "its `scan.startup.mode` would change").await;
    let both = or_replace(SINK).replace("SINK k", "SINK IF NOT EXISTS k");
    cluster.refuses(&both, "42601", "OR REPLACE and IF NOT EXISTS contradict each other").await;
    assert_eq!(written(&cluster).await, before);
    // The way out that the refusal names.
    cluster.run("ALTER SINK k SET (distribution = 'key(2)')").await;
    let text = or_replace(&SINK.replace("primary_key = 'id'", "primary_key = 'id', distribution = 'key(2)'"));
    assert_eq!(cluster.run(&text).await.notices, ["sink \"k\" is unchanged"]);
}

#[tokio::test]
async fn what_takes_a_place_is_looked_at_like_what_is_new() {
    let cluster = Coordinator::start().await;
    cluster.run(&declared()).await;
    let away = "stream = '1', reach = 'never'";
    let text = or_replace(&SINK.replace("stream = '1'", away));
    cluster.refuses(&text, "08001", "connector error: nobody is there").await;
    cluster.run(&text.replace(away, &format!("{away}, validate = 'false'"))).await;
    cluster.run(&or_replace(SINK)).await;
    let text = or_replace(&source("s", "reach = 'never'"));
    cluster.refuses(&text, "08001", "failed to list shards").await;
    cluster.refuses(&or_replace(&SINK.replace("id > 1", "ids > 1")), "42703", "\"ids\" does not exist").await;
    cluster
        .refuses(&or_replace(&SINK.replace("FROM s", "FROM nope")), "42P01", "\"nope\" does not exist")
        .await;
}

#[tokio::test]
async fn sinks_follow_their_source_or_are_named_as_being_in_the_way() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", declared(), sink("whole", "s", ""))).await;
    let with = |columns: &str| or_replace(&source("s", "")).replace("id INT, name VARCHAR", columns);
    let before = cluster.view().await;
    let (k, whole) = (sink_of(&before, "k"), sink_of(&before, "whole"));

    let status = cluster.refused(&with("id INT, more INT")).await;
    assert_eq!(status.reason().as_deref(), Some("42703"), "{status:?}");
    assert!(status.message().contains("sink \"k\" reads source \"s\": column \"name\" does not exist"));
    cluster
        .refuses(
            &with("id BIGINT, name VARCHAR"),
            "22023",
            "column \"id\" of its key would change from integer",
        )
        .await;

    let answers = cluster.run(&with("id INT, name VARCHAR, more INT")).await;
    assert_eq!(
        answers.notices,
        [
            "source \"s\" keeps its positions; changed: columns",
            "sink \"whole\" delivers these columns now: id integer, name character varying, more integer"
        ]
    );
    let after = cluster.view().await;
    let (old, new) = (source_of(&before, "s"), source_of(&after, "s"));
    assert_eq!((new.id, new.revision, new.columns.len()), (old.id, old.revision + 1, 3));
    assert_eq!((&new.start, new.creation), (&old.start, old.creation));
    assert_eq!(sink_of(&after, "k"), k, "what it delivers is what it was");
    let rebound = sink_of(&after, "whole");
    assert_eq!((rebound.id, rebound.revision, rebound.columns.len()), (whole.id, whole.revision + 1, 3));
    assert_eq!(after.splits.len(), before.splits.len());
    assert_eq!(told(&cluster, "source_replaced").await, 1);
    // Now a sink may use it, and a column that nobody uses may go.
    cluster.run(&or_replace(&SINK.replace("name FROM", "name, more FROM"))).await;
    cluster.refuses(&with("id INT, name VARCHAR"), "42703", "column \"more\" does not exist").await;
    cluster.run(&format!("{}; {}", or_replace(SINK), with("id INT, name VARCHAR"))).await;
}

#[tokio::test]
async fn more_sinks_than_one_commit_holds_do_not_go_along_in_parts() {
    let cluster = Coordinator::start().await;
    let sinks: Vec<String> = (0..120).map(|n| sink(&format!("k{n}"), "s", "")).collect();
    cluster.run(&format!("{}; {}", source("s", ""), sinks.join(";"))).await;
    let before = written(&cluster).await;
    let wider = or_replace(&source("s", "")).replace("name VARCHAR", "name VARCHAR, more INT");
    let wanted = "120 sinks would deliver other columns with source \"s\", at most 119 can change at once";
    cluster.refuses(&wider, "55000", wanted).await;
    assert_eq!(written(&cluster).await, before);
    cluster.run("DROP SINK k0").await;
    assert_eq!(cluster.run(&wider).await.notices.len(), 120);
    let view = cluster.view().await;
    assert!((1..120).all(|n| sink_of(&view, &format!("k{n}")).columns.len() == 3));
}

#[tokio::test]
async fn explain_says_what_would_come_of_it() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "")).await;
    let would = async |text: &str| {
        let rows = cluster.run(&format!("EXPLAIN {text}")).await.rows;
        rows.into_iter().find_map(|row| row.strip_prefix("would|").map(str::to_owned))
    };
    assert_eq!(would(&or_replace(SINK)).await.as_deref(), Some("create sink \"k\""));
    cluster.run(SINK).await;
    let before = written(&cluster).await;
    assert_eq!(would(SINK).await, None);
    assert_eq!(would(&or_replace(SINK)).await.as_deref(), Some("change nothing: sink \"k\" is like this"));
    assert_eq!(
        would(&or_replace(&SINK.replace("id > 1", "id > 2"))).await.as_deref(),
        Some("replace sink \"k\", which keeps its positions; changed: query")
    );
    let refused =
        would(&or_replace(&SINK.replace("primary_key = 'id'", "primary_key = 'name'"))).await.unwrap();
    assert!(
        refused
            .starts_with("refuse: sink \"k\" cannot be replaced: its key would change from 'id' to 'name' ("),
        "{refused}"
    );
    assert_eq!(written(&cluster).await, before);
}

#[tokio::test]
async fn to_replace_takes_the_rights_to_change() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run(&format!("{}; CREATE USER alice PASSWORD 'some good password'", declared())).await;
    let alice = Caller::user(&cluster, "alice", "some good password");
    admin.run("GRANT CREATE SOURCE, CREATE SINK ON SCHEMA public TO alice; GRANT SELECT ON s TO alice").await;
    let changed = or_replace(&SINK.replace("id > 1", "id > 2"));
    alice.lacks(&changed, "ADMIN privilege on sink \"public.k\"").await;
    alice.lacks(&or_replace(&source("s", "")), "ADMIN privilege on source \"public.s\"").await;
    alice.lacks(&format!("EXPLAIN {changed}"), "SELECT privilege on sink \"public.k\"").await;
    // What is one's own, and what one was given.
    alice.run(&changed.replace("SINK k", "SINK mine")).await;
    alice.run(&or_replace(SINK).replace("SINK k", "SINK mine")).await;
    admin.run("GRANT ADMIN ON SINK k TO alice; REVOKE CREATE SINK ON SCHEMA public FROM alice").await;
    assert_eq!(alice.run(&changed).await.notices, ["sink \"k\" keeps its positions; changed: query"]);
    alice.lacks(&changed.replace("SINK k", "SINK new"), "CREATE SINK privilege on schema \"public\"").await;
    // It stays the property of who made it.
    admin.run("REVOKE ADMIN ON SINK k FROM alice").await;
    alice.lacks(&changed, "ADMIN privilege on sink \"public.k\"").await;
}

#[tokio::test]
async fn a_repeat_with_the_same_request_id_is_answered_and_not_carried_out() {
    let cluster = Coordinator::start().await;
    cluster.run(&declared()).await;
    let text = or_replace(&SINK.replace("id > 1", "id > 2"));
    let first = cluster.execute(&text, "one").await.unwrap();
    assert_eq!(cluster.execute(&text, "one").await.unwrap(), first);
    assert_eq!(sink_of(&cluster.view().await, "k").revision, 2);
    assert_eq!(cluster.execute(&text, "two").await.unwrap().notices, ["sink \"k\" is unchanged"]);
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing_of_each_other() {
    let cluster = Coordinator::start().await;
    cluster.run(&declared()).await;
    let texts: Vec<String> = (0..12)
        .map(|n| match n % 3 {
            0 => or_replace(&SINK.replace("id > 1", &format!("id > {n}"))),
            1 => "ALTER SINK k PAUSE".to_owned(),
            _ => format!("ALTER SINK k SET (in_flight = {})", n + 1),
        })
        .collect();
    let calls = texts.iter().map(|text| cluster.execute(text, ""));
    let answers = futures::future::join_all(calls).await;
    let changes = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(changes, texts.len(), "{answers:?}");
    let spec = sink_of(&cluster.view().await, "k");
    assert!(spec.paused, "nobody let it run again: {spec:?}");
    assert!(spec.query.is_some_and(|query| !query.contains("id > 1")), "one of them was the last");
}
