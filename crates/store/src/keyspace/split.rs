//! `/{cluster}/split/{source}/{creation}/{split}`: the lineage of a source, written by discovery. The creation of the
//! stream is in the key, so a stream that was deleted and created again shares no key with its ancestor (S13).

use model::{Creation, ObjectId, SplitId, SplitRecord};

use super::{Keyspace, Kind, object::object_id, segment};
use crate::Key;

/// The kind of this key.
pub struct SplitKey;

impl Kind for SplitKey {
    type Id = (ObjectId, SplitId);
    type Value = SplitRecord;
    const WORD: &'static str = "split";
    fn write((source, split): &Self::Id, path: &mut String) {
        write_owned(*source, split, path);
    }
    fn read(segments: &[&str]) -> Option<Self::Id> {
        read_owned(segments)
    }
}

/// `/{owner}/{creation}/{split}`: shared with the keys of tasks.
pub(super) fn write_owned(owner: ObjectId, split: &SplitId, path: &mut String) {
    segment::push(path, &owner.to_string());
    segment::push(path, &split.creation().to_string());
    segment::push(path, split.name());
}

/// What [`write_owned`] wrote.
pub(super) fn read_owned(segments: &[&str]) -> Option<(ObjectId, SplitId)> {
    let [owner, creation, split] = segments else { return None };
    let creation = Creation(segment::number(creation)?);
    Some((object_id(owner)?, SplitId::new(creation, &segment::decode(split)?)))
}

impl Keyspace {
    /// The key of one split of a source.
    #[must_use]
    pub fn split(&self, source: ObjectId, split: &SplitId) -> Key {
        self.key::<SplitKey>(&(source, split.clone()))
    }
}
