//! What users declared: sources and sinks, as the catalog stores them and as they travel to the workers.
//!
//! A spec is bound: names are resolved, types are known, options are checked. It is stored as JSON (`/object/{id}`), and
//! the same JSON travels in the session, so a field may be added (with a default) but never change its meaning.

use serde::{Deserialize, Serialize};

use crate::{Column, Creation, ObjectId, Options, Start, Timestamp};

/// The kinds of named objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// `CREATE SOURCE`
    Source,
    /// `CREATE SINK`
    Sink,
    /// `CREATE CREDENTIAL`
    Credential,
}

impl ObjectKind {
    /// The word users read, also the segment of its keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Credential => "credential",
        }
    }
}

/// `FORMAT`: what a message means for the relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Every message is a new row.
    Plain,
}

/// `ENCODE`: how bytes become columns and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// One JSON object.
    Json,
    /// The bytes themselves, in one bytea column.
    Bytes,
    /// Text of one scalar (only as `KEY ENCODE` of a sink).
    Text,
}

/// `FORMAT … ENCODE … ( … ) [KEY ENCODE …]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FormatClause {
    /// See [`Format`].
    pub format: Format,
    /// See [`Encode`].
    pub encode: Encode,
    /// The options in the parentheses after `ENCODE`.
    #[serde(default)]
    pub options: Options,
    /// `KEY ENCODE` of a sink.
    #[serde(default)]
    pub key_encode: Option<Encode>,
}

/// What to do with a record that cannot be decoded, or a row that the destination refuses. Never for outages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Count it, keep a sample, go on.
    Skip,
    /// That split stops before it and says so.
    Fail,
    /// Durable in another sink first, then go on.
    DeadLetter,
}

/// A metadata column of `INCLUDE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncludeKind {
    /// The key under which the record was written (bytea).
    Key,
    /// The split's name (varchar).
    Partition,
    /// The cursor's offset (varchar).
    Offset,
    /// When the service took it (timestamptz).
    Timestamp,
    /// The whole decoded JSON value (jsonb).
    Payload,
}

/// `INCLUDE kind AS name`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Include {
    /// What is included.
    pub kind: IncludeKind,
    /// Under which column name.
    pub column: Column,
}

/// A source, bound.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Made by the leader.
    pub id: ObjectId,
    /// As the user wrote it, folded.
    pub name: String,
    /// Which connector reads it.
    pub connector: String,
    /// `WITH ( … )` without `connector`.
    pub options: Options,
    /// Declared columns; those of `include` follow them.
    pub columns: Vec<Column>,
    /// Metadata columns, in the order written.
    #[serde(default)]
    pub include: Vec<Include>,
    /// Names of the declared key. Metadata only: a source drops no duplicates.
    #[serde(default)]
    pub primary_key: Vec<String>,
    /// How records become rows.
    pub format: FormatClause,
    /// For records that cannot be decoded.
    pub on_error: OnError,
    /// Where its first listing begins; pinned when it was created.
    pub start: Start,
    /// The stream that it was created on; a later one of the same name is another stream (S13).
    pub creation: Creation,
    /// When it was created (the leader's clock).
    pub created_at: Timestamp,
    /// Grows with each `ALTER`.
    pub revision: u64,
}

impl SourceSpec {
    /// All columns: the declared ones, then those of `INCLUDE`.
    pub fn all_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().chain(self.include.iter().map(|i| &i.column))
    }
}

/// Who writes the rows of a sink.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Whoever reads a split also writes its rows.
    #[default]
    Split,
    /// Rows are sent to the writers of partitions, by the hash of these columns.
    Key {
        /// How many partitions there are, at least 1.
        partitions: u32,
        /// Names of columns that reach the destination, at least one.
        columns: Vec<String>,
    },
}

impl Distribution {
    /// How many partitions there are; 0 without a distribution by key.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Split => 0,
            Self::Key { partitions, .. } => *partitions,
        }
    }
}

/// A sink, bound.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SinkSpec {
    /// Made by the leader.
    pub id: ObjectId,
    /// As the user wrote it, folded.
    pub name: String,
    /// The source that it reads.
    pub source: ObjectId,
    /// Name of that source.
    pub source_name: String,
    /// `SELECT … FROM … [WHERE …]`, canonical; `None` for `FROM source`.
    #[serde(default)]
    pub query: Option<String>,
    /// The columns that reach the destination.
    pub columns: Vec<Column>,
    /// Which connector writes it.
    pub connector: String,
    /// `WITH ( … )` without `connector` and `primary_key`: those of the connector and those common to all sinks.
    pub options: Options,
    /// Names of the key columns, in the order written.
    #[serde(default)]
    pub primary_key: Vec<String>,
    /// How rows become messages; `None` for destinations that take rows.
    pub format: Option<FormatClause>,
    /// Who writes: `distribution`.
    #[serde(default)]
    pub distribution: Distribution,
    /// For rows that the destination refuses (and, for `dead_letter`, for records that cannot be decoded).
    pub on_error: OnError,
    /// True while an operator has paused it.
    #[serde(default)]
    pub paused: bool,
    /// Splits that ended before this moment count as ended for this sink (the leader's clock).
    pub created_at: Timestamp,
    /// Grows with each `ALTER`.
    pub revision: u64,
    /// Grows with each reset of its positions: what a transactional destination remembers of smaller ones is void.
    #[serde(default)]
    pub instance: u64,
}

/// A credential: the secret options of sources and sinks under a name of their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CredentialSpec {
    /// Made by the leader.
    pub id: ObjectId,
    /// As the user wrote it, folded.
    pub name: String,
    /// `TYPE`: which options it stands for, and which connectors take it.
    pub kind: String,
    /// `IDENTITY` and `SECRET` under the names `identity` and `secret`, and what `WITH OPTIONS` says.
    pub options: Options,
    /// When it was created (the leader's clock).
    pub created_at: Timestamp,
    /// Grows with each `ALTER`.
    pub revision: u64,
    /// True while not all who use it have a new revision since it was changed last. Whoever leads then completes that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewal_due: bool,
}
