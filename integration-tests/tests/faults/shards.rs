//! Listings, lineage, and shards that hide or go.

use std::time::Duration;

use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};
use faults::{Fault, Rule};
use shardwright_integration_tests::endpoint;

use crate::front::{Front, STREAM, code, front, shard};

async fn listed(front: &Front) -> Vec<String> {
    let all = endpoint::shards(&front.client, STREAM).await.unwrap();
    all.iter().map(|shard| shard.shard_id().to_owned()).collect()
}

async fn filtered(front: &Front, filter: ShardFilterType) -> Vec<String> {
    let filter = ShardFilter::builder().r#type(filter).shard_id(shard(0)).build().unwrap();
    let answer = front.client.list_shards().stream_name(STREAM).shard_filter(filter).send().await.unwrap();
    answer.shards().iter().map(|shard| shard.shard_id().to_owned()).collect()
}

#[tokio::test]
async fn pages_follow_each_other_and_their_tokens_are_checked() {
    let front = front(7).await;
    let mut all = Vec::new();
    let mut answer = front.client.list_shards().stream_name(STREAM).max_results(3).send().await.unwrap();
    let mut pages = 1;
    loop {
        all.extend(answer.shards().iter().map(|shard| shard.shard_id().to_owned()));
        let Some(token) = answer.next_token().map(str::to_owned) else { break };
        answer = front.client.list_shards().next_token(&token).max_results(3).send().await.unwrap();
        let both = front.client.list_shards().next_token(token).stream_name(STREAM).send().await;
        assert_eq!(code(&both.unwrap_err()), "InvalidArgumentException");
        pages += 1;
    }
    assert_eq!((pages, all), (3, (0..7).map(shard).collect::<Vec<_>>()));
    let wrong = front.client.list_shards().next_token("shardId-000000000001").send().await.unwrap_err();
    assert_eq!(code(&wrong), "InvalidArgumentException");
    let rest = front.client.list_shards().stream_name(STREAM).exclusive_start_shard_id(shard(4)).send().await;
    assert_eq!(rest.unwrap().shards().len(), 2);
}

#[tokio::test]
async fn filters_choose_by_lineage_and_time() {
    let front = front(2).await;
    front.split().await;
    let ids = |numbers: &[u32]| numbers.iter().copied().map(shard).collect::<Vec<_>>();
    assert_eq!(filtered(&front, ShardFilterType::AfterShardId).await, ids(&[1, 2, 3]));
    assert_eq!(filtered(&front, ShardFilterType::AtTrimHorizon).await, ids(&[0, 1]));
    assert_eq!(filtered(&front, ShardFilterType::FromTrimHorizon).await, ids(&[0, 1, 2, 3]));
    assert_eq!(filtered(&front, ShardFilterType::AtLatest).await, ids(&[1, 2, 3]));
    let at = |moment| {
        let at = aws_sdk_kinesis::primitives::DateTime::from_secs(moment);
        ShardFilter::builder().r#type(ShardFilterType::FromTimestamp).timestamp(at).build().unwrap()
    };
    let from = |moment| front.client.list_shards().stream_name(STREAM).shard_filter(at(moment)).send();
    assert_eq!(from(1_000_000_000).await.unwrap().shards().len(), 4);
    // Long after the split: its parent was closed before.
    assert_eq!(from(4_000_000_000).await.unwrap().shards().len(), 3);
}

#[tokio::test]
async fn a_closed_shard_tells_of_its_children_when_it_is_read_out() {
    let front = front(1).await;
    front.put(3).await;
    front.split().await;
    let (data, last) = front.read_out(&shard(0)).await;
    assert_eq!(data.len(), 3);
    assert_eq!(last.next_shard_iterator(), None);
    let children: Vec<&str> = last.child_shards().iter().map(|child| child.shard_id()).collect();
    assert_eq!(children, [shard(1), shard(2)]);
    assert_eq!(last.child_shards()[0].parent_shards(), [shard(0)]);
    assert!(last.child_shards()[0].hash_key_range().is_some());
}

#[tokio::test]
async fn a_child_hides_for_a_while() {
    let front = front(1).await;
    assert_eq!(listed(&front).await, [shard(0)]);
    let id = front.faults.add(Rule::new(Fault::Hide).shard(&shard(2)));
    front.split().await;
    assert_eq!(listed(&front).await, [shard(0), shard(1)]);
    front.faults.remove(id);
    assert_eq!(listed(&front).await, [shard(0), shard(1), shard(2)]);
    tokio::time::sleep(Duration::from_millis(320)).await;
    front.faults.add(Rule::new(Fault::HideNew { age_ms: 300 }));
    front.split().await;
    assert_eq!(listed(&front).await.len(), 3);
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(listed(&front).await.len(), 5);
}

#[tokio::test]
async fn a_shard_that_is_gone_is_not_found() {
    let front = front(2).await;
    let iterator = front.iterator(&shard(0)).await;
    front.faults.remove_shard(STREAM, &shard(0));
    assert_eq!(listed(&front).await, [shard(1)]);
    assert_eq!(front.read(&iterator).await.unwrap_err(), "ResourceNotFoundException");
    let again = front.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0));
    let error = again.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap_err();
    assert_eq!(code(&error), "ResourceNotFoundException");
}
