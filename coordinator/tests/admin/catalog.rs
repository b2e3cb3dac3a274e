//! Statements that change the catalog: what they leave behind, and what they leave behind when they fail.

use model::{Creation, StartFrom};
use proto::StatusExt;
use store::Spec;

use crate::{
    fakes::PINNED,
    setup::{Coordinator, sink, source},
};

#[tokio::test]
async fn a_source_is_pinned_and_listed_before_it_is_there() {
    let cluster = Coordinator::start().await;
    let answers = cluster.run(&source("s", "scan.startup.mode = 'latest'")).await;
    assert_eq!(answers.tags, ["CREATE SOURCE"]);
    let view = cluster.view().await;
    let specs: Vec<_> = view.objects.values().map(|object| &object.value.spec).collect();
    let [Spec::Source(spec)] = specs.as_slice() else { panic!("{specs:?}") };
    assert_eq!(spec.start.default, StartFrom::At(PINNED));
    assert_eq!(spec.creation, Creation(1000));
    assert_eq!(view.splits.len(), 2);
    assert!(view.splits.values().all(|split| split.value.start == StartFrom::At(PINNED)));
}

#[tokio::test]
async fn a_source_out_of_reach_leaves_nothing_behind() {
    let cluster = Coordinator::start().await;
    let away = source("s", "reach = 'never'");
    cluster.refuses(&away, "08001", "connector error: failed to list shards: nobody is there").await;
    let latest = source("s", "reach = 'never', validate = 'false', scan.startup.mode = 'latest'");
    cluster.refuses(&latest, "08001", "failed to pin where the source begins").await;
    let timestamp = source("s", "reach = 'never', validate = 'false', scan.startup.mode = 'timestamp'");
    cluster.refuses(&timestamp, "08001", "failed to list shards").await;
    assert!(cluster.run("SHOW SOURCES").await.rows.is_empty());
    assert!(cluster.view().await.objects.is_empty());
    // What begins at the horizon everywhere can wait for its first listing.
    let answers = cluster.run(&source("s", "reach = 'never', validate = 'false'")).await;
    assert!(answers.notices[0].contains("could not be listed yet"), "{answers:?}");
    assert_eq!(cluster.run("SHOW SOURCES").await.rows.len(), 2);
}

#[tokio::test]
async fn a_sink_is_validated_unless_told_otherwise() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "")).await;
    cluster.refuses(&sink("k", "s", "reach = 'never'"), "08001", "connector error: nobody is there").await;
    assert!(cluster.run("SHOW SINKS").await.rows.is_empty());
    cluster.run(&sink("k", "s", "reach = 'never', validate = 'false'")).await;
    assert_eq!(cluster.run("SHOW SINKS").await.rows, ["public.k|plain|fake|running"]);
    let status = cluster.refused(&sink("j", "clicks", "")).await;
    assert_eq!(status.reason().as_deref(), Some("42P01"));
    assert!(status.message().contains("source \"clicks\" does not exist"), "{status:?}");
    assert_eq!(status.fact("object").as_deref(), Some("clicks"));
    assert_eq!(status.fact("column").as_deref(), Some("20"));
}

#[tokio::test]
async fn names_are_taken_once_and_freed_by_a_drop() {
    let cluster = Coordinator::start().await;
    let create = source("s", "");
    cluster.run(&create).await;
    cluster.refuses(&create, "42P07", "Catalog error: source \"s\" already exists").await;
    let again = create.replace("SOURCE s", "SOURCE IF NOT EXISTS s");
    assert_eq!(cluster.run(&again).await.notices, ["source \"s\" already exists, skipping"]);
    // The progress relation is a relation, too.
    cluster.refuses(&source("s_progress", ""), "42P07", "relation \"s_progress\" already exists").await;
    cluster.refuses("DROP SOURCE nope", "42P01", "source \"nope\" does not exist").await;
    let answers = cluster.run("DROP SOURCE IF EXISTS nope").await;
    assert_eq!(answers.notices, ["source \"nope\" does not exist, skipping"]);
    assert_eq!(answers.tags, ["DROP SOURCE"]);
    cluster.run("DROP SOURCE s").await;
    cluster.run(&create).await;
}

#[tokio::test]
async fn a_source_with_sinks_is_dropped_only_with_them() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}; {}", source("s", ""), sink("a", "s", ""), sink("b", "s", ""))).await;
    let wanted = "Permission denied: source \"s\" is still used by 2 other object(s): sink \"a\", sink \"b\"";
    cluster.refuses("DROP SOURCE s", "2BP01", wanted).await;
    cluster.refuses("DROP SOURCE s RESTRICT", "2BP01", wanted).await;
    let answers = cluster.run("DROP SOURCE s CASCADE").await;
    assert_eq!(answers.notices, ["drop cascades to sink \"a\"", "drop cascades to sink \"b\""]);
    assert!(cluster.run("SHOW SINKS").await.rows.is_empty());
}

#[tokio::test]
async fn alter_is_checked_like_create() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", source("s", ""), sink("k", "s", ""))).await;
    cluster.run("ALTER SINK k PAUSE").await;
    assert_eq!(cluster.run("SHOW SINKS").await.rows, ["public.k|plain|fake|paused"]);
    cluster.run("ALTER SINK k SET (in_flight = 2); ALTER SINK k RESUME").await;
    assert_eq!(cluster.run("SHOW SINKS").await.rows, ["public.k|plain|fake|running"]);
    assert!(cluster.run("SHOW CREATE SINK k").await.rows[0].contains("in_flight = '2'"));
    cluster.refuses("ALTER SINK k SET (in_flght = 2)", "22023", "Unknown fields in the WITH clause").await;
    cluster.refuses("ALTER SINK k SET (reach = 'never')", "08001", "nobody is there").await;
    cluster.refuses("ALTER SINK kk PAUSE", "42P01", "sink \"kk\" does not exist").await;
    cluster.refuses("ALTER SOURCE s SET (stream = '3')", "22023", "cannot be changed").await;
    cluster.refuses("ALTER SOURCE s SET (reach = 'never')", "08001", "failed to list shards").await;
    cluster.run("ALTER SOURCE s SET (reach = 'never', validate = 'false')").await;
    assert!(cluster.run("SHOW CREATE SOURCE s").await.rows[0].contains("reach = 'never'"));
}
