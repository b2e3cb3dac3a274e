//! `DescribeStream` and `DescribeStreamSummary`, and how a shard is described.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Model, Number, Refusal,
    answer::{Done, Members as _},
    iterator::answer_stream,
    list::listed,
    shard::{Shard, shard_id, shard_index},
    stream::Stream,
};

const DESCRIBES_PER_SECOND: usize = 10;
const SUMMARIES_PER_SECOND: usize = 20;
const SHARDS_MAX: u64 = 100;

/// `HashKeyRange`.
pub(super) fn range(shard: &Shard) -> Value {
    json!({ "StartingHashKey": shard.range.0.to_string(), "EndingHashKey": shard.range.1.to_string() })
}

/// `Shard`, with its last number if it is to look closed.
pub(super) fn described(shard: &Shard, end: Option<Number>) -> Value {
    let mut numbers = json!({ "StartingSequenceNumber": shard.first().to_string() });
    if let Some(end) = end {
        numbers["EndingSequenceNumber"] = end.to_string().into();
    }
    let mut out = json!({
        "ShardId": shard.id(),
        "HashKeyRange": range(shard),
        "SequenceNumberRange": numbers,
    });
    for (member, &parent) in ["ParentShardId", "AdjacentParentShardId"].into_iter().zip(&shard.parents) {
        out[member] = shard_id(parent).into();
    }
    out
}

impl Model {
    pub(super) fn describe_stream_summary(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let stream = self.stream(answer_stream(ask)?)?;
        if !stream.summaries.take(now, SUMMARIES_PER_SECOND) {
            return Err(Refusal::limit("Rate exceeded."));
        }
        let mut summary = common(stream);
        summary["OpenShardCount"] = stream.open().count().into();
        summary["ConsumerCount"] = stream.consumers.len().into();
        summary["MaxRecordSizeInKiB"] = (stream.shape.record_max / 1024).into();
        summary["RecordDistributionStrategy"] =
            if stream.shape.auto { "AUTO" } else { "PARTITION_KEY" }.into();
        let note = format!("{} made at {}", stream.name, stream.created_at());
        Ok(Done::new(json!({ "StreamDescriptionSummary": summary }), note))
    }

    pub(super) fn describe_stream(&mut self, now: Duration, ask: &Value) -> Result<Done, Refusal> {
        let stream = self.stream(answer_stream(ask)?)?;
        if !stream.describes.take(now, DESCRIBES_PER_SECOND) {
            return Err(Refusal::limit("Rate exceeded."));
        }
        stream.age(now);
        let after = match ask.text("ExclusiveStartShardId") {
            Some(id) => {
                Some(shard_index(id).ok_or_else(|| Refusal::argument(format!("{id} is not a shard id.")))?)
            }
            None => None,
        };
        let max = ask.get("Limit").and_then(Value::as_u64).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX);
        let name = stream.name.clone();
        let stream = &self.streams[&name];
        let mut shards = stream.shards.values().filter(|shard| {
            after.is_none_or(|after| shard.index > after) && listed(&self.faults, now, stream, shard)
        });
        let page: Vec<Value> = shards
            .by_ref()
            .take(max as usize)
            .map(|shard| described(shard, shard.closed.map(|closed| closed.number)))
            .collect();
        let mut out = common(stream);
        out["HasMoreShards"] = shards.next().is_some().into();
        let note = format!("{name} {} shards", page.len());
        out["Shards"] = page.into();
        Ok(Done::new(json!({ "StreamDescription": out }), note))
    }
}

/// What both descriptions say.
fn common(stream: &Stream) -> Value {
    json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn(),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": { "StreamMode": "PROVISIONED" },
        "RetentionPeriodHours": stream.shape.retention.as_secs().div_ceil(3600),
        "StreamCreationTimestamp": stream.created_at(),
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
    })
}
