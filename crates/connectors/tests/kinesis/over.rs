//! Source and sink over an HTTP client that the caller brings, in this process and on a paused clock: nothing of them needs
//! a network, a file or the time of day.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Int64Array, StringArray},
    record_batch::RecordBatch,
};
use aws_smithy_runtime_api::client::{
    connection::{CaptureSmithyConnection, ConnectionMetadata},
    http::{
        HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
        http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use connector::{ErrorKind, Registry, Run};
use model::{Batch, Creation, Cursor, Epoch, ObjectId, Ops, Position, SplitId, StartFrom, TaskId};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fake::{self, Answer, summary},
    options, read, rustls_ready,
    signature::verified,
    sink_spec, source_spec,
};

const CREATED: i64 = 1_700_000_000;
/// How long an answer takes, by the clock of the test.
const FLIGHT: Duration = Duration::from_millis(300);

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers by operation, after [`FLIGHT`]. Requests to a host named `nowhere` are refused.
#[derive(Clone, Debug)]
struct Wire {
    answer: fn(&str) -> Answer,
    seen: Seen,
    /// By how much the service's clock, which it tells in its answers, is ahead of ours.
    ahead: Option<Duration>,
    /// By how many minutes each request was signed ahead of our clock.
    signed: Arc<Mutex<Vec<i64>>>,
    /// How many connections were given up because of what was answered on them.
    dropped: Arc<AtomicUsize>,
}

impl Wire {
    fn new(answer: fn(&str) -> Answer) -> Self {
        Self { answer, seen: Seen::default(), ahead: None, signed: Arc::default(), dropped: Arc::default() }
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push(format!("{} {operation}", request.uri()));
        let signed_at = verified(&request, "secret").and_utc();
        self.signed.lock().unwrap().push((signed_at - chrono::Utc::now()).num_minutes());
        if request.uri().contains("nowhere") {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return HttpConnectorFuture::ready(Err(ConnectorError::io(refused.into())));
        }
        if let Some(capture) = request.extension::<CaptureSmithyConnection>() {
            let dropped = Arc::clone(&self.dropped);
            let connection = ConnectionMetadata::builder().proxied(false).poison_fn(move || {
                dropped.fetch_add(1, Ordering::Relaxed);
            });
            let connection = connection.build();
            capture.set_connection_retriever(move || Some(connection.clone()));
        }
        let (mut answer, ahead) = ((self.answer)(&operation), self.ahead);
        let off = ahead.map(|ahead| signed_at - (chrono::Utc::now() + ahead));
        if off.is_some_and(|off| off.num_minutes().abs() >= 5) {
            answer = Answer::Error("InvalidSignatureException");
        }
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(FLIGHT).await;
            let (status, text) = match answer {
                Answer::Ok(value) => (200, value.to_string()),
                Answer::Error(code) => (400, json!({"__type": code}).to_string()),
                Answer::Status(status) => (status, String::new()),
                Answer::Silence(time) => {
                    tokio::time::sleep(time).await;
                    (200, "{}".to_owned())
                }
                Answer::Events(_) | Answer::Told(..) => unreachable!("nobody asks for it here"),
            };
            let mut response = HttpResponse::new(status.try_into().unwrap(), text.into());
            if let Some(ahead) = ahead {
                let date = (chrono::Utc::now() + ahead).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
                response.headers_mut().insert("date", date);
            }
            Ok(response)
        })
    }
}

fn over(answer: fn(&str) -> Answer) -> (Registry, Seen) {
    let wire = Wire::new(answer);
    let seen = Arc::clone(&wire.seen);
    (over_wire(wire), seen)
}

fn over_wire(wire: Wire) -> Registry {
    rustls_ready();
    let http: SharedHttpClient = http_client_fn(move |_: &HttpConnectorSettings, _: &RuntimeComponents| {
        SharedHttpConnector::new(wire.clone())
    });
    let mut registry = Registry::new();
    shardwright_connectors::source::kinesis::register_over(&mut registry, Some(http.clone()));
    shardwright_connectors::sink::kinesis::register_over(&mut registry, Some(http));
    registry
}

fn split() -> SplitId {
    SplitId::new(Creation(CREATED * 1000), "shardId-000000000000")
}

fn batch() -> Batch {
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(StringArray::from(vec!["a", "b"])) as _),
        ("n", Arc::new(Int64Array::from(vec![1, 2])) as _),
    ]);
    let cursors = ["1", "2"].map(Cursor::new).to_vec();
    Batch { rows: rows.unwrap(), ops: Ops::Inserts, cursors }
}

async fn write(registry: &Registry, endpoint: &str) -> connector::Result<Vec<connector::Rejected>> {
    let (sink, _) = registry.build_sink(&sink_spec(options(endpoint, "out", &[]))).unwrap();
    let task = TaskId::reads(ObjectId::from_parts(1, 2), split());
    let run = Run { epoch: Epoch { generation: 1, revision: 1 }, sink_instance: 0 };
    let mut writer = sink.open(&task, &run).await?;
    writer.write(batch()).await?.await
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_read_at_its_pace_by_the_clock_of_the_test() {
    let (registry, _) = over(|operation| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" => Answer::Ok(json!({"ShardIterator": "it"})),
        _ => fake::get_records(&[1], Some("it"), 0),
    });
    let source = registry.build_source(&source_spec(options("http://kinesis.test", "in", &[]))).unwrap();
    let mut reader = source.open(&split(), &Position::Start(StartFrom::Horizon)).await.unwrap();
    let began = Instant::now();
    assert_eq!(read(&mut *reader, 10).await.len(), 10);
    // Two questions and ten reads, one after the other, none of them sooner than its answer's flight allows.
    assert_eq!(began.elapsed().as_millis() / 100, 12 * FLIGHT.as_millis() / 100);
}

#[tokio::test(start_paused = true)]
async fn rows_are_written_and_a_refused_connection_moves_on_to_the_next_endpoint() {
    let (registry, seen) = over(|operation| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        _ => Answer::Ok(json!({"FailedRecordCount": 0, "Records": [
            {"ShardId": "s", "SequenceNumber": "1"}, {"ShardId": "s", "SequenceNumber": "2"},
        ]})),
    });
    assert!(write(&registry, "http://nowhere:1,http://kinesis.test").await.unwrap().is_empty());
    let seen = seen.lock().unwrap();
    assert_eq!(
        *seen,
        [
            "http://nowhere:1/ DescribeStreamSummary",
            "http://kinesis.test/ DescribeStreamSummary",
            "http://kinesis.test/ PutRecords"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_leaves_an_outcome_that_is_unknown_since_the_start_of_the_attempt() {
    let (registry, _) = over(|operation| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        _ => Answer::Silence(Duration::from_secs(3600)),
    });
    let began = Instant::now();
    let error = write(&registry, "http://kinesis.test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.ambiguous(), Some((began + FLIGHT).into_std()), "{error:?}");
    assert_eq!(began.elapsed().as_millis() / 10, (FLIGHT.as_millis() + 5000) / 10);
}

#[tokio::test(start_paused = true)]
async fn requests_are_signed_by_the_clock_of_the_service() {
    let wire = Wire::new(|operation| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" => Answer::Ok(json!({"ShardIterator": "it"})),
        _ => fake::get_records(&[1], Some("it"), 0),
    });
    let wire = Wire { ahead: Some(Duration::from_secs(3600)), ..wire };
    let signed = Arc::clone(&wire.signed);
    let source =
        over_wire(wire).build_source(&source_spec(options("http://kinesis.test", "in", &[]))).unwrap();
    let mut reader = source.open(&split(), &Position::Start(StartFrom::Horizon)).await.unwrap();
    read(&mut *reader, 3).await;
    let signed = signed.lock().unwrap().clone();
    assert!(signed[0].abs() <= 1, "the first call knows our clock only, and is made again: {signed:?}");
    assert!(signed.len() >= 5 && signed[1..].iter().all(|ahead| (58..=61).contains(ahead)), "{signed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_server_fails_is_given_up() {
    for (answer, kind, dropped) in [
        ((|_| Answer::Status(503)) as fn(&str) -> Answer, ErrorKind::Unavailable, 1),
        (|_| Answer::Error("ProvisionedThroughputExceededException"), ErrorKind::Throttled, 0),
    ] {
        let wire = Wire::new(answer);
        let count = Arc::clone(&wire.dropped);
        let registry = over_wire(wire);
        let (sink, _) = registry.build_sink(&sink_spec(options("http://kinesis.test", "out", &[]))).unwrap();
        let task = TaskId::reads(ObjectId::from_parts(1, 2), split());
        let run = Run { epoch: Epoch { generation: 1, revision: 1 }, sink_instance: 0 };
        let mut writer = sink.open(&task, &run).await.unwrap();
        let before = count.load(Ordering::Relaxed);
        let error = writer.write(batch()).await.unwrap().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(count.load(Ordering::Relaxed) - before, dropped, "{error:?}");
    }
}
