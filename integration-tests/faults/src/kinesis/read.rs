//! `GetShardIterator` and `GetRecords`: own iterators around the endpoint's, limits, retention, and the children that a shard
//! tells of at its end.

use hyper::Response;
use serde_json::{Value, json};

use super::{
    Front,
    call::{Call, Token},
    number,
    upstream::Upstreamed,
    wire::{Body, error},
};
use crate::faults::{Before, ShardKey, now_ms};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// The answer to an iterator that is too old.
pub(super) fn expired() -> Response<Body> {
    error(400, "ExpiredIteratorException", "the iterator is too old")
}

fn not_found((stream, shard): &ShardKey) -> Response<Body> {
    let text = format!("Shard {shard} in stream {stream} does not exist");
    error(400, "ResourceNotFoundException", &text)
}

impl Front {
    pub(super) async fn get_shard_iterator(&self, call: &Call) -> Upstreamed {
        let Some(key) = call.key() else { return self.upstream.pass(call).await };
        if self.faults.gone(&key) {
            return Ok(not_found(&key));
        }
        if let Some(limits) = self.faults.limits()
            && !self.meters.iterator(&key, limits)
        {
            self.faults.limited(&call.operation);
            return Ok(error(400, THROTTLED, "more than 5 iterators a second"));
        }
        let mut answer = self.upstream.ask(call, "GetShardIterator", &call.json).await?;
        wrap(&mut answer.json, "ShardIterator", &key);
        Ok(answer.into_response())
    }

    pub(super) async fn get_records(&self, call: &Call) -> Upstreamed {
        let Some(token) = &call.token else {
            return Ok(error(400, "InvalidArgumentException", "Invalid ShardIterator."));
        };
        let key = token.key();
        if self.faults.gone(&key) {
            return Ok(not_found(&key));
        }
        if self.faults.expired(&key, token.made) {
            return Ok(expired());
        }
        let limits = self.faults.limits();
        if let Some(limits) = limits
            && !self.meters.read(&key, limits)
        {
            self.faults.limited(&call.operation);
            if limits.empty {
                return Ok(self.empty(call).await);
            }
            return Ok(error(400, THROTTLED, "more than 5 reads or 2 MB a second"));
        }
        let mut request = call.json.clone();
        request["ShardIterator"] = json!(token.inner);
        let mut answer = self.upstream.ask(call, "GetRecords", &request).await?;
        self.trim_answer(&mut answer.json, &key);
        if let Some(limits) = limits {
            self.meters.gave(&key, limits, bytes_of(&answer.json));
        }
        self.read_at.lock().await.insert(key.clone(), now_ms());
        let ended = !wrap(&mut answer.json, "NextShardIterator", &key);
        if ended && answer.json["ChildShards"].as_array().is_none_or(Vec::is_empty) {
            answer.json["ChildShards"] = self.children(call, &key).await?;
        }
        Ok(answer.into_response())
    }

    pub(super) fn trim_answer(&self, answer: &mut Value, key: &ShardKey) {
        let Some(before) = self.faults.trimmed(key) else { return };
        if let Some(records) = answer["Records"].as_array_mut() {
            records.retain(|record| !gone(record, &before));
        }
    }
}

fn gone(record: &Value, before: &Before) -> bool {
    match before {
        Before::Number(first) => {
            let number = record["SequenceNumber"].as_str().unwrap_or_default();
            number::compare(number, first).is_lt()
        }
        #[allow(clippy::cast_precision_loss, reason = "a moment in ms has 41 bits")]
        Before::Moment(moment) => {
            record["ApproximateArrivalTimestamp"].as_f64().unwrap_or_default() * 1000.0 < *moment as f64
        }
    }
}

/// Puts the proxy's iterator in the place of the endpoint's; false if there is none.
fn wrap(answer: &mut Value, field: &str, key: &ShardKey) -> bool {
    let Some(inner) = answer[field].as_str().filter(|inner| !inner.is_empty()) else {
        // The service leaves it out; a null would do as well, but indexing above must not have added one.
        if let Some(fields) = answer.as_object_mut() {
            fields.remove(field);
        }
        return false;
    };
    answer[field] = json!(Token::new(inner, key).encode());
    true
}

/// Keys and data, as the limit counts them.
pub(super) fn bytes_of(answer: &Value) -> usize {
    let length = |record: &Value, field: &str| record[field].as_str().map_or(0, str::len);
    let records = answer["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
    records.iter().map(|record| length(record, "PartitionKey") + length(record, "Data") / 4 * 3).sum()
}
