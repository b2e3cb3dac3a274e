//! The metadata store: one trait, two implementations (etcd, embedded), typed keys, and leader election.
//!
//! The coordinator is its only user: workers never see it. What is stored where is in [`Keyspace`]; what every
//! implementation promises is in [`suite`].

mod api;
mod backup;
mod connect;
mod election;
mod embedded;
mod error;
mod etcd;
mod keyspace;
mod schema;
pub mod suite;

pub use api::{
    COMMIT_OPS_MAX, Commit, Entry, Guard, Health, Key, LeaseId, MetadataStore, Revision, Snapshot, Write,
    check_commit,
};
pub use backup::{BACKUP_FORMAT, Backup, Contents, RestoreInto, Restored};
pub use connect::{StoreConfig, connect};
pub use election::{ElectionTiming, Leader, Leadership, campaign, watch_leader};
pub use embedded::EmbeddedStore;
pub use error::{Error, ErrorKind, Result};
pub use etcd::{EtcdConfig, EtcdStore};
pub use keyspace::{
    AssignmentKey, CheckpointKey, GranteeKey, Keyspace, Kind, Lane, LaneKey, LeaderKey, LeaderRecord,
    NameKey, ObjectKey, ObjectRecord, Schema, SchemaKey, Spec, SplitKey, Versioned, View, WorkerKey, decode,
};
pub use schema::{SCHEMA_VERSION, ensure_schema};
