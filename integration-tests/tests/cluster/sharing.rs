//! Read once, deliver to many: ten sinks of one source stay within the read quota of a shard, and each has everything.

use std::time::Duration;

use faults::Limits;
use shardwright_integration_tests::{admin, endpoint, ledger, readback};

use crate::trial::{HEALS_WITHIN, Trial, begin};

const SHARDS: usize = 4;
/// What the service allows.
const QUOTA: Limits = Limits { reads_per_second: 5.0, bytes_per_second: 2_097_152.0, empty: false };
/// How long calls are counted.
const WINDOW: Duration = Duration::from_secs(10);

async fn sink(trial: &Trial, n: usize, files: &std::path::Path) {
    let statement = format!(
        "CREATE SINK sink_{n} FROM orders WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
        files.display()
    );
    trial.sql(&statement).await;
}

/// So many calls so far, and how many of them were refused.
fn calls(trial: &Trial, operation: &str) -> (u64, u64) {
    trial.layer().source.counts().get(operation).map_or((0, 0), |count| (count.calls, count.faulted))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_sinks_of_a_source_stay_within_the_quota_of_its_shards() {
    let name = "ten_sinks_of_a_source_stay_within_the_quota_of_its_shards";
    let Some(mut trial) = begin(name, 1, 2, i32::try_from(SHARDS).unwrap(), Some(11)).await else { return };
    let files = tempfile::tempdir().unwrap();
    trial.layer().source.set_limits(Some(QUOTA));
    trial.start_load();
    trial.create_source("").await;
    for n in 0..9 {
        sink(&trial, n, files.path()).await;
    }
    trial.reading().await;
    trial.records(2_000).await;
    // From the oldest record on: by itself until it has caught up.
    sink(&trial, 9, files.path()).await;
    trial.reading().await;
    trial.records(2_000).await;

    let (iterators, before) = (calls(&trial, "GetShardIterator").0, calls(&trial, "GetRecords"));
    tokio::time::sleep(WINDOW).await;
    let busy = calls(&trial, "GetRecords");
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let allowed = (QUOTA.reads_per_second * WINDOW.as_secs_f64()) as u64 * SHARDS as u64;
    let reads = busy.0 - before.0;
    println!("{reads} reads in {WINDOW:?}, {allowed} are allowed");
    assert!(reads <= allowed + allowed / 10, "{reads} reads, {allowed} are allowed");
    assert!(busy.1 - before.1 <= 5, "{} reads were refused", busy.1 - before.1);
    // A machine that stands still for seconds may leave one behind; forty readers would be something else.
    let iterators = calls(&trial, "GetShardIterator").0 - iterators;
    assert!(iterators <= SHARDS as u64, "{iterators} readers began although all had caught up");

    trial.stop_load().await;
    let splits = endpoint::shards(&trial.client(), &trial.stream).await.unwrap();
    let splits: Vec<String> = splits.iter().map(|shard| shard.shard_id().to_owned()).collect();
    let deadline = tokio::time::Instant::now() + HEALS_WITHIN;
    for n in 0..10 {
        let verdict = loop {
            let found = readback::files(&files.path().join(format!("sink_{n}")), &splits).unwrap();
            let verdict = ledger::audit(trial.sent(), found);
            if verdict.lost == 0 || tokio::time::Instant::now() > deadline {
                break verdict;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        trial.judge(&format!("sink_{n}"), &verdict);
    }

    // Quiet shards are asked once a second, not once a second and sink: the quota alone would allow five.
    trial.wait("every split is read to its end", |status| admin::all_reading(status, &trial.live())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let quiet = calls(&trial, "GetRecords").0;
    tokio::time::sleep(WINDOW).await;
    let quiet = calls(&trial, "GetRecords").0 - quiet;
    println!("{quiet} reads of {SHARDS} quiet shards in {WINDOW:?}");
    assert!(quiet <= 2 * SHARDS as u64 * WINDOW.as_secs(), "{quiet} reads of quiet shards");
}
