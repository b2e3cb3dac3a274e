//! `ListShards` as the service does it: pages of at most 1,000 with a token that lives 300 s, every filter, and a reshard that
//! shows late when a rule says so. What the endpoint lists is read in full each time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Front, Reply,
    call::{Call, pack, unpack},
    number,
    upstream::Upstreamed,
    wire::{answer, error},
};
use crate::faults::{ShardKey, now_ms};

/// The service's page, unless fewer are asked for.
const PAGE: usize = 1000;
/// A page token lives so long.
const TOKEN_MS: u64 = 300_000;

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct Page {
    stream: String,
    /// The last shard that was given out.
    after: String,
    filter: Value,
    made: u64,
}

/// The stream that a page token belongs to.
pub(super) fn stream_of_page(token: &str) -> Option<String> {
    unpack::<Page>(token).map(|page| page.stream)
}

/// When the proxy first saw each shard.
#[derive(Default)]
pub(super) struct FirstSeen {
    streams: Mutex<HashMap<String, HashMap<String, Option<Instant>>>>,
}

impl FirstSeen {
    /// How long a shard is known; those of a stream's first listing are as old as can be.
    fn age(&self, stream: &str, shards: &[Value]) -> Vec<Duration> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !streams.contains_key(stream);
        let known = streams.entry(stream.to_owned()).or_default();
        let now = Instant::now();
        let age = |shard: &Value| {
            let since = known.entry(id(shard).to_owned()).or_insert((!first).then_some(now));
            since.map_or(Duration::MAX, |since| now.duration_since(since))
        };
        shards.iter().map(age).collect()
    }
}

impl Front {
    pub(super) async fn list_shards(&self, call: &Call) -> Upstreamed {
        let page = match call.json["NextToken"].as_str() {
            None => None,
            Some(_) if !call.json["StreamName"].is_null() => {
                return Ok(invalid("NextToken and StreamName cannot be provided together."));
            }
            Some(token) => match unpack::<Page>(token) {
                None => return Ok(invalid("NextToken is not valid.")),
                Some(page) if now_ms().saturating_sub(page.made) > TOKEN_MS => {
                    return Ok(error(400, "ExpiredNextTokenException", "the token is too old"));
                }
                page => page,
            },
        };
        let Some(stream) = call.stream.clone() else { return self.upstream.pass(call).await };
        let (after, filter) = match page {
            Some(page) => (Some(page.after), page.filter),
            None => (
                call.json["ExclusiveStartShardId"].as_str().map(str::to_owned),
                call.json["ShardFilter"].clone(),
            ),
        };
        let all = self.all_shards(call, &stream).await?;
        let ages = self.seen.age(&stream, &all);
        let shown: Vec<Value> = all
            .iter()
            .zip(ages)
            .filter(|(shard, age)| !self.faults.hidden(&stream, id(shard), *age))
            .map(|(shard, _)| shard.clone())
            .collect();
        let mut chosen = match chosen(&shown, &filter) {
            Ok(chosen) => chosen,
            Err(text) => return Ok(invalid(&text)),
        };
        chosen.retain(|shard| after.as_deref().is_none_or(|after| id(shard) > after));
        let size = call.json["MaxResults"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(PAGE);
        let more = chosen.len() > size;
        chosen.truncate(size);
        let mut listed = json!({ "Shards": chosen });
        if let (true, Some(last)) = (more, chosen.last()) {
            let after = id(last).to_owned();
            listed["NextToken"] = json!(pack(&Page { stream, after, filter, made: now_ms() }));
        }
        Ok(answer(&listed))
    }

    /// Every shard that the endpoint lists and that is not gone, by id.
    pub(super) async fn all_shards(&self, call: &Call, stream: &str) -> Result<Vec<Value>, Reply> {
        let mut all: Vec<Value> = Vec::new();
        let mut request = json!({ "StreamName": stream, "MaxResults": 10_000 });
        loop {
            let answer = self.upstream.ask(call, "ListShards", &request).await?;
            all.extend(answer.json["Shards"].as_array().cloned().unwrap_or_default());
            match answer.json["NextToken"].as_str() {
                Some(token) if !token.is_empty() => request = json!({ "NextToken": token }),
                _ => break,
            }
        }
        all.retain(|shard| !self.faults.gone(&(stream.to_owned(), id(shard).to_owned())));
        all.sort_by(|a, b| id(a).cmp(id(b)));
        all.dedup_by(|a, b| id(a) == id(b));
        Ok(all)
    }

    /// What a shard tells of at its end: `[{ShardId, ParentShards, HashKeyRange}]`.
    pub(super) async fn children(&self, call: &Call, (stream, shard): &ShardKey) -> Result<Value, Reply> {
        let all = self.all_shards(call, stream).await?;
        let children = all.iter().filter(|other| parents(other).any(|parent| parent == shard));
        Ok(children
            .map(|child| {
                json!({
                    "ShardId": child["ShardId"],
                    "ParentShards": parents(child).collect::<Vec<_>>(),
                    "HashKeyRange": child["HashKeyRange"],
                })
            })
            .collect())
    }

    /// Shards that are gone are not described either, and the retention is the one that was set.
    pub(super) async fn describe_stream(&self, call: &Call) -> Upstreamed {
        let mut answer = self.upstream.ask(call, &call.operation, &call.json).await?;
        let stream = call.stream.clone().unwrap_or_default();
        if let Some(hours) = self.faults.retention(&stream) {
            for described in ["StreamDescription", "StreamDescriptionSummary"] {
                if let Some(fields) = answer.json[described].as_object_mut() {
                    fields.insert("RetentionPeriodHours".to_owned(), json!(hours));
                }
            }
        }
        if let Some(shards) = answer.json["StreamDescription"]["Shards"].as_array_mut() {
            shards.retain(|shard| !self.faults.gone(&(stream.clone(), id(shard).to_owned())));
        }
        Ok(answer.into_response())
    }
}

fn invalid(text: &str) -> hyper::Response<super::wire::Body> {
    error(400, "InvalidArgumentException", text)
}

fn id(shard: &Value) -> &str {
    shard["ShardId"].as_str().unwrap_or_default()
}

fn parents(shard: &Value) -> impl Iterator<Item = &str> {
    [&shard["ParentShardId"], &shard["AdjacentParentShardId"]]
        .into_iter()
        .filter_map(Value::as_str)
        .filter(|parent| !parent.is_empty())
}

fn open(shard: &Value) -> bool {
    !shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string()
}

/// When it was made, in ms; the beginning of time if its number does not tell.
fn made(shard: &Value) -> i64 {
    let number = shard["SequenceNumberRange"]["StartingSequenceNumber"].as_str().unwrap_or_default();
    number::shard_made(number).unwrap_or_default()
}

/// When it was closed: when its first child was made.
fn closed(shard: &Value, all: &[Value]) -> i64 {
    let child = |other: &&Value| parents(other).any(|parent| parent == id(shard));
    all.iter().filter(child).map(made).min().filter(|_| !open(shard)).unwrap_or(i64::MAX)
}

/// The shards that a filter means.
fn chosen(all: &[Value], filter: &Value) -> Result<Vec<Value>, String> {
    let moment = || {
        #[allow(clippy::cast_possible_truncation, reason = "a moment in ms has 41 bits")]
        let ms = filter["Timestamp"].as_f64().map(|seconds| (seconds * 1000.0) as i64);
        ms.ok_or_else(|| "Timestamp is needed with this ShardFilter.".to_owned())
    };
    let keep =
        |wanted: &dyn Fn(&Value) -> bool| all.iter().filter(|s| wanted(s)).cloned().collect::<Vec<_>>();
    Ok(match filter["Type"].as_str() {
        None | Some("FROM_TRIM_HORIZON") => all.to_vec(),
        Some("AFTER_SHARD_ID") => {
            let after = filter["ShardId"].as_str().ok_or("ShardId is needed with AFTER_SHARD_ID.")?;
            keep(&|shard| id(shard) > after)
        }
        // Open at the oldest moment that is still held: those whose parents are not held.
        Some("AT_TRIM_HORIZON") => {
            keep(&|shard| !parents(shard).any(|parent| all.iter().any(|other| id(other) == parent)))
        }
        Some("AT_LATEST") => keep(&open),
        Some("AT_TIMESTAMP") => {
            let moment = moment()?;
            keep(&|shard| made(shard) <= moment && closed(shard, all) >= moment)
        }
        Some("FROM_TIMESTAMP") => {
            let moment = moment()?;
            keep(&|shard| closed(shard, all) >= moment)
        }
        Some(other) => return Err(format!("ShardFilter of type {other} is not known.")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made at second `made` of 2018 or so; the number is as AWS makes them.
    fn shard(id: &str, parents: &[&str], open: bool) -> Value {
        json!({
            "ShardId": id, "ParentShardId": parents.first(), "AdjacentParentShardId": parents.get(1),
            "SequenceNumberRange": {
                "StartingSequenceNumber": "1", "EndingSequenceNumber": (!open).then_some("2"),
            },
        })
    }

    fn ids(filter: Value) -> Vec<String> {
        let all = [
            shard("a", &[], false),
            shard("b", &[], true),
            shard("c", &["a"], true),
            shard("d", &["a"], true),
        ];
        chosen(&all, &filter).unwrap().iter().map(|shard| id(shard).to_owned()).collect()
    }

    #[test]
    fn filters_choose() {
        assert_eq!(ids(Value::Null), ["a", "b", "c", "d"]);
        assert_eq!(ids(json!({ "Type": "AFTER_SHARD_ID", "ShardId": "b" })), ["c", "d"]);
        assert_eq!(ids(json!({ "Type": "AT_TRIM_HORIZON" })), ["a", "b"]);
        assert_eq!(ids(json!({ "Type": "AT_LATEST" })), ["b", "c", "d"]);
        assert!(chosen(&[], &json!({ "Type": "AFTER_SHARD_ID" })).is_err());
        assert!(chosen(&[], &json!({ "Type": "AT_TIMESTAMP" })).is_err());
        assert!(chosen(&[], &json!({ "Type": "NEVER" })).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn shards_of_the_first_listing_are_old() {
        let seen = FirstSeen::default();
        assert_eq!(seen.age("s", &[shard("a", &[], true)]), [Duration::MAX]);
        let both = [shard("a", &[], false), shard("c", &["a"], true)];
        assert_eq!(seen.age("s", &both), [Duration::MAX, Duration::ZERO]);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(seen.age("s", &both), [Duration::MAX, Duration::from_secs(3)]);
    }
}
