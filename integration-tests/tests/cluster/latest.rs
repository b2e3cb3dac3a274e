//! `latest` is evaluated once, when the source is created (S2, S9), whatever happens before the first checkpoint. On an
//! endpoint that starts at timestamps and tells of children: kinesis-local.

use std::time::Duration;

use shardwright_integration_tests::{endpoint, load::Load, load::Plan, servers::skipped};

use crate::{resharding::split_first, trial::trial};

#[tokio::test(flavor = "multi_thread")]
async fn latest_loses_nothing_though_a_worker_dies_before_its_first_checkpoint() {
    let test = "latest_loses_nothing_though_a_worker_dies_before_its_first_checkpoint";
    let Ok(url) = std::env::var("SHARDWRIGHT_TEST_KINESIS_LOCAL") else {
        skipped(test, "no kinesis-local: SHARDWRIGHT_TEST_KINESIS_LOCAL is not set");
        return;
    };
    let Some(mut trial) = trial(test, 1, 1, 1).await else { return };
    trial.source_url = url;
    trial.stream = format!("latest-{}", std::process::id());
    let client = trial.client();
    endpoint::create_stream(&client, &trial.stream, 2).await.unwrap();
    // What was there before is not wanted: the ledger would call it never sent.
    let plan = Plan { keys: 20, per_second: 400, ..Plan::default() };
    let before = Load::start(client.clone(), &trial.stream, plan);
    while before.sent() < 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    before.stop().await.unwrap();
    // The start is the service's present less two seconds, in whole seconds: those pass first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    trial.cluster.worker("worker-0").kill().await.unwrap();
    trial.create_source(", scan.startup.mode = 'latest'").await;
    trial.create_sinks().await;
    trial.start_load();
    trial.records(200).await;
    // It reads and dies before anything is checkpointed, if not the first time then the second.
    for pause in [300, 700] {
        trial.cluster.start_worker("worker-0").unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        trial.cluster.worker("worker-0").kill().await.unwrap();
        trial.records(100).await;
        split_first(&trial).await;
    }
    trial.cluster.start_worker("worker-0").unwrap();
    trial.records(200).await;
    trial.ledger().await;
}
