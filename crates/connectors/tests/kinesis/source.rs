//! The source against the emulated service.

use std::time::{Duration, Instant};

use bytes::Bytes;
use connector::{ErrorKind, Polled, suite};
use formats::kpl;
use model::{Position, SplitId, StartFrom};

use crate::{
    DEADLINE, fast_source, options, read, records,
    server::{STREAM, Server, quick},
    source_of, texts,
};

const HORIZON: Position = Position::Start(StartFrom::Horizon);

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("n{i}")).collect()
}

async fn only_split(source: &dyn connector::Source) -> SplitId {
    let listing = source.discover().await.unwrap();
    assert_eq!(listing.splits.len(), 1);
    listing.splits[0].id.clone()
}

#[tokio::test]
async fn the_suite_of_sources_holds() {
    suite::source::all(|| Server::start(quick(), 1)).await;
}

/// A second emulator, by other authors: what only one of them gets wrong shows.
#[tokio::test]
async fn the_suite_of_sources_holds_on_kinesis_local() {
    let Ok(endpoint) = std::env::var("SHARDWRIGHT_TEST_KINESIS_LOCAL") else {
        return println!("skipped: SHARDWRIGHT_TEST_KINESIS_LOCAL names no running kinesis-local");
    };
    let streams = std::sync::atomic::AtomicU32::new(0);
    let started = std::process::id();
    suite::source::all(|| {
        let n = streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Server::guest(&endpoint, format!("suite-{started}-{n}"))
    })
    .await;
}

#[tokio::test]
async fn a_split_and_a_merge_lose_nothing() {
    let server = Server::start(quick(), 1).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    server.put_many(100, 10, 0).await;
    server.cut("shardId-000000000000").await;
    server.put_many(100, 10, 0).await;
    server.merge("shardId-000000000001", "shardId-000000000002").await;
    server.put_many(100, 10, 0).await;
    let listing = source.discover().await.unwrap();
    let parents: Vec<usize> = listing.splits.iter().map(|s| s.parents.len()).collect();
    assert_eq!(parents, [0, 1, 1, 2]);
    assert_eq!(listing.splits.iter().map(|s| s.closed).collect::<Vec<_>>(), [true, true, true, false]);
    let mut counts = Vec::new();
    for split in &listing.splits {
        let mut reader = source.open(&split.id, &HORIZON).await.unwrap();
        let mut count = 0;
        let reading = async {
            loop {
                match reader.next().await.unwrap() {
                    Polled::Records { records, .. } => count += records.len(),
                    Polled::End => break,
                    Polled::Idle { .. } if !split.closed => break,
                    Polled::Idle { .. } => {}
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap();
        counts.push(count);
    }
    assert_eq!((counts[0], counts[1] + counts[2], counts[3]), (100, 100, 100));
}

#[tokio::test]
async fn aggregates_are_opened_and_resumed_inside() {
    let server = Server::start(quick(), 1).await;
    let users: Vec<kpl::UserRecord> = (0..4)
        .map(|i| kpl::UserRecord {
            key: Bytes::from(format!("user{i}")),
            hash_key: None,
            data: Bytes::from(format!("inner{i}")),
        })
        .collect();
    server.put("k", &["before".to_owned()]).await;
    server.put_bytes("a", kpl::close(&users).to_vec()).await;
    server.put("k", &["after".to_owned()]).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let whole = read(&mut *reader, 6).await;
    assert_eq!(texts(&whole), ["before", "inner0", "inner1", "inner2", "inner3", "after"]);
    assert_eq!(whole[2].key, "user1");
    assert!(whole[1..5].iter().all(|r| r.cursor.offset() == whole[1].cursor.offset()));
    for (i, record) in whole[..5].iter().enumerate() {
        let mut reader = source.open(&split, &Position::After(record.cursor.clone())).await.unwrap();
        assert_eq!(texts(&read(&mut *reader, 5 - i).await), texts(&whole)[i + 1..], "after {i}");
    }
}

#[tokio::test]
async fn latest_begins_at_the_services_present() {
    let server = Server::start(quick(), 1).await;
    let source = fast_source(&server.endpoint, STREAM, &[("scan.startup.mode", "latest")]);
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let start = source.start().await.unwrap();
    let StartFrom::At(at) = start.default else { panic!("latest is a moment: {start:?}") };
    assert!((now - 4000..=now).contains(&at.0), "{} is two to four seconds before {now}", at.0);
    server.put("k", &["new".to_owned()]).await;
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &Position::Start(start.default)).await.unwrap();
    assert_eq!(texts(&read(&mut *reader, 1).await), ["new"]);
}

#[tokio::test]
async fn a_moment_in_the_future_is_waited_for() {
    let server = Server::start(quick(), 1).await;
    server.put("k", &["old".to_owned()]).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = only_split(&*source).await;
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let moment = model::Timestamp((now / 1000 + 2) * 1000);
    let mut reader = source.open(&split, &Position::Start(StartFrom::At(moment))).await.unwrap();
    let mut waited = false;
    let reading = async {
        loop {
            match reader.next().await {
                Ok(polled) => {
                    let got = records(polled);
                    if !got.is_empty() {
                        return got;
                    }
                    server.put("k", &["new".to_owned()]).await;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    assert!(error.to_string().contains("does not take the start"), "{error}");
                    waited = true;
                }
            }
        }
    };
    let got = tokio::time::timeout(DEADLINE, reading).await.unwrap();
    assert_eq!(texts(&got)[0], "new", "what is older than the moment is not read");
    assert!(waited, "the wait was shown");
}

#[tokio::test]
async fn a_sequence_number_begins_in_its_own_shard() {
    let server = Server::start(quick(), 2).await;
    server.put_many(20, 20, 0).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = source.discover().await.unwrap().splits[1].id.clone();
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let third = read(&mut *reader, 3).await[2].clone();
    let number = third.cursor.offset().to_owned();
    let mode = ("scan.startup.mode", "sequence_number");
    let source = fast_source(&server.endpoint, STREAM, &[mode, ("scan.startup.sequence_number", &number)]);
    let start = source.start().await.unwrap();
    assert_eq!(start.default, StartFrom::Horizon);
    assert_eq!(start.splits.keys().collect::<Vec<_>>(), [split.name()]);
    let mut reader = source.open(&split, &Position::Start(start.of(&split).clone())).await.unwrap();
    assert_eq!(read(&mut *reader, 1).await[0].cursor, third.cursor, "inclusive");

    let source = fast_source(&server.endpoint, STREAM, &[mode, ("scan.startup.sequence_number", "4950")]);
    let error = source.start().await.unwrap_err().to_string();
    assert_eq!(error, "scan.startup.sequence_number 4950 is not valid for any shard of stream \"in\"");
}

#[tokio::test]
async fn many_records_come_once_and_in_order() {
    let server = Server::start(quick(), 1).await;
    server.put_many(25_000, 50, 0).await;
    let source =
        fast_source(&server.endpoint, STREAM, &[("kinesis.shard.read_bytes_per_second", "1000000000")]);
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let got = read(&mut *reader, 25_000).await;
    for (i, record) in got.iter().enumerate() {
        assert!(record.payload.starts_with(format!("{i} ").as_bytes()));
    }
}

#[tokio::test]
async fn an_answer_stays_near_four_megabytes() {
    let server = Server::start(quick(), 1).await;
    server.put_many(600, 3, 50_000).await;
    let source =
        fast_source(&server.endpoint, STREAM, &[("kinesis.shard.read_bytes_per_second", "1000000000")]);
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    let (mut left, mut sizes) = (600, Vec::new());
    while left > 0 {
        let got = records(reader.next().await.unwrap());
        left -= got.len();
        if !got.is_empty() {
            sizes.push(got.iter().map(|r| r.payload.len()).sum::<usize>());
        }
    }
    assert!(sizes[1..].iter().all(|size| *size <= 5 << 20), "{sizes:?}");
}

#[tokio::test]
async fn a_stream_made_again_is_another_stream() {
    let server = Server::start(quick(), 1).await;
    server.put("k", &numbered(0..3)).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let old = only_split(&*source).await;
    server.client.delete_stream().stream_name(STREAM).send().await.unwrap();
    // The creation has whole seconds here: make it again until it differs.
    let making = async {
        loop {
            if server.client.create_stream().stream_name(STREAM).shard_count(1).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            server.active().await;
            if source.discover().await.unwrap().creation != old.creation() {
                return;
            }
            server.client.delete_stream().stream_name(STREAM).send().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, making).await.unwrap();
    server.put("k", &numbered(3..6)).await;
    let mut reader = source.open(&old, &HORIZON).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("was deleted and created again"), "{error}");
    assert!(source.is_gone(&old).await.unwrap());
}

#[tokio::test]
async fn a_shard_that_does_not_exist_is_gone_but_a_stream_is_not() {
    let server = Server::start(quick(), 1).await;
    let source = fast_source(&server.endpoint, STREAM, &[]);
    let split = only_split(&*source).await;
    assert!(!source.is_gone(&split).await.unwrap());
    assert!(source.is_gone(&SplitId::new(split.creation(), "shardId-000000000099")).await.unwrap());
    server.client.delete_stream().stream_name(STREAM).send().await.unwrap();
    let asking = async {
        // The deletion takes a moment; then the question fails instead of saying that all shards are gone.
        loop {
            match source.is_gone(&split).await {
                Err(error) => return error,
                Ok(gone) => assert!(!gone),
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, asking).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn a_stream_is_found_by_its_arn() {
    let server = Server::start(quick(), 1).await;
    server.put("k", &numbered(0..2)).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/in";
    let source = source_of(options(&server.endpoint, arn, &[("aws.region", "")]));
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    assert_eq!(texts(&read(&mut *reader, 2).await), numbered(0..2));
}

#[tokio::test]
async fn what_cannot_be_reached_says_so_in_time() {
    let source = fast_source("http://127.0.0.1:1", STREAM, &[]);
    let began = Instant::now();
    let error = source.discover().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
    let mut reader =
        source.open(&SplitId::new(model::Creation(1), "shardId-000000000000"), &HORIZON).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(error.is_transient() && error.ambiguous().is_none(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_cannot_be_reached() {
    let server = Server::start(quick(), 1).await;
    server.put("k", &numbered(0..2)).await;
    let both = format!("127.0.0.1:1,{}", server.endpoint);
    let source = fast_source(&both, STREAM, &[]);
    let split = only_split(&*source).await;
    let mut reader = source.open(&split, &HORIZON).await.unwrap();
    assert_eq!(texts(&read(&mut *reader, 2).await), numbered(0..2));
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_named() {
    let server = Server::start(quick(), 1).await;
    let source = fast_source(&server.endpoint, "nope", &[]);
    let error = source.discover().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`nope`"), "{error}");
}
