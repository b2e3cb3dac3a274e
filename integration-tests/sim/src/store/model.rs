//! The store itself: what etcd does to keys and leases, without I/O and without a clock. Whoever calls brings the moment.
//!
//! A commit checks its guards, then its leases, then writes at one new revision; keys go with their lease. It keeps history
//! until it is compacted, and it complains (`NOSPACE`) when it is told to.

use std::{collections::BTreeSet, time::Duration};

use store::{Commit, Entry, Guard, Health, Key, LeaseId, Revision, Snapshot, Write};

use super::{
    commit::LateCommit,
    fault::{Faults, Refusal},
    lease::Leases,
    versions::{Change, Page, Versions},
    watch::Watches,
};
use crate::spite::Spite;

/// Keys in one page of a listing. Fewer than a real server's, so that listings of a small cluster have pages too.
const PAGE_KEYS: usize = 100;
/// The alarm of a full store.
pub const NOSPACE: &str = "NOSPACE";

/// See the module.
#[derive(Debug, Default)]
pub struct Model {
    keys: Versions,
    leases: Leases,
    alarms: BTreeSet<&'static str>,
    pub(super) watches: Watches,
    pub(super) faults: Faults,
    pub(super) spite: Spite<LateCommit>,
    /// What was written by somebody who may not.
    pub(super) broken: Vec<String>,
}

/// What came of a commit, and the keys that watches are to be told of.
pub(super) struct Committed {
    pub commit: Commit,
    pub touched: Vec<Key>,
}

impl Model {
    /// Everything under a prefix as it stands, for whoever looks on from outside.
    #[must_use]
    pub fn snapshot(&self, prefix: &Key) -> Snapshot {
        let page = self.keys.page(prefix, None, None, usize::MAX);
        page.map(|page| page.snapshot).unwrap_or_default()
    }

    /// The revision of the last commit that wrote.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.keys.revision()
    }

    /// Raises or ends an alarm ([`NOSPACE`]). While it lasts, puts and leases are refused.
    pub fn set_alarm(&mut self, alarm: &'static str, raised: bool) {
        if raised {
            self.alarms.insert(alarm);
        } else {
            self.alarms.remove(alarm);
        }
    }

    /// What was written by somebody who may not, since the last look.
    pub fn take_broken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }

    /// The value of a key, as text.
    pub(super) fn text(&self, key: &Key) -> Option<String> {
        self.keys.get(key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    }

    pub(super) fn page(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        at: Option<Revision>,
    ) -> Result<Page, Refusal> {
        self.keys.page(prefix, after, at, PAGE_KEYS).map_err(|_| Refusal::Compacted)
    }

    pub(super) fn commit(&mut self, guards: &[Guard], writes: Vec<Write>) -> Result<Committed, Refusal> {
        if self.is_full() && writes.iter().any(|write| !matches!(write, Write::Delete(_))) {
            return Err(Refusal::NoSpace);
        }
        if !guards.iter().all(|guard| self.holds(guard)) {
            let mut entries: Vec<Entry> =
                guards.iter().filter_map(|guard| self.keys.get(guard.key())).collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            let present = Snapshot { revision: self.keys.revision(), entries };
            return Ok(Committed { commit: Commit::Lost(present), touched: Vec::new() });
        }
        for write in &writes {
            match write {
                Write::PutLeased(_, _, lease) if !self.leases.takes_keys(*lease) => {
                    return Err(Refusal::LeaseGone(lease.0));
                }
                _ => {}
            }
        }
        let (revision, touched) = self.keys.apply(writes.into_iter().map(|write| match write {
            Write::Put(key, value) => (key, Change::Put(value, None)),
            Write::PutLeased(key, value, lease) => (key, Change::Put(value, Some(lease))),
            Write::Delete(key) => (key, Change::Delete),
        }));
        Ok(Committed { commit: Commit::Done(revision), touched })
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Duration) -> Result<LeaseId, Refusal> {
        if self.is_full() { Err(Refusal::NoSpace) } else { Ok(self.leases.grant(ttl, now)) }
    }

    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Duration) -> bool {
        self.leases.keep_alive(lease, now)
    }

    /// When a lease's time is over; `None` if it was revoked.
    pub(super) fn lease_ends(&self, lease: LeaseId) -> Option<Duration> {
        self.leases.ends(lease)
    }

    /// Ends a lease; its keys go at one revision.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Vec<Key> {
        self.leases.revoke(lease);
        let keys = self.keys.leased(lease);
        self.keys.apply(keys.into_iter().map(|key| (key, Change::Delete))).1
    }

    pub(super) fn renew_leases(&mut self, now: Duration) {
        self.leases.renew_all(now);
    }

    pub(super) fn compact(&mut self, before: Revision) -> Result<(), Refusal> {
        if before > self.keys.revision() {
            return Err(Refusal::Future(before));
        }
        self.keys.compact(before).map_err(|_| Refusal::Compacted)
    }

    pub(super) fn health(&self) -> Health {
        Health {
            size_bytes: self.keys.bytes() as u64,
            version: "simulated".to_owned(),
            alarms: self.alarms.iter().map(|&alarm| alarm.to_owned()).collect(),
        }
    }

    fn is_full(&self) -> bool {
        self.alarms.contains(NOSPACE)
    }

    fn holds(&self, guard: &Guard) -> bool {
        let entry = self.keys.get(guard.key());
        match guard {
            Guard::Absent(_) => entry.is_none(),
            Guard::Unchanged(_, revision) => entry.is_some_and(|e| e.mod_revision == *revision),
            Guard::Created(_, revision) => entry.is_some_and(|e| e.create_revision == *revision),
        }
    }
}
