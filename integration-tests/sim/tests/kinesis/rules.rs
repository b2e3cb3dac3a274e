//! The simulated Kinesis keeps the rules of the real one: asked as the SDK asks, by operation and JSON.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Value, json};
use shardwright_sim::kinesis::{Answer, EntryFailure, Model, Request, Shape, Throttle, shard_id};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn model(shards: u32) -> Model {
    let mut model = Model::new(7);
    model.create(Duration::ZERO, "in", Shape { shards, ..Shape::default() });
    model
}

fn serve(model: &mut Model, now: Duration, operation: &str, body: &Value) -> Answer {
    let (target, body) = (format!("Kinesis_20131202.{operation}"), body.to_string());
    model.serve(now, &Request { target: &target, signed: None, body: body.as_bytes() })
}

fn ask(model: &mut Model, now: Duration, operation: &str, body: Value) -> Value {
    let answer = serve(model, now, operation, &body);
    assert_eq!(answer.status, 200, "{operation}: {}", answer.body);
    answer.body
}

/// The code of an operation that is refused.
fn refused(model: &mut Model, now: Duration, operation: &str, body: Value) -> String {
    let answer = serve(model, now, operation, &body);
    assert_ne!(answer.status, 200, "{operation}: {}", answer.body);
    answer.body["__type"].as_str().unwrap().to_owned()
}

fn iterator_body(shard: u32, kind: &str) -> Value {
    json!({ "StreamName": "in", "ShardId": shard_id(shard), "ShardIteratorType": kind })
}

fn iterator(model: &mut Model, now: Duration, shard: u32, kind: &str) -> String {
    let answer = ask(model, now, "GetShardIterator", iterator_body(shard, kind));
    answer["ShardIterator"].as_str().unwrap().to_owned()
}

fn read(model: &mut Model, now: Duration, iterator: &str) -> Value {
    ask(model, now, "GetRecords", json!({ "ShardIterator": iterator }))
}

fn texts(answer: &Value) -> Vec<String> {
    let data = |record: &Value| BASE64.decode(record["Data"].as_str().unwrap()).unwrap();
    answer["Records"].as_array().unwrap().iter().map(|r| String::from_utf8(data(r)).unwrap()).collect()
}

fn load(model: &mut Model, now: Duration, values: impl IntoIterator<Item = u32>) {
    for value in values {
        model.put(now, "in", &format!("key-{value}"), Bytes::from(value.to_string()));
    }
}

fn entries(count: usize) -> Value {
    let entry = |i| json!({ "PartitionKey": format!("key-{i}"), "Data": BASE64.encode(format!("{i}")) });
    json!({ "StreamName": "in", "Records": (0..count).map(entry).collect::<Vec<_>>() })
}

#[test]
fn an_iterator_lives_five_minutes_and_may_be_used_again() {
    let mut model = model(1);
    load(&mut model, s(1), 0..3);
    let token = iterator(&mut model, s(2), 0, "TRIM_HORIZON");
    assert_eq!(texts(&read(&mut model, s(2), &token)), ["0", "1", "2"]);
    assert_eq!(texts(&read(&mut model, s(302), &token)), ["0", "1", "2"]);
    let late = json!({ "ShardIterator": token });
    assert_eq!(refused(&mut model, ms(302_001), "GetRecords", late), "ExpiredIteratorException");
    let token = iterator(&mut model, s(303), 0, "TRIM_HORIZON");
    model.expire_iterators(s(304));
    let expired = json!({ "ShardIterator": token });
    assert_eq!(refused(&mut model, s(305), "GetRecords", expired), "ExpiredIteratorException");
}

#[test]
fn latest_is_decided_when_the_iterator_is_made() {
    let mut model = model(1);
    load(&mut model, s(1), 0..2);
    let token = iterator(&mut model, s(2), 0, "LATEST");
    load(&mut model, s(3), 2..4);
    assert_eq!(texts(&read(&mut model, s(4), &token)), ["2", "3"]);
}

#[test]
fn iterators_begin_at_and_after_a_number_and_at_a_moment() {
    let mut model = model(1);
    load(&mut model, s(10), 0..2);
    load(&mut model, s(20), 2..4);
    let all = model.records("in").next().unwrap();
    let second = all.records[1].number.to_string();
    let epoch = shardwright_sim::os::EPOCH_MS / 1000;
    for (kind, argument, expected) in [
        ("AT_SEQUENCE_NUMBER", json!(second), &["1", "2", "3"][..]),
        ("AFTER_SEQUENCE_NUMBER", json!(second), &["2", "3"]),
        ("AT_TIMESTAMP", json!(epoch + 15), &["2", "3"]),
        ("AT_TIMESTAMP", json!(epoch), &["0", "1", "2", "3"]),
    ] {
        let mut body = iterator_body(0, kind);
        body[if kind == "AT_TIMESTAMP" { "Timestamp" } else { "StartingSequenceNumber" }] = argument;
        let made = ask(&mut model, s(30), "GetShardIterator", body);
        assert_eq!(
            texts(&read(&mut model, s(30), made["ShardIterator"].as_str().unwrap())),
            expected,
            "{kind}"
        );
    }
    let mut foreign = iterator_body(0, "AFTER_SEQUENCE_NUMBER");
    foreign["StartingSequenceNumber"] = second.replacen("49", "47", 1).into();
    assert_eq!(refused(&mut model, s(40), "GetShardIterator", foreign), "InvalidArgumentException");
}

#[test]
fn a_closed_shard_ends_with_its_children() {
    let mut model = model(1);
    load(&mut model, s(1), 0..4);
    let token = iterator(&mut model, s(2), 0, "TRIM_HORIZON");
    assert_eq!(model.split(s(2), "in", 0).unwrap(), [1, 2]);
    load(&mut model, s(3), 4..8);
    let mut all = Vec::new();
    let mut next = Some(token);
    let mut last = Value::Null;
    while let Some(token) = next {
        last = read(&mut model, s(4), &token);
        all.extend(texts(&last));
        next = last["NextShardIterator"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(all, ["0", "1", "2", "3"]);
    let children: Vec<&str> =
        last["ChildShards"].as_array().unwrap().iter().map(|c| c["ShardId"].as_str().unwrap()).collect();
    assert_eq!(children, [shard_id(1), shard_id(2)]);
    // A closed shard still gives an iterator, also at its tip.
    let tip = iterator(&mut model, s(5), 0, "LATEST");
    assert!(read(&mut model, s(6), &tip).get("NextShardIterator").is_none());
    let both: usize = [1, 2]
        .map(|shard| {
            let token = iterator(&mut model, s(7), shard, "TRIM_HORIZON");
            texts(&read(&mut model, s(7), &token)).len()
        })
        .iter()
        .sum();
    assert_eq!(both, 4);
}

#[test]
fn a_shard_is_read_five_times_a_second_and_ten_mebibytes_block_it_for_five() {
    let mut model = model(1);
    let big = Bytes::from(vec![b'x'; 1024 * 1024 - 10]);
    for _ in 0..12 {
        model.put(s(1), "in", "k", big.clone());
    }
    let token = iterator(&mut model, s(2), 0, "LATEST");
    for _ in 0..5 {
        read(&mut model, s(2), &token);
    }
    let body = json!({ "ShardIterator": token });
    let over = refused(&mut model, ms(2900), "GetRecords", body);
    assert_eq!(over, "ProvisionedThroughputExceededException");
    let token = iterator(&mut model, s(4), 0, "TRIM_HORIZON");
    let first = read(&mut model, s(4), &token);
    assert_eq!(first["Records"].as_array().unwrap().len(), 10);
    assert!(first["MillisBehindLatest"].as_u64().unwrap() >= 3000);
    let next = first["NextShardIterator"].as_str().unwrap().to_owned();
    for half in 9..18 {
        let now = ms(half * 500);
        let answer = serve(&mut model, now, "GetRecords", &json!({ "ShardIterator": next }));
        assert!(answer.status == 400 || texts(&answer.body).is_empty(), "read at {now:?}");
    }
    let rest = read(&mut model, s(9), &next);
    assert_eq!(rest["Records"].as_array().unwrap().len(), 2);
    assert_eq!(rest["MillisBehindLatest"], 0);
}

#[test]
fn a_throttled_shard_says_so_or_nothing() {
    let mut model = model(1);
    load(&mut model, s(1), 0..1);
    let token = iterator(&mut model, s(2), 0, "TRIM_HORIZON");
    model.throttle("in", 0, s(10), Throttle::Error);
    let body = json!({ "ShardIterator": token });
    assert_eq!(refused(&mut model, s(3), "GetRecords", body), "ProvisionedThroughputExceededException");
    model.throttle("in", 0, s(10), Throttle::Silence);
    let silent = read(&mut model, s(9), &token);
    assert!(texts(&silent).is_empty());
    assert!(silent["MillisBehindLatest"].as_u64().unwrap() >= 8000);
    let next = silent["NextShardIterator"].as_str().unwrap();
    model.empty_pages("in", 0, 1);
    assert!(texts(&read(&mut model, s(10), next)).is_empty());
    assert_eq!(texts(&read(&mut model, s(10), next)), ["0"]);
    assert_eq!(model.empty_polls(), 2);
}

#[test]
fn listings_come_in_pages_whose_tokens_expire() {
    let mut model = model(2500);
    let mut ids = Vec::new();
    let mut body = json!({ "StreamName": "in" });
    loop {
        let page = ask(&mut model, s(1), "ListShards", body);
        let shards = page["Shards"].as_array().unwrap();
        assert!(shards.len() <= 1000);
        ids.extend(shards.iter().map(|shard| shard["ShardId"].as_str().unwrap().to_owned()));
        let Some(token) = page["NextToken"].as_str() else { break };
        body = json!({ "NextToken": token });
    }
    assert_eq!(ids, (0..2500).map(shard_id).collect::<Vec<_>>());
    let first = ask(&mut model, s(2), "ListShards", json!({ "StreamName": "in", "MaxResults": 10 }));
    let token = json!({ "NextToken": first["NextToken"], "MaxResults": 10 });
    assert_eq!(ask(&mut model, s(302), "ListShards", token.clone())["Shards"].as_array().unwrap().len(), 10);
    assert_eq!(refused(&mut model, s(303), "ListShards", token), "ExpiredNextTokenException");
}

fn listed(model: &mut Model, now: Duration, filter: Value) -> Vec<u32> {
    let body = if filter.is_null() {
        json!({ "StreamName": "in" })
    } else {
        json!({ "StreamName": "in", "ShardFilter": filter })
    };
    let answer = ask(model, now, "ListShards", body);
    let index = |shard: &Value| shard["ShardId"].as_str().unwrap()[8..].parse().unwrap();
    answer["Shards"].as_array().unwrap().iter().map(index).collect()
}

#[test]
fn filters_choose_by_time_and_id() {
    let mut model = model(2);
    model.split(s(100), "in", 0).unwrap();
    model.merge(s(200), "in", 3, 1).unwrap();
    let at = |seconds: u64| shardwright_sim::os::EPOCH_MS / 1000 + seconds;
    for (filter, expected) in [
        (Value::Null, &[0, 1, 2, 3, 4][..]),
        (json!({ "Type": "AFTER_SHARD_ID", "ShardId": shard_id(2) }), &[3, 4]),
        (json!({ "Type": "AT_TRIM_HORIZON" }), &[0, 1]),
        (json!({ "Type": "FROM_TRIM_HORIZON" }), &[0, 1, 2, 3, 4]),
        (json!({ "Type": "AT_LATEST" }), &[2, 4]),
        (json!({ "Type": "AT_TIMESTAMP", "Timestamp": at(150) }), &[1, 2, 3]),
        (json!({ "Type": "FROM_TIMESTAMP", "Timestamp": at(150) }), &[1, 2, 3, 4]),
    ] {
        assert_eq!(listed(&mut model, s(300), filter.clone()), expected, "{filter}");
    }
    let all = ask(&mut model, s(300), "ListShards", json!({ "StreamName": "in" }));
    assert_eq!(all["Shards"][4]["ParentShardId"], shard_id(3));
    assert_eq!(all["Shards"][4]["AdjacentParentShardId"], shard_id(1));
    assert!(all["Shards"][3]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
}

#[test]
fn a_listing_may_show_a_split_late_or_hide_a_shard() {
    let mut model = model(1);
    model.lag_listings(s(10));
    model.split(s(5), "in", 0).unwrap();
    assert_eq!(listed(&mut model, s(14), Value::Null), [0]);
    let early = ask(&mut model, s(14), "ListShards", json!({ "StreamName": "in" }));
    assert!(early["Shards"][0]["SequenceNumberRange"].get("EndingSequenceNumber").is_none());
    assert_eq!(listed(&mut model, s(15), Value::Null), [0, 1, 2]);
    model.hide("in", 1, s(20));
    assert_eq!(listed(&mut model, s(19), Value::Null), [0, 2]);
    assert_eq!(listed(&mut model, s(20), Value::Null), [0, 1, 2]);
}

#[test]
fn retention_lets_records_go_and_then_their_closed_shard() {
    let mut model = model(1);
    load(&mut model, s(0), 0..2);
    load(&mut model, s(1800), 2..3);
    let last = model.records("in").next().unwrap().records[0].number.to_string();
    model.split(s(1900), "in", 0).unwrap();
    model.retain(s(3700), "in", s(3600)).unwrap();
    // An old place is silently taken for the horizon.
    let mut old = iterator_body(0, "AFTER_SEQUENCE_NUMBER");
    old["StartingSequenceNumber"] = last.into();
    let made = ask(&mut model, s(3700), "GetShardIterator", old);
    assert_eq!(texts(&read(&mut model, s(3700), made["ShardIterator"].as_str().unwrap())), ["2"]);
    assert_eq!(model.records("in").next().unwrap().gone, 2);
    let gone = s(1900 + 3601);
    assert_eq!(
        refused(&mut model, gone, "GetShardIterator", iterator_body(0, "TRIM_HORIZON")),
        "ResourceNotFoundException"
    );
    assert_eq!(listed(&mut model, gone, Value::Null), [1, 2]);
    assert_eq!(model.records("in").map(|shard| shard.records.len()).sum::<usize>(), 3);
}

#[test]
fn entries_of_a_request_fail_one_by_one() {
    let mut model = model(2);
    model.fail_entries(2, EntryFailure::Internal);
    let answer = ask(&mut model, s(1), "PutRecords", entries(5));
    assert_eq!(answer["FailedRecordCount"], 2);
    let failed: Vec<bool> =
        answer["Records"].as_array().unwrap().iter().map(|r| r["ErrorCode"] == "InternalFailure").collect();
    assert_eq!(failed, [true, true, false, false, false]);
    assert_eq!(model.records("in").map(|shard| shard.records.len()).sum::<usize>(), 3);
    model.lose_answers(1);
    assert_eq!(refused(&mut model, s(2), "PutRecords", entries(5)), "InternalFailure");
    assert_eq!(model.records("in").map(|shard| shard.records.len()).sum::<usize>(), 8);
    assert_eq!(refused(&mut model, s(3), "PutRecords", entries(501)), "ValidationException");
}

#[test]
fn a_shard_takes_no_more_than_its_quota() {
    let mut model = model(1);
    let failed: u64 = (0..3)
        .map(|_| ask(&mut model, s(1), "PutRecords", entries(500))["FailedRecordCount"].as_u64().unwrap())
        .sum();
    assert_eq!(failed, 500);
}

#[test]
fn scaling_leaves_equal_shards_and_every_key_one_way_through_the_lineage() {
    let mut model = model(3);
    load(&mut model, s(1), 0..50);
    for (i, target) in [5, 2, 8, 1, 3].into_iter().enumerate() {
        model.scale(s(10 * (i as u64 + 1)), "in", target).unwrap();
        assert_eq!(model.open_shards("in").len(), target as usize);
        load(&mut model, s(10 * (i as u64 + 1) + 1), 0..50);
    }
    let mut seen = std::collections::BTreeMap::<String, Vec<Duration>>::new();
    for shard in model.records("in") {
        for record in shard.records {
            seen.entry(record.key.clone()).or_default().push(record.stored);
        }
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.values().all(|moments| moments.len() == 6 && moments.is_sorted()), "in lineage order");
}

#[test]
fn a_stream_made_again_is_another_one() {
    let mut model = model(1);
    load(&mut model, s(1), 0..1);
    let created = |model: &mut Model, now| {
        let summary = ask(model, now, "DescribeStreamSummary", json!({ "StreamName": "in" }));
        summary["StreamDescriptionSummary"]["StreamCreationTimestamp"].as_u64().unwrap()
    };
    let first = created(&mut model, s(2));
    let number = model.records("in").next().unwrap().records[0].number.to_string();
    let token = iterator(&mut model, s(2), 0, "TRIM_HORIZON");
    model.create(s(3), "in", Shape::default());
    assert!(created(&mut model, s(3)) > first);
    let old = json!({ "ShardIterator": token });
    assert_eq!(refused(&mut model, s(4), "GetRecords", old), "ResourceNotFoundException");
    let mut after = iterator_body(0, "AFTER_SEQUENCE_NUMBER");
    after["StartingSequenceNumber"] = number.into();
    assert_eq!(refused(&mut model, s(4), "GetShardIterator", after), "InvalidArgumentException");
    let lives: Vec<(usize, usize)> =
        model.records("in").map(|life| (life.records.len(), life.gone)).collect();
    assert_eq!(lives, [(1, 1), (0, 0)]);
    model.delete("in");
    assert_eq!(
        refused(&mut model, s(5), "ListShards", json!({ "StreamName": "in" })),
        "ResourceNotFoundException"
    );
}

#[test]
fn a_stream_that_places_records_by_itself_hands_out_no_keys() {
    let mut model = Model::new(1);
    model.create(Duration::ZERO, "in", Shape { shards: 3, auto: true, ..Shape::default() });
    for _ in 0..6 {
        model.put(s(1), "in", "one key", Bytes::from_static(b"x"));
    }
    assert!(model.records("in").all(|shard| shard.records.len() == 2));
    let token = iterator(&mut model, s(2), 1, "TRIM_HORIZON");
    assert!(read(&mut model, s(2), &token)["Records"][0].get("PartitionKey").is_none());
}

#[test]
fn a_failing_service_heals() {
    let mut model = model(1);
    model.fail_calls(s(100), 1.0);
    let code = refused(&mut model, s(1), "ListShards", json!({ "StreamName": "in" }));
    assert!(code == "InternalFailure" || code == "ServiceUnavailable", "{code}");
    model.heal();
    ask(&mut model, s(2), "ListShards", json!({ "StreamName": "in" }));
}
