//! Statements that change the catalog: what they leave behind, and what they leave behind when they fail.

use model::{Creation, StartFrom, Timestamp};
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
    let status = cluster.refused(&latest).await;
    assert!(status.fact("hint").is_some_and(|hint| hint.contains("must be reachable")), "{status:?}");
    assert!(cluster.run("SHOW SOURCES").await.rows.is_empty());
    assert!(cluster.view().await.objects.is_empty());
    // What begins where nobody has to be asked can wait for its first listing.
    let timestamp = source("s", "reach = 'never', validate = 'false', scan.startup.mode = 'timestamp'");
    let answers = cluster.run(&timestamp).await;
    assert!(answers.notices[0].contains("could not be listed yet"), "{answers:?}");
    assert_eq!(cluster.run("SHOW SOURCES").await.rows.len(), 2);
    cluster.run("ALTER SOURCE s SET (reach = 'always')").await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while cluster.view().await.splits.len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "it is never listed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let view = cluster.view().await;
    let begins = |start: &StartFrom| *start == StartFrom::At(Timestamp(5));
    assert!(view.splits.values().all(|split| begins(&split.value.start)), "{view:#?}");
    let object = &view.objects.values().next().unwrap().value;
    let Spec::Source(spec) = &object.spec else { panic!("{object:?}") };
    assert_eq!(spec.creation, Creation(1000), "it belongs to the stream that was listed");
    assert_eq!(spec.options.get("reach"), Some("always"));
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
async fn a_dead_letter_sink_is_made_and_looked_at_like_any_sink() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("s", "")).await;
    let with =
        |target: &str| sink("k", "s", &format!("on_error = 'dead_letter', dead_letter.connector = {target}"));
    for (target, reason, text) in [
        ("'fakes'", "22023", "dead letters: unsupported sink type fakes"),
        ("'fake'", "22023", "dead letters: missing field `stream`"),
        ("'fake', dead_letter.steam = '1'", "22023", "dead letters: Unknown fields"),
        (NOWHERE, "08001", "connector error: dead letters: nobody is there"),
    ] {
        cluster.refuses(&with(target), reason, text).await;
    }
    let status = cluster.refused(&with("'fake', dead_letter.steam = '1'")).await;
    assert_eq!(status.fact("option").as_deref(), Some("dead_letter.steam"));
    assert!(cluster.run("SHOW SINKS").await.rows.is_empty(), "nothing of it is left");
    cluster.run(&with(&format!("{NOWHERE}, validate = 'false'"))).await;
    cluster.refuses("ALTER SINK k SET (validate = 'true')", "08001", "dead letters: nobody is there").await;
    cluster.run("ALTER SINK k SET (validate = 'true', dead_letter.reach = 'always')").await;

    let source = |options: &str| {
        let options = format!("dead_letter.connector = {NOWHERE}{options}");
        source("t", &options).replace("'skip'", "'dead_letter'")
    };
    cluster.refuses(&source(""), "08001", "connector error: dead letters: nobody is there").await;
    cluster.run(&source(", dead_letter.validate = 'false'")).await;
}

/// A dead-letter sink that cannot be reached.
const NOWHERE: &str = "'fake', dead_letter.stream = '1', dead_letter.reach = 'never'";

#[tokio::test]
async fn errors_are_shown_for_what_is_there() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("clicks", "")).await;
    cluster.run(&sink("k", "clicks", "")).await;
    for name in ["clicks", "public.clicks", "k"] {
        let shown = cluster.run(&format!("SHOW ERRORS FOR {name}")).await;
        let columns = ["Source", "Sink", "Split", "Position", "Error", "First Bytes", "At", "Policy"];
        assert_eq!((shown.columns, shown.rows), (columns.map(str::to_owned).to_vec(), vec![]));
    }
    cluster.refuses("SHOW ERRORS FOR click", "42P01", "no source and no sink is named \"click\"").await;
    let status = cluster.refused("SHOW ERRORS FOR click").await;
    assert!(format!("{status:?}").contains("did you mean `clicks`?"), "{status:?}");
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
