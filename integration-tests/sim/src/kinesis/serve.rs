//! One request: which operation, and what is said about it in the story.

use std::time::Duration;

use serde_json::Value;

use super::{
    Answer, Model, Refusal,
    answer::{Done, unreadable},
};

const TARGET: &str = "Kinesis_20131202.";

impl Model {
    /// Answers a request: its `X-Amz-Target` and its body.
    pub fn serve(&mut self, now: Duration, target: &str, body: &[u8]) -> Answer {
        let operation = target.strip_prefix(TARGET).unwrap_or(target);
        let mut answer = match self.carry_out(now, operation, body) {
            Ok(done) => Answer::done(done),
            Err(refusal) => Answer::refused(&refusal),
        };
        answer.note = answer.note.map(|note| format!("{operation} {note}"));
        answer.delay = self.faults.delay(now);
        answer
    }

    fn carry_out(&mut self, now: Duration, operation: &str, body: &[u8]) -> Result<Done, Refusal> {
        self.faults.call(now, &mut self.random)?;
        let ask: Value = serde_json::from_slice(body).map_err(|_| unreadable("the body is no JSON"))?;
        match operation {
            "GetRecords" => self.get_records(now, &ask),
            "GetShardIterator" => self.get_shard_iterator(now, &ask),
            "ListShards" => self.list_shards(now, &ask),
            "DescribeStreamSummary" => self.describe_stream_summary(now, &ask),
            "DescribeStream" => self.describe_stream(now, &ask),
            "PutRecords" => self.put_records(now, &ask),
            "PutRecord" => self.put_record(now, &ask),
            "SubscribeToShard" => self.subscribe_to_shard(now, &ask),
            "RegisterStreamConsumer" => self.register_stream_consumer(now, &ask),
            "DescribeStreamConsumer" => self.describe_stream_consumer(now, &ask),
            "DeregisterStreamConsumer" => self.deregister_stream_consumer(now, &ask),
            "ListStreamConsumers" => self.list_stream_consumers(now, &ask),
            other => Err(Refusal::unknown_operation(other)),
        }
    }
}
