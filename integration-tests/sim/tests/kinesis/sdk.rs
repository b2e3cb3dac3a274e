//! The real SDK against the simulated Kinesis, over the simulated network, on a paused clock.

use std::time::Duration;

use aws_sdk_kinesis::{
    error::ProvideErrorMetadata,
    operation::subscribe_to_shard::SubscribeToShardOutput,
    primitives::Blob,
    types::{
        PutRecordsRequestEntry, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
        SubscribeToShardEventStream,
    },
};
use shardwright_sim::{
    kinesis::{EntryFailure, shard_id},
    net::Link,
    os::EPOCH_MS,
    place::Place,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{HERE, World};

impl World {
    async fn consumer(&self) -> String {
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/in";
        let made = self.client.register_stream_consumer().stream_arn(arn).consumer_name("fan").send().await;
        let arn = made.unwrap().consumer.unwrap().consumer_arn;
        sleep(Duration::from_secs(5)).await;
        let told = self.client.describe_stream_consumer().consumer_arn(&arn).send().await.unwrap();
        assert_eq!(told.consumer_description.unwrap().consumer_status.as_str(), "ACTIVE");
        arn
    }

    async fn subscribe(
        &self,
        consumer: &str,
        shard: u32,
        position: StartingPosition,
    ) -> Result<SubscribeToShardOutput, String> {
        self.client
            .subscribe_to_shard()
            .consumer_arn(consumer)
            .shard_id(shard_id(shard))
            .starting_position(position)
            .send()
            .await
            .map_err(|error| error.code().unwrap_or("none").to_owned())
    }
}

fn horizon() -> StartingPosition {
    StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap()
}

fn after(number: &str) -> StartingPosition {
    let kind = ShardIteratorType::AfterSequenceNumber;
    StartingPosition::builder().r#type(kind).sequence_number(number).build().unwrap()
}

/// The next event; none at the end.
async fn next(subscription: &mut SubscribeToShardOutput) -> Option<SubscribeToShardEvent> {
    match subscription.event_stream.recv().await.unwrap()? {
        SubscribeToShardEventStream::SubscribeToShardEvent(event) => Some(event),
        other => panic!("{other:?}"),
    }
}

fn texts(event: &SubscribeToShardEvent) -> Vec<String> {
    event.records.iter().map(|record| String::from_utf8(record.data.as_ref().to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn records_are_written_and_read_back() {
    let world = World::new();
    let entry = |i: u32| {
        let data = Blob::new(i.to_string());
        PutRecordsRequestEntry::builder().partition_key(format!("k{i}")).data(data).build().unwrap()
    };
    world.model().fail_entries(1, EntryFailure::Throughput);
    let put = world.client.put_records().stream_name("in").set_records(Some((0..4).map(entry).collect()));
    let put = put.send().await.unwrap();
    assert_eq!(put.failed_record_count, Some(1));
    assert_eq!(put.records[0].error_code.as_deref(), Some("ProvisionedThroughputExceededException"));
    let shards = world.client.list_shards().stream_name("in").send().await.unwrap().shards.unwrap();
    let made = world
        .client
        .get_shard_iterator()
        .stream_name("in")
        .shard_id(&shards[0].shard_id)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await
        .unwrap();
    let token = made.shard_iterator.unwrap();
    let read = world.client.get_records().shard_iterator(&token).send().await.unwrap();
    let data: Vec<&[u8]> = read.records.iter().map(|record| record.data.as_ref()).collect();
    assert_eq!(data, [b"1", b"2", b"3"]);
    assert_eq!(read.millis_behind_latest, Some(0));
    let arrived = read.records[0].approximate_arrival_timestamp.unwrap().to_millis().unwrap();
    assert!(arrived >= EPOCH_MS as i64);
    world.model().expire_iterators(world.net.now());
    let error = world.client.get_records().shard_iterator(&token).send().await.unwrap_err();
    assert_eq!(error.code(), Some("ExpiredIteratorException"));
    assert_eq!(error.raw_response().unwrap().headers().get("date"), Some("Thu, 01 Oct 2026 00:00:00 GMT"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_may_be_five_minutes_wrong() {
    let list = |world: &World| {
        world.model().check_clocks(true);
        world.client.list_shards().stream_name("in").send()
    };
    list(&World::ahead(Duration::from_secs(290))).await.unwrap();
    let refused = list(&World::ahead(Duration::from_secs(310))).await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidSignatureException"));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_leaves_out_reads_that_brought_nothing() {
    let world = World::new();
    let made = world.client.get_shard_iterator().stream_name("in").shard_id(shard_id(0));
    let made = made.shard_iterator_type(ShardIteratorType::Latest).send().await.unwrap();
    let token = made.shard_iterator.unwrap();
    for loaded in [0..0, 0..0, 0..2] {
        world.load(loaded);
        world.client.get_records().shard_iterator(&token).send().await.unwrap();
    }
    let told: Vec<String> = world.net.trace().lines().into_iter().map(|line| line.what).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("w0 GetShardIterator in/0 LATEST at 0#"), "{told:?}");
    assert!(told[1].starts_with("w0 GetRecords in/0 2 records 0#"), "{told:?}");
    assert_eq!(world.model().empty_polls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_an_io_error_although_the_request_was_served() {
    let world = World::new();
    let link = world.net.link(Place::Kinesis, HERE);
    world.net.set_link(Place::Kinesis, HERE, Link { closed: true, ..link }, 0.0);
    let put = world.client.put_record().stream_name("in").partition_key("k").data(Blob::new("x")).send();
    let (put, ()) = tokio::join!(put, async {
        sleep(Duration::from_secs(2)).await;
        world.net.set_link(Place::Kinesis, HERE, link, 1.0);
    });
    let error = put.unwrap_err();
    let cause = match &error {
        aws_sdk_kinesis::error::SdkError::DispatchFailure(failure) => failure.as_connector_error().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(cause.is_io(), "{cause:?}");
    assert_eq!(world.model().records("in").next().unwrap().records.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_brings_records_in_order_and_ends_with_the_shard() {
    let world = World::new();
    world.load(0..3);
    let consumer = world.consumer().await;
    let mut events = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    let first = next(&mut events).await.unwrap();
    assert_eq!(texts(&first), ["0", "1", "2"]);
    world.load(3..2000);
    let mut all = Vec::new();
    while all.len() < 1997 {
        all.extend(texts(&next(&mut events).await.unwrap()));
    }
    assert_eq!(all, (3..2000).map(|i| i.to_string()).collect::<Vec<_>>());
    world.model().split(world.net.now(), "in", 0).unwrap();
    let last = next(&mut events).await.unwrap();
    let children: Vec<String> = last.child_shards().iter().map(|child| child.shard_id.clone()).collect();
    assert_eq!(children, [shard_id(1), shard_id(2)]);
    assert!(next(&mut events).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_subscription_moves_its_number_and_lives_five_minutes() {
    let world = World::new();
    let consumer = world.consumer().await;
    let began = Instant::now();
    let mut events = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    let mut number = String::new();
    while let Some(event) = next(&mut events).await {
        assert!(event.continuation_sequence_number > number, "the number moves");
        number = event.continuation_sequence_number;
    }
    let lived = began.elapsed();
    assert!(lived > Duration::from_secs(299) && lived < Duration::from_secs(302), "{lived:?}");
    // Reading on after the number loses nothing.
    world.load(0..2);
    let mut events = world.subscribe(&consumer, 0, after(&number)).await.unwrap();
    assert_eq!(texts(&next(&mut events).await.unwrap()), ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_subscription_is_refused_for_five_seconds_and_then_takes_over() {
    let world = World::new();
    let consumer = world.consumer().await;
    let mut first = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    next(&mut first).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let refused = world.subscribe(&consumer, 0, horizon()).await.err();
    assert_eq!(refused.as_deref(), Some("ResourceInUseException"));
    let refused = world.subscribe(&consumer, 0, horizon()).await.err();
    assert_eq!(refused.as_deref(), Some("LimitExceededException"), "one call a second");
    sleep(Duration::from_secs(4)).await;
    let mut second = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    next(&mut second).await.unwrap();
    let ended = loop {
        match first.event_stream.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the first subscription ended without a word"),
            Err(error) => break error,
        }
    };
    assert!(ended.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_subscription_is_silent() {
    let world = World::new();
    let consumer = world.consumer().await;
    let mut events = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    next(&mut events).await.unwrap();
    let until = world.net.now() + Duration::from_secs(60);
    world.model().half_open("in", 0, until);
    world.load(0..1);
    assert!(timeout(Duration::from_secs(50), next(&mut events)).await.is_err());
    assert_eq!(texts(&next(&mut events).await.unwrap()), ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_who_does_not_read_stops_the_service() {
    let world = World::new();
    let consumer = world.consumer().await;
    for _ in 0..100 {
        world.model().put(world.net.now(), "in", "k", vec![b'x'; 100_000].into());
    }
    let mut events = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    // The window is 1 MiB, an event of two records 267 kB of base64; what is behind it has not left the service.
    let last = world.model().records("in").next().unwrap().records[12].number;
    world.model().trim(world.net.now(), "in", 0, Some(last)).unwrap();
    let mut count = 0;
    loop {
        let event = next(&mut events).await.unwrap();
        count += event.records.len();
        if event.millis_behind_latest == 0 {
            break;
        }
    }
    assert!((88 + 4..88 + 12).contains(&count), "{count}: not what a window holds and what was left");
}

#[tokio::test(start_paused = true)]
async fn frames_that_the_network_lost_break_the_connection() {
    let world = World::new();
    let consumer = world.consumer().await;
    let mut events = world.subscribe(&consumer, 0, horizon()).await.unwrap();
    next(&mut events).await.unwrap();
    let link = world.net.link(Place::Kinesis, HERE);
    world.net.set_link(Place::Kinesis, HERE, Link { closed: true, ..link }, 0.0);
    world.load(0..1);
    sleep(Duration::from_secs(2)).await;
    world.net.set_link(Place::Kinesis, HERE, link, 1.0);
    let broken = timeout(Duration::from_secs(20), events.event_stream.recv()).await.unwrap();
    assert!(broken.is_err(), "{broken:?}");
}
