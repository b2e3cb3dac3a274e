//! Records that the cluster makes itself, and a worker that dies among them: what the files hold at the end is what there was to
//! deliver, each record with the bytes that its number has.

use std::{collections::BTreeMap, path::Path};

use proto::v1::StatusReply;
use serde_json::Value;
use shardwright_integration_tests::{
    cluster::{Cluster, Metadata},
    ledger::{self, Found},
};

use crate::trial::{HEALS_WITHIN, tasks_of};

/// How many splits make records.
const SPLITS: u64 = 4;

/// Every split with the number of its records that are delivered for good, as its position says it.
fn delivered(status: &StatusReply) -> BTreeMap<String, u64> {
    let number = |position: &str| position.strip_prefix("after ")?.parse::<u64>().ok();
    let count = |position| number(position).map_or(0, |last| last + 1);
    status.splits.iter().map(|split| (split.split.clone(), count(&split.position))).collect()
}

fn least(status: &StatusReply) -> u64 {
    let delivered = delivered(status);
    if delivered.len() as u64 == SPLITS { delivered.into_values().min().unwrap_or(0) } else { 0 }
}

fn holds(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_worker_while_records_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), Metadata::Embedded, 1).await.unwrap();
    for worker in ["worker-0", "worker-1"] {
        cluster.start_worker(worker).unwrap();
    }
    let (admin, files) = (cluster.admin(), dir.path().join("files"));
    let live = |s: &StatusReply| {
        let live = s.workers.iter().filter(|worker| worker.state == "live").count();
        holds(live == 2, || format!("{live} workers"))
    };
    admin.wait("two workers", HEALS_WITHIN, live).await.unwrap();
    let source = format!(
        "CREATE SOURCE made (n BIGINT, text VARCHAR) INCLUDE PARTITION AS split INCLUDE OFFSET AS place INCLUDE KEY AS key \
         WITH (connector = 'datagen', datagen.split.num = {SPLITS}, datagen.rows.per.second = 800, \
         fields.n.kind = 'sequence') FORMAT PLAIN ENCODE JSON (on_error = 'fail')"
    );
    admin.execute(&source).await.unwrap();
    let sink = format!("CREATE SINK kept FROM made WITH (connector = 'file', path = '{}')", files.display());
    admin.execute(&sink).await.unwrap();
    let begun = |s: &StatusReply| holds(least(s) > 50, || format!("{:?}", delivered(s)));
    let begun = admin.wait("records", HEALS_WITHIN, begun).await;
    begun.unwrap_or_else(|e| panic!("{e}\n{}", cluster.tails()));
    let tasks = tasks_of(&admin.status().await.unwrap(), "worker-1");
    assert!(!tasks.is_empty(), "it has something to lose");

    cluster.worker("worker-1").kill().await.unwrap();
    let early = delivered(&admin.status().await.unwrap());
    cluster.start_worker("worker-1").unwrap();
    let all_went_on = |s: &StatusReply| {
        let now = delivered(s);
        holds(early.iter().all(|(split, before)| now.get(split) > Some(&(before + 100))), || {
            format!("{early:?} {now:?}")
        })
    };
    let healed = admin.wait("more of every split", HEALS_WITHIN, all_went_on).await;
    healed.unwrap_or_else(|e| panic!("{e}\n{}", cluster.tails()));
    admin.execute("ALTER SINK kept PAUSE").await.unwrap();
    let rests = |s: &StatusReply| {
        holds(s.splits.iter().all(|split| split.state == "paused"), || "it still writes".to_owned())
    };
    admin.wait("rest", HEALS_WITHIN, rests).await.unwrap();

    let status = admin.status().await.unwrap();
    let sent = delivered(&status);
    let counted: u64 = status.splits.iter().map(|split| split.records).sum();
    assert_eq!(counted, sent.values().sum::<u64>(), "the checkpoints count each record once");
    let mut found = found(&files.join("kept"));
    found.retain(|one| one.n < sent[&one.key]);
    let verdict = ledger::audit(&sent, found);
    println!("ledger: datagen: {verdict}");
    assert!(verdict.balances(), "{verdict}: {:?}", verdict.complaints);
}

/// What the files hold, in their order; repeats must be the same record again.
fn found(sink: &Path) -> Vec<Found> {
    let mut lines: BTreeMap<(u64, String), Value> = BTreeMap::new();
    let mut found = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(sink).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(path).unwrap();
            // A last line without its newline was never delivered.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let row: Value = serde_json::from_str(line).unwrap();
                let split = row["split"].as_str().unwrap().to_owned();
                let n: u64 = row["place"].as_str().unwrap().parse().unwrap();
                assert_eq!(row["n"].as_u64().unwrap() / SPLITS, n, "the splits have the rows in turn: {row}");
                let first = lines.entry((n, split.clone())).or_insert_with(|| row.clone());
                assert_eq!(*first, row, "a repeat is the same record");
                found.push(Found { key: split, n });
            }
        }
    }
    found
}
