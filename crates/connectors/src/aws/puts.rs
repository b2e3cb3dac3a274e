//! The bodies of `PutRecords`.
//!
//! Protocol: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>.

use std::str::Utf8Error;

use aws_sdk_kinesis::error::BoxError;
use base64_simd::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::{access::Stream, records::Text};

/// One record to write.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Text.
    key: Bytes,
    data: Bytes,
}

impl Entry {
    /// `key` is the partition key, 1…256 characters; `data` may be empty: that is a tombstone. Fails if the key is not text.
    pub(crate) fn new(key: Bytes, data: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&key)?;
        Ok(Self { key, data })
    }

    /// The partition key.
    pub(crate) fn key(&self) -> &str {
        std::str::from_utf8(&self.key).expect("looked at when the entry was made")
    }

    /// Bytes of key and data: what the service counts.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

/// What came of one record.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Put<'a> {
    /// Where it is, if it is stored.
    #[serde(borrow, default)]
    shard_id: Text<'a>,
    /// Decimal; compared as a number.
    #[serde(borrow, default)]
    sequence_number: Text<'a>,
    #[serde(borrow, default)]
    error_code: Text<'a>,
    #[serde(borrow, default)]
    error_message: Text<'a>,
}

impl Put<'_> {
    /// Shard and number of a record that is stored; code and message of one that is not.
    pub(crate) fn outcome(&self) -> Result<(&str, &str), (&str, &str)> {
        let message = self.error_message.as_str();
        match (self.error_code.as_str(), self.shard_id.as_str(), self.sequence_number.as_str()) {
            ("", "", _) | ("", _, "") => Err(("InternalFailure", message)),
            ("", shard, number) => Ok((shard, number)),
            (code, ..) => Err((code, message)),
        }
    }
}

/// The body of a request.
pub(crate) fn ask(stream: &Stream, entries: &[Entry]) -> Bytes {
    const AROUND: usize = r#"{"Data":"","PartitionKey":""},"#.len();
    let size = |entry: &Entry| AROUND + STANDARD.encoded_length(entry.data.len()) + entry.key.len();
    let mut body: Vec<u8> = Vec::with_capacity(256 + entries.iter().map(size).sum::<usize>());
    body.extend_from_slice(br#"{"Records":["#);
    for (index, entry) in entries.iter().enumerate() {
        body.extend_from_slice(if index == 0 { br#"{"Data":""#.as_slice() } else { br#",{"Data":""# });
        STANDARD.encode_append(&entry.data, &mut body);
        body.extend_from_slice(br#"","PartitionKey":"#);
        push_text(&mut body, entry.key());
        body.push(b'}');
    }
    body.extend_from_slice(br#"],"StreamName":"#);
    push_text(&mut body, &stream.name);
    if let Some(arn) = &stream.arn {
        body.extend_from_slice(br#","StreamARN":"#);
        push_text(&mut body, arn);
    }
    body.push(b'}');
    body.into()
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("text is always JSON, and memory takes all of it");
}

/// What the body of an answer says of each record, in the order of the request.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Put<'_>>, BoxError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body<'a> {
        #[serde(borrow)]
        records: Vec<Put<'a>>,
    }
    Ok(serde_json::from_slice::<Body<'_>>(body)?.records)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_request_is_json_whatever_keys_and_data_hold() {
        let entry = |key: &'static str, data: &'static [u8]| {
            Entry::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(data)).unwrap()
        };
        let entries = [entry("a\"\\ä\n", b"hello"), entry("b", b""), entry("c", &[0xff, 0xff, 0xff])];
        let mut stream = Stream { name: "out".to_owned(), arn: None };
        let body: Value = serde_json::from_slice(&ask(&stream, &entries)).unwrap();
        let records = json!([
            {"Data": "aGVsbG8=", "PartitionKey": "a\"\\ä\n"},
            {"Data": "", "PartitionKey": "b"},
            {"Data": "////", "PartitionKey": "c"},
        ]);
        assert_eq!(body, json!({"StreamName": "out", "Records": records}));
        stream.arn = Some("arn:x".to_owned());
        let body: Value = serde_json::from_slice(&ask(&stream, &[])).unwrap();
        assert_eq!(body, json!({"StreamName": "out", "StreamARN": "arn:x", "Records": []}));
    }

    #[test]
    fn a_record_is_stored_only_if_its_place_is_told() {
        let body = r#"{"FailedRecordCount": 3, "EncryptionType": "KMS", "Records": [
            {"SequenceNumber": "49", "ShardId": "shardId-0"},
            {"SequenceNumber": "50", "ShardId": "shardId-0", "ErrorCode": null, "ErrorMessage": null},
            {"ErrorCode": "KMSDisabledException", "ErrorMessage": "off"},
            {"SequenceNumber": null, "ShardId": "shardId-0"},
            {}]}"#;
        let puts = read(body.as_bytes()).unwrap();
        let outcomes: Vec<_> = puts.iter().map(Put::outcome).collect();
        assert_eq!(
            outcomes,
            [
                Ok(("shardId-0", "49")),
                Ok(("shardId-0", "50")),
                Err(("KMSDisabledException", "off")),
                Err(("InternalFailure", "")),
                Err(("InternalFailure", "")),
            ]
        );
        assert!(read(b"{}").is_err() && read(b"<html>").is_err());
    }
}
