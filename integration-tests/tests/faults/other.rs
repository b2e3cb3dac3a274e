//! The proxy in front of another endpoint, whose lineage is its own: kinesis-local.

use std::io::Write as _;

use aws_sdk_kinesis::types::ShardIteratorType;
use faults::{Entries, Fault, Rule};

use crate::{
    fanout::{consumer, next, subscribe},
    front::{Front, before, shard},
};

async fn other(test: &str, shards: i32) -> Option<Front> {
    let Ok(url) = std::env::var("SHARDWRIGHT_TEST_KINESIS_LOCAL") else {
        // Past the capture of the test runner, for it must be seen.
        let mut aloud = std::io::stdout();
        writeln!(aloud, "\nskipped: {test}: no kinesis-local: SHARDWRIGHT_TEST_KINESIS_LOCAL is not set")
            .unwrap();
        return None;
    };
    Some(before(None, url, &format!("{test}-{}", std::process::id()), shards).await)
}

#[tokio::test]
async fn kinesis_local_reads_splits_and_fails_through_the_proxy() {
    let Some(front) = other("kinesis_local_reads_splits_and_fails", 1).await else { return };
    let first_two = Fault::FailEntries { code: "InternalFailure".to_owned(), entries: Entries::First(2) };
    front.faults.add(Rule::new(first_two).times(1));
    let put = front.put_through(&front.client, 5).await;
    assert_eq!(put.iter().map(Result::is_err).collect::<Vec<_>>(), [true, true, false, false, false]);
    front.split().await;
    let (data, last) = front.read_out(&shard(0)).await;
    assert_eq!(data, ["key-2", "key-3", "key-4"]);
    let children: Vec<&str> = last.child_shards().iter().map(|child| child.shard_id()).collect();
    assert_eq!(children, [shard(1), shard(2)]);
    let page = front.client.list_shards().stream_name(&front.stream).max_results(2).send().await.unwrap();
    let rest = front.client.list_shards().next_token(page.next_token().unwrap()).send().await.unwrap();
    assert_eq!((page.shards().len(), rest.shards().len()), (2, 1));
}

#[tokio::test]
async fn a_subscription_to_kinesis_local_ends_with_the_shard() {
    let Some(front) = other("a_subscription_to_kinesis_local_ends", 1).await else { return };
    let consumer = consumer(&front).await;
    let put = front.put(3).await;
    front.split().await;
    let from = ShardIteratorType::AfterSequenceNumber;
    let mut stream = subscribe(&front, &consumer, from, Some(&put[0])).await.unwrap();
    let (mut numbers, mut children) = (Vec::new(), 0);
    while let Some(event) = next(&mut stream).await.unwrap() {
        numbers.extend(event.records().iter().map(|record| record.sequence_number().to_owned()));
        children += event.child_shards().len();
    }
    assert_eq!((numbers, children), (put[1..].to_vec(), 2));
}
