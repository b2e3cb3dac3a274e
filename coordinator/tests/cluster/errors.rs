//! What a bad row leaves behind: a split that failed beside others that go on, its error for everyone to see, and `RESUME`.

use std::sync::Arc;

use connector::Listing;
use proto::v1::{self, admin_client::AdminClient, execute_reply::Answer, worker_message as up};
use store::{EmbeddedStore, MetadataStore};
use tokio_stream::StreamExt as _;

use crate::{
    fake_source::{self, open},
    fake_worker::{FakeWorker, Manner::Obedient},
    setup::{Coordinator, create, sink, source, until},
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

    let mut client = AdminClient::connect(coordinator.url()).await.unwrap();
    let listed = client.list_errors(v1::ListErrorsRequest { name: "out".to_owned() }).await.unwrap();
    let listed = listed.into_inner().rows;
    assert_eq!((listed.len(), &listed[0].sample[..]), (1, &b"{\"id\":1}\n"[..]));
    let missing = client.list_errors(v1::ListErrorsRequest { name: "outt".to_owned() }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);

    leader.resume_sink("out").await.unwrap();
    until("there is a new run", || worker.run_of("s0").is_some_and(|new| new.epoch != run.epoch)).await;
    until("it is shown", || shown("s0").state != "failed").await;
}

#[tokio::test]
async fn a_source_with_many_bad_records_does_not_push_out_those_of_another() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    create(&leader, "noisy", vec![open("s0", &[])]).await;
    let splits = vec![open("q0", &[])];
    fake_source::stream("quiet", |known| known.splits = splits.clone());
    let listing = Listing { creation: fake_source::CREATION, splits, now: None, retention: None };
    let quiet = leader.create_source(source("views", "quiet"), Some(&listing)).await.unwrap();
    leader.create_sink(sink("kept", &quiet), &quiet).await.unwrap();
    let worker = FakeWorker::attach(&coordinator.url(), "w1", "p1", "i1", Obedient).await;
    until("it runs both", || worker.run_of("s0").is_some() && worker.run_of("q0").is_some()).await;
    let report = |split: &str, count: i64| {
        let run = worker.run_of(split).unwrap();
        let bad =
            (0..count).map(|at_ms| v1::BadRecord { cursor: at_ms.to_string(), at_ms, ..Default::default() });
        v1::Report { task: run.task, epoch: run.epoch, bad: bad.collect(), ..Default::default() }
    };
    let reports = vec![report("q0", 1), report("s0", 1500)];
    let heartbeat = v1::Heartbeat { number: 9_000, reports, ..Default::default() };
    worker.say(up::Message::Heartbeat(heartbeat)).await;
    until("it is told", || leader.bad_rows().len() == 1001).await;
    let shown = rows(&coordinator.url(), "SHOW ERRORS FOR clicks").await;
    assert_eq!((shown.len(), shown[0][3].as_str(), shown[999][3].as_str()), (1000, "1499", "500"));
    assert_eq!(rows(&coordinator.url(), "SHOW ERRORS FOR views").await.len(), 1);
}
