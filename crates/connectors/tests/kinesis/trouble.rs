//! The source against a service in trouble.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use connector::{ErrorKind, Polled};
use formats::kpl;
use futures::FutureExt as _;
use model::{Creation, Cursor, Position, SplitId, StartFrom, Timestamp};
use serde_json::json;
use tokio::sync::oneshot::channel;

use crate::{
    fake::{Answer, Fake, get_records, summary},
    fast_source, read,
    server::STREAM,
};

const HORIZON: Position = Position::Start(StartFrom::Horizon);
const CREATED: i64 = 1_700_000_000;

fn split() -> SplitId {
    SplitId::new(Creation(CREATED * 1000), "shardId-000000000000")
}

fn iterator(token: &str) -> Answer {
    Answer::Ok(json!({"ShardIterator": token}))
}

/// A shard that behaves, but for what `reads` says about each `GetRecords` in turn.
async fn shard(mut reads: impl FnMut(usize) -> Answer + Send + 'static) -> Fake {
    let mut n = 0;
    Fake::start(move |operation, _| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" => iterator("it"),
        _ => {
            n += 1;
            reads(n - 1)
        }
    })
    .await
}

fn numbers(records: &[model::RawRecord]) -> Vec<String> {
    records.iter().map(|r| r.cursor.to_string()).collect()
}

#[tokio::test]
async fn an_expired_iterator_is_made_again_after_the_cursor() {
    let fake = shard(|n| match n {
        0 => get_records(&[1, 2], Some("it"), 0),
        1 => Answer::Error("ExpiredIteratorException"),
        _ => get_records(&[2, 3], Some("it"), 0),
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 3).await), ["1", "2", "3"]);
    let asked = fake.requests("GetShardIterator");
    assert_eq!(asked.len(), 2);
    // With the last record that was read, which is passed over: it proves that nothing after it was trimmed (S8).
    assert_eq!(asked[1]["ShardIteratorType"], "AT_SEQUENCE_NUMBER");
    assert_eq!(asked[1]["StartingSequenceNumber"], "2");
    assert_eq!(reader.gap(), None);
}

#[tokio::test]
async fn throttles_before_the_first_record_do_not_move_the_start() {
    let fake = shard(|n| match n {
        0 | 1 => Answer::Error("ProvisionedThroughputExceededException"),
        2 => Answer::Status(503),
        _ => get_records(&[1], Some("it"), 0),
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[("kinesis.sdk.max_retry_limit", "10")]);
    let from = Position::Start(StartFrom::At(Timestamp(1000)));
    let mut reader = source.open(&split(), &from).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["1"]);
    for asked in fake.requests("GetShardIterator") {
        assert_eq!((&asked["ShardIteratorType"], &asked["Timestamp"]), (&json!("AT_TIMESTAMP"), &json!(1)));
    }
}

#[tokio::test]
async fn trouble_that_stays_is_shown_and_then_healed() {
    let fake =
        shard(|n| if n < 4 { Answer::Error("InternalFailure") } else { get_records(&[1], Some("it"), 0) })
            .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let mut shown = 0;
    loop {
        match reader.next().await {
            Ok(Polled::Records { records, .. }) => {
                assert_eq!(numbers(&records), ["1"]);
                break;
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                shown += 1;
            }
        }
    }
    assert_eq!(shown, 2, "from the third failure in a row on");
}

#[tokio::test]
async fn a_throttle_is_shown_within_seconds() {
    let fake = shard(|_| Answer::Error("ProvisionedThroughputExceededException")).await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let began = Instant::now();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_refusal_is_shown_at_once() {
    let fake = shard(|_| Answer::Error("AccessDeniedException")).await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.to_string(), "failed to read stream `in`: said AccessDeniedException");
}

#[tokio::test]
async fn a_position_that_is_gone_is_a_gap() {
    let fake = Fake::start(|operation, body| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" if body["ShardIteratorType"] == "TRIM_HORIZON" => iterator("it"),
        "GetShardIterator" => Answer::Error("InvalidArgumentException"),
        _ => get_records(&[70], Some("it"), 0),
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    for cursor in ["5", "5:1"] {
        let before = fake.requests("GetShardIterator").len();
        let mut reader = source.open(&split(), &Position::After(Cursor::new(cursor))).await.unwrap();
        assert_eq!(numbers(&read(&mut *reader, 1).await), ["70"]);
        assert_eq!(fake.requests("GetShardIterator")[before]["ShardIteratorType"], "AT_SEQUENCE_NUMBER");
        let gap = reader.gap().expect("the gap is told").message;
        assert!(gap.contains("no longer holds sequence number 5"), "{gap}");
        assert_eq!(reader.gap(), None, "once");
    }
    let start = Position::Start(StartFrom::AtCursor(Cursor::new("5")));
    let mut reader = source.open(&split(), &start).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["70"]);
    assert_eq!(reader.gap(), None, "a wish that cannot be met is no loss");
}

/// S8: an iterator at a number that was trimmed begins at the oldest record, and nothing says so.
#[tokio::test]
async fn a_position_that_was_trimmed_in_silence_is_a_gap() {
    let fake = Fake::start(|operation, _| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" => iterator("it"),
        _ => get_records(&[70], Some("it"), 0),
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &Position::After(Cursor::new("5"))).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["70"]);
    let gap = reader.gap().expect("the gap is told");
    assert!(gap.message.contains("between it and 70, the oldest that is left"), "{}", gap.message);
    assert_eq!(reader.gap(), None, "once");
    // The record that was read last is still there: it is passed over, and nothing is missing.
    let mut reader = source.open(&split(), &Position::After(Cursor::new("70"))).await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Polled::Idle { .. }));
    assert_eq!(reader.gap(), None);
}

#[tokio::test]
async fn a_token_that_expired_restarts_the_listing() {
    let page = |first: u32, token: Option<&str>| {
        let shards: Vec<_> = (first..first + 2)
            .map(|i| {
                json!({"ShardId": format!("shardId-{i:012}"), "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"},
                    "SequenceNumberRange": {"StartingSequenceNumber": "1"}})
            })
            .collect();
        Answer::Ok(json!({"Shards": shards, "NextToken": token}))
    };
    let mut calls = 0;
    let fake = Fake::start(move |operation, body| {
        if operation != "ListShards" {
            return summary(CREATED);
        }
        calls += 1;
        match (body["NextToken"].as_str(), calls) {
            (None, _) => page(0, Some("t1")),
            (Some("t1"), 2) => Answer::Error("ExpiredNextTokenException"),
            // The shard at the border is listed twice.
            (Some("t1"), _) => page(1, Some("t2")),
            _ => page(3, None),
        }
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let listing = source.discover().await.unwrap();
    let names: Vec<&str> = listing.splits.iter().map(|s| &s.id.name()[16..]).collect();
    assert_eq!(names, ["0000", "0001", "0002", "0003", "0004"]);
    for asked in fake.requests("ListShards") {
        assert!(asked["NextToken"].is_null() || asked["StreamName"].is_null(), "a token goes alone: {asked}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_time_limit() {
    let fake = Fake::start(|_, _| Answer::Silence(Duration::from_secs(30))).await;
    let limit = ("kinesis.sdk.operation_attempt_timeout_ms", "200");
    let source = fast_source(&fake.endpoint, STREAM, &[limit]);
    let began = Instant::now();
    let error = source.discover().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.ambiguous().is_some(), "nobody knows what came of it");
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// A slow service is heard although its reader is given up again and again; whoever waits for it needs no memory until then.
#[tokio::test]
async fn an_answer_that_takes_its_time_is_asked_for_once_and_waited_for_without_memory() {
    let (head, head_told) = channel();
    let (body, body_told) = channel();
    let mut told = Some([head_told, body_told]);
    let fake = shard(move |_| match get_records(&[1, 2], Some("it"), 0) {
        Answer::Ok(value) => Answer::Told(value, told.take().expect("it is asked once")),
        other => other,
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    while fake.requests("GetRecords").is_empty() {
        let moment = Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, reader.next()).await.is_err());
    }
    assert!(reader.ready().now_or_never().is_none(), "nobody has answered");
    head.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), reader.ready()).await.unwrap();
    assert!(
        reader.next().now_or_never().is_none(),
        "the body is not read while only its beginning is waited for"
    );
    assert!(reader.ready().now_or_never().is_some(), "it has begun");
    body.send(()).unwrap();
    assert_eq!(numbers(&read(&mut *reader, 2).await), ["1", "2"]);
    assert_eq!(fake.requests("GetRecords").len(), 1);
}

/// I8: small records of an aggregate take more memory than it did.
#[tokio::test]
async fn the_limit_of_a_read_counts_what_comes_out_of_aggregates() {
    let user = || kpl::UserRecord {
        key: Bytes::from_static(b"k"),
        hash_key: None,
        data: Bytes::from_static(b"0123456789"),
    };
    let data = BASE64_STANDARD.encode(kpl::close(&(0..200).map(|_| user()).collect::<Vec<_>>()));
    let fake = shard(move |n| {
        let record = |i: usize| {
            json!({"SequenceNumber": (1 + 50 * n + i).to_string(), "Data": data, "PartitionKey": "k",
                "ApproximateArrivalTimestamp": 1.5})
        };
        let records: Vec<_> = (0..50).map(record).collect();
        Answer::Ok(json!({"Records": records, "MillisBehindLatest": 9, "NextShardIterator": "it"}))
    })
    .await;
    let source = fast_source(&fake.endpoint, STREAM, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let got = read(&mut *reader, 20_000).await;
    let of_one: usize = got[..200].iter().map(model::RawRecord::size).sum();
    let limit = usize::try_from(fake.requests("GetRecords")[1]["Limit"].as_u64().unwrap()).unwrap();
    assert!((1 << 20..=4 << 20).contains(&(limit * of_one)), "{limit} records that hold {of_one} bytes each");
}

#[tokio::test]
async fn a_reader_that_has_caught_up_asks_less() {
    let fake = shard(|_| get_records(&[], Some("it"), 0)).await;
    let idle = ("kinesis.reader.eof_retry_interval_ms", "300");
    let source = fast_source(&fake.endpoint, STREAM, &[idle]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let began = Instant::now();
    for _ in 0..7 {
        assert!(matches!(reader.next().await.unwrap(), Polled::Idle { lag } if lag.is_zero()));
    }
    assert!(began.elapsed() >= Duration::from_millis(600), "two of the seven waited: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_reader_that_is_behind_does_not_slow_down() {
    let fake = shard(|_| get_records(&[], Some("it"), 60_000)).await;
    let idle = ("kinesis.reader.eof_retry_interval_ms", "10000");
    let source = fast_source(&fake.endpoint, STREAM, &[idle]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        assert!(matches!(reader.next().await.unwrap(), Polled::Idle { lag } if lag.as_secs() == 60));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn five_reads_a_second_are_shared_by_the_readers_of_a_process() {
    let fake = shard(|_| get_records(&[], Some("it"), 60_000)).await;
    let source = fast_source(&fake.endpoint, STREAM, &[("kinesis.shard.reads_per_second", "20")]);
    let mut a = source.open(&split(), &HORIZON).await.unwrap();
    let mut b = source.open(&split(), &HORIZON).await.unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    let mut reads = 0;
    while let Ok(polled) = tokio::time::timeout_at(end, async {
        tokio::select! { x = a.next() => x, x = b.next() => x }
    })
    .await
    {
        polled.unwrap();
        reads += 1;
    }
    assert!((10..=43).contains(&reads), "{reads} reads in two seconds");
}
