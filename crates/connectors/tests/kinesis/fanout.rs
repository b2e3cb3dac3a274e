//! Enhanced fan-out, against the emulated service and against one that does what a test says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use connector::{ErrorKind, Listing, Polled, Registered, Registrar, Source, SplitReader, suite};
use ferrokinesis::store::StoreOptions;
use formats::kpl;
use model::{Creation, Cursor, Position, SplitId, Start, StartFrom};
use serde_json::{Value, json};

use crate::{
    DEADLINE,
    fake::{Answer, Fake, Push, event, get_records, last_event, summary},
    fast_source, read, records,
    server::{STREAM, Server, quick},
    texts,
};

const HORIZON: Position = Position::Start(StartFrom::Horizon);
const CREATED: i64 = 1_700_000_000;
const CONSUMER: &str = "app";
const EFO: [(&str, &str); 2] = [("kinesis.consumer.mode", "efo"), ("kinesis.consumer.name", CONSUMER)];

/// A source as one sink of it reads.
struct AsSink(Arc<dyn Source>);

#[async_trait]
impl Source for AsSink {
    async fn start(&self) -> connector::Result<Start> {
        self.0.start().await
    }
    async fn discover(&self) -> connector::Result<Listing> {
        self.0.discover().await
    }
    async fn is_gone(&self, split: &SplitId) -> connector::Result<bool> {
        self.0.is_gone(split).await
    }
    async fn open(&self, split: &SplitId, from: &Position) -> connector::Result<Box<dyn SplitReader>> {
        self.0.registrar().expect("fan-out has a registrar").open(CONSUMER, split, from).await
    }
    fn share(&self, split: &SplitId, readers: u32) {
        self.0.share(split, readers);
    }
}

fn pushed(endpoint: &str, more: &[(&str, &str)]) -> AsSink {
    AsSink(fast_source(endpoint, STREAM, &[&EFO, more].concat()))
}

async fn registered(source: &dyn Source) {
    let registrar = source.registrar().unwrap();
    registrar.register(CONSUMER).await.unwrap();
    reaches(registrar, CONSUMER, Registered::Ready).await;
}

async fn reaches(registrar: &dyn Registrar, name: &str, wanted: Registered) {
    let waiting = async {
        while registrar.find(name).await.unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("in time");
}

/// A service with a stream and a consumer of it.
struct Pushing(Server);

impl Pushing {
    async fn start(options: StoreOptions) -> Self {
        let server = Server::start(options, 1).await;
        registered(&*pushed(&server.endpoint, &[]).0).await;
        Self(server)
    }

    fn source(&self, more: &[(&str, &str)]) -> AsSink {
        pushed(&self.0.endpoint, more)
    }
}

#[async_trait]
impl suite::source::Stream for Pushing {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.source(&[]))
    }
    async fn put(&self, key: &str, payloads: &[String]) {
        self.0.put(key, payloads).await;
    }
    async fn cut(&self, split: &SplitId) {
        self.0.cut(split.name()).await;
    }
}

fn split() -> SplitId {
    SplitId::new(Creation(CREATED * 1000), "shardId-000000000000")
}

/// A service with an active consumer whose subscriptions, in turn, do what `script` says.
async fn scripted(mut script: impl FnMut(usize, &Value) -> Answer + Send + 'static) -> Fake {
    let mut n = 0;
    Fake::start(move |operation, body| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "DescribeStreamConsumer" => described("ACTIVE"),
        "SubscribeToShard" => {
            n += 1;
            script(n - 1, body)
        }
        // What a subscription takes for invalid, an iterator does, too.
        "GetShardIterator" => Answer::Error("InvalidArgumentException"),
        other => panic!("{other} was not to be called"),
    })
    .await
}

pub fn described(status: &str) -> Answer {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/in/consumer/app:1700000000";
    Answer::Ok(
        json!({"ConsumerDescription": {"ConsumerName": CONSUMER, "ConsumerARN": arn, "ConsumerStatus": status,
        "ConsumerCreationTimestamp": CREATED, "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/in"}}),
    )
}

fn numbers(records: &[model::RawRecord]) -> Vec<String> {
    records.iter().map(|r| r.cursor.to_string()).collect()
}

fn minute() -> Push {
    Push::Wait(Duration::from_secs(60))
}

async fn next(reader: &mut dyn SplitReader) -> Polled {
    tokio::time::timeout(DEADLINE, reader.next()).await.expect("in time").expect("reads")
}

#[tokio::test]
async fn the_suite_of_sources_holds_for_fan_out() {
    suite::source::all(|| Pushing::start(quick())).await;
}

#[tokio::test]
async fn subscriptions_that_expire_leave_no_gap_and_repeat_nothing() {
    let service = Pushing::start(StoreOptions { subscribe_to_shard_session_ms: 700, ..quick() }).await;
    let source = service.source(&[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let writing = async {
        for i in 0..40 {
            service.0.put("k", &[format!("n{i}")]).await;
            tokio::time::sleep(Duration::from_millis(90)).await;
        }
    };
    let ((), got) = tokio::join!(writing, read(&mut *reader, 40));
    assert_eq!(texts(&got), (0..40).map(|i| format!("n{i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_closed_shard_is_read_to_its_end_and_its_children_after_it() {
    // One record an event, and children named from the first on.
    let service = Pushing::start(StoreOptions { subscribe_to_shard_event_record_limit: 2, ..quick() }).await;
    service.0.put_many(5, 5, 0).await;
    service.0.cut("shardId-000000000000").await;
    service.0.put_many(6, 6, 0).await;
    let source = service.source(&[]);
    let mut counts = Vec::new();
    for split in source.discover().await.unwrap().splits {
        let mut reader = source.open(&split.id, &HORIZON).await.unwrap();
        let (mut count, mut empty) = (0, 0);
        loop {
            match next(&mut *reader).await {
                Polled::Records { records, .. } => count += records.len(),
                Polled::Idle { .. } if split.closed => {}
                Polled::Idle { .. } if empty < 3 => empty += 1,
                Polled::Idle { .. } => break,
                Polled::End => {
                    assert!(split.closed);
                    break;
                }
            }
        }
        counts.push(count);
    }
    assert_eq!((counts[0], counts[1] + counts[2]), (5, 6));
}

#[tokio::test]
async fn aggregates_are_resumed_inside_a_subscription() {
    let service = Pushing::start(quick()).await;
    let users: Vec<kpl::UserRecord> = (0..4)
        .map(|i| kpl::UserRecord {
            key: Bytes::from_static(b"u"),
            hash_key: None,
            data: Bytes::from(format!("inner{i}")),
        })
        .collect();
    service.0.put("k", &["before".to_owned()]).await;
    service.0.put_bytes("a", kpl::close(&users).to_vec()).await;
    service.0.put("k", &["after".to_owned()]).await;
    let source = service.source(&[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let whole = read(&mut *reader, 6).await;
    assert_eq!(texts(&whole), ["before", "inner0", "inner1", "inner2", "inner3", "after"]);
    for (i, record) in whole[..5].iter().enumerate() {
        let mut reader = source.open(&split, &Position::After(record.cursor.clone())).await.unwrap();
        assert_eq!(texts(&read(&mut *reader, 5 - i).await), texts(&whole)[i + 1..], "after {i}");
        assert_eq!(reader.gap(), None);
    }
}

#[tokio::test]
async fn a_quiet_shard_moves_on_and_is_resumed_where_it_was() {
    let service = Pushing::start(quick()).await;
    let source = service.source(&[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    assert!(matches!(next(&mut *reader).await, Polled::Idle { lag } if lag.is_zero()));
    let cursor = reader.passed().expect("a continuation number without a record");
    assert!(cursor.as_str().contains(":@") && reader.passed().is_none(), "{cursor}");
    service.0.put("k", &["one".to_owned(), "two".to_owned()]).await;
    for source in [&source as &dyn Source, &*fast_source(&service.0.endpoint, STREAM, &[])] {
        let mut reader = source.open(&split, &Position::After(cursor.clone())).await.unwrap();
        assert_eq!(texts(&read(&mut *reader, 2).await), ["one", "two"], "by either way of reading");
        assert_eq!(reader.gap(), None);
    }
}

#[tokio::test]
async fn a_renewal_overlaps_and_hands_out_everything_once() {
    let fake = scripted(|n, _| match n {
        0 => Answer::Events(vec![
            event(&[1, 2], Some(2), 0),
            // Comes while the second subscription is made, or not at all.
            Push::Wait(Duration::from_millis(950)),
            event(&[3], Some(3), 0),
            Push::Wait(Duration::from_millis(150)),
            event(&[4], Some(4), 0),
            minute(),
        ]),
        _ => Answer::Events(vec![
            Push::Wait(Duration::from_millis(300)),
            event(&[3, 4], Some(4), 0),
            event(&[5], Some(5), 0),
            minute(),
        ]),
    })
    .await;
    let source = pushed(&fake.endpoint, &[("kinesis.consumer.renew_interval_ms", "1000")]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 5).await), ["1", "2", "3", "4", "5"]);
    let calls = fake.requests("SubscribeToShard");
    assert_eq!(calls[0]["StartingPosition"]["Type"], "TRIM_HORIZON");
    assert_eq!(calls[1]["StartingPosition"]["Type"], "AFTER_SEQUENCE_NUMBER");
    assert!(
        ["2", "3"].contains(&calls[1]["StartingPosition"]["SequenceNumber"].as_str().unwrap()),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_given_up() {
    let fake = scripted(|n, _| match n {
        0 => Answer::Events(vec![event(&[1], Some(1), 0), minute()]),
        // Silent from the first moment on.
        1 => Answer::Events(vec![minute()]),
        2 => Answer::Silence(Duration::from_secs(60)),
        _ => Answer::Events(vec![event(&[2], Some(2), 0), minute()]),
    })
    .await;
    let source = pushed(&fake.endpoint, &[("kinesis.consumer.silence_timeout_ms", "1000")]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let began = Instant::now();
    assert_eq!(numbers(&read(&mut *reader, 2).await), ["1", "2"]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(fake.requests("SubscribeToShard").len(), 4);
}

#[tokio::test]
async fn time_in_which_nobody_listens_is_no_silence() {
    let fake =
        scripted(|_, _| Answer::Events(vec![event(&[1], Some(1), 0), event(&[2], Some(2), 0), minute()]))
            .await;
    let source = pushed(&fake.endpoint, &[("kinesis.consumer.silence_timeout_ms", "1000")]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["1"]);
    // A destination that stands still.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["2"]);
    assert_eq!(fake.requests("SubscribeToShard").len(), 1);
}

#[tokio::test]
async fn a_shard_that_is_in_use_is_asked_again_after_one_second_and_then_after_five() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let fake = scripted(move |n, _| {
        seen.lock().unwrap().push(Instant::now());
        match n {
            0 | 1 => Answer::Error("ResourceInUseException"),
            2 => Answer::Events(vec![event(&[1], Some(1), 0), Push::Exception("ResourceInUseException")]),
            _ => Answer::Events(vec![event(&[2], Some(2), 0), minute()]),
        }
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 2).await), ["1", "2"]);
    let times = times.lock().unwrap().clone();
    let gaps: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!((1000..3000).contains(&gaps[0]) && (5000..8000).contains(&gaps[1]), "{gaps:?}");
    assert!(gaps[2] >= 1000, "taken over, it does not fight back at once: {gaps:?}");
}

#[tokio::test]
async fn the_end_needs_its_children_or_to_be_told_twice() {
    let fake = scripted(|_, _| Answer::Events(vec![event(&[1], Some(1), 0), last_event(&[2])])).await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 2).await), ["1", "2"]);
    for _ in 0..2 {
        assert!(matches!(next(&mut *reader).await, Polled::End));
    }
    assert_eq!(fake.requests("SubscribeToShard").len(), 1);

    let fake = scripted(|n, _| match n {
        // An event that is broken is no end.
        0 => Answer::Events(vec![event(&[1], None, 0), minute()]),
        1 => Answer::Events(vec![event(&[2], Some(2), 0), event(&[], None, 0), minute()]),
        _ => Answer::Events(vec![event(&[], None, 0), minute()]),
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 2).await), ["1", "2"]);
    while !matches!(next(&mut *reader).await, Polled::End) {}
    assert_eq!(fake.requests("SubscribeToShard").len(), 3);
}

#[tokio::test]
async fn records_that_aged_out_are_told_as_a_gap() {
    let fake = scripted(|n, body| match (n, body["StartingPosition"]["Type"].as_str()) {
        // Says so.
        (0, Some("AT_SEQUENCE_NUMBER")) => Answer::Error("InvalidArgumentException"),
        (1, Some("TRIM_HORIZON")) => Answer::Events(vec![event(&[70], Some(70), 0), minute()]),
        // Begins at its oldest record without a word.
        (2, Some("AT_SEQUENCE_NUMBER")) => Answer::Events(vec![event(&[80], Some(80), 0), minute()]),
        other => panic!("{other:?}"),
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    for (first, said) in [("70", "no longer holds sequence number 5"), ("80", "records between it and 80")] {
        let mut reader = source.open(&split(), &Position::After(Cursor::new("5"))).await.unwrap();
        assert_eq!(numbers(&read(&mut *reader, 1).await), [first]);
        let gap = reader.gap().expect("the gap is told").message;
        assert!(gap.contains(said), "{gap}");
    }
}

#[tokio::test]
async fn only_the_place_is_given_up_when_an_argument_is_invalid() {
    let fake = both(|operation| match operation {
        "DescribeStreamConsumer" => described("ACTIVE"),
        _ => Answer::Error("InvalidArgumentException"),
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &Position::After(Cursor::new("5"))).await.unwrap();
    for _ in 0..2 {
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert_eq!(reader.gap(), None);
    for call in fake.requests("SubscribeToShard") {
        assert_eq!(call["StartingPosition"]["SequenceNumber"], "5", "the place is kept: {call}");
    }
}

#[tokio::test]
async fn what_nobody_asks_for_stays_at_the_service() {
    let left = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&left);
    let fake = scripted(move |_, _| {
        let data = "A".repeat(1 << 20);
        let records = [json!({"SequenceNumber": "7", "Data": data, "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5})];
        let large = json!({"Records": records, "ContinuationSequenceNumber": "7", "MillisBehindLatest": 0});
        Answer::Events(vec![Push::Forever(large, Arc::clone(&count))])
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    tokio::time::timeout(DEADLINE, reader.ready()).await.unwrap();
    // The sender is stopped by the connection: it comes to rest although it would go on for ever.
    let mut before = usize::MAX;
    while before != left.load(Ordering::SeqCst) {
        before = left.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        reader.ready().await;
    }
    assert!(before <= 16, "{before} MiB were taken without being asked for");
    assert_eq!(records(next(&mut *reader).await).len(), 1);
}

#[tokio::test]
async fn a_subscription_that_nobody_reads_is_closed_and_opened_again() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let fake = scripted(move |n, _| {
        let number = (n + 1).to_string();
        let record =
            json!({"SequenceNumber": number, "Data": "eA==", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1.5});
        let event = json!({"Records": [record], "ContinuationSequenceNumber": number, "MillisBehindLatest": 0});
        Answer::Events(vec![Push::Forever(event, Arc::clone(&count))])
    })
    .await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["1"]);
    reader.ready().await;
    // The script and the answer under way hold the counter.
    assert_eq!(Arc::strong_count(&sent), 3);
    let closing = async {
        while Arc::strong_count(&sent) > 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closing).await.expect("the connection is given back");
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["2"]);
    let calls = fake.requests("SubscribeToShard");
    assert_eq!((calls.len(), &calls[1]["StartingPosition"]["SequenceNumber"]), (2, &json!("1")));
}

#[tokio::test]
async fn a_consumer_is_registered_found_and_removed() {
    let server = Server::start(quick(), 1).await;
    let source = pushed(&server.endpoint, &[]).0;
    let registrar = source.registrar().unwrap();
    assert_eq!(registrar.find(CONSUMER).await.unwrap(), Registered::Absent);
    registrar.register(CONSUMER).await.unwrap();
    registrar.register(CONSUMER).await.expect("once more is no error");
    reaches(registrar, CONSUMER, Registered::Ready).await;
    registrar.deregister(CONSUMER).await.unwrap();
    reaches(registrar, CONSUMER, Registered::Absent).await;
    registrar.deregister(CONSUMER).await.expect("once more is no error");
    for i in 0..20 {
        registrar.register(&format!("c{i}")).await.unwrap();
    }
    let error = registrar.register("one-too-many").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("limited number of consumers (20"), "{error}");
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/in/consumer/nobody:1";
    let error = registrar.find(arn).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn a_consumer_made_anew_is_found_by_its_name() {
    let service = Pushing::start(StoreOptions { subscribe_to_shard_session_ms: 500, ..quick() }).await;
    let source = service.source(&[]);
    let split = source.discover().await.unwrap().splits[0].id.clone();
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    service.0.put("k", &["one".to_owned()]).await;
    assert_eq!(texts(&read(&mut *reader, 1).await), ["one"]);
    let registrar = source.0.registrar().unwrap();
    registrar.deregister(CONSUMER).await.unwrap();
    reaches(registrar, CONSUMER, Registered::Absent).await;
    // The name has whole seconds in its ARN: another second, another consumer.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reading = async {
        loop {
            match reader.next().await {
                Ok(polled) => {
                    let got = records(polled);
                    if !got.is_empty() {
                        return got;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    assert!(
                        error.to_string().contains("consumer `app` of stream `in` is not registered"),
                        "{error}"
                    );
                    registered(&*source.0).await;
                    service.0.put("k", &["two".to_owned()]).await;
                }
            }
        }
    };
    assert_eq!(texts(&tokio::time::timeout(DEADLINE, reading).await.unwrap()), ["two"]);
}

#[tokio::test]
async fn who_may_not_subscribe_is_told_what_to_allow() {
    let fake = scripted(|_, _| Answer::Error("AccessDeniedException")).await;
    let source = pushed(&fake.endpoint, &[]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("kinesis:SubscribeToShard"), "{error}");
}

/// A service that has polling, and fan-out as `fanout` says.
async fn both(mut fanout: impl FnMut(&str) -> Answer + Send + 'static) -> Fake {
    let mut polled = 0;
    Fake::start(move |operation, _| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "GetShardIterator" => Answer::Ok(json!({"ShardIterator": "it"})),
        "GetRecords" => {
            polled += 1;
            get_records(&[polled], Some("it"), 0)
        }
        other => fanout(other),
    })
    .await
}

#[tokio::test]
async fn auto_polls_where_there_is_no_fan_out() {
    let auto = ("kinesis.consumer.mode", "auto");
    for (described_as, subscribed) in [
        (Some("ResourceNotFoundException"), None),
        (Some("AccessDeniedException"), None),
        (None, Some("AccessDeniedException")),
    ] {
        let fake = both(move |operation| match (operation, described_as, subscribed) {
            ("DescribeStreamConsumer", Some(code), _) | ("SubscribeToShard", _, Some(code)) => {
                Answer::Error(code)
            }
            _ => described("ACTIVE"),
        })
        .await;
        let source = pushed(&fake.endpoint, &[auto]);
        assert!(source.0.registrar().unwrap().optional());
        let mut reader = source.open(&split(), &HORIZON).await.unwrap();
        assert_eq!(numbers(&read(&mut *reader, 3).await), ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn auto_tells_a_loss_that_it_found_out_before_it_changed_its_way() {
    let mut subscribed = 0;
    let fake = Fake::start(move |operation, body| match operation {
        "DescribeStreamSummary" => summary(CREATED),
        "DescribeStreamConsumer" => described("ACTIVE"),
        "SubscribeToShard" => {
            subscribed += 1;
            let gone = subscribed == 1;
            Answer::Error(if gone { "InvalidArgumentException" } else { "AccessDeniedException" })
        }
        "GetShardIterator" if body["ShardIteratorType"] == "TRIM_HORIZON" => {
            Answer::Ok(json!({"ShardIterator": "it"}))
        }
        "GetShardIterator" => Answer::Error("InvalidArgumentException"),
        _ => get_records(&[70], Some("it"), 0),
    })
    .await;
    let source = pushed(&fake.endpoint, &[("kinesis.consumer.mode", "auto")]);
    let mut reader = source.open(&split(), &Position::After(Cursor::new("5"))).await.unwrap();
    assert_eq!(numbers(&read(&mut *reader, 1).await), ["70"]);
    let gap = reader.gap().expect("the gap is told").message;
    assert!(gap.contains("no longer holds sequence number 5"), "{gap}");
    assert_eq!(reader.gap(), None, "once");
}

#[tokio::test]
async fn auto_subscribes_once_the_consumer_is_there() {
    let mut asked = 0;
    let fake = both(move |operation| match operation {
        "DescribeStreamConsumer" => {
            asked += 1;
            if asked <= 3 { Answer::Error("ResourceNotFoundException") } else { described("ACTIVE") }
        }
        _ => Answer::Events(vec![event(&[1_000_000], Some(1_000_000), 0), minute()]),
    })
    .await;
    let source = pushed(&fake.endpoint, &[("kinesis.consumer.mode", "auto")]);
    let mut reader = source.open(&split(), &HORIZON).await.unwrap();
    let reading = async {
        loop {
            let got = numbers(&read(&mut *reader, 1).await);
            if got.contains(&"1000000".to_owned()) {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("within about ten seconds");
    let last = fake.requests("SubscribeToShard").pop().unwrap();
    // It asks for the last polled record once more, to know that nothing is missing.
    assert_eq!(last["StartingPosition"]["Type"], "AT_SEQUENCE_NUMBER");
}
