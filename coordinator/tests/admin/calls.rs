//! The typed calls, followers, and callers that go away.

use std::{sync::Arc, time::Duration};

use proto::{StatusExt, v1};
use store::{EmbeddedStore, MetadataStore};
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tonic::Request;

use crate::setup::{Coordinator, PATIENCE, sink, source};

#[tokio::test]
async fn a_follower_passes_calls_on_once() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let first = Coordinator::start_on(Arc::clone(&store)).await;
    first.run("SHOW SOURCES").await;
    let second = Coordinator::start_on(store).await;
    second.run(&source("s", "")).await;
    assert_eq!(first.run("SHOW SOURCES").await.rows.len(), 2);
    let status = second.client.clone().status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, format!("http://{}", first.server.local_addr()));
    // The statement's error comes back whole.
    let refused = second.refused("DROP SOURCE nope").await;
    assert_eq!(refused.reason().as_deref(), Some("42P01"));
    let splits = v1::ListSplitsRequest::default();
    let mut splits = second.client.clone().list_splits(splits).await.unwrap().into_inner();
    assert!(splits.next().await.is_none(), "no sink, no split of a sink");
    // What was passed on is not passed on again.
    let mut request = Request::new(v1::StatusRequest {});
    request.metadata_mut().insert("shardwright-passed-on-by", "http://127.0.0.1:1".parse().unwrap());
    let refused = second.client.clone().status(request).await.unwrap_err();
    assert_eq!(refused.reason().as_deref(), Some("NO_LEADER"));
}

#[tokio::test]
async fn a_statement_is_finished_though_its_caller_has_gone() {
    let cluster = Coordinator::start().await;
    let request = v1::ExecuteRequest {
        statement: format!("{}; {}", source("a", ""), source("b", "")),
        request_id: "gone".to_owned(),
    };
    drop(cluster.client.clone().execute(request).await.unwrap());
    let begin = Instant::now();
    while cluster.run("SHOW SOURCES").await.rows.len() < 4 {
        assert!(begin.elapsed() < PATIENCE, "the statements were not finished");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn events_are_told_from_the_past_into_the_future() {
    let cluster = Coordinator::start().await;
    cluster.run(&source("a", "")).await;
    let watch = v1::WatchEventsRequest { after_event: 0, follow: true };
    let mut events = cluster.client.clone().watch_events(watch).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    let mut last = 0;
    let mut created = false;
    while !kinds.contains(&"source_dropped".to_owned()) {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("an event").unwrap().unwrap();
        assert!(event.number > last, "numbers grow");
        last = event.number;
        if event.kind == "source_created" && !created {
            created = true;
            cluster.run("DROP SOURCE a").await;
        }
        kinds.push(event.kind);
    }
    assert!(created, "{kinds:?}");
    let past = v1::WatchEventsRequest { after_event: last, follow: false };
    let mut events = cluster.client.clone().watch_events(past).await.unwrap().into_inner();
    while let Some(event) = events.next().await {
        assert!(event.unwrap().number > last);
    }
}

#[tokio::test]
async fn typed_calls_name_what_is_missing_and_what_must_come_first() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", source("s", ""), sink("k", "s", ""))).await;
    let mut client = cluster.client.clone();
    let reset = |to| v1::ResetPositionRequest { sink: "k".to_owned(), split: String::new(), to };
    let horizon = Some(v1::reset_position_request::To::Horizon(true));
    let status = client.reset_position(reset(None)).await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("22023"));
    let status = client.reset_position(reset(horizon.clone())).await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("55000"), "{status:?}");
    client.pause_sink(v1::PauseSinkRequest { sink: "k".to_owned() }).await.unwrap();
    let reply = client.reset_position(reset(horizon)).await.unwrap().into_inner();
    assert_eq!(reply.tasks, 2);
    client.resume_sink(v1::ResumeSinkRequest { sink: "k".to_owned() }).await.unwrap();
    let missing = v1::ListSplitsRequest { source: "nope".to_owned(), ..Default::default() };
    let status = client.list_splits(missing).await.unwrap_err();
    assert_eq!((status.reason(), status.fact("object")), (Some("42P01".into()), Some("nope".into())));
    let drain = v1::DrainWorkerRequest { worker: "w".to_owned(), undo: false };
    let status = client.drain_worker(drain).await.unwrap_err();
    assert_eq!(status.reason().as_deref(), Some("42P01"));
    let describe = v1::DescribeSplitRequest { source: "s".to_owned(), split: "split-0".to_owned() };
    let reply = client.describe_split(describe).await.unwrap().into_inner();
    assert_eq!(reply.sinks.len(), 1);
    assert!(!reply.sinks[0].waits_for.is_empty(), "no worker is there: {reply:?}");
    assert!(client.list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner().workers.is_empty());
}
