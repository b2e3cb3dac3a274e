//! What happens to coordinators and their store.

use std::time::Duration;

use shardwright_integration_tests::admin;

use crate::trial::{epochs, trial};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_leader_stops_no_data() {
    let Some(mut trial) = trial("kill_9_of_the_leader_stops_no_data", 2, 2, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let before = trial.admin().status().await.unwrap();
    let leader = trial.cluster.leader().await.unwrap();
    trial.cluster.coordinator(leader).kill().await.unwrap();
    trial
        .wait("another leads", |status| {
            if status.leader_revision > before.leader_revision {
                admin::all_reading(status, &["worker-0", "worker-1"])
            } else {
                Err("the old leader".to_owned())
            }
        })
        .await;
    let after = trial.admin().status().await.unwrap();
    assert_eq!(epochs(&before), epochs(&after), "every run went on");
    trial.records(400).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_coordinator_dies_and_comes_back() {
    let Some(mut trial) = trial("the_only_coordinator_dies_and_comes_back", 1, 2, 2).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let before = trial.admin().status().await.unwrap().leader_revision;
    trial.cluster.coordinator(0).kill().await.unwrap();
    // Longer than `fence_after`: delivery pauses, nothing is lost.
    trial.records(3200).await;
    trial.cluster.start_coordinator(0).await.unwrap();
    trial
        .wait("it leads again", |status| {
            let again = status.leader_revision > before;
            if again {
                admin::all_reading(status, &["worker-0", "worker-1"])
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
    trial.records(200).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_killed_and_comes_back() {
    let Some(mut trial) = trial("etcd_is_killed_and_comes_back", 2, 2, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    trial.etcd.restart(Duration::from_secs(4)).await.unwrap();
    trial.reading().await;
    trial.records(400).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_and_leader_die_together() {
    let Some(mut trial) = trial("worker_and_leader_die_together", 2, 3, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let leader = trial.cluster.leader().await.unwrap();
    trial.cluster.worker("worker-2").kill().await.unwrap();
    trial.cluster.coordinator(leader).kill().await.unwrap();
    trial.wait("the others took over", |s| admin::all_reading(s, &["worker-0", "worker-1"])).await;
    trial.cluster.start_coordinator(leader).await.unwrap();
    trial.cluster.start_worker("worker-2").unwrap();
    trial.reading().await;
    trial.records(200).await;
    trial.ledger().await;
}
