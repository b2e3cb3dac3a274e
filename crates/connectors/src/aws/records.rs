//! The bodies of `GetRecords`. Keys and data are decoded into a few shared blocks: thousands of records an answer, and not
//! one allocation for each.
//!
//! Protocol: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>.

use std::{borrow::Cow, fmt, time::Duration};

use aws_sdk_kinesis::error::BoxError;
use base64_simd::{AsOut, STANDARD};
use bytes::{Bytes, BytesMut};
use model::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, Visitor},
};

/// What shares one allocation. A record that is kept alone keeps this much at most.
const BLOCK: usize = 256 << 10;

/// A record of a shard, aggregates still closed.
#[derive(Debug)]
pub(crate) struct Record {
    /// Decimal, compared as a number; belongs to one shard.
    pub sequence_number: String,
    /// The partition key.
    pub key: Bytes,
    /// As written.
    pub data: Bytes,
    /// Not monotonic.
    pub arrived_at: Timestamp,
}

/// What one `GetRecords` brought.
#[derive(Debug)]
pub(crate) struct Answer {
    /// In the order of the shard; may be empty although there is more.
    pub records: Vec<Record>,
    /// Keys and data of `records`.
    pub bytes: usize,
    /// Where to go on; `None` when the shard is closed and `records` were its last.
    pub next: Option<String>,
    /// `MillisBehindLatest`.
    pub behind: Option<Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    shard_iterator: &'a str,
    limit: i32,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<&'a str>,
}

/// The body of a request.
pub(crate) fn ask(iterator: &str, limit: i32, stream_arn: Option<&str>) -> Bytes {
    let question = Question { shard_iterator: iterator, limit, stream_arn };
    serde_json::to_vec(&question).expect("text and a number are always JSON").into()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(borrow, default)]
    records: Vec<Item<'a>>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    sequence_number: String,
    #[serde(borrow)]
    data: Cow<'a, str>,
    // A stream that places records by itself (AUTO) may hand them out without a key.
    #[serde(borrow, default)]
    partition_key: Text<'a>,
    /// Seconds since 1970.
    approximate_arrival_timestamp: Option<f64>,
}

/// Text that may be missing or null: then it is empty. Borrowed from the body unless it holds escapes.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_none<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }

            fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<Text<'de>, D::Error> {
                some.deserialize_str(self)
            }
        }
        deserializer.deserialize_option(Visit)
    }
}

/// What the body of an answer holds.
pub(crate) fn read(body: &[u8]) -> Result<Answer, BoxError> {
    let body: Body<'_> = serde_json::from_slice(body)?;
    let mut block = BytesMut::new();
    let mut records = Vec::with_capacity(body.records.len());
    let mut bytes = 0;
    for item in body.records {
        let (data, key) = (item.data.as_bytes(), item.partition_key.as_str().as_bytes());
        let length = STANDARD.decoded_length(data).map_err(|_| not_base64(&item.sequence_number))?;
        let size = length + key.len();
        if block.capacity() < size {
            block = BytesMut::with_capacity(size.max(BLOCK));
        }
        block.resize(length, 0);
        STANDARD.decode(data, block.as_mut().as_out()).map_err(|_| not_base64(&item.sequence_number))?;
        let data = block.split().freeze();
        block.extend_from_slice(key);
        bytes += size;
        records.push(Record {
            sequence_number: item.sequence_number,
            key: block.split().freeze(),
            data,
            arrived_at: item.approximate_arrival_timestamp.map(millis).unwrap_or_default(),
        });
    }
    Ok(Answer {
        records,
        bytes,
        next: body.next_shard_iterator.filter(|token| !token.is_empty()),
        behind: body
            .millis_behind_latest
            .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())),
    })
}

fn not_base64(number: &str) -> BoxError {
    serde_json::Error::custom(format!("the data of record {number} is not base64")).into()
}

/// The service tells milliseconds, as a fraction of a second that binary numbers only come near to.
fn millis(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)]
    Timestamp((seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::json;

    use super::*;

    fn numbers(answer: &Answer) -> Vec<&str> {
        answer.records.iter().map(|record| record.sequence_number.as_str()).collect()
    }

    #[test]
    fn a_question_names_the_stream_only_by_its_arn() {
        assert_eq!(ask("it\"", 10, None), r#"{"ShardIterator":"it\"","Limit":10}"#);
        assert_eq!(ask("it", 1, Some("arn:x")), r#"{"ShardIterator":"it","Limit":1,"StreamARN":"arn:x"}"#);
    }

    #[test]
    fn records_are_what_was_written_however_the_answer_is_spelled() {
        let body = r#" {"MillisBehindLatest": 12, "ChildShards": [{"ShardId": "x"}], "NextShardIterator": "n\/1",
            "Records": [
              {"SequenceNumber": "1", "Data": "aGVsbG8=", "PartitionKey": "k\u00e4\"y", "EncryptionType": "NONE",
               "ApproximateArrivalTimestamp": 1700000000.123},
              {"ApproximateArrivalTimestamp": 1.7E9, "Data": "\/\/\/\/", "SequenceNumber": "2", "PartitionKey": null},
              {"Data": "", "SequenceNumber": "3"}]}"#;
        let answer = read(body.as_bytes()).unwrap();
        assert_eq!(numbers(&answer), ["1", "2", "3"]);
        let data: Vec<&[u8]> = answer.records.iter().map(|record| record.data.as_ref()).collect();
        assert_eq!(data, [&b"hello"[..], &[0xff, 0xff, 0xff], b""]);
        let keys: Vec<&[u8]> = answer.records.iter().map(|record| record.key.as_ref()).collect();
        assert_eq!(keys, ["kä\"y".as_bytes(), b"", b""]);
        let times: Vec<i64> = answer.records.iter().map(|record| record.arrived_at.0).collect();
        assert_eq!(times, [1_700_000_000_123, 1_700_000_000_000, 0]);
        assert_eq!((answer.bytes, answer.next.as_deref()), (5 + 5 + 3, Some("n/1")));
        assert_eq!(answer.behind, Some(Duration::from_millis(12)));
    }

    #[test]
    fn a_closed_shard_has_no_next() {
        for body in
            [r#"{"Records":[],"NextShardIterator":null}"#, r#"{"Records":[],"NextShardIterator":""}"#, "{}"]
        {
            let answer = read(body.as_bytes()).unwrap();
            assert!(answer.records.is_empty() && answer.next.is_none() && answer.behind.is_none());
        }
    }

    #[test]
    fn data_of_many_sizes_survives_the_shared_blocks() {
        let sizes = [0, 1, 2, 3, 562, BLOCK - 1, BLOCK, BLOCK + 1, 3 << 20, 7, 100_000, 100_000, 100_000, 5];
        let data: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, size)| vec![u8::try_from(i).unwrap() + 1; *size]).collect();
        let records: Vec<_> = data
            .iter()
            .enumerate()
            .map(|(i, data)| json!({"SequenceNumber": i.to_string(), "Data": BASE64_STANDARD.encode(data), "PartitionKey": format!("k{i}")}))
            .collect();
        let answer = read(json!({ "Records": records }).to_string().as_bytes()).unwrap();
        assert_eq!(answer.records.len(), sizes.len());
        for (i, record) in answer.records.iter().enumerate() {
            assert!(record.data == data[i] && record.key == format!("k{i}"), "record {i}");
        }
        assert_eq!(answer.bytes, data.iter().map(Vec::len).sum::<usize>() + 10 * 2 + 4 * 3);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in [
            "",
            "<html>",
            "[1]",
            r#"{"Records":[{"SequenceNumber":"1"}]}"#,
            r#"{"Records":[{"Data":""}]}"#,
            r#"{"Records":[{"SequenceNumber":"1","Data":null}]}"#,
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
        for data in ["a", "aGVsbG8", "aGVs*G8=", "aGVsbG9="] {
            let body = json!({"Records": [{"SequenceNumber": "17", "Data": data}]}).to_string();
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, "the data of record 17 is not base64", "{data}");
        }
    }
}
