//! What operators ask of the balancer: what would move and why it does not, to move it now, and how many workers would be right.

use std::sync::Arc;

use proto::v1::{self, admin_client::AdminClient, execute_reply::Answer, worker_message as up};
use store::{EmbeddedStore, MetadataStore};
use tokio_stream::StreamExt as _;

use crate::{
    fake_source::open,
    fake_worker::{FakeWorker, Manner::Obedient},
    setup::{Coordinator, create, until},
};

/// The notices and the rows of a statement; the refusal, if it is refused.
async fn ask(url: &str, statement: &str) -> Result<(Vec<String>, Vec<Vec<String>>), tonic::Status> {
    let mut client = AdminClient::connect(url.to_owned()).await.unwrap();
    let request = v1::ExecuteRequest { statement: statement.to_owned(), request_id: String::new() };
    let mut replies = client.execute(request).await?.into_inner();
    let (mut notices, mut rows) = (Vec::new(), Vec::new());
    while let Some(reply) = replies.next().await {
        match reply?.answer {
            Some(Answer::Rows(set)) => {
                let texts =
                    |row: v1::Row| row.values.into_iter().map(|v| v.text.unwrap_or_default()).collect();
                rows.extend(set.rows.into_iter().map(texts));
            }
            Some(Answer::Notice(notice)) => notices.push(notice),
            _ => {}
        }
    }
    Ok((notices, rows))
}

/// Reports that every split of a worker reads this much.
async fn reads(worker: &FakeWorker, bytes_per_second: f64) {
    let report = |run: v1::RunTask| v1::Report {
        task: run.task,
        epoch: run.epoch,
        state: v1::RunState::Running.into(),
        bytes_per_second,
        ..v1::Report::default()
    };
    let reports = worker.list().unwrap().run.into_iter().map(report).collect();
    worker.say(up::Message::Heartbeat(v1::Heartbeat { number: 9_000, reports, ..Default::default() })).await;
}

#[tokio::test]
async fn an_operator_sees_what_would_move_and_moves_it() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let coordinator = Coordinator::start(&store).await;
    let url = coordinator.url();
    let leader = coordinator.leader().await;
    create(&leader, "uneven", ["s0", "s1", "s2", "s3"].map(|name| open(name, &[])).to_vec()).await;

    let early = ask(&url, "REBALANCE").await.unwrap_err();
    assert!(early.message().contains("nothing can be moved now: the leader is new"), "{early:?}");
    let (notices, _) = ask(&url, "EXPLAIN REBALANCE").await.unwrap();
    assert!(notices[0].starts_with("REBALANCE would be refused: the leader is new"), "{notices:?}");

    let (one, two) = (
        FakeWorker::attach(&url, "w1", "p1", "i1", Obedient).await,
        FakeWorker::attach(&url, "w2", "p2", "i2", Obedient).await,
    );
    until("counts are even", || one.runs().len() == 2 && two.runs().len() == 2).await;
    let before = [one.runs(), two.runs()];
    reads(&one, 550_000.0).await;
    reads(&two, 100_000.0).await;
    let mut answer = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        answer = ask(&url, "EXPLAIN REBALANCE").await.unwrap();
        if answer.1.len() == 2 && !answer.0[0].contains("refused") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (notices, rows) = answer;
    assert_eq!(
        (rows.len(), rows[0][..2].to_vec()),
        (2, vec!["clicks".to_owned(), "out".to_owned()]),
        "{notices:?}"
    );
    assert_eq!(rows[0][3..], ["w1", "w2", "a load of 1.1 MB/s there becomes 0.7, 0.2 here"], "{rows:?}");
    assert_eq!(rows[1][3..], ["w2", "w1", "in return, so that counts stay even"]);
    assert!(notices.iter().any(|notice| notice.contains("more than 15 % and 0.5 MB/s")), "{notices:?}");
    assert_eq!([one.runs(), two.runs()], before, "it only told");

    assert_eq!(ask(&url, "REBALANCE").await.unwrap().1, rows);
    let (gone, come) = (rows[0][2].as_str(), rows[1][2].as_str());
    until("they are exchanged", || two.run_of(gone).is_some() && one.run_of(come).is_some()).await;
    assert_eq!((one.runs().len(), two.runs().len()), (2, 2));
    let (notices, rows) = ask(&url, "REBALANCE").await.unwrap();
    assert_eq!(rows.len(), 0);
    assert!(notices.iter().any(|notice| notice.starts_with("nothing to move")), "{notices:?}");
}

#[tokio::test]
async fn a_busy_cluster_asks_for_more_workers() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let coordinator = Coordinator::start(&store).await;
    let url = coordinator.url();
    let leader = coordinator.leader().await;
    create(&leader, "busy", ["s0", "s1", "s2", "s3"].map(|name| open(name, &[])).to_vec()).await;
    let one = FakeWorker::attach(&url, "w1", "p1", "i1", Obedient).await;
    one.runs_exactly(&["s0", "s1", "s2", "s3"]).await;
    let mut client = AdminClient::connect(url.clone()).await.unwrap();
    let idle = client.scale(v1::ScaleRequest {}).await.unwrap().into_inner();
    assert_eq!((idle.workers, idle.wanted), (1, 1), "{idle:?}");
    one.fall_silent();
    let busy = v1::Heartbeat { number: 9_000, cpu: 3.2, cores: 4, ..Default::default() };
    one.say(up::Message::Heartbeat(busy)).await;
    let mut found = idle;
    for _ in 0..2000 {
        found = client.scale(v1::ScaleRequest {}).await.unwrap().into_inner();
        if found.wanted != 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!((found.wanted, found.why.as_str()), (2, "80 % of the CPU is in use"), "{found:?}");
    let (_, rows) = ask(&url, "SHOW SCALE").await.unwrap();
    assert_eq!(rows[1], ["workers wanted", "2"], "{rows:?}");
    let (_, rows) = ask(&url, "SHOW WORKERS").await.unwrap();
    assert_eq!(rows[0][..5], ["w1", "live", "4", "1", "80 %"], "{rows:?}");
}
