//! Faults of single calls.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::error::SdkError;
use faults::{Before, Entries, Fault, Limits, Rule};

use shardwright_integration_tests::endpoint;

use crate::front::{STREAM, code, front, shard};

#[tokio::test]
async fn without_rules_records_come_through_in_order() {
    let front = front(1).await;
    let put = front.put_through(&front.client, 20).await;
    assert!(put.iter().all(Result::is_ok));
    let answer = front.read(&front.iterator(&shard(0)).await).await.unwrap();
    let keys: Vec<&str> = answer.records().iter().map(|r| r.partition_key().unwrap()).collect();
    assert_eq!(keys, (0..20).map(|i| format!("key-{i}")).collect::<Vec<_>>());
    // The endpoint's own iterator is not one of the proxy's, and the other way round.
    let theirs = endpoint::client(&front.url).get_shard_iterator().stream_name(STREAM).shard_id(shard(0));
    let theirs = theirs.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
    let refused = front.read(theirs.shard_iterator().unwrap()).await.unwrap_err();
    assert_eq!(refused, "InvalidArgumentException");
}

#[tokio::test]
async fn one_shard_is_throttled_and_the_other_is_not() {
    let front = front(2).await;
    let id = front.faults.add(Rule::new(Fault::throttled()).on("GetRecords").shard(&shard(1)).times(2));
    let (zero, one) = (front.iterator(&shard(0)).await, front.iterator(&shard(1)).await);
    for _ in 0..2 {
        assert!(front.read(&zero).await.is_ok());
        assert_eq!(front.read(&one).await.unwrap_err(), "ProvisionedThroughputExceededException");
    }
    assert!(front.read(&one).await.is_ok());
    assert_eq!(front.faults.hits(id), 2);
}

#[tokio::test]
async fn an_empty_success_keeps_the_place_and_its_lag_grows() {
    let front = front(1).await;
    front.put(3).await;
    let id = front.faults.add(Rule::new(Fault::Empty).on("GetRecords"));
    let first = front.read(&front.iterator(&shard(0)).await).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = front.read(first.next_shard_iterator().unwrap()).await.unwrap();
    assert!(first.records().is_empty() && second.records().is_empty());
    front.faults.remove(id);
    let third = front.read(second.next_shard_iterator().unwrap()).await.unwrap();
    assert_eq!(third.records().len(), 3);
    front.faults.add(Rule::new(Fault::Empty).on("GetRecords"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fourth = front.read(third.next_shard_iterator().unwrap()).await.unwrap();
    assert!(fourth.millis_behind_latest().unwrap() >= 50);
}

#[tokio::test]
async fn the_limits_of_the_service_are_kept() {
    let front = front(1).await;
    front.put(3).await;
    let iterator = front.iterator(&shard(0)).await;
    front.faults.set_limits(Some(Limits::default()));
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(front.read(&iterator).await.err());
    }
    assert!(codes[..5].iter().all(Option::is_none), "{codes:?}");
    assert!(codes.iter().flatten().any(|code| code == "ProvisionedThroughputExceededException"), "{codes:?}");
    front.faults.set_limits(Some(Limits { empty: true, ..Limits::default() }));
    let empty = front.read(&iterator).await.unwrap();
    assert!(empty.records().is_empty() && empty.next_shard_iterator().is_some());
}

#[tokio::test]
async fn chosen_entries_are_refused_and_are_not_stored() {
    let front = front(1).await;
    let fail = |entries| Fault::FailEntries { code: "InternalFailure".to_owned(), entries };
    front.faults.add(Rule::new(fail(Entries::At(vec![1, 3]))).times(1));
    front.faults.add(Rule::new(fail(Entries::Keys(vec!["key-0".to_owned()]))).times(1));
    let put = front.put_through(&front.client, 5).await;
    let failed: Vec<bool> = put.iter().map(Result::is_err).collect();
    assert_eq!(failed, [true, true, false, true, false]);
    assert_eq!(put[1], Err("InternalFailure".to_owned()));
    let answer = front.read(&front.iterator(&shard(0)).await).await.unwrap();
    let stored: Vec<&str> = answer.records().iter().map(|r| r.sequence_number()).collect();
    assert_eq!(stored, [put[2].clone().unwrap(), put[4].clone().unwrap()]);
    front.faults.add(Rule::new(fail(Entries::All)).times(1));
    assert!(front.put_through(&front.client, 2).await.iter().all(Result::is_err));
    front.faults.add(Rule::new(fail(Entries::Share(0.5))).times(1));
    let half = front.put_through(&front.client, 200).await.iter().filter(|r| r.is_err()).count();
    assert!((60..140).contains(&half), "{half} of 200");
}

#[tokio::test]
async fn a_lost_answer_is_carried_out_and_a_cut_call_is_not() {
    let front = front(1).await;
    let put = || front.client.put_record().stream_name(STREAM).partition_key("k").data(vec![1].into()).send();
    front.faults.add(Rule::new(Fault::Cut).on("PutRecord").times(1));
    assert!(matches!(put().await.unwrap_err(), SdkError::DispatchFailure(_)));
    let iterator = front.iterator(&shard(0)).await;
    assert_eq!(front.read(&iterator).await.unwrap().records().len(), 0);
    front.faults.add(Rule::new(Fault::LoseAnswer).on("PutRecord").times(1));
    assert!(matches!(put().await.unwrap_err(), SdkError::DispatchFailure(_)));
    assert_eq!(front.read(&iterator).await.unwrap().records().len(), 1);
    front.faults.add(Rule::new(Fault::SwallowAnswer).on("PutRecord").times(1));
    assert!(matches!(put().await.unwrap_err(), SdkError::TimeoutError(_)));
    front.faults.add(Rule::new(Fault::HalfOpen).on("PutRecord").times(1));
    assert!(matches!(put().await.unwrap_err(), SdkError::TimeoutError(_)));
    assert_eq!(front.read(&iterator).await.unwrap().records().len(), 2);
}

#[tokio::test]
async fn errors_of_any_kind_and_delays() {
    let front = front(1).await;
    front.faults.add(Rule::new(Fault::unavailable()).on("DescribeStreamSummary").times(1));
    let describe = || front.client.describe_stream_summary().stream_name(STREAM).send();
    let error = describe().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(code(&error), "ServiceUnavailable");
    front.faults.add(Rule::new(Fault::Delay { ms: 200, jitter_ms: 50 }).times(1));
    let began = Instant::now();
    describe().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn iterators_expire() {
    let front = front(1).await;
    front.put(1).await;
    let old = front.iterator(&shard(0)).await;
    front.faults.expire_iterators(Some((STREAM, &shard(0))));
    assert_eq!(front.read(&old).await.unwrap_err(), "ExpiredIteratorException");
    tokio::time::sleep(Duration::from_millis(2)).await;
    let new = front.iterator(&shard(0)).await;
    assert_eq!(front.read(&new).await.unwrap().records().len(), 1);
    front.faults.add(Rule::new(Fault::ExpireIterator).times(1));
    assert_eq!(front.read(&new).await.unwrap_err(), "ExpiredIteratorException");
    assert!(front.read(&new).await.is_ok());
    front.faults.set_iterator_life(Duration::ZERO);
    assert_eq!(front.read(&new).await.unwrap_err(), "ExpiredIteratorException");
}

#[tokio::test]
async fn what_is_trimmed_is_gone_and_old_positions_move_up() {
    let front = front(1).await;
    let numbers = front.put(5).await;
    front.faults.trim(STREAM, &shard(0), Before::Number(numbers[3].clone()));
    let after = front.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0));
    let after =
        after.shard_iterator_type("AFTER_SEQUENCE_NUMBER".into()).starting_sequence_number(&numbers[0]);
    let iterator = after.send().await.unwrap().shard_iterator.unwrap();
    let answer = front.read(&iterator).await.unwrap();
    let left: Vec<&str> = answer.records().iter().map(|r| r.sequence_number()).collect();
    assert_eq!(left, [&numbers[3], &numbers[4]]);
    front.faults.set_retention(STREAM, 0);
    let described = front.client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    assert_eq!(described.stream_description_summary().unwrap().retention_period_hours(), 0);
    let later = i64::try_from(u64::MAX >> 2).unwrap();
    front.faults.trim(STREAM, &shard(0), Before::Moment(later));
    assert!(front.read(&iterator).await.unwrap().records().is_empty());
}
