//! Aggregates of the Kinesis Producer Library: many records of a user inside one record of a shard. Called by the Kinesis
//! source on every payload, so a payload that is none costs four compared bytes.
//!
//! ```text
//! F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf, 16 bytes
//! AggregatedRecord { repeated string partition_key = 1; repeated string explicit_hash_key = 2; repeated Record record = 3; }
//! Record           { uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2; bytes data = 3; … }
//! ```
//!
//! (<https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>.) Whatever does not fit this shape
//! to the last byte is a plain record, never an error and never dropped; nor is a record dropped because its key hashes into
//! another shard, as an aggregate that crosses a split legitimately holds such (docs/kinesis.md S17).

use bytes::{BufMut, Bytes, BytesMut};
use md5::{Digest, Md5};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST_LEN: usize = 16;
/// More inner records than any producer makes. An aggregate with more is a plain record: its data is kept, its expansion is not
/// paid for.
const RECORDS_MAX: usize = 100_000;

/// One record inside an aggregate. Its bytes are slices of the aggregate's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserRecord {
    /// The partition key.
    pub key: Bytes,
    /// The explicit hash key, decimal, if one was given.
    pub hash_key: Option<Bytes>,
    /// The user's bytes.
    pub data: Bytes,
}

/// The records inside `payload`, at least one; `None` if it is a plain record.
#[must_use]
pub fn open(payload: &Bytes) -> Option<Vec<UserRecord>> {
    if payload.len() < MAGIC.len() + DIGEST_LEN || payload[..MAGIC.len()] != MAGIC {
        return None;
    }
    let body = payload.slice(MAGIC.len()..payload.len() - DIGEST_LEN);
    let digest = &payload[payload.len() - DIGEST_LEN..];
    if Md5::digest(&body).as_slice() != digest {
        return None;
    }
    aggregated(body).filter(|records| !records.is_empty())
}

/// An inner record whose keys are still indexes.
struct Indexed {
    key: u64,
    hash_key: Option<u64>,
    data: Bytes,
}

fn aggregated(mut body: Bytes) -> Option<Vec<UserRecord>> {
    let (mut keys, mut hash_keys, mut records) = (Vec::new(), Vec::new(), Vec::new());
    while !body.is_empty() {
        let (tag, wire) = decode_key(&mut body).ok()?;
        match (tag, wire) {
            (1, WireType::LengthDelimited) => keys.push(text(&mut body)?),
            (2, WireType::LengthDelimited) => hash_keys.push(text(&mut body)?),
            (3, WireType::LengthDelimited) => records.push(record(length_delimited(&mut body)?)?),
            (1..=3, _) => return None,
            _ => skip_field(wire, tag, &mut body, DecodeContext::default()).ok()?,
        }
        if records.len().max(keys.len()).max(hash_keys.len()) > RECORDS_MAX {
            return None;
        }
    }
    let at = |table: &[Bytes], index: u64| table.get(usize::try_from(index).ok()?).cloned();
    records
        .into_iter()
        .map(|indexed| {
            let hash_key = match indexed.hash_key {
                Some(index) => Some(at(&hash_keys, index)?),
                None => None,
            };
            Some(UserRecord { key: at(&keys, indexed.key)?, hash_key, data: indexed.data })
        })
        .collect()
}

fn record(mut body: Bytes) -> Option<Indexed> {
    let (mut key, mut hash_key, mut data) = (None, None, None);
    while !body.is_empty() {
        let (tag, wire) = decode_key(&mut body).ok()?;
        match (tag, wire) {
            (1, WireType::Varint) => key = Some(decode_varint(&mut body).ok()?),
            (2, WireType::Varint) => hash_key = Some(decode_varint(&mut body).ok()?),
            (3, WireType::LengthDelimited) => data = Some(length_delimited(&mut body)?),
            (1..=3, _) => return None,
            _ => skip_field(wire, tag, &mut body, DecodeContext::default()).ok()?,
        }
    }
    Some(Indexed { key: key?, hash_key, data: data? })
}

fn length_delimited(body: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(decode_varint(body).ok()?).ok()?;
    if len > body.len() { None } else { Some(body.split_to(len)) }
}

fn text(body: &mut Bytes) -> Option<Bytes> {
    length_delimited(body).filter(|bytes| std::str::from_utf8(bytes).is_ok())
}

/// The aggregate of `records`, as a producer would make it.
#[must_use]
pub fn close(records: &[UserRecord]) -> Bytes {
    let mut keys: Vec<&Bytes> = Vec::new();
    let mut hash_keys: Vec<&Bytes> = Vec::new();
    let mut inner = BytesMut::new();
    for record in records {
        let mut body = BytesMut::new();
        body.put_u8(0x08);
        encode_varint(index_of(&mut keys, &record.key), &mut body);
        if let Some(hash_key) = &record.hash_key {
            body.put_u8(0x10);
            encode_varint(index_of(&mut hash_keys, hash_key), &mut body);
        }
        put_bytes(&mut body, 0x1A, &record.data);
        put_bytes(&mut inner, 0x1A, &body);
    }
    let mut body = BytesMut::new();
    keys.iter().for_each(|key| put_bytes(&mut body, 0x0A, key));
    hash_keys.iter().for_each(|key| put_bytes(&mut body, 0x12, key));
    body.extend_from_slice(&inner);
    let mut out = BytesMut::with_capacity(MAGIC.len() + body.len() + DIGEST_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&body);
    out.extend_from_slice(&Md5::digest(&body));
    out.freeze()
}

fn index_of<'a>(table: &mut Vec<&'a Bytes>, key: &'a Bytes) -> u64 {
    let index = table.iter().position(|known| *known == key).unwrap_or_else(|| {
        table.push(key);
        table.len() - 1
    });
    index as u64
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(body: &[u8]) -> Bytes {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(body);
        out.extend_from_slice(&Md5::digest(body));
        out.into()
    }

    fn user(key: &str, hash_key: Option<&str>, data: &[u8]) -> UserRecord {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        UserRecord { key: bytes(key), hash_key: hash_key.map(bytes), data: Bytes::copy_from_slice(data) }
    }

    /// Written down by hand from the format's page, so that `open` is not only tested against `close`.
    #[test]
    fn a_known_aggregate_opens() {
        let body = [
            0x0A, 0x01, b'a', 0x0A, 0x01, b'b', 0x12, 0x02, b'4', b'2', // keys a, b; hash key 42
            0x1A, 0x06, 0x08, 0x01, 0x1A, 0x02, b'h', b'i', // record of b: "hi"
            0x1A, 0x08, 0x08, 0x00, 0x10, 0x00, 0x1A, 0x00, 0x22,
            0x00, // record of a, hash key 42, empty, an (unknown) tag
        ];
        let opened = open(&sealed(&body)).unwrap();
        assert_eq!(opened, [user("b", None, b"hi"), user("a", Some("42"), b"")]);
    }

    #[test]
    fn data_is_a_slice_of_the_payload() {
        let payload = close(&[user("k", None, b"some bytes")]);
        let opened = open(&payload).unwrap();
        let range = payload.as_ptr() as usize..payload.as_ptr() as usize + payload.len();
        assert!(range.contains(&(opened[0].data.as_ptr() as usize)));
    }

    #[test]
    fn what_does_not_fit_is_a_plain_record() {
        let bodies: [(&str, &[u8]); 8] = [
            ("no record", &[0x0A, 0x01, b'a']),
            ("key index out of the table", &[0x0A, 0x01, b'a', 0x1A, 0x04, 0x08, 0x01, 0x1A, 0x00]),
            ("hash key index out of the table", &[0x0A, 0x01, b'a', 0x1A, 0x06, 0x08, 0, 0x10, 0, 0x1A, 0]),
            ("no data", &[0x0A, 0x01, b'a', 0x1A, 0x02, 0x08, 0x00]),
            ("no key", &[0x0A, 0x01, b'a', 0x1A, 0x02, 0x1A, 0x00]),
            ("length beyond the end", &[0x0A, 0x7F, b'a']),
            ("key is not text", &[0x0A, 0x01, 0xFF, 0x1A, 0x04, 0x08, 0x00, 0x1A, 0x00]),
            ("wrong wire type", &[0x18, 0x01]),
        ];
        for (why, body) in bodies {
            assert_eq!(open(&sealed(body)), None, "{why}");
        }
        let whole = close(&[user("k", None, b"x")]);
        assert_eq!(open(&whole.slice(..whole.len() - 1)), None, "cut");
        let mut wrong = whole.to_vec();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(open(&wrong.into()), None, "digest");
        assert_eq!(open(&Bytes::from_static(b"")), None);
        assert_eq!(open(&Bytes::from_static(&MAGIC)), None);
    }

    #[test]
    fn an_endless_aggregate_is_not_expanded() {
        let mut body = vec![0x0A, 0x00];
        for _ in 0..=RECORDS_MAX {
            body.extend_from_slice(&[0x1A, 0x04, 0x08, 0x00, 0x1A, 0x00]);
        }
        assert_eq!(open(&sealed(&body)), None);
        assert!(open(&sealed(&body[..body.len() - 6])).is_some());
    }

    fn any_user() -> impl Strategy<Value = UserRecord> {
        ("[a-c]{0,3}", prop::option::of("[0-9]{1,2}"), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(key, hash_key, data)| user(&key, hash_key.as_deref(), &data))
    }

    proptest! {
        #[test]
        fn what_is_closed_opens_the_same(users in prop::collection::vec(any_user(), 1..30)) {
            prop_assert_eq!(open(&close(&users)), Some(users));
        }

        #[test]
        fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&sealed(&body));
            let _ = open(&Bytes::from(body));
        }

        #[test]
        fn a_damaged_aggregate_is_a_plain_record(
            users in prop::collection::vec(any_user(), 1..10), at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let mut bytes = close(&users).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(open(&bytes.into()), None);
        }

        /// A sealed body that was damaged before sealing: whatever opens has keys from its own tables.
        #[test]
        fn a_strange_body_stays_within_its_bytes(
            users in prop::collection::vec(any_user(), 1..10), at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let whole = close(&users);
            let mut body = whole[4..whole.len() - 16].to_vec();
            let at = at.index(body.len());
            body[at] ^= flip;
            let len = body.len();
            if let Some(opened) = open(&sealed(&body)) {
                prop_assert!(opened.iter().map(|u| u.data.len()).sum::<usize>() <= len);
            }
        }
    }
}
