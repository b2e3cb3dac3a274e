//! A backup, and a restore into an empty etcd while the workers live on.

use std::time::Duration;

use shardwright_integration_tests::{
    admin,
    cluster::{self, Metadata},
    ledger,
    servers::Etcd,
};
use tokio::process::Command;

use crate::trial::{epochs, trial};

/// Runs the tool under test; what it printed.
async fn tool(arguments: &[&str]) -> String {
    let output = Command::new(cluster::binary().unwrap()).args(arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out
}

/// The revisions of the new store are smaller than those of the old one, and still everything in it is newer: the workers
/// follow the new leaders, what they ran is fenced, the records since the backup come again, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_live_through_a_restore_go_on_from_the_backup_and_lose_nothing() {
    let test = "workers_that_live_through_a_restore_go_on_from_the_backup_and_lose_nothing";
    let Some(mut trial) = trial(test, 2, 2, 3).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    // A later leader has a revision that the restored store does not come to soon.
    let leader = trial.cluster.leader().await.unwrap();
    trial.cluster.coordinator(leader).stop(Duration::from_secs(30)).await.unwrap();
    trial.reading().await;
    trial.cluster.start_coordinator(leader).await.unwrap();

    let file = trial.cluster.dir().join("backup.jsonl").display().to_string();
    let said = tool(&["backup", &file, "--store", &trial.etcd.url()]).await;
    assert!(said.contains("(3 objects, 3 splits"), "{said}");
    let servers = trial.cluster.urls().join(",");
    let looked = ["check", "--store", &trial.etcd.url(), "--server", &servers, "--skip", "limits"];
    let said = tool(&looked).await;
    for line in ["ok       cluster", "ok       source orders", "ok       sink archive", "ok       sink copy"]
    {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line} is not in\n{said}");
    }
    assert!(!said.contains("failed"), "{said}");
    trial.records(800).await;
    let before = trial.admin().status().await.unwrap();
    for number in 0..2 {
        trial.cluster.coordinator(number).stop(Duration::from_secs(30)).await.unwrap();
    }
    let fresh = Etcd::start(&trial.cluster.dir().join("etcd-2")).await.unwrap();
    let said = tool(&["restore", &file, "--store", &fresh.url()]).await;
    assert!(said.contains("begins generation"), "{said}");
    trial.cluster.store_at(Metadata::Etcd(fresh.url()));
    for number in 0..2 {
        trial.cluster.start_coordinator(number).await.unwrap();
    }
    trial.wait("the workers follow", |status| admin::all_reading(status, &["worker-0", "worker-1"])).await;

    let after = trial.admin().status().await.unwrap();
    assert!(
        after.leader_revision < before.leader_revision,
        "the test must show small revisions: {} after {}",
        after.leader_revision,
        before.leader_revision
    );
    let newest = epochs(&before).into_values().max().unwrap();
    assert!(epochs(&after).values().all(|(generation, _)| *generation > newest.0), "{:?}", epochs(&after));
    for worker in ["worker-0", "worker-1"] {
        assert!(trial.cluster.worker(worker).ended().is_none(), "{worker} was to live on");
    }
    trial.records(400).await;
    trial.stop_load().await;
    let sent = trial.sent().clone();
    let (archive, deadline) = (trial.archive().await, tokio::time::Instant::now() + Duration::from_secs(60));
    let mut verdict = ledger::audit(&sent, archive);
    while verdict.lost > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(250)).await;
        verdict = ledger::audit(&sent, trial.archive().await);
    }
    assert!(verdict.duplicated > 0, "what came after the backup comes again: {verdict}");
    trial.ledger().await;
}
