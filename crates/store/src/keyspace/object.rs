//! `/{cluster}/object/{id}`: the spec of a source, a sink or a credential, and whether it is being dropped. Guarded by its revision in
//! every `ALTER`; it goes last when the object is dropped (I7).

use model::{CredentialSpec, ObjectId, ObjectKind, Options, SinkSpec, SourceSpec};
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
    /// `CREATE CREDENTIAL`
    Credential(Box<CredentialSpec>),
}

impl Spec {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Source(spec) => spec.id,
            Self::Sink(spec) => spec.id,
            Self::Credential(spec) => spec.id,
        }
    }

    /// Its name, as the user wrote it, folded.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Source(spec) => &spec.name,
            Self::Sink(spec) => &spec.name,
            Self::Credential(spec) => &spec.name,
        }
    }

    /// Which kind of object it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Source(_) => ObjectKind::Source,
            Self::Sink(_) => ObjectKind::Sink,
            Self::Credential(_) => ObjectKind::Credential,
        }
    }

    /// Every list of options that may hold secrets, each under a name of its own.
    pub fn options_mut(&mut self) -> Vec<(&'static str, &mut Options)> {
        let (options, format) = match self {
            Self::Source(spec) => (&mut spec.options, Some(&mut spec.format.options)),
            Self::Sink(spec) => (&mut spec.options, spec.format.as_mut().map(|format| &mut format.options)),
            Self::Credential(spec) => (&mut spec.options, None),
        };
        let format = format.map(|options| ("format", options));
        [("options", options)].into_iter().chain(format).collect()
    }

    /// The names of the credentials that it uses.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let options = match self {
            Self::Source(spec) => Some(&spec.options),
            Self::Sink(spec) => Some(&spec.options),
            Self::Credential(_) => None,
        };
        options.into_iter().flat_map(Options::credentials)
    }

    /// True if it holds a secret itself.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        match self {
            Self::Source(spec) => spec.options.has_secrets() || spec.format.options.has_secrets(),
            Self::Sink(spec) => {
                let format = spec.format.as_ref();
                spec.options.has_secrets() || format.is_some_and(|format| format.options.has_secrets())
            }
            Self::Credential(_) => true,
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
    /// Whose it is (`sql::access::Principal::owner`); `None` for what only administrators have rights on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
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
