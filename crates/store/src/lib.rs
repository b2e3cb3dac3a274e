//! The metadata store: one trait, two implementations (etcd, embedded), typed keys, and leader election.

mod api;
mod embedded;
mod error;
mod keyspace;
pub mod suite;

pub use api::{
    COMMIT_OPS_MAX, Commit, Entry, Guard, Health, Key, LeaseId, MetadataStore, Revision, Snapshot, Write,
};
pub use embedded::EmbeddedStore;
pub use error::{Error, ErrorKind, Result};
pub use keyspace::{
    AssignmentKey, CheckpointKey, Keyspace, Kind, Lane, LaneKey, LeaderKey, LeaderRecord, NameKey, ObjectKey,
    ObjectRecord, Schema, SchemaKey, Spec, SplitKey, Versioned, View, WorkerKey, decode,
};
