//! What happens to the lines between the processes, while every process lives.

use std::time::Duration;

use faults::tcp::Flow;
use shardwright_integration_tests::admin::{self, Admin};

use crate::trial::{HEALS_WITHIN, Trial, epochs, faulty, tasks_of};

/// A leader that does not reach etcd must stop leading, another must begin, and no data stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_etcd_is_deposed() {
    let Some(mut trial) = faulty("a_leader_without_etcd_is_deposed", 2, 2, 11).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let before = trial.admin().status().await.unwrap();
    let old = trial.cluster.leader().await.unwrap();
    trial.layer().etcd[old].handle().partition();
    let other = Admin::new(vec![trial.cluster.urls()[1 - old].clone()]);
    let leads = other.wait("the other leads", HEALS_WITHIN, |status| {
        if status.leader_revision > before.leader_revision {
            admin::all_reading(status, &["worker-0", "worker-1"])
        } else {
            Err("the old leader".to_owned())
        }
    });
    leads.await.unwrap_or_else(|error| panic!("{error:#}\n{}", trial.cluster.tails()));
    let after = other.status().await.unwrap();
    assert_eq!(epochs(&before), epochs(&after), "every run went on");
    trial.records(400).await;
    trial.layer().etcd[old].handle().heal();
    trial.records(800).await;
    // What the old leader had said to etcd arrives late, and changes nothing.
    let healed = trial.admin().status().await.unwrap();
    assert_eq!(healed.leader_revision, after.leader_revision);
    assert_eq!(epochs(&healed), epochs(&after));
    assert!(trial.cluster.coordinator(old).ended().is_none(), "{}", trial.cluster.tails());
    trial.ledger().await;
}

/// What etcd is told is lost for six seconds, and nobody is told that it is: beyond the lease, and beyond `fence_after`.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_goes_half_open() {
    let Some(mut trial) = faulty("etcd_goes_half_open", 2, 2, 12).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let before = trial.admin().status().await.unwrap().leader_revision;
    trial.layer().etcd.iter().for_each(|link| link.handle().half_open());
    trial.records(2400).await;
    trial.layer().etcd.iter().for_each(|link| link.handle().heal());
    trial
        .wait("somebody leads anew", |status| {
            let anew = status.leader_revision > before;
            if anew {
                admin::all_reading(status, &["worker-0", "worker-1"])
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
    trial.records(200).await;
    trial.ledger().await;
}

/// Breaks the line of worker-1, which goes on reaching the destinations, beyond its session: it must end its runs by itself,
/// others take over, and when the line is sound again it comes back with new epochs only.
async fn fences_itself(mut trial: Trial, there: Flow, back: Flow) {
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let status = trial.admin().status().await.unwrap();
    let (before, mine) = (epochs(&status), tasks_of(&status, "worker-1"));
    assert!(!mine.is_empty());
    trial.links["worker-1"].handle().set(there, back, false);
    trial.wait("the other took over", |s| admin::all_reading(s, &["worker-0"])).await;
    let log = std::fs::read_to_string(trial.cluster.worker("worker-1").log()).unwrap();
    assert!(log.contains("the worker ends all its runs"), "{log}");
    let taken = epochs(&trial.admin().status().await.unwrap());
    assert!(mine.iter().all(|task| taken[task] > before[task]), "{before:?} {taken:?}");
    trial.records(400).await;
    trial.links["worker-1"].handle().heal();
    trial.reading().await;
    let now = epochs(&trial.admin().status().await.unwrap());
    assert!(mine.iter().all(|task| now[task] >= taken[task]), "{taken:?} {now:?}");
    trial.records(200).await;
    trial.ledger().await;
}

/// S11, S20.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_from_the_coordinator_fences_itself() {
    let test = "a_worker_cut_off_from_the_coordinator_fences_itself";
    let Some(trial) = faulty(test, 1, 2, 13).await else { return };
    fences_itself(trial, Flow::Hold, Flow::Hold).await;
}

/// Its heartbeats arrive, the answers do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_heard_and_hears_nothing_fences_itself() {
    let test = "a_worker_that_is_heard_and_hears_nothing_fences_itself";
    let Some(trial) = faulty(test, 1, 2, 14).await else { return };
    fences_itself(trial, Flow::Pass, Flow::Hold).await;
}

/// The answers arrive, its heartbeats do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hears_and_is_not_heard_fences_itself() {
    let test = "a_worker_that_hears_and_is_not_heard_fences_itself";
    let Some(trial) = faulty(test, 1, 2, 15).await else { return };
    fences_itself(trial, Flow::Swallow, Flow::Pass).await;
}

/// Lines that are cut every half second and slow in between: nothing is fenced, all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_break_again_and_again_cost_no_run() {
    let Some(mut trial) = faulty("lines_that_break_again_and_again_cost_no_run", 1, 2, 16).await else {
        return;
    };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let before = epochs(&trial.admin().status().await.unwrap());
    for round in 0..8 {
        for link in trial.links.values().chain(&trial.layer().etcd) {
            link.handle().delay(Duration::from_millis(20 * (round % 3)));
            link.handle().cut();
        }
        trial.records(200).await;
    }
    trial.links.values().chain(&trial.layer().etcd).for_each(|link| link.handle().heal());
    trial.reading().await;
    assert_eq!(before, epochs(&trial.admin().status().await.unwrap()), "every run went on");
    trial.ledger().await;
}
