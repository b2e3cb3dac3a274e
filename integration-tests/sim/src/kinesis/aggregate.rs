//! KPL aggregates as a producer makes them. Written from the format's page and not with the product's own encoder, so that
//! the two check each other.
//!
//! <https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>

use bytes::Bytes;
use md5::{Digest, Md5};

/// One record that holds `records`: pairs of partition key and data.
pub(super) fn of(records: &[(&str, Bytes)]) -> Bytes {
    let mut keys: Vec<&str> = records.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut message = Vec::new();
    for key in &keys {
        field(&mut message, 1, key.as_bytes());
    }
    for (key, data) in records {
        let index = keys.binary_search(key).expect("every key is in the table");
        let mut record = vec![1 << 3];
        varint(&mut record, index as u64);
        field(&mut record, 3, data);
        field(&mut message, 3, &record);
    }
    let digest = Md5::digest(&message);
    [&[0xF3, 0x89, 0x9A, 0xC2], message.as_slice(), digest.as_slice()].concat().into()
}

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
