//! A copy of what a cluster cannot make again (its catalog, its split tables, its checkpoints, who may do what), taken at one
//! revision of the store, and its way back. Called by the command line; nobody needs to lead for it.
//!
//! What a leader makes anew is left out: who leads, who runs what, lanes, workers. A restore therefore begins a new
//! *generation* with no runs: every task is assigned again from its checkpoint, under an epoch that is newer than all before,
//! although the revisions of a fresh store are small (I3). What was delivered after the backup is delivered again.
//!
//! Objects are copied as they stand. Those that hold secrets are sealed there, so they are sealed in the file; the master key is
//! not in it, and they open under the name of their own cluster only.
//!
//! Restoring holds the leader key, so nobody can lead meanwhile, and until it is through the schema says so: a restore
//! that broke off is refused by every coordinator (see [`crate::schema`]).

mod file;
mod restore;

use bytes::Bytes;
pub use file::BACKUP_FORMAT;
pub use restore::{RestoreInto, Restored};
use serde::{Deserialize, Serialize};

use crate::{
    AssignmentKey, Entry, Error, ErrorKind, Key, Keyspace, Kind, LaneKey, LeaderKey, MetadataStore,
    ObjectKey, Result, SCHEMA_VERSION, Schema, SchemaKey, Snapshot, View, WorkerKey, schema::refuse_newer,
};

/// Kinds of keys that a leader makes anew, and the schema, which a restore writes itself.
const LEFT_OUT: [&str; 5] =
    [LeaderKey::WORD, SchemaKey::WORD, WorkerKey::WORD, AssignmentKey::WORD, LaneKey::WORD];

/// What a backup is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// The cluster whose keys these are.
    pub cluster: String,
    /// When it was taken, RFC 3339, by the clock of whoever took it.
    pub taken_at: String,
    /// The release that took it.
    pub release: String,
    /// The revision of the store at which all of it stood together.
    pub revision: u64,
    /// Layout and generation at that revision.
    pub schema: Schema,
    /// Number of keys.
    pub entries: usize,
    /// Named objects in it.
    pub objects: usize,
    /// Splits in it.
    pub splits: usize,
    /// Positions in it.
    pub checkpoints: usize,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    /// Below the prefix of the cluster.
    key: String,
    /// As stored.
    value: Bytes,
}

/// A copy of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    contents: Contents,
    items: Vec<Item>,
}

impl Backup {
    /// Copies a cluster at the revision of this moment. `release` and `taken_at` (RFC 3339) are for whoever reads the file.
    ///
    /// # Errors
    /// `Config` if nothing is stored under that name, or by a newer release; `Corrupt`, naming the key, if something cannot
    /// be read; those of the store.
    pub async fn take(
        store: &dyn MetadataStore,
        cluster: &str,
        release: &str,
        taken_at: &str,
    ) -> Result<Self> {
        let keys = Keyspace::new(cluster);
        let snapshot = store.list(&keys.all()).await?;
        let view = view(&keys, &snapshot)?;
        let Some(schema) = view.schema.as_ref().map(|schema| schema.value) else {
            let text = format!(
                "the store holds no cluster under `{}`: is that its name (`coordinator.cluster`), and is it this store?",
                keys.all()
            );
            return Err(Error::new(ErrorKind::Config, text));
        };
        refuse_newer(&schema, SCHEMA_VERSION, &format!("the store under `{}`", keys.all()))?;
        let items = items(&keys, &snapshot);
        let contents = Contents {
            cluster: cluster.to_owned(),
            taken_at: taken_at.to_owned(),
            release: release.to_owned(),
            revision: snapshot.revision,
            schema,
            entries: items.len(),
            objects: view.names.len(),
            splits: view.splits.len(),
            checkpoints: view.checkpoints.len(),
        };
        Ok(Self { contents, items })
    }

    /// What it is of.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }
}

/// Reads all but the objects, which may be sealed: of those only that they are whole.
fn view(keys: &Keyspace, snapshot: &Snapshot) -> Result<View> {
    let (objects, others): (Vec<&Entry>, Vec<&Entry>) =
        snapshot.entries.iter().partition(|entry| keys.parse::<ObjectKey>(&entry.key).is_some());
    for entry in objects {
        crate::decode::<serde::de::IgnoredAny>(&entry.key, &entry.value)?;
    }
    let entries = others.into_iter().cloned().collect();
    View::decode(keys, &Snapshot { revision: snapshot.revision, entries })
}

/// Everything but what is left out.
fn items(keys: &Keyspace, snapshot: &Snapshot) -> Vec<Item> {
    let prefix = keys.all();
    let item = |entry: &Entry| {
        let key = entry.key.as_str().strip_prefix(prefix.as_str())?.to_owned();
        let word = key.split('/').next().unwrap_or_default();
        (!LEFT_OUT.contains(&word)).then(|| Item { key, value: entry.value.clone() })
    };
    snapshot.entries.iter().filter_map(item).collect()
}

impl Item {
    /// Its value opens under the name of its own cluster only.
    fn is_sealed(&self) -> bool {
        #[derive(Deserialize)]
        struct Sealed {
            sealed: Option<serde::de::IgnoredAny>,
        }
        let object = self.key.strip_prefix(ObjectKey::WORD).is_some_and(|rest| rest.starts_with('/'));
        object && serde_json::from_slice::<Sealed>(&self.value).is_ok_and(|value| value.sealed.is_some())
    }

    /// Its key in a cluster.
    fn key(&self, keys: &Keyspace) -> Key {
        Key(format!("{}{}", keys.all(), self.key))
    }
}

#[cfg(test)]
mod tests;
