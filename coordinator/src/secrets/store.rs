//! The metadata store as the coordinator sees it: records are plain here and sealed there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use model::ObjectId;
use store::{
    Commit, Guard, Health, Key, Keyspace, LeaseId, MetadataStore, ObjectKey, Result, Revision, Snapshot,
    Write,
};

use super::{
    Vault,
    seal::{self, Kept},
};

/// Seals every catalog record on its way to the store and opens it on its way back.
pub(crate) struct SealedStore {
    inner: Arc<dyn MetadataStore>,
    keys: Keyspace,
    cluster: String,
    vault: Vault,
    /// How the secrets of each object are kept that has or uses any, as this process last saw it.
    kept: Mutex<BTreeMap<ObjectId, Kept>>,
}

impl SealedStore {
    /// Around the store of this cluster.
    pub fn new(inner: Arc<dyn MetadataStore>, cluster: &str, vault: Vault) -> Self {
        let (keys, kept) = (Keyspace::new(cluster), Mutex::default());
        Self { inner, keys, cluster: cluster.to_owned(), vault, kept }
    }

    /// What it seals with.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// How the secrets of an object are kept; nothing if it has and uses none.
    pub fn kept(&self, id: ObjectId) -> Option<Kept> {
        self.table().get(&id).cloned()
    }

    /// How many objects have their secrets in plain text.
    pub fn plain(&self) -> usize {
        self.table().values().filter(|kept| **kept == Kept::Plain).count()
    }

    /// Says in the log what a reader of the store could read.
    pub fn warn(&self) {
        match (self.plain(), self.vault.key()) {
            (0, _) => {}
            (plain, Some(_)) => tracing::warn!(
                "secrets of {plain} object(s) are stored in plain text: `shardwright secrets rotate` encrypts them"
            ),
            (plain, None) => tracing::warn!(
                "secrets of {plain} object(s) are stored in plain text: whoever can read the metadata store can read them; \
                 give every coordinator a key (`shardwright secrets new-key`, `secrets.master_key_file`)"
            ),
        }
    }

    /// The same where it stands in the way of a cluster in production.
    pub fn warning(&self) -> Option<String> {
        let plain = self.plain();
        let told = plain > 0 && (self.vault.key().is_some() || !self.vault.is_local());
        told.then(|| format!("secrets of {plain} object(s) are stored in plain text"))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: ObjectId, kept: Option<Kept>) {
        match kept {
            Some(kept) => drop(self.table().insert(id, kept)),
            None => drop(self.table().remove(&id)),
        }
    }

    async fn open(&self, mut snapshot: Snapshot) -> Result<Snapshot> {
        for entry in &mut snapshot.entries {
            let Some(id) = self.keys.parse::<ObjectKey>(&entry.key) else { continue };
            let (plain, kept) =
                seal::open(&self.vault, &self.cluster, (&entry.key, id), &entry.value).await?;
            if let Some(plain) = plain {
                entry.value = plain.into();
            }
            self.note(id, kept);
        }
        Ok(snapshot)
    }
}

#[async_trait]
impl MetadataStore for SealedStore {
    async fn list(&self, prefix: &Key) -> Result<Snapshot> {
        self.open(self.inner.list(prefix).await?).await
    }

    async fn watch(&self, prefix: &Key) -> Result<BoxStream<'static, ()>> {
        self.inner.watch(prefix).await
    }

    async fn commit(&self, guards: &[Guard], mut writes: Vec<Write>) -> Result<Commit> {
        let mut changed = Vec::new();
        for write in &mut writes {
            let Some(id) = self.keys.parse::<ObjectKey>(write.key()) else { continue };
            match write {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => {
                    let (sealed, kept) = seal::seal(&self.vault, &self.cluster, (key, id), value).await?;
                    if let Some(sealed) = sealed {
                        *value = sealed.into();
                    }
                    changed.push((id, kept));
                }
                Write::Delete(_) => changed.push((id, None)),
            }
        }
        match self.inner.commit(guards, writes).await? {
            Commit::Done(revision) => {
                changed.into_iter().for_each(|(id, kept)| self.note(id, kept));
                Ok(Commit::Done(revision))
            }
            Commit::Lost(present) => Ok(Commit::Lost(self.open(present).await?)),
        }
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool> {
        self.inner.keep_alive(lease).await
    }

    async fn maintain(&self, before: Option<Revision>) -> Result<Health> {
        self.inner.maintain(before).await
    }
}
