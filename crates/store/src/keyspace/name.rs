//! `/{cluster}/name/{kind}/{name}`: which object has a name. Dropping removes it at once, while the object still drains.

use model::{ObjectId, ObjectKind};

use super::{Keyspace, Kind, segment};
use crate::Key;

/// The kind of this key.
pub struct NameKey;

impl Kind for NameKey {
    type Id = (ObjectKind, String);
    type Value = ObjectId;
    const WORD: &'static str = "name";
    fn write((kind, name): &Self::Id, path: &mut String) {
        segment::push(path, kind.as_str());
        segment::push(path, name);
    }
    fn read(segments: &[&str]) -> Option<Self::Id> {
        let [kind, name] = segments else { return None };
        let kinds = [ObjectKind::Source, ObjectKind::Sink, ObjectKind::Credential];
        let kind = kinds.into_iter().find(|k| k.as_str() == *kind)?;
        Some((kind, segment::decode(name)?))
    }
}

impl Keyspace {
    /// The key of one name.
    #[must_use]
    pub fn name(&self, kind: ObjectKind, name: &str) -> Key {
        self.key::<NameKey>(&(kind, name.to_owned()))
    }
}
