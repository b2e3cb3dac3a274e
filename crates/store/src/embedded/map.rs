//! The revisioned map: what etcd does to keys, without I/O and without a clock. The embedded store wraps it; whoever
//! calls brings the moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{Commit, Entry, Guard, Key, LeaseId, Revision, Snapshot, Write};

/// A key as it stands.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub lease: Option<LeaseId>,
}

/// A lease and its keys.
#[derive(Debug)]
struct LeaseState {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<Key>,
}

/// What a commit changes: computed first, made durable, then put in place.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The revision after it.
    pub revision: Revision,
    /// Keys as they will stand; `None` is gone.
    pub keys: BTreeMap<Key, Option<Stored>>,
}

/// Keys, revisions and leases.
#[derive(Debug)]
pub(super) struct Map {
    pub revision: Revision,
    pub entries: BTreeMap<Key, Stored>,
    leases: HashMap<LeaseId, LeaseState>,
    lease_next: i64,
}

impl Map {
    /// A map that stands at `revision`. An empty store is at revision 1, as in etcd.
    pub fn new(revision: Revision, entries: BTreeMap<Key, Stored>) -> Self {
        Self { revision: revision.max(1), entries, leases: HashMap::new(), lease_next: 1 }
    }

    /// Goes on from what was found in the file; leased keys are not in it and stay.
    pub fn adopt(&mut self, found: Self) {
        self.revision = self.revision.max(found.revision);
        self.entries.retain(|_, stored| stored.lease.is_some());
        for (key, stored) in found.entries {
            self.entries.entry(key).or_insert(stored);
        }
    }

    /// Everything under a prefix.
    pub fn list(&self, prefix: &Key) -> Snapshot {
        let entries = self
            .entries
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()))
            .map(|(key, stored)| entry(key, stored))
            .collect();
        Snapshot { revision: self.revision, entries }
    }

    /// What a commit would change, or how the guarded keys stand if a guard fails. A lease that has ended is `Err`.
    pub fn plan(&self, guards: &[Guard], writes: &[Write]) -> Result<Result<Change, Commit>, LeaseId> {
        if !guards.iter().all(|guard| self.holds(guard)) {
            let mut entries: Vec<Entry> = guards
                .iter()
                .filter_map(|g| self.entries.get(g.key()).map(|stored| entry(g.key(), stored)))
                .collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            return Ok(Err(Commit::Lost(Snapshot { revision: self.revision, entries })));
        }
        let revision = self.revision + 1;
        let mut keys = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put(key, value) => drop(keys.insert(key.clone(), Some(self.next(key, value, None)))),
                Write::PutLeased(key, value, lease) => {
                    if !self.leases.contains_key(lease) {
                        return Err(*lease);
                    }
                    keys.insert(key.clone(), Some(self.next(key, value, Some(*lease))));
                }
                Write::Delete(key) if self.entries.contains_key(key) => drop(keys.insert(key.clone(), None)),
                Write::Delete(_) => {}
            }
        }
        let revision = if keys.is_empty() { self.revision } else { revision };
        Ok(Ok(Change { revision, keys }))
    }

    /// Puts a planned change in place.
    pub fn put_in_place(&mut self, change: Change) {
        self.revision = change.revision;
        for (key, stored) in change.keys {
            if let Some(lease) = self.entries.get(&key).and_then(|old| old.lease)
                && let Some(state) = self.leases.get_mut(&lease)
            {
                state.keys.remove(&key);
            }
            match stored {
                Some(stored) => {
                    if let Some(state) = stored.lease.and_then(|lease| self.leases.get_mut(&lease)) {
                        state.keys.insert(key.clone());
                    }
                    self.entries.insert(key, stored);
                }
                None => drop(self.entries.remove(&key)),
            }
        }
    }

    /// A new lease.
    pub fn lease(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        let id = LeaseId(self.lease_next);
        self.lease_next += 1;
        self.leases.insert(id, LeaseState { ttl, ends: now + ttl, keys: BTreeSet::new() });
        id
    }

    /// Prolongs a lease; `false` if it has ended.
    pub fn keep_alive(&mut self, id: LeaseId, now: Instant) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        lease.ends = now + lease.ttl;
        true
    }

    /// When a lease ends unless it is prolonged.
    pub fn lease_ends(&self, id: LeaseId) -> Option<Instant> {
        self.leases.get(&id).map(|lease| lease.ends)
    }

    /// Ends the leases whose time is over and says what becomes of their keys.
    pub fn expire(&mut self, now: Instant) -> Option<Change> {
        let over: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        let keys: BTreeMap<Key, Option<Stored>> = over
            .iter()
            .filter_map(|id| self.leases.remove(id))
            .flat_map(|lease| lease.keys)
            .map(|key| (key, None))
            .collect();
        (!keys.is_empty()).then(|| Change { revision: self.revision + 1, keys })
    }

    fn holds(&self, guard: &Guard) -> bool {
        let stored = self.entries.get(guard.key());
        match guard {
            Guard::Absent(_) => stored.is_none(),
            Guard::Unchanged(_, revision) => stored.is_some_and(|s| s.mod_revision == *revision),
            Guard::Created(_, revision) => stored.is_some_and(|s| s.create_revision == *revision),
        }
    }

    fn next(&self, key: &Key, value: &Bytes, lease: Option<LeaseId>) -> Stored {
        let revision = self.revision + 1;
        let create_revision = self.entries.get(key).map_or(revision, |old| old.create_revision);
        Stored { value: value.clone(), create_revision, mod_revision: revision, lease }
    }
}

fn entry(key: &Key, stored: &Stored) -> Entry {
    Entry {
        key: key.clone(),
        value: stored.value.clone(),
        create_revision: stored.create_revision,
        mod_revision: stored.mod_revision,
    }
}
