//! `/{cluster}/object/{id}`: the spec of a source or a sink, and whether it is being dropped. Guarded by its revision in
//! every `ALTER`; it goes last when the object is dropped (I7).

use model::{ObjectId, ObjectKind, SinkSpec, SourceSpec};
use serde::{Deserialize, Serialize};

use super::{Keyspace, Kind, segment};
use crate::Key;

/// What an object is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spec {
    /// `CREATE SOURCE`
    Source(Box<SourceSpec>),
    /// `CREATE SINK`
    Sink(Box<SinkSpec>),
}

impl Spec {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Source(spec) => spec.id,
            Self::Sink(spec) => spec.id,
        }
    }

    /// Its name, as the user wrote it, folded.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Source(spec) => &spec.name,
            Self::Sink(spec) => &spec.name,
        }
    }

    /// Which kind of object it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Source(_) => ObjectKind::Source,
            Self::Sink(_) => ObjectKind::Sink,
        }
    }
}

/// An object of the catalog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// What it is.
    pub spec: Spec,
    /// True once its name is gone: it drains, then its keys go.
    #[serde(default)]
    pub dropping: bool,
    /// True while the first listing of a source is not wholly in the split table. Whoever leads then completes it, and its
    /// splits begin where the source's start says (S9).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub listing_due: bool,
    /// What the leader registered for a sink at the service of its source, under this name: removed before the object is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
}

/// The kind of this key.
pub struct ObjectKey;

impl Kind for ObjectKey {
    type Id = ObjectId;
    type Value = ObjectRecord;
    const WORD: &'static str = "object";
    fn write(id: &ObjectId, path: &mut String) {
        segment::push(path, &id.to_string());
    }
    fn read(segments: &[&str]) -> Option<ObjectId> {
        let [id] = segments else { return None };
        object_id(id)
    }
}

/// An object id in its canonical text.
pub(super) fn object_id(text: &str) -> Option<ObjectId> {
    text.parse::<ObjectId>().ok().filter(|id| id.to_string() == text)
}

impl Keyspace {
    /// The key of one object.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> Key {
        self.key::<ObjectKey>(&id)
    }
}
