//! What happens to workers.

use std::time::Duration;

use shardwright_integration_tests::admin;

use crate::trial::{HEALS_WITHIN, epochs, tasks_of, trial};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_worker() {
    let Some(mut trial) = trial("kill_9_of_a_worker", 1, 3, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.wait("the others took over", |s| admin::all_reading(s, &["worker-0", "worker-2"])).await;
    trial.records(400).await;
    trial.cluster.start_worker("worker-1").unwrap();
    trial.reading().await;
    trial.records(200).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_worker_that_comes_back_at_once() {
    let Some(mut trial) = trial("kill_9_of_a_worker_that_comes_back_at_once", 1, 2, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let before = epochs(&trial.admin().status().await.unwrap());
    let mine = tasks_of(&trial.admin().status().await.unwrap(), "worker-1");
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.cluster.start_worker("worker-1").unwrap();
    trial
        .wait("new epochs at home", |status| {
            let now = epochs(status);
            let renewed = mine.iter().all(|task| now.get(task) > before.get(task));
            if renewed {
                admin::all_reading(status, &["worker-0", "worker-1"])
            } else {
                Err("old epochs".to_owned())
            }
        })
        .await;
    let home = tasks_of(&trial.admin().status().await.unwrap(), "worker-1");
    assert_eq!(home, mine, "nothing moved");
    trial.records(200).await;
    trial.ledger().await;
}

/// S11, S20: the worker is suspended beyond its session, so others take its tasks; when it goes on it must be fenced: none of
/// its epochs goes on, and its late checkpoints change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_worker_is_fenced_when_it_goes_on() {
    let Some(mut trial) = trial("a_suspended_worker_is_fenced_when_it_goes_on", 1, 3, 4).await else {
        return;
    };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    let status = trial.admin().status().await.unwrap();
    let (before, mine) = (epochs(&status), tasks_of(&status, "worker-2"));
    assert!(!mine.is_empty());
    trial.cluster.worker("worker-2").signal("STOP").unwrap();
    trial.wait("the others took over", |s| admin::all_reading(s, &["worker-0", "worker-1"])).await;
    let taken = epochs(&trial.admin().status().await.unwrap());
    assert!(mine.iter().all(|task| taken[task] > before[task]), "{before:?} {taken:?}");
    trial.records(200).await;
    trial.cluster.worker("worker-2").signal("CONT").unwrap();
    trial.reading().await;
    trial.records(400).await;
    let now = epochs(&trial.admin().status().await.unwrap());
    for task in &mine {
        assert!(now[task] >= taken[task], "{task:?} went back to {:?} from {:?}", now[task], taken[task]);
    }
    let log = std::fs::read_to_string(trial.cluster.worker("worker-2").log()).unwrap();
    assert!(log.contains("the worker ends all its runs"), "{log}");
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_hands_everything_over() {
    let Some(mut trial) = trial("a_drain_hands_everything_over", 1, 3, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(400).await;
    trial.admin().drain("worker-0", HEALS_WITHIN).await.unwrap();
    let status = trial.admin().status().await.unwrap();
    assert_eq!(tasks_of(&status, "worker-0"), vec![]);
    trial.wait("the others took over", |s| admin::all_reading(s, &["worker-1", "worker-2"])).await;
    trial.records(200).await;
    trial.ledger().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart() {
    let Some(mut trial) = trial("a_rolling_restart", 2, 3, 4).await else { return };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    for name in trial.names.clone() {
        let code = trial.cluster.worker(&name).stop(HEALS_WITHIN).await.unwrap();
        assert_eq!(code, Some(0), "{name} stopped in order\n{}", trial.cluster.worker(&name).tail());
        trial.cluster.start_worker(&name).unwrap();
        trial.reading().await;
        trial.records(100).await;
    }
    for number in 0..2 {
        let code = trial.cluster.coordinator(number).stop(HEALS_WITHIN).await.unwrap();
        assert_eq!(code, Some(0), "coordinator {number}");
        trial.cluster.start_coordinator(number).await.unwrap();
        trial.reading().await;
        trial.records(100).await;
    }
    trial.ledger().await;
}

/// P1.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_under_a_live_workers_name_is_refused() {
    let Some(mut trial) = trial("a_second_process_under_a_live_workers_name_is_refused", 1, 2, 4).await
    else {
        return;
    };
    trial.create().await;
    trial.start_load();
    trial.records(200).await;
    let before = epochs(&trial.admin().status().await.unwrap());
    let data = trial.cluster.dir().join("elsewhere");
    let mut second = trial.cluster.spawn_worker("second", "worker-0", &data).unwrap();
    // Longer than a session: were it let in, the first would have lost its tasks by then.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !second.tail().contains("unique") {
        assert!(second.ended().is_none() || second.tail().contains("unique"), "{}", second.tail());
        assert!(tokio::time::Instant::now() < deadline, "not told why\n{}", second.tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    trial.records(3200).await;
    assert_eq!(epochs(&trial.admin().status().await.unwrap()), before, "the first went on undisturbed");
    drop(second);
    trial.ledger().await;
}

/// Two processes cannot share a data directory: it is what makes an instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_directory_ends_with_one_clear_line() {
    let test = "a_second_process_on_the_same_data_directory_ends_with_one_clear_line";
    let Some(trial) = trial(test, 1, 1, 1).await else { return };
    trial.wait("it has joined", |s| s.workers.first().map(|_| ()).ok_or("no worker".to_owned())).await;
    let data = trial.cluster.dir().join("worker-0");
    let mut second = trial.cluster.spawn_worker("second", "worker-9", &data).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = second.ended() {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "it goes on\n{}", second.tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!status.success());
    assert!(second.tail().contains("worker-0"), "it names the directory: {}", second.tail());
    assert!(!second.tail().contains("panicked"), "{}", second.tail());
}
