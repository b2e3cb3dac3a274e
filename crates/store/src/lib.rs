//! The metadata store: one trait, two implementations (etcd, embedded), typed keys, and leader election.

mod api;
mod error;

pub use api::{
    COMMIT_OPS_MAX, Commit, Entry, Guard, Health, Key, LeaseId, MetadataStore, Revision, Snapshot, Write,
};
pub use error::{Error, ErrorKind, Result};
