//! The keys of the store with their history: each commit adds versions, compaction takes old ones away, and a listing may ask
//! for how things stood at any revision that is still kept. What etcd's `mvcc` does, without its disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use store::{Entry, Key, LeaseId, Revision, Snapshot};

/// A revision that is asked for and not kept any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Compacted;

/// What a key becomes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// It holds this, for as long as the lease lives if there is one.
    Put(Bytes, Option<LeaseId>),
    /// It is gone.
    Delete,
}

/// A key as it was left by one commit.
#[derive(Debug)]
struct Version {
    mod_revision: Revision,
    /// `None`: it was deleted.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    value: Bytes,
    create_revision: Revision,
    lease: Option<LeaseId>,
}

/// One page of a listing.
#[derive(Debug)]
pub(super) struct Page {
    /// The revision that the whole listing is of.
    pub snapshot: Snapshot,
    /// More keys follow.
    pub more: bool,
}

/// All keys, with as much history as is kept.
#[derive(Debug)]
pub(super) struct Versions {
    revision: Revision,
    compacted: Revision,
    /// Oldest version first; never an empty list.
    keys: BTreeMap<Key, Vec<Version>>,
}

impl Default for Versions {
    /// An empty store is at revision 1, as in etcd.
    fn default() -> Self {
        Self { revision: 1, compacted: 0, keys: BTreeMap::new() }
    }
}

impl Versions {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How a key stands now.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        entry(key, self.keys.get(key)?, self.revision)
    }

    /// The lease that a key goes with.
    pub fn lease_of(&self, key: &Key) -> Option<LeaseId> {
        self.keys.get(key)?.last()?.live.as_ref()?.lease
    }

    /// The keys that go with a lease.
    pub fn leased(&self, lease: LeaseId) -> Vec<Key> {
        self.keys.keys().filter(|key| self.lease_of(key) == Some(lease)).cloned().collect()
    }

    /// At most `limit` keys under a prefix, behind `after`, as they stood at revision `at` (now, if none is given).
    pub fn page(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, Compacted> {
        let at = at.unwrap_or(self.revision);
        if at < self.compacted {
            return Err(Compacted);
        }
        let mut entries: Vec<Entry> = self
            .keys
            .range(after.unwrap_or(prefix).clone()..)
            .filter(|(key, _)| after != Some(key))
            .take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()))
            .filter_map(|(key, versions)| entry(key, versions, at))
            .take(limit.saturating_add(1))
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok(Page { snapshot: Snapshot { revision: at, entries }, more })
    }

    /// Carries out the changes of one commit, at one revision. Returns that revision and the keys that did change: to delete
    /// what is not there changes nothing, and a commit that changes nothing has no revision of its own.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = (Key, Change)>) -> (Revision, Vec<Key>) {
        let next = self.revision + 1;
        let mut touched = Vec::new();
        for (key, change) in changes {
            let created = self.get(&key).map(|entry| entry.create_revision);
            let live = match (change, created) {
                (Change::Delete, None) => continue,
                (Change::Delete, Some(_)) => None,
                (Change::Put(value, lease), created) => {
                    Some(Live { value, create_revision: created.unwrap_or(next), lease })
                }
            };
            self.keys.entry(key.clone()).or_default().push(Version { mod_revision: next, live });
            touched.push(key);
        }
        if !touched.is_empty() {
            self.revision = next;
        }
        (self.revision, touched)
    }

    /// Forgets what was true only before revision `before`.
    pub fn compact(&mut self, before: Revision) -> Result<(), Compacted> {
        if before <= self.compacted {
            return Err(Compacted);
        }
        self.compacted = before;
        self.keys.retain(|_, versions| {
            let kept_from = versions.iter().rposition(|version| version.mod_revision <= before).unwrap_or(0);
            versions.drain(..kept_from);
            versions.len() > 1 || versions[0].live.is_some() || versions[0].mod_revision > before
        });
        Ok(())
    }

    /// Bytes of all versions: what a store file would hold.
    pub fn bytes(&self) -> usize {
        let size = |version: &Version| 32 + version.live.as_ref().map_or(0, |live| live.value.len());
        self.keys
            .iter()
            .map(|(key, versions)| versions.iter().map(|v| key.as_str().len() + size(v)).sum::<usize>())
            .sum()
    }
}

fn entry(key: &Key, versions: &[Version], at: Revision) -> Option<Entry> {
    let version = versions.iter().rev().find(|version| version.mod_revision <= at)?;
    let live = version.live.as_ref()?;
    Some(Entry {
        key: key.clone(),
        value: live.value.clone(),
        create_revision: live.create_revision,
        mod_revision: version.mod_revision,
    })
}
