//! Subscriptions that the proxy makes.

use std::time::Duration;

use aws_sdk_kinesis::{
    operation::subscribe_to_shard::SubscribeToShardOutput,
    types::{
        ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
        SubscribeToShardEventStream,
    },
};
use faults::{Fault, Rule};

use crate::front::{Front, code, front, shard};

pub async fn consumer(front: &Front) -> String {
    let stream = front.client.describe_stream_summary().stream_name(&front.stream).send().await.unwrap();
    let arn = stream.stream_description_summary().unwrap().stream_arn().to_owned();
    let made =
        front.client.register_stream_consumer().stream_arn(arn).consumer_name("c").send().await.unwrap();
    let consumer = made.consumer().unwrap().consumer_arn().to_owned();
    let active = async {
        loop {
            let asked = front.client.describe_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
            if *asked.consumer_description().unwrap().consumer_status() == ConsumerStatus::Active {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), active).await.expect("the consumer becomes active");
    consumer
}

pub async fn subscribe(
    front: &Front,
    consumer: &str,
    from: ShardIteratorType,
    number: Option<&str>,
) -> Result<SubscribeToShardOutput, String> {
    let position = StartingPosition::builder().r#type(from).set_sequence_number(number.map(str::to_owned));
    let request = front.client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard(0));
    request.starting_position(position.build().unwrap()).send().await.map_err(|error| code(&error))
}

pub async fn next(stream: &mut SubscribeToShardOutput) -> Result<Option<SubscribeToShardEvent>, String> {
    let event = tokio::time::timeout(Duration::from_secs(5), stream.event_stream.recv());
    match event.await.expect("an event or an end in time") {
        Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Ok(Some(event)),
        Ok(None) => Ok(None),
        Ok(Some(other)) => panic!("{other:?}"),
        Err(error) if error.as_service_error().is_some() => Err(format!("service: {error:?}")),
        Err(error) => Err(format!("line: {error:?}")),
    }
}

fn numbers(event: &SubscribeToShardEvent) -> Vec<&str> {
    event.records().iter().map(|record| record.sequence_number()).collect()
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_told() {
    let front = front(1).await;
    let consumer = consumer(&front).await;
    let put = front.put(4).await;
    let mut all = subscribe(&front, &consumer, ShardIteratorType::TrimHorizon, None).await.unwrap();
    assert_eq!(numbers(&next(&mut all).await.unwrap().unwrap()), put);
    let refused = subscribe(&front, &consumer, ShardIteratorType::TrimHorizon, None).await.unwrap_err();
    assert_eq!(refused, "ResourceInUseException");
    // A new event ends a subscription whose caller went away; the proxy ends it at once for the next when it has.
    front.faults.add(Rule::new(Fault::Empty).on("SubscribeToShardEvent").times(1));
    assert_eq!(next(&mut all).await.unwrap(), None);
    let mut after =
        subscribe(&front, &consumer, ShardIteratorType::AfterSequenceNumber, Some(&put[1])).await.unwrap();
    assert_eq!(numbers(&next(&mut after).await.unwrap().unwrap()), put[2..]);
}

#[tokio::test]
async fn a_quiet_shard_moves_its_continuation_and_loses_nothing() {
    let front = front(1).await;
    let consumer = consumer(&front).await;
    front.put(1).await;
    let mut stream = subscribe(&front, &consumer, ShardIteratorType::TrimHorizon, None).await.unwrap();
    let first = next(&mut stream).await.unwrap().unwrap();
    assert_eq!(numbers(&first), [first.continuation_sequence_number()]);
    let mut last = first;
    // Numbers have whole seconds, and the last two are left out.
    for _ in 0..5 {
        last = next(&mut stream).await.unwrap().unwrap();
        assert!(last.records().is_empty());
    }
    let first = numbers(&last).first().map(|n| (*n).to_owned());
    assert_eq!(first, None);
    let continuation = last.continuation_sequence_number().to_owned();
    front.faults.add(Rule::new(Fault::Empty).on("SubscribeToShardEvent").times(1));
    while next(&mut stream).await.unwrap().is_some() {}
    let put = front.put(3).await;
    assert!(continuation < put[0], "{continuation} {put:?}");
    let mut again = subscribe(&front, &consumer, ShardIteratorType::AfterSequenceNumber, Some(&continuation))
        .await
        .unwrap();
    assert_eq!(numbers(&next(&mut again).await.unwrap().unwrap()), put);
}

#[tokio::test]
async fn a_subscription_ends_with_the_shard_and_tells_its_children() {
    let front = front(1).await;
    let consumer = consumer(&front).await;
    front.put(2).await;
    front.split().await;
    let mut stream = subscribe(&front, &consumer, ShardIteratorType::TrimHorizon, None).await.unwrap();
    let mut records = 0;
    let children = loop {
        let event = next(&mut stream).await.unwrap().expect("an event with children before the end");
        records += event.records().len();
        if !event.child_shards().is_empty() {
            break event.child_shards().iter().map(|child| child.shard_id().to_owned()).collect::<Vec<_>>();
        }
    };
    assert_eq!((records, children), (2, vec![shard(1), shard(2)]));
    assert_eq!(next(&mut stream).await.unwrap(), None);
}

#[tokio::test]
async fn a_subscription_fails_in_the_middle_as_told_and_lives_only_so_long() {
    let front = front(1).await;
    let consumer = consumer(&front).await;
    let begin = || subscribe(&front, &consumer, ShardIteratorType::TrimHorizon, None);
    let on_event = |fault| Rule::new(fault).on("SubscribeToShardEvent").times(1);
    front.faults.add(on_event(Fault::Error { code: "InternalFailureException".to_owned(), status: 500 }));
    let failed = next(&mut begin().await.unwrap()).await.unwrap_err();
    assert!(failed.starts_with("service:") && failed.contains("InternalFailureException"), "{failed}");
    front.faults.add(on_event(Fault::Cut));
    let cut = next(&mut begin().await.unwrap()).await.unwrap_err();
    assert!(cut.starts_with("line:"), "{cut}");
    front.faults.set_subscription_life(Duration::from_millis(300));
    front.faults.add(Rule::new(Fault::HalfOpen).on("SubscribeToShardEvent"));
    assert_eq!(next(&mut begin().await.unwrap()).await.unwrap(), None);
    let stranger = subscribe(&front, &format!("{consumer}9"), ShardIteratorType::Latest, None).await;
    assert_eq!(stranger.unwrap_err(), "ResourceNotFoundException");
}
