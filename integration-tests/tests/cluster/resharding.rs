//! What happens to the stream.

use std::time::Duration;

use shardwright_integration_tests::{admin, endpoint, ledger, load, readback};
use tokio::time::Instant;

use crate::trial::{HEALS_WITHIN, Trial, kinesis_options, trial};

/// The stream of the sink `by_item`.
const ITEMS: &str = "items-out";

pub async fn split_first(trial: &Trial) {
    let client = trial.client();
    let open = endpoint::open_shards(&client, &trial.stream).await.unwrap();
    endpoint::split(&client, &trial.stream, &open[0]).await.unwrap();
}

async fn merge_first(trial: &Trial) {
    let client = trial.client();
    let open = endpoint::open_shards(&client, &trial.stream).await.unwrap();
    endpoint::merge(&client, &trial.stream, &open[0], &open[1]).await.unwrap();
}

/// Waits until the open shards of the stream, and no other, are read for both sinks.
pub async fn all_open_are_read(trial: &Trial) {
    let client = trial.client();
    let open = endpoint::open_shards(&client, &trial.stream).await.unwrap();
    let mut open: Vec<String> = open.iter().map(|shard| shard.shard_id().to_owned()).collect();
    open.sort();
    trial
        .wait("the open shards are read", |status| {
            for sink in ["archive", "copy"] {
                let reading = status.splits.iter().filter(|s| s.sink == sink && s.state == "reading");
                let mut reading: Vec<String> = reading.map(|s| s.split.clone()).collect();
                reading.sort();
                if reading != open {
                    return Err(format!("{sink} reads {reading:?}, open are {open:?}"));
                }
            }
            Ok(())
        })
        .await;
}

/// A sink by a key that is finer than the partition key, through four partitions.
async fn create_by_item(trial: &Trial) {
    endpoint::create_stream(&trial.endpoint.client(), ITEMS, 2).await.unwrap();
    let (stream, from, to) =
        (&trial.stream, kinesis_options(&trial.source_url), kinesis_options(&trial.endpoint.url()));
    trial
        .sql(&format!(
            "CREATE SOURCE items (item VARCHAR, step BIGINT) WITH (connector = 'kinesis', stream = '{stream}', {from}) \
             FORMAT PLAIN ENCODE JSON; \
             CREATE SINK by_item AS SELECT item AS key, step AS n FROM items WITH (connector = 'kinesis', \
             stream = '{ITEMS}', primary_key = 'key', distribution = 'key(4)', {to}) FORMAT PLAIN ENCODE JSON"
        ))
        .await;
    trial.reading().await;
}

/// kill -9 of a worker that owns a partition of `by_item`, and its return.
async fn an_owner_dies_and_returns(trial: &mut Trial) {
    let status = trial.admin().status().await.unwrap();
    let owner = status.splits.iter().find(|split| split.sink == "by_item" && split.state == "writing");
    let owner = owner.expect("a partition is written").worker.clone();
    trial.cluster.worker(&owner).kill().await.unwrap();
    let live = trial.live();
    let others: Vec<&str> = live.into_iter().filter(|name| *name != owner).collect();
    trial.wait("the others took over", |status| admin::all_reading(status, &others)).await;
    trial.cluster.start_worker(&owner).unwrap();
    trial.reading().await;
}

/// The books of `by_item` over all that was sent.
async fn items_balance(trial: &Trial) {
    let (sent, client) = (load::items(trial.sent()), trial.endpoint.client());
    let deadline = Instant::now() + HEALS_WITHIN;
    loop {
        let verdict = ledger::audit(&sent, readback::kinesis(&client, ITEMS).await.unwrap());
        if verdict.lost == 0 || Instant::now() > deadline {
            return trial.judge("by_item", &verdict);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// S1, S3: split, merge, split of the child, also through partitions whose owner dies.
#[tokio::test(flavor = "multi_thread")]
async fn split_merge_and_split_of_the_child() {
    let Some(mut trial) = trial("split_merge_and_split_of_the_child", 1, 2, 2).await else { return };
    trial.create().await;
    create_by_item(&trial).await;
    trial.start_load();
    trial.records(300).await;
    split_first(&trial).await;
    all_open_are_read(&trial).await;
    trial.records(300).await;
    merge_first(&trial).await;
    an_owner_dies_and_returns(&mut trial).await;
    all_open_are_read(&trial).await;
    trial.records(300).await;
    split_first(&trial).await;
    all_open_are_read(&trial).await;
    trial.records(300).await;
    trial.stop_load().await;
    items_balance(&trial).await;
    trial.ledger().await;
}

/// S4, S5, S6: two generations while nobody looks; nothing between them is lost.
#[tokio::test(flavor = "multi_thread")]
async fn two_generations_of_reshard_while_everything_is_stopped() {
    let test = "two_generations_of_reshard_while_everything_is_stopped";
    let Some(mut trial) = trial(test, 1, 2, 2).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(300).await;
    trial.cluster.worker("worker-0").kill().await.unwrap();
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.cluster.coordinator(0).kill().await.unwrap();
    trial.records(200).await;
    split_first(&trial).await;
    trial.records(200).await;
    split_first(&trial).await;
    trial.records(200).await;
    merge_first(&trial).await;
    trial.records(200).await;
    trial.cluster.start_coordinator(0).await.unwrap();
    for name in trial.names.clone() {
        trial.cluster.start_worker(&name).unwrap();
    }
    all_open_are_read(&trial).await;
    trial.ledger().await;
}

/// A reshard while a worker dies and the leader changes.
#[tokio::test(flavor = "multi_thread")]
async fn reshard_in_the_middle_of_a_failover() {
    let Some(mut trial) = trial("reshard_in_the_middle_of_a_failover", 2, 3, 3).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(300).await;
    trial.cluster.worker("worker-0").kill().await.unwrap();
    split_first(&trial).await;
    let leader = trial.cluster.leader().await.unwrap();
    trial.cluster.coordinator(leader).kill().await.unwrap();
    merge_first(&trial).await;
    trial.cluster.start_worker("worker-0").unwrap();
    trial.cluster.start_coordinator(leader).await.unwrap();
    all_open_are_read(&trial).await;
    trial.records(200).await;
    trial.ledger().await;
}
