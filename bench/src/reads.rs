//! When a shard was first read by whoever opened it, seen at the endpoint: no process has to be believed.
//!
//! A layer around the endpoint remembers which shard each new iterator opens, and when the first records were given for it.
//! Everything else passes through it untouched.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use anyhow::Result;
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::live::now_ms;

/// Where the moments can be read: `STREAM/SHARD` → milliseconds since 1970, JSON.
pub(crate) const PATH: &str = "/reads";

/// More than any request or answer that is looked at.
const BODY_MAX: usize = 16 << 20;

/// Moments of the first reads, by `STREAM/SHARD`; of each shard that of its newest opening.
pub(crate) type Reads = BTreeMap<String, i64>;

/// What the layer knows.
#[derive(Default)]
pub(crate) struct Watch {
    /// Iterators that no records were given for yet, and their shards.
    opened: HashMap<String, String>,
    reads: Reads,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Open {
    stream_name: String,
    shard_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Iterator {
    #[serde(alias = "NextShardIterator")]
    shard_iterator: String,
}

/// The layer.
pub(crate) async fn observe(watch: Arc<Mutex<Watch>>, request: Request, next: Next) -> Response {
    let locked = || watch.lock().expect("nobody panics while holding this lock");
    if request.uri().path() == PATH {
        return serde_json::to_string(&locked().reads).unwrap_or_default().into_response();
    }
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let call = target.and_then(|target| target.split_once('.')).map(|(_, call)| call.to_owned());
    let Some(call @ ("GetShardIterator" | "GetRecords")) = call.as_deref() else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let Ok(asked) = to_bytes(body, BODY_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = Request::from_parts(parts, Body::from(asked.clone()));
    if call == "GetRecords" {
        let Some(shard) = locked().take(&asked) else { return next.run(request).await };
        let (answer, response) = whole(next.run(request).await).await;
        locked().answered(shard, &answer);
        return response;
    }
    let (answer, response) = whole(next.run(request).await).await;
    if let (Ok(open), Ok(new)) = (serde_json::from_slice::<Open>(&asked), serde_json::from_slice(&answer)) {
        locked().open(&open, new);
    }
    response
}

/// An answer and its body.
async fn whole(response: Response) -> (Bytes, Response) {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    (body.clone(), Response::from_parts(parts, Body::from(body)))
}

impl Watch {
    fn open(&mut self, open: &Open, new: Iterator) {
        self.opened.insert(new.shard_iterator, format!("{}/{}", open.stream_name, open.shard_id));
    }

    /// The shard of a request with an iterator that waits for its first records. The iterator is looked for in the bytes:
    /// whatever the reader's codec, it stands there as text.
    fn take(&mut self, asked: &[u8]) -> Option<String> {
        let token = self.opened.keys().find(|token| contains(asked, token.as_bytes()))?.clone();
        self.opened.remove(&token)
    }

    /// The answer to it: the first records, or the iterator that goes on waiting.
    fn answered(&mut self, shard: String, answer: &[u8]) {
        if contains(answer, b"PartitionKey") {
            self.reads.insert(shard, now_ms());
        } else if let Ok(next) = serde_json::from_slice::<Iterator>(answer) {
            self.opened.insert(next.shard_iterator, shard);
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What the layer of the endpoint at this URL has seen.
pub(crate) async fn seen(url: &str) -> Result<Reads> {
    let address = url.trim_start_matches("http://").parse()?;
    Ok(serde_json::from_str(&crate::scrape::get(address, PATH).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_records_count_and_empty_answers_before_them_do_not() {
        let mut watch = Watch::default();
        let open = Open { stream_name: "s".to_owned(), shard_id: "a".to_owned() };
        watch.open(&open, Iterator { shard_iterator: "one".to_owned() });
        let shard = watch.take(br#"{"ShardIterator":"one"}"#).unwrap();
        watch.answered(shard, br#"{"Records":[],"NextShardIterator":"two"}"#);
        assert!(watch.reads.is_empty());
        let shard = watch.take(br#"{"ShardIterator":"two"}"#).unwrap();
        watch.answered(shard, br#"{"Records":[{"PartitionKey":"k"}],"NextShardIterator":"three"}"#);
        assert!(watch.reads["s/a"] > 0);
        assert_eq!(watch.take(br#"{"ShardIterator":"three"}"#), None);
    }
}
