//! The contract of a metadata store.

use std::{collections::HashSet, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Error, ErrorKind, Result};

/// A revision of the store: grows by one with each commit that writes.
pub type Revision = u64;

/// The largest number of guards, and the largest number of writes, in one commit: etcd's default `--max-txn-ops`, which it
/// applies to each list by itself. A checkpoint transaction of 126 tasks has 128 guards (leader, lane, assignments).
pub const COMMIT_OPS_MAX: usize = 128;

/// A key: `/{cluster}/kind/…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(crate) String);

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One key as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// When it came to be (again).
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
}

/// Some keys as they stood together at one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// That revision.
    pub revision: Revision,
    /// Sorted by key. Absent keys are absent.
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// The entry of one key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok().map(|i| &self.entries[i])
    }
}

/// What must hold for a commit to be applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The key does not exist.
    Absent(Key),
    /// The key was last written at this revision.
    Unchanged(Key, Revision),
    /// The key exists and came to be at this revision (leadership: its value may have been refreshed since).
    Created(Key, Revision),
}

impl Guard {
    /// The key it looks at.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) | Self::Created(key, _) => key,
        }
    }
}

/// One write of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Sets a key.
    Put(Key, Bytes),
    /// Sets a key that goes when the lease does.
    PutLeased(Key, Bytes, LeaseId),
    /// Removes a key; no error if there is none.
    Delete(Key),
}

impl Write {
    /// The key it changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::PutLeased(key, _, _) | Self::Delete(key) => key,
        }
    }
}

/// Identity of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LeaseId(pub i64);

/// What came of a commit. A lost race is an everyday value, not an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Commit {
    /// All of it was applied, at this revision.
    Done(Revision),
    /// A guard did not hold and nothing was written: the guarded keys as they stand now.
    Lost(Snapshot),
}

/// What every store refuses before it looks at the data, so that a commit that works on one works on the other.
///
/// # Errors
/// `Config`, saying which rule is broken.
pub fn check_commit(guards: &[Guard], writes: &[Write]) -> Result<()> {
    let refuse = |what: String| Err(Error::new(ErrorKind::Config, what));
    if guards.len() > COMMIT_OPS_MAX || writes.len() > COMMIT_OPS_MAX {
        let (g, w) = (guards.len(), writes.len());
        return refuse(format!("commit has {g} guards and {w} writes, at most {COMMIT_OPS_MAX} of each"));
    }
    let mut seen = HashSet::with_capacity(guards.len().max(writes.len()));
    for guard in guards {
        if !seen.insert(guard.key()) {
            return refuse(format!("commit guards key `{}` twice", guard.key()));
        }
        if matches!(guard, Guard::Unchanged(_, 0) | Guard::Created(_, 0)) {
            return refuse(format!("guard of key `{}` names revision 0, use absent", guard.key()));
        }
    }
    seen.clear();
    for write in writes {
        if !seen.insert(write.key()) {
            return refuse(format!("commit writes key `{}` twice", write.key()));
        }
    }
    Ok(())
}

/// How large the store is and whether it complains.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Bytes on disk; 0 if unknown.
    pub size_bytes: u64,
    /// The server's version, `embedded` for ours.
    pub version: String,
    /// Alarms in the server's words (`NOSPACE`); empty is well.
    pub alarms: Vec<String>,
}

/// A small, linearizable, watchable map. The etcd and the embedded store pass the same suite.
///
/// Every call has a deadline of its own; [`crate::ErrorKind::Unavailable`] with `ambiguous` says that a commit may have landed.
#[async_trait]
pub trait MetadataStore: Send + Sync {
    /// Everything under a prefix, at one revision.
    async fn list(&self, prefix: &Key) -> Result<Snapshot>;
    /// Wakes when something under `prefix` may have changed; says nothing about what. Wakes after a break too.
    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>>;
    /// Applies all writes if every guard holds, else nothing and says how the guarded keys stand now.
    /// At most [`COMMIT_OPS_MAX`] guards and as many writes; no key twice among either.
    async fn commit(&self, guards: &[Guard], writes: Vec<Write>) -> Result<Commit>;
    /// A lease that ends after `ttl` without [`MetadataStore::keep_alive`]; its keys go with it.
    async fn lease(&self, ttl: Duration) -> Result<LeaseId>;
    /// Prolongs a lease; `false` if it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool>;
    /// Housekeeping: compacts history up to `before` if given, and tells health. Revoking a lease is deleting its keys.
    async fn maintain(&self, before: Option<Revision>) -> Result<Health>;
}
