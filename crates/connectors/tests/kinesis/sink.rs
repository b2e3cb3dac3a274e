//! The sink against the emulated service, and against one that fails chosen records.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use base64::{Engine, prelude::BASE64_STANDARD};
use connector::{ErrorKind, Rejected, Run, SinkWriter, suite};
use ferrokinesis::store::StoreOptions;
use model::{Batch, Creation, Cursor, Epoch, ObjectId, Ops, Position, SplitId, StartFrom, TaskId};
use serde_json::{Value, json};

use crate::{
    fake::{Answer, Fake, summary},
    fast_source, options, read,
    server::{STREAM, Server, quick},
    sink_of, texts,
};

fn batch(rows: &[(&str, i64)]) -> Batch {
    let ids: StringArray = rows.iter().map(|(id, _)| Some(*id)).collect();
    let numbers: Int64Array = rows.iter().map(|(_, n)| Some(*n)).collect();
    let columns = [("id", Arc::new(ids) as _), ("n", Arc::new(numbers) as _)];
    Batch {
        rows: RecordBatch::try_from_iter_with_nullable(columns.map(|(name, c)| (name, c, true))).unwrap(),
        ops: Ops::Inserts,
        cursors: (0..rows.len()).map(|i| Cursor::new(i.to_string())).collect(),
    }
}

async fn writer(endpoint: &str, more: &[(&str, &str)]) -> Box<dyn SinkWriter> {
    let (sink, _) = sink_of(options(endpoint, STREAM, more));
    assert!(sink.capability().ordered);
    let task = TaskId::reads(ObjectId::from_parts(1, 2), SplitId::new(Creation(1), "s"));
    sink.open(&task, &Run { epoch: Epoch::default(), sink_instance: 0 }).await.unwrap()
}

async fn write(writer: &mut dyn SinkWriter, rows: &[(&str, i64)]) -> connector::Result<Vec<Rejected>> {
    writer.write(batch(rows)).await?.await
}

fn kinds(rejected: &[Rejected]) -> Vec<(usize, ErrorKind)> {
    rejected.iter().map(|r| (r.row, r.error.kind())).collect()
}

/// A stream whose `PutRecords` answers what `results` makes of the sent records.
async fn stream(mut results: impl FnMut(&[Value]) -> Answer + Send + 'static) -> Fake {
    Fake::start(move |operation, body| match operation {
        "PutRecords" => results(body["Records"].as_array().unwrap()),
        "ListShards" => Answer::Ok(json!({"Shards": []})),
        _ => summary(1),
    })
    .await
}

fn stored(number: u64) -> Value {
    json!({"ShardId": "shardId-000000000000", "SequenceNumber": number.to_string()})
}

fn failed(code: &str) -> Value {
    json!({"ErrorCode": code, "ErrorMessage": format!("said {code}")})
}

fn results(records: Vec<Value>) -> Answer {
    let failed = records.iter().filter(|r| r["ErrorCode"].is_string()).count();
    Answer::Ok(json!({"FailedRecordCount": failed, "Records": records}))
}

#[tokio::test]
async fn the_suite_of_sinks_holds() {
    suite::sink::all(|| Server::start(quick(), 1)).await;
}

#[tokio::test]
async fn rows_are_readable_when_the_delivery_resolves() {
    let server = Server::start(quick(), 1).await;
    let mut writer = writer(&server.endpoint, &[]).await;
    let delivery = writer.write(batch(&[("a", 1), ("b", 2), ("a", 3)])).await.unwrap();
    assert!(delivery.await.unwrap().is_empty());
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &Position::Start(StartFrom::Horizon)).await.unwrap();
    let got = read(&mut *reader, 3).await;
    assert_eq!(texts(&got), [r#"{"id":"a","n":1}"#, r#"{"id":"b","n":2}"#, r#"{"id":"a","n":3}"#]);
    assert_eq!(got[1].key, "b", "KEY ENCODE TEXT is the bare text");
}

#[tokio::test]
async fn an_accepted_batch_is_not_sent_before_it_is_polled() {
    let fake = stream(|sent| results((0..sent.len() as u64).map(stored).collect())).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let delivery = writer.write(batch(&[("a", 1)])).await.unwrap();
    assert!(fake.requests("PutRecords").is_empty());
    assert!(delivery.await.unwrap().is_empty());
    assert_eq!(fake.requests("PutRecords").len(), 1);
    assert!(write(&mut *writer, &[]).await.unwrap().is_empty());
    assert_eq!(fake.requests("PutRecords").len(), 1, "an empty batch is no request");
}

#[tokio::test]
async fn a_failed_record_comes_back_and_no_other() {
    let fake = stream(|_| {
        results(vec![
            stored(1),
            failed("ProvisionedThroughputExceededException"),
            stored(2),
            failed("InternalFailure"),
            failed("KMSDisabledException"),
            failed("SomethingAboutThisRecord"),
        ])
    })
    .await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let rows = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)];
    let rejected = write(&mut *writer, &rows).await.unwrap();
    let expected = [
        (1, ErrorKind::Throttled),
        (3, ErrorKind::Unavailable),
        (4, ErrorKind::Unavailable),
        (5, ErrorKind::Rejected),
    ];
    assert_eq!(kinds(&rejected), expected);
    assert!(rejected.iter().all(|r| r.error.ambiguous().is_none()), "the service said what came of them");
}

#[tokio::test]
async fn a_key_stored_out_of_order_comes_back_from_the_inversion_on() {
    let fake = stream(|_| results(vec![stored(10), stored(9), stored(1), stored(11)])).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let rejected = write(&mut *writer, &[("a", 1), ("a", 2), ("b", 1), ("a", 3)]).await.unwrap();
    assert_eq!(kinds(&rejected), [(1, ErrorKind::Unavailable), (3, ErrorKind::Unavailable)]);
}

#[tokio::test]
async fn an_answer_of_the_wrong_length_is_a_bug() {
    let fake = stream(|_| results(vec![stored(1)])).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let error = write(&mut *writer, &[("a", 1), ("b", 2)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bug);
    let text = "request record count 2 not match the response record count 1";
    assert!(error.to_string().contains(text), "{error}");
}

#[tokio::test]
async fn keys_and_sizes_are_checked_before_anything_is_sent() {
    let fake = stream(|sent| results((0..sent.len() as u64).map(stored).collect())).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let (long, fits) = ("ä".repeat(257), "ä".repeat(256));
    let huge = "x".repeat(1 << 20);
    let rejected =
        write(&mut *writer, &[("", 1), (&long, 2), (&fits, 3), ("ok", 4), (&huge, 5)]).await.unwrap();
    let kinds = kinds(&rejected);
    assert_eq!(kinds, [(0, ErrorKind::Rejected), (1, ErrorKind::Rejected), (4, ErrorKind::Rejected)]);
    let text = rejected[1].error.to_string();
    assert!(text.contains("partition key length 257 is outside 1..256") && text.contains("`out`"), "{text}");
    assert_eq!(fake.requests("PutRecords")[0]["Records"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn no_answer_is_ambiguous_since_its_start() {
    let fake = stream(|_| Answer::Silence(Duration::from_secs(30))).await;
    let mut writer = writer(&fake.endpoint, &[("kinesis.sdk.operation_attempt_timeout_ms", "300")]).await;
    let began = Instant::now();
    let error = write(&mut *writer, &[("a", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let since = error.ambiguous().expect("nobody knows what came of it");
    assert!(since >= began && since.duration_since(began) < Duration::from_millis(250));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_proxy_that_gave_up_is_ambiguous_and_a_refused_connection_is_not() {
    let fake = stream(|_| Answer::Status(504)).await;
    let mut writer1 = writer(&fake.endpoint, &[]).await;
    let error = write(&mut *writer1, &[("a", 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.ambiguous().is_some(), "{error:?}");

    let mut writer2 = writer("http://127.0.0.1:1", &[]).await;
    let error = write(&mut *writer2, &[("a", 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.ambiguous().is_none(), "{error:?}");
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_is_for_bisection() {
    let fake = stream(|_| Answer::Error("InvalidArgumentException")).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let error = write(&mut *writer, &[("a", 1), ("b", 2)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn real_throttling_fails_parts_and_retries_keep_the_order_of_keys() {
    let server = Server::start(StoreOptions { enforce_limits: true, ..quick() }, 1).await;
    let mut writer = writer(&server.endpoint, &[]).await;
    let keys: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    let mut pending: Vec<(&str, i64)> = (0..1500_i64).map(|i| (keys[i as usize % 20].as_str(), i)).collect();
    let mut throttled = 0;
    let began = Instant::now();
    while !pending.is_empty() {
        assert!(began.elapsed() < crate::DEADLINE);
        let now: Vec<(&str, i64)> = pending.drain(..pending.len().min(500)).collect();
        let rejected = write(&mut *writer, &now).await.unwrap();
        throttled += rejected.len();
        assert!(rejected.iter().all(|r| r.error.kind() == ErrorKind::Throttled), "{rejected:?}");
        // As the worker does: a failed record, and every later one of its key.
        let failed: HashMap<&str, usize> = rejected.iter().rev().map(|r| (now[r.row].0, r.row)).collect();
        let again = now.iter().enumerate().filter(|(i, (key, _))| failed.get(key).is_some_and(|f| f <= i));
        let again: Vec<(&str, i64)> = again.map(|(_, row)| *row).collect();
        pending.splice(..0, again);
    }
    assert!(throttled > 0, "a shard takes a thousand records a second");
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &Position::Start(StartFrom::Horizon)).await.unwrap();
    let mut last: HashMap<String, i64> = HashMap::new();
    for record in read(&mut *reader, 1500).await {
        let row: Value = serde_json::from_slice(&record.payload).unwrap();
        last.insert(row["id"].as_str().unwrap().to_owned(), row["n"].as_i64().unwrap());
    }
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(last[key], 1480 + i as i64, "the last value of {key} is the last one");
    }
}

#[tokio::test]
async fn much_larger_messages_than_columns_go_in_several_requests() {
    let fake = stream(|sent| results((0..sent.len() as u64).map(stored).collect())).await;
    let mut writer = writer(&fake.endpoint, &[]).await;
    let data = "\u{1}".repeat(700);
    let ids: Vec<String> = (0..1201).map(|i| format!("{}{i}", &data[..100])).collect();
    let rows: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    assert!(write(&mut *writer, &rows).await.unwrap().is_empty());
    let lengths: Vec<usize> =
        fake.requests("PutRecords").iter().map(|r| r["Records"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [500, 500, 201]);
    let first = &fake.requests("PutRecords")[0]["Records"][0];
    let data = BASE64_STANDARD.decode(first["Data"].as_str().unwrap()).unwrap();
    let row: Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(row["id"].as_str(), Some(ids[0].as_str()));
    assert_eq!(first["PartitionKey"].as_str(), Some(ids[0].as_str()));
}

#[tokio::test]
async fn validation_lists_shards() {
    let server = Server::start(quick(), 1).await;
    let (sink, _) = sink_of(options(&server.endpoint, STREAM, &[]));
    sink.validate().await.unwrap();
    let (sink, _) = sink_of(options(&server.endpoint, "nope", &[]));
    let error = sink.validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let fake = Fake::start(|_, _| Answer::Error("AccessDeniedException")).await;
    let (sink, _) = sink_of(options(&fake.endpoint, STREAM, &[]));
    let error = sink.validate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("failed to list shards"), "{error}");
}
