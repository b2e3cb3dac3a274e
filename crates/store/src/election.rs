//! Who leads. One key on a lease, created by a commit that needs it absent: its create revision *is* the leadership, and
//! every write of the leader is guarded by it ([`Leadership::guard`]), so that a deposed leader moves nothing (I3).
//!
//! ```text
//! campaign ──key absent──▶ leads ──lease not confirmed in time, key gone, resign()──▶ over (for good: P5)
//!     ▲                                                                                 │
//!     └───────────────────────── a new campaign, a new revision ◀───────────────────────┘
//! ```
//!
//! Revisions begin again low when a store is restored, so a leadership also has the generation of the store, which is read before
//! the key is taken and guarded when it is: nobody else writes it. Leaderships are compared by generation first.
//!
//! A leader may answer heartbeats only until the *sending* of its last confirmed keep-alive plus the lease (P3): the store
//! counts the lease from a later moment, so nobody else can lead before that. Called by the coordinator.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Commit, Guard, Keyspace, LeaderKey, LeaderRecord, LeaseId, MetadataStore, Result, Revision, Schema,
    Write, decode, keyspace::encode,
};

/// How long leadership outlives its leader, and how often it is confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElectionTiming {
    /// Lease of the leader key.
    pub lease: Duration,
    /// Time between keep-alives.
    pub keep_alive: Duration,
}

impl Default for ElectionTiming {
    fn default() -> Self {
        Self { lease: Duration::from_secs(2), keep_alive: Duration::from_millis(500) }
    }
}

/// Who leads, as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Where its session and admin services listen.
    pub address: String,
    /// Its leadership: larger ones are newer.
    pub revision: Revision,
}

/// A leadership of ours. Dropping it ends it here at once; in the store it ends with the lease, or at once by
/// [`Leadership::resign`].
pub struct Leadership {
    store: Arc<dyn MetadataStore>,
    keys: Keyspace,
    generation: u64,
    revision: Revision,
    term: Arc<Term>,
    _over_on_drop: DropGuard,
}

/// What the leadership and its keeper share.
struct Term {
    /// Until when nobody else can lead.
    valid_until: Mutex<Instant>,
    /// Cancelled when it is over; never begins again (P5).
    over: CancellationToken,
}

impl Term {
    fn new(valid_until: Instant) -> Arc<Self> {
        Arc::new(Self { valid_until: Mutex::new(valid_until), over: CancellationToken::new() })
    }

    fn valid_until(&self) -> Instant {
        *self.valid_until.lock().expect("no code panics while it holds this lock")
    }

    fn is_valid(&self, now: Instant) -> bool {
        !self.over.is_cancelled() && now < self.valid_until()
    }

    /// A keep-alive sent at `sent` was confirmed. Too late is too late: a term that ran out stays over.
    fn confirm(&self, sent: Instant, lease: Duration) {
        let mut until = self.valid_until.lock().expect("no code panics while it holds this lock");
        *until = (*until).max(sent + lease);
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Leadership {
    /// The leadership itself: the create revision of the leader key. Larger ones are newer (P4).
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The generation of the store: those who compare leaderships look at it first. It is the same for the whole term.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Guards a write of this leader (I3).
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::Created(self.keys.leader(), self.revision)
    }

    /// Whether a heartbeat may be answered at `now` (P3). Once false, false for good.
    #[must_use]
    pub fn may_answer(&self, now: Instant) -> bool {
        if self.term.is_valid(now) {
            return true;
        }
        // A caller that saw `false` must never see `true` again, whatever a late keep-alive says.
        self.term.over.cancel();
        false
    }

    /// Until when heartbeats may be answered unless another keep-alive is confirmed.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        self.term.valid_until()
    }

    /// Returns when this leadership is over, for whatever reason.
    pub async fn lost(&self) {
        self.term.over.cancelled().await;
    }

    /// The same for those who outlive a borrow: cancelled when this leadership is over.
    #[must_use]
    pub fn over(&self) -> CancellationToken {
        self.term.over.clone()
    }

    /// Ends this leadership here at once, then in the store, so that another can lead without waiting for the lease.
    ///
    /// # Errors
    /// Those of a commit. The leadership is over all the same, and its key goes with the lease.
    pub async fn resign(self) -> Result<()> {
        self.term.over.cancel();
        let removed = self.store.commit(&[self.guard()], vec![Write::Delete(self.keys.leader())]).await?;
        if let Commit::Lost(_) = removed {
            tracing::debug!(revision = self.revision, "resigned after the leadership had passed on");
        }
        Ok(())
    }
}

/// Waits until this process leads. `None` if `cancel` came first. An unreachable store is asked again for as long as it
/// takes.
pub async fn campaign(
    store: Arc<dyn MetadataStore>,
    keys: &Keyspace,
    address: &str,
    timing: ElectionTiming,
    cancel: &CancellationToken,
) -> Option<Leadership> {
    let attempts = async {
        loop {
            match stand(&store, keys, address, timing).await {
                Ok(leadership) => return leadership,
                Err(error) => {
                    tracing::warn!(%error, "campaign for leadership failed, trying again");
                    // As long as a lease of an unknown outcome may live.
                    tokio::time::sleep(timing.lease).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        leadership = attempts => Some(leadership),
    }
}

/// Waits for the key to be absent and takes it.
async fn stand(
    store: &Arc<dyn MetadataStore>,
    keys: &Keyspace,
    address: &str,
    timing: ElectionTiming,
) -> Result<Leadership> {
    let key = keys.leader();
    let mut wakes = store.watch(&key).await?;
    loop {
        if store.list(&key).await?.get(&key).is_some() {
            // The watch is a hint: it is looked again after a lease in any case.
            tokio::time::timeout(timing.lease, wakes.next()).await.ok();
            continue;
        }
        let (generation, unchanged) = generation(store.as_ref(), keys).await?;
        let asked = Instant::now();
        let lease = store.lease(timing.lease).await?;
        let record = encode(&LeaderRecord { address: address.to_owned() });
        let writes = vec![Write::PutLeased(key.clone(), record, lease)];
        // If the answer is lost, the key may be ours; but we do not know its revision for sure, so it is left to lapse.
        let guards = [Guard::Absent(key.clone()), unchanged];
        let Commit::Done(revision) = store.commit(&guards, writes).await? else {
            continue;
        };
        let term = Term::new(asked + timing.lease);
        if !term.is_valid(Instant::now()) {
            continue;
        }
        let keeper =
            Keeper { store: store.clone(), keys: keys.clone(), lease, revision, timing, term: term.clone() };
        tokio::spawn(keeper.run());
        let _over_on_drop = term.over.clone().drop_guard();
        let (store, keys) = (store.clone(), keys.clone());
        return Ok(Leadership { store, keys, generation, revision, term, _over_on_drop });
    }
}

/// The generation of the store, and the guard that it is still the one when the key is taken.
async fn generation(store: &dyn MetadataStore, keys: &Keyspace) -> Result<(u64, Guard)> {
    let key = keys.schema();
    let present = store.list(&key).await?;
    Ok(match present.get(&key) {
        Some(entry) => {
            let schema: Schema = decode(&key, &entry.value)?;
            (schema.generation, Guard::Unchanged(key, entry.mod_revision))
        }
        // The first leader writes it.
        None => (Schema::first(0).generation, Guard::Absent(key)),
    })
}

/// Confirms a leadership until it is over.
struct Keeper {
    store: Arc<dyn MetadataStore>,
    keys: Keyspace,
    lease: LeaseId,
    revision: Revision,
    timing: ElectionTiming,
    term: Arc<Term>,
}

impl Keeper {
    async fn run(self) {
        let over = self.term.over.clone();
        let _over_on_return = over.clone().drop_guard();
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = self.runs_out() => tracing::warn!(revision = self.revision, "leadership over: not confirmed in time"),
            () = self.keep_alive() => tracing::warn!(revision = self.revision, "leadership over: its lease has ended"),
            () = self.key_gone() => tracing::warn!(revision = self.revision, "leadership over: its key is gone"),
        }
    }

    /// Returns when the last confirmation is too old.
    async fn runs_out(&self) {
        loop {
            let until = self.term.valid_until();
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Prolongs the lease; returns when the store says that it has ended.
    async fn keep_alive(&self) {
        let mut ticks = tokio::time::interval(self.timing.keep_alive);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sent = Instant::now();
            // A hanging call must leave time for another one before the lease is over.
            let patience = (self.timing.lease / 3).max(self.timing.keep_alive);
            match tokio::time::timeout(patience, self.store.keep_alive(self.lease)).await {
                Ok(Ok(true)) => self.term.confirm(sent, self.timing.lease),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(%error, "keep-alive of the leadership failed"),
                Err(_) => tracing::debug!(?patience, "keep-alive of the leadership timed out"),
            }
        }
    }

    /// Returns when the key is not ours any more (an operator removed it, or the store was replaced).
    async fn key_gone(&self) {
        let key = self.keys.leader();
        loop {
            if let Ok(mut wakes) = self.store.watch(&key).await {
                loop {
                    match self.store.list(&key).await {
                        Ok(now) if now.get(&key).is_none_or(|e| e.create_revision != self.revision) => return,
                        Ok(_) => {}
                        Err(_) => break,
                    }
                    if wakes.next().await.is_none() {
                        break;
                    }
                }
            }
            tokio::time::sleep(self.timing.keep_alive).await;
        }
    }
}

/// Follows who leads, for as long as somebody holds the receiver. `None` while nobody does, and until it is known.
#[must_use]
pub fn watch_leader(store: Arc<dyn MetadataStore>, keys: &Keyspace) -> watch::Receiver<Option<Leader>> {
    let (seen, receiver) = watch::channel(None);
    let keys = keys.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = seen.closed() => {}
            () = follow(store, keys, &seen) => {}
        }
    });
    receiver
}

/// How long a follower waits after the store failed.
const FOLLOW_RETRY: Duration = Duration::from_millis(500);

async fn follow(store: Arc<dyn MetadataStore>, keys: Keyspace, seen: &watch::Sender<Option<Leader>>) {
    loop {
        if let Err(error) = follow_once(store.as_ref(), &keys, seen).await {
            tracing::debug!(%error, "following the leader failed, trying again");
        }
        tokio::time::sleep(FOLLOW_RETRY).await;
    }
}

async fn follow_once(
    store: &dyn MetadataStore,
    keys: &Keyspace,
    seen: &watch::Sender<Option<Leader>>,
) -> Result<()> {
    let key = keys.key::<LeaderKey>(&());
    let mut wakes = store.watch(&key).await?;
    loop {
        let snapshot = store.list(&key).await?;
        let leader = match snapshot.get(&key) {
            Some(entry) => {
                let record: LeaderRecord = decode(&key, &entry.value)?;
                Some(Leader { address: record.address, revision: entry.create_revision })
            }
            None => None,
        };
        seen.send_if_modified(|last| {
            let changed = *last != leader;
            *last = leader;
            changed
        });
        if wakes.next().await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
