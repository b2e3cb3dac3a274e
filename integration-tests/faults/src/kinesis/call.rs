//! A request, and which shard it is about. Iterators are the proxy's own, so that they tell their shard: the endpoint's
//! iterator travels inside.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Request, body::Incoming};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Reply,
    wire::{self, error},
};
use crate::faults::{ShardKey, now_ms};

/// The largest request of the service: 10 MiB, in base64, and some.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// An iterator of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// The endpoint's.
    #[serde(rename = "i")]
    pub inner: String,
    #[serde(rename = "s")]
    pub stream: String,
    #[serde(rename = "h")]
    pub shard: String,
    /// In ms since 1970.
    #[serde(rename = "t")]
    pub made: u64,
}

impl Token {
    pub(super) fn new(inner: &str, shard: &ShardKey) -> Self {
        let (stream, shard) = shard.clone();
        Self { inner: inner.to_owned(), stream, shard, made: now_ms() }
    }

    pub(super) fn key(&self) -> ShardKey {
        (self.stream.clone(), self.shard.clone())
    }

    /// The same place, made now.
    pub(super) fn renewed(&self) -> Self {
        Self { made: now_ms(), ..self.clone() }
    }

    pub(super) fn encode(&self) -> String {
        pack(self)
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        unpack(text)
    }
}

/// Anything as opaque text.
pub(super) fn pack(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("a struct of strings and numbers is JSON"))
}

/// The reverse of [`pack`].
pub(super) fn unpack<T: for<'a> Deserialize<'a>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A request.
pub(crate) struct Call {
    /// `GetRecords`; empty if the request names none.
    pub operation: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Null if it is not JSON.
    pub json: Value,
    pub stream: Option<String>,
    pub shard: Option<String>,
    pub(super) token: Option<Token>,
}

impl Call {
    pub(super) async fn receive(request: Request<Incoming>) -> Result<Self, Reply> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_BYTES_MAX).collect().await else {
            return Err(Reply::Answer(error(413, "SerializationException", "the request is too large")));
        };
        Ok(Self::read(parts.headers, body.to_bytes()))
    }

    pub(super) fn read(headers: HeaderMap, body: Bytes) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let operation = text("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned();
        let json = match text("content-type").split(';').next() {
            Some(wire::JSON) => serde_json::from_slice(&body).unwrap_or_default(),
            _ => Value::Null,
        };
        let field = |name: &str| json[name].as_str().map(str::to_owned);
        let token = json["ShardIterator"].as_str().and_then(Token::decode);
        let of_page = || json["NextToken"].as_str().and_then(super::shards::stream_of_page);
        let stream = field("StreamName")
            .or_else(|| field("StreamARN").and_then(|arn| stream_of(&arn)))
            .or_else(|| field("ConsumerARN").and_then(|arn| stream_of(&arn)))
            .or_else(|| token.as_ref().map(|token| token.stream.clone()))
            .or_else(of_page);
        let shard = field("ShardId")
            .or_else(|| field("ShardToSplit"))
            .or_else(|| field("ShardToMerge"))
            .or_else(|| token.as_ref().map(|token| token.shard.clone()));
        Self { operation, headers, body, json, stream, shard, token }
    }

    /// Which shard it is about.
    pub(super) fn key(&self) -> Option<ShardKey> {
        Some((self.stream.clone()?, self.shard.clone()?))
    }
}

/// The stream's name in its ARN or in that of one of its consumers.
fn stream_of(arn: &str) -> Option<String> {
    let (_, rest) = arn.split_once(":stream/")?;
    rest.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &str, body: &str) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", format!("Kinesis_20131202.{operation}").parse().unwrap());
        headers.insert("content-type", wire::JSON.parse().unwrap());
        Call::read(headers, Bytes::from(body.to_owned()))
    }

    #[test]
    fn a_call_tells_its_stream_and_shard() {
        let read = |call: Call| (call.operation, call.stream, call.shard);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(call("GetShardIterator", r#"{"StreamName":"s","ShardId":"a"}"#)),
            ("GetShardIterator".to_owned(), some("s"), some("a"))
        );
        let arn = r#"{"ConsumerARN":"arn:aws:kinesis:eu:1:stream/s/consumer/c:5","ShardId":"a"}"#;
        assert_eq!(
            read(call("SubscribeToShard", arn)),
            ("SubscribeToShard".to_owned(), some("s"), some("a"))
        );
        let token = Token::new("theirs", &("s".to_owned(), "a".to_owned()));
        let body = format!(r#"{{"ShardIterator":"{}"}}"#, token.encode());
        let read_call = call("GetRecords", &body);
        assert_eq!(read_call.token, Some(token));
        assert_eq!(read_call.key(), Some(("s".to_owned(), "a".to_owned())));
        assert_eq!(read(call("ListStreams", "{}")), ("ListStreams".to_owned(), None, None));
    }

    #[test]
    fn what_is_not_json_is_known_by_its_operation_only() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", "Kinesis_20131202.PutRecord".parse().unwrap());
        headers.insert("content-type", "application/x-amz-cbor-1.1".parse().unwrap());
        let call = Call::read(headers, Bytes::from_static(b"\xa0"));
        assert_eq!((call.operation.as_str(), call.json.is_null()), ("PutRecord", true));
    }
}
