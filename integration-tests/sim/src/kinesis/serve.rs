//! One request: whether it may be served, which operation it is, and what is said about it in the story.

use std::time::Duration;

use aws_smithy_types::{DateTime, date_time::Format};
use serde_json::Value;

use super::{Answer, Model, Refusal, answer::Done, wall_ms};

const TARGET: &str = "Kinesis_20131202.";
/// How far the clock of who signs may be from the service's, in ms.
const SKEW_MAX: u64 = 300_000;

/// A request, as far as the service looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `X-Amz-Target`.
    pub target: &'a str,
    /// `X-Amz-Date`: when it was signed, by the signer's clock. The signature itself is believed.
    pub signed: Option<&'a str>,
    /// JSON.
    pub body: &'a [u8],
}

impl Model {
    /// Answers a request.
    pub fn serve(&mut self, now: Duration, request: &Request) -> Answer {
        let operation = request.target.strip_prefix(TARGET).unwrap_or(request.target);
        let mut answer = match self.carry_out(now, operation, request) {
            Ok(done) => Answer::done(done),
            Err(refusal) => Answer::refused(&refusal),
        };
        answer.note = answer.note.map(|note| format!("{operation} {note}"));
        answer.delay = self.faults.delay(now);
        answer
    }

    fn carry_out(&mut self, now: Duration, operation: &str, request: &Request) -> Result<Done, Refusal> {
        if self.faults.strict_clocks {
            check_clock(now, request.signed)?;
        }
        self.faults.call(now, &mut self.random)?;
        let ask: Value =
            serde_json::from_slice(request.body).map_err(|_| Refusal::unreadable("the body is no JSON"))?;
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

/// Refuses what was signed by a clock that is too wrong.
fn check_clock(now: Duration, signed: Option<&str>) -> Result<(), Refusal> {
    let Some(signed) = signed else { return Ok(()) };
    let here = wall_ms(now);
    match moment(signed) {
        Some(there) if there + SKEW_MAX < here => {
            Err(Refusal::signature(format!("Signature expired: {signed} is now too early.")))
        }
        Some(there) if here + SKEW_MAX < there => {
            Err(Refusal::signature(format!("Signature not yet current: {signed} is still later than now.")))
        }
        Some(_) => Ok(()),
        None => Err(Refusal::signature(format!("Date {signed} is not in ISO 8601 basic format."))),
    }
}

/// Of `20261001T000000Z`, in ms since 1970.
fn moment(basic: &str) -> Option<u64> {
    let part = |range: std::ops::Range<usize>| basic.get(range);
    let (date, time) =
        ((part(0..4)?, part(4..6)?, part(6..8)?), (part(9..11)?, part(11..13)?, part(13..15)?));
    let text = format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, time.2);
    let moment = DateTime::from_str(&text, Format::DateTime).ok()?;
    u64::try_from(moment.to_millis().ok()?).ok()
}
