//! What users do while data flows.

use std::time::Duration;

use shardwright_integration_tests::admin;
use store::{Keyspace, StoreConfig, View};

use crate::trial::{HEALS_WITHIN, Trial, trial};

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
