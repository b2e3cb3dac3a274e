//! The stream is pushed to the workers instead of polled: enhanced fan-out, with a consumer for each sink.

use std::time::{Duration, Instant};

use shardwright_integration_tests::admin;

use crate::{
    resharding::{all_open_are_read, split_first},
    trial::{HEALS_WITHIN, Trial, trial},
};

const EFO: &str = ", kinesis.consumer.mode = 'efo', kinesis.consumer.name = 'app-{sink}'";

/// The names of the consumers of the stream, sorted.
async fn consumers(trial: &Trial) -> Vec<String> {
    let client = trial.client();
    let summary = client.describe_stream_summary().stream_name(&trial.stream).send().await.unwrap();
    let arn = summary.stream_description_summary().unwrap().stream_arn().to_owned();
    let listed = client.list_stream_consumers().stream_arn(arn).send().await.unwrap();
    let mut names: Vec<String> = listed.consumers().iter().map(|c| c.consumer_name().to_owned()).collect();
    names.sort();
    names
}

/// Waits until a query has these values in its first column.
async fn column(trial: &Trial, sql: &str, wanted: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + HEALS_WITHIN;
    loop {
        let found = trial.admin().column(sql).await.unwrap();
        if wanted(&found) {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {found:?}\n{}", trial.cluster.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// S1, S5: a split, and a worker that is killed with its subscriptions open.
#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_stream_survives_a_split_and_a_killed_worker() {
    let Some(mut trial) = trial("a_pushed_stream_survives_a_split_and_a_killed_worker", 1, 3, 2).await else {
        return;
    };
    trial.create_source(EFO).await;
    trial.create_sinks().await;
    assert_eq!(consumers(&trial).await, ["app-archive", "app-copy"]);
    // No record has come yet: what moves on is the continuation number.
    let positions = "SELECT sequence_number FROM orders_progress WHERE sequence_number IS NOT NULL";
    column(&trial, positions, |found| found.len() == 4).await;
    trial.sql("DROP SOURCE orders CASCADE").await;
    let deadline = Instant::now() + HEALS_WITHIN;
    while !consumers(&trial).await.is_empty() {
        assert!(Instant::now() < deadline, "consumers are left\n{}", trial.cluster.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    trial.create_source(EFO).await;
    trial.create_sinks().await;
    trial.reading().await;
    trial.start_load();
    trial.records(400).await;
    split_first(&trial).await;
    all_open_are_read(&trial).await;
    trial.records(400).await;
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.wait("the others took over", |s| admin::all_reading(s, &["worker-0", "worker-2"])).await;
    trial.records(400).await;
    trial.ledger().await;
}
