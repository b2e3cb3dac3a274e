//! What a bad row leaves behind: a split that failed beside others that go on, its error for everyone to see, and `RESUME`.

use std::sync::Arc;

use proto::v1::{self, admin_client::AdminClient, execute_reply::Answer, worker_message as up};
use store::{EmbeddedStore, MetadataStore};
use tokio_stream::StreamExt as _;

use crate::{
    fake_source::open,
    fake_worker::{FakeWorker, Manner::Obedient},
    setup::{Coordinator, create, until},
};

async fn rows(url: &str, statement: &str) -> Vec<Vec<String>> {
    let mut client = AdminClient::connect(url.to_owned()).await.unwrap();
    let request = v1::ExecuteRequest { statement: statement.to_owned(), request_id: String::new() };
    let mut replies = client.execute(request).await.unwrap().into_inner();
    let mut rows = Vec::new();
    while let Some(reply) = replies.next().await {
        if let Some(Answer::Rows(set)) = reply.unwrap().answer {
            let texts = |row: v1::Row| row.values.into_iter().map(|v| v.text.unwrap_or_default()).collect();
            rows.extend(set.rows.into_iter().map(texts));
        }
    }
    rows
}

#[tokio::test]
async fn a_bad_row_stops_its_split_only_and_resume_tries_again() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "bad", vec![open("s0", &[]), open("s1", &[])]).await;
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    worker.runs_exactly(&["s0", "s1"]).await;
    let (run, other) = (worker.run_of("s0").unwrap(), worker.run_of("s1").unwrap());
    let bad = v1::BadRecord {
        cursor: "7:2".to_owned(),
        error: "partition key length 0".to_owned(),
        sample: b"{\"id\":1}\n".to_vec(),
        at_ms: 1_700_000_000_000,
        policy: "fail".to_owned(),
    };
    let released = v1::Released {
        task: run.task.clone(),
        epoch: run.epoch,
        drained: true,
        error: "record 7:2 of split `s0` was refused: partition key length 0".to_owned(),
        error_kind: "rejected".to_owned(),
        bad: vec![bad],
        ..v1::Released::default()
    };
    worker.say(up::Message::Released(released)).await;
    let shown = |split: &str| leader.describe_split("clicks", split).unwrap().remove(0);
    until("the split has failed", || shown("s0").state == "failed").await;
    assert!(shown("s0").error.contains("record 7:2 of split `s0` was refused"), "{:?}", shown("s0"));
    assert_ne!(shown("s1").state, "failed");
    assert_eq!(worker.run_of("s1").unwrap().epoch, other.epoch, "the other split goes on");
    assert_eq!(leader.status().sinks[0].state, "failed");

    for name in ["clicks", "out"] {
        let shown = rows(&coordinator.url(), &format!("SHOW ERRORS FOR {name}")).await;
        let wanted = [
            "clicks",
            "out",
            "s0",
            "7:2",
            "partition key length 0",
            "{\"id\":1}\\n",
            "2023-11-14T22:13:20.000Z",
            "fail",
        ];
        assert_eq!(shown, [wanted], "the record at which it stopped is told though its run is over");
    }

    leader.resume_sink("out").await.unwrap();
    until("there is a new run", || worker.run_of("s0").is_some_and(|new| new.epoch != run.epoch)).await;
    until("it is shown", || shown("s0").state != "failed").await;
}
