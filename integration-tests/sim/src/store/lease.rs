//! Leases, by the store's time.

use std::{collections::BTreeMap, time::Duration};

use store::LeaseId;

/// etcd grants no shorter one (three halves of its election timeout, in whole seconds).
const TTL_MIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Duration,
}

/// All leases that have not been revoked.
#[derive(Debug, Default)]
pub(super) struct Leases {
    last: i64,
    alive: BTreeMap<LeaseKey, Lease>,
}

/// `LeaseId` has no order.
type LeaseKey = i64;

impl Leases {
    /// A new one, of whole seconds.
    pub fn grant(&mut self, ttl: Duration, now: Duration) -> LeaseId {
        let whole = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        let ttl = whole.max(TTL_MIN);
        self.last += 1;
        self.alive.insert(self.last, Lease { ttl, ends: now + ttl });
        LeaseId(self.last)
    }

    /// Prolongs one; `false` if its time is over, even if nobody has revoked it yet.
    pub fn keep_alive(&mut self, id: LeaseId, now: Duration) -> bool {
        match self.alive.get_mut(&id.0) {
            Some(lease) if now < lease.ends => {
                lease.ends = now + lease.ttl;
                true
            }
            _ => false,
        }
    }

    /// Keys can be put under it: it has not been revoked.
    pub fn takes_keys(&self, id: LeaseId) -> bool {
        self.alive.contains_key(&id.0)
    }

    /// When its time is over; `None` if it has been revoked.
    pub fn ends(&self, id: LeaseId) -> Option<Duration> {
        self.alive.get(&id.0).map(|lease| lease.ends)
    }

    pub fn revoke(&mut self, id: LeaseId) {
        self.alive.remove(&id.0);
    }

    /// Gives each its whole time again: what a newly elected leader of etcd does, because it does not know who was heard.
    pub fn renew_all(&mut self, now: Duration) {
        for lease in self.alive.values_mut() {
            lease.ends = lease.ends.max(now + lease.ttl);
        }
    }
}
