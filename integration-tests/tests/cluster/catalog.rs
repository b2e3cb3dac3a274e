//! What users do while data flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::v1::StatusReply;
use shardwright_integration_tests::admin;
use store::{Keyspace, StoreConfig, View};

use crate::trial::{COPY, HEALS_WITHIN, Trial, kinesis_options, trial};

/// Everything that the store holds of the cluster.
async fn view(trial: &Trial) -> View {
    let url = trial.etcd.url().replace("http://", "etcd://");
    let store = store::connect(&StoreConfig::new(&url)).await.unwrap();
    let keys = Keyspace::new("shardwright");
    View::decode(&keys, &store.list(&keys.all()).await.unwrap()).unwrap()
}

/// I7, while the other sink of the source goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_dropped_while_it_runs_leaves_no_key() {
    let Some(mut trial) = trial("a_sink_dropped_while_it_runs_leaves_no_key", 1, 2, 4).await else { return };
    trial.create().await;
    trial.sql("CREATE SINK nowhere FROM orders WITH (connector = 'blackhole')").await;
    trial.reading().await;
    trial.start_load();
    trial.records(400).await;
    let id = {
        let view = view(&trial).await;
        let named = view.names.iter().find(|((_, name), _)| name == "nowhere").unwrap();
        named.1.value
    };
    trial.sql("DROP SINK nowhere").await;
    let deadline = tokio::time::Instant::now() + HEALS_WITHIN;
    loop {
        let view = view(&trial).await;
        let left = view.assignments.keys().chain(view.checkpoints.keys()).filter(|t| t.sink == id).count()
            + usize::from(view.objects.contains_key(&id));
        if left == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left} keys are left\n{}", trial.cluster.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    trial.reading().await;
    trial.records(200).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume_lose_nothing() {
    let Some(mut trial) = trial("pause_and_resume_lose_nothing", 1, 2, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    trial.sql("ALTER SINK archive PAUSE").await;
    trial
        .wait("it is paused", |status| {
            let paused = |s: &&proto::v1::SplitStatus| s.sink == "archive" && s.state != "paused";
            status.splits.iter().find(paused).map_or(Ok(()), |s| Err(format!("{} is {}", s.split, s.state)))
        })
        .await;
    trial.records(400).await;
    trial.sql("ALTER SINK archive RESUME").await;
    trial.wait("it runs again", |s| admin::all_reading(s, &["worker-0", "worker-1"])).await;
    trial.records(200).await;
    trial.ledger().await;
}

/// Definitions change under load: nothing is lost, order holds (I1, I10), only what changed restarts, and the same text again changes
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_definitions_lose_nothing_and_restart_only_what_changed() {
    let test = "replaced_definitions_lose_nothing_and_restart_only_what_changed";
    let Some(mut trial) = trial(test, 1, 2, 4).await else { return };
    trial.create().await;
    // One sink by key, one by split. A run has the revision of its source plus that of its sink.
    trial.sql("ALTER SINK copy SET (distribution = 'key(3)')").await;
    run_at(&trial, [("archive", 2), ("copy", 3)]).await;
    trial.start_load();
    trial.records(300).await;
    let sink = format!(
        "CREATE OR REPLACE SINK copy AS SELECT key, n FROM orders WHERE n >= 0 WITH (connector = 'kinesis', \
         stream = '{COPY}', primary_key = 'key', distribution = 'key(3)', {}) FORMAT PLAIN ENCODE JSON",
        kinesis_options(&trial.endpoint.url())
    );
    trial.sql(&sink).await;
    run_at(&trial, [("archive", 2), ("copy", 4)]).await;
    trial.records(300).await;

    // A source with another column: the sink that delivers all of them goes along.
    let source = format!(
        "CREATE OR REPLACE SOURCE orders (key VARCHAR, n BIGINT, item VARCHAR) WITH (connector = 'kinesis', \
         stream = '{}', {}) FORMAT PLAIN ENCODE JSON",
        trial.stream,
        kinesis_options(&trial.source_url)
    );
    trial.sql(&source).await;
    run_at(&trial, [("archive", 4), ("copy", 5)]).await;
    let written = |view: &View| view.objects.values().map(|object| object.mod_revision).collect::<Vec<_>>();
    let before = written(&view(&trial).await);
    trial.sql(&format!("{source}; {sink}")).await;
    trial.records(300).await;
    assert_eq!(written(&view(&trial).await), before, "the same text changes nothing");
    run_at(&trial, [("archive", 4), ("copy", 5)]).await;
    trial.ledger().await;
}

/// Waits until the tasks of these sinks run at these revisions.
async fn run_at<const N: usize>(trial: &Trial, wanted: [(&str, u64); N]) {
    let wanted = wanted.map(|(sink, revision)| (sink.to_owned(), BTreeSet::from([revision])));
    let (wanted, deadline) = (BTreeMap::from(wanted), tokio::time::Instant::now() + HEALS_WITHIN);
    loop {
        let view = view(trial).await;
        let name = |id| view.objects.get(&id).map(|object| object.value.spec.name().to_owned());
        let mut runs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (task, run) in &view.assignments {
            runs.entry(name(task.sink).unwrap_or_default()).or_default().insert(run.value.spec_revision);
        }
        if runs == wanted {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{runs:?}\n{}", trial.cluster.tails());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    trial.reading().await;
}

/// Another connector takes over where the old destination was: nothing between them is left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_with_another_connector_goes_on_where_the_old_one_was() {
    let test = "a_sink_with_another_connector_goes_on_where_the_old_one_was";
    let Some(mut trial) = trial(test, 1, 1, 2).await else { return };
    trial.create_source("").await;
    trial
        .sql("CREATE SINK archive FROM orders WITH (connector = 'blackhole') FORMAT PLAIN ENCODE JSON")
        .await;
    trial.reading().await;
    trial.start_load();
    trial.records(300).await;
    let enough = |status: &StatusReply| {
        let records: u64 = status.splits.iter().map(|split| split.records).sum();
        if records >= 100 { Ok(()) } else { Err(format!("{records} records have a position behind them")) }
    };
    trial.wait("something is delivered", enough).await;
    trial.sql(&trial.archive_text().replacen("CREATE", "CREATE OR REPLACE", 1)).await;
    run_at(&trial, [("archive", 3)]).await;
    trial.records(300).await;
    trial.stop_load().await;
    let deadline = tokio::time::Instant::now() + HEALS_WITHIN;
    let found = loop {
        let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for record in trial.archive().await {
            found.entry(record.key).or_default().insert(record.n);
        }
        let last = |(key, count): (&String, &u64)| found.get(key).is_some_and(|n| n.contains(&(count - 1)));
        if trial.sent().iter().all(last) {
            break found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", trial.cluster.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for (key, numbers) in &found {
        let gapless = numbers.iter().zip(numbers.iter().skip(1)).all(|(n, next)| n + 1 == *next);
        assert!(gapless, "{key}: {numbers:?}");
    }
    let (sent, there): (u64, usize) = (trial.sent().values().sum(), found.values().map(BTreeSet::len).sum());
    assert!(
        there as u64 <= sent - 100,
        "{there} of {sent}: what the old destination has got is not read again"
    );
}
