//! The keys of a cluster, one file per kind, and the values behind them (JSON of the model's records).
//!
//! ```text
//! /{cluster}/schema                                   Schema          /{cluster}/worker/{name}                          WorkerRecord
//! /{cluster}/leader                                   LeaderRecord    /{cluster}/assignment/{sink}/{creation}/{split}   Assignment
//! /{cluster}/name/{kind}/{name}                       ObjectId        /{cluster}/checkpoint/{sink}/{creation}/{split}   Checkpoint
//! /{cluster}/object/{id}                              ObjectRecord    /{cluster}/lane/{worker}/{n}                      Lane
//! /{cluster}/split/{source}/{creation}/{split}        SplitRecord /{cluster}/assignment/{sink}/partition/{n}        Assignment
//! /{cluster}/grantee/{name}                           Grantee
//! ```
//!
//! The coordinator is the only writer. A key has exactly one text and a text at most one meaning (proptests below).

mod assignment;
mod checkpoint;
mod grantee;
mod lane;
mod leader;
mod name;
mod object;
mod schema;
mod segment;
mod split;
mod view;
mod worker;

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

pub use assignment::AssignmentKey;
pub use checkpoint::CheckpointKey;
pub use grantee::GranteeKey;
pub use lane::{Lane, LaneKey};
pub use leader::{LeaderKey, LeaderRecord};
pub use name::NameKey;
pub use object::{ObjectKey, ObjectRecord, Spec};
pub use schema::{Schema, SchemaKey};
pub use split::SplitKey;
pub use view::{Versioned, View};
pub use worker::WorkerKey;

use crate::{Error, ErrorKind, Key, Result, Write};

/// One kind of key: how its identity becomes text and back, and what stands behind it.
pub trait Kind {
    /// What tells two keys of this kind apart.
    type Id: Clone + Ord;
    /// What stands behind a key.
    type Value: Serialize + DeserializeOwned;
    /// The segment after the cluster.
    const WORD: &'static str;
    /// Appends the segments of `id`, each with its `/`.
    fn write(id: &Self::Id, path: &mut String);
    /// The identity in the segments after [`Kind::WORD`].
    fn read(segments: &[&str]) -> Option<Self::Id>;
}

/// For kinds of which there is one key.
fn single(segments: &[&str]) -> Option<()> {
    segments.is_empty().then_some(())
}

/// The keys of one cluster. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyspace {
    /// `/{cluster}`
    root: Arc<str>,
}

impl Keyspace {
    /// The keys of the cluster of this name.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let mut root = String::new();
        segment::push(&mut root, cluster);
        Self { root: root.into() }
    }

    /// The prefix of everything that the cluster keeps: what [`View::decode`] wants listed.
    #[must_use]
    pub fn all(&self) -> Key {
        Key(format!("{}/", self.root))
    }

    /// The key of one thing.
    #[must_use]
    pub fn key<K: Kind>(&self, id: &K::Id) -> Key {
        let mut path = format!("{}/{}", self.root, K::WORD);
        K::write(id, &mut path);
        Key(path)
    }

    /// The prefix of all keys of a kind that has more than one.
    #[must_use]
    pub fn all_of<K: Kind>(&self) -> Key {
        Key(format!("{}/{}/", self.root, K::WORD))
    }

    /// The write that sets one thing.
    #[must_use]
    pub fn put<K: Kind>(&self, id: &K::Id, value: &K::Value) -> Write {
        Write::Put(self.key::<K>(id), encode(value))
    }

    /// The write that removes one thing.
    #[must_use]
    pub fn delete<K: Kind>(&self, id: &K::Id) -> Write {
        Write::Delete(self.key::<K>(id))
    }

    /// The identity in a key, if it is of this kind and of this cluster.
    #[must_use]
    pub fn parse<K: Kind>(&self, key: &Key) -> Option<K::Id> {
        let segments = self.segments(key)?;
        let (word, rest) = segments.split_first()?;
        (*word == K::WORD).then(|| K::read(rest)).flatten()
    }

    /// The segments after the cluster's.
    fn segments<'a>(&self, key: &'a Key) -> Option<Vec<&'a str>> {
        Some(key.as_str().strip_prefix(&*self.root)?.strip_prefix('/')?.split('/').collect())
    }
}

/// The bytes of a value.
pub(crate) fn encode(value: &impl Serialize) -> bytes::Bytes {
    serde_json::to_vec(value).expect("records have text keys only, so JSON can hold them").into()
}

/// A value from its bytes.
///
/// # Errors
/// `Corrupt`, naming the key, if it is not what stands behind keys of this kind.
pub fn decode<V: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<V> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(ErrorKind::Corrupt, format!("value of key `{key}` is not readable: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{Creation, ObjectId, ObjectKind, SplitId, TaskId};
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = ObjectId> {
        (any::<u32>(), any::<u128>()).prop_map(|(at, random)| ObjectId::from_parts(u64::from(at), random))
    }

    fn any_split() -> impl Strategy<Value = SplitId> {
        (any::<i64>(), any::<String>()).prop_map(|(at, name)| SplitId::new(Creation(at), &name))
    }

    fn comes_back<K: Kind>(cluster: &str, id: &K::Id) -> bool {
        let keys = Keyspace::new(cluster);
        let key = keys.key::<K>(id);
        key.as_str().starts_with(keys.all().as_str()) && keys.parse::<K>(&key).as_ref() == Some(id)
    }

    proptest! {
        #[test]
        fn every_key_comes_back(cluster: String, name: String, n: u32, sink in any_id(), split in any_split(), kind in 0..3_usize) {
            let kind = [ObjectKind::Source, ObjectKind::Sink, ObjectKind::Credential][kind];
            let (task, partition) = (TaskId::reads(sink, split.clone()), TaskId::writes(sink, n));
            prop_assert!(comes_back::<SchemaKey>(&cluster, &()));
            prop_assert!(comes_back::<LeaderKey>(&cluster, &()));
            prop_assert!(comes_back::<NameKey>(&cluster, &(kind, name.clone())));
            prop_assert!(comes_back::<ObjectKey>(&cluster, &sink));
            prop_assert!(comes_back::<SplitKey>(&cluster, &(sink, split)));
            prop_assert!(comes_back::<WorkerKey>(&cluster, &name));
            prop_assert!(comes_back::<GranteeKey>(&cluster, &name));
            prop_assert!(comes_back::<AssignmentKey>(&cluster, &task));
            prop_assert!(comes_back::<AssignmentKey>(&cluster, &partition));
            prop_assert!(comes_back::<CheckpointKey>(&cluster, &task));
            prop_assert!(comes_back::<LaneKey>(&cluster, &(name, n)));
        }

        #[test]
        fn keys_of_one_cluster_are_not_those_of_another(a: String, b: String, name: String) {
            prop_assume!(a != b);
            let key = Keyspace::new(&a).worker(&name);
            prop_assert!(Keyspace::new(&b).parse::<WorkerKey>(&key).is_none());
            prop_assert!(!key.as_str().starts_with(Keyspace::new(&b).all().as_str()));
        }

        #[test]
        fn a_text_that_parses_is_the_key(tail in "[a-z0-9%/A-F]{0,12}") {
            let keys = Keyspace::new("c");
            let key = Key(format!("/c/worker/{tail}"));
            if let Some(name) = keys.parse::<WorkerKey>(&key) {
                prop_assert_eq!(keys.worker(&name), key);
            }
        }
    }

    #[test]
    fn the_layout_is_the_written_one() {
        let keys = Keyspace::new("prod");
        let id = ObjectId::from_parts(0, 7);
        let split = SplitId::new(Creation(5), "shardId-01");
        let task = TaskId::reads(id, split.clone());
        let text = |key: Key| key.to_string();
        assert_eq!(text(keys.schema()), "/prod/schema");
        assert_eq!(text(keys.leader()), "/prod/leader");
        assert_eq!(text(keys.name(ObjectKind::Sink, "a b/c")), "/prod/name/sink/a%20b%2Fc");
        assert_eq!(text(keys.object(id)), format!("/prod/object/{id}"));
        assert_eq!(text(keys.split(id, &split)), format!("/prod/split/{id}/5/shardId-01"));
        assert_eq!(text(keys.worker("w-0")), "/prod/worker/w-0");
        assert_eq!(text(keys.grantee("system:x")), "/prod/grantee/system%3Ax");
        assert_eq!(text(keys.assignment(&task)), format!("/prod/assignment/{id}/5/shardId-01"));
        let partition = TaskId::writes(id, 3);
        assert_eq!(text(keys.assignment(&partition)), format!("/prod/assignment/{id}/partition/3"));
        assert_eq!(text(keys.checkpoint(&task)), format!("/prod/checkpoint/{id}/5/shardId-01"));
        assert_eq!(text(keys.lane("w-0", 2)), "/prod/lane/w-0/2");
        let words = [
            SchemaKey::WORD,
            LeaderKey::WORD,
            NameKey::WORD,
            ObjectKey::WORD,
            SplitKey::WORD,
            WorkerKey::WORD,
            GranteeKey::WORD,
            AssignmentKey::WORD,
            CheckpointKey::WORD,
            LaneKey::WORD,
        ];
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
    }
}
