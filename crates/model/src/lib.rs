//! The nouns of the house: ids, splits, positions, rows, specs, epochs, secrets. No verbs, no I/O.
//!
//! Every other crate speaks in these types. What is stored in the metadata store or sent in the session is `serde`-able;
//! what flows with the data (`RawRecord`, `Batch`) is not.

mod access;
mod batch;
mod id;
mod options;
mod position;
mod record;
mod schema;
mod spec;
mod split;
mod task;

pub use access::{Grant, Grantee, GranteeKind, PasswordHash, Privilege, Target};
pub use batch::{Batch, Op, Ops};
pub use id::{Creation, ObjectId, ParseIdError};
pub use options::{CREDENTIAL, MASK, Options, is_secret_option, is_secret_value, mask_url, shown_value};
pub use position::{Cursor, Position, Start, StartFrom};
pub use record::{RawRecord, Timestamp};
pub use schema::{Column, Field, SqlType, numeric_arrow};
pub use spec::{
    CredentialSpec, Distribution, Encode, Format, FormatClause, Include, IncludeKind, ObjectKind, OnError,
    SinkSpec, SourceSpec,
};
pub use split::{HashRange, Split, SplitRecord, SplitState};
pub use task::{
    Assignment, Checkpoint, Epoch, Gap, Predecessor, Release, SplitId, TaskId, Work, WorkerRecord,
};
