//! The office of the leader: campaigns, holds one term after the other, and follows whoever else leads.
//!
//! ```text
//!   follows ──elected──▶ leads (answers heartbeats) ──loaded──▶ leads (plans, lists, checkpoints)
//!      ▲                                                              │
//!      └──── resigns: lease lost, key lost, unknown outcome, stop ◀───┘
//! ```
//!
//! Everything of a term dies with it, and the next one begins with nothing but what the store says (P5).

use std::{sync::Arc, time::Duration};

use connector::Registry;
use logic::mutant;
use store::{ElectionTiming, Keyspace};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, checkpointer, credentials, discovery,
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::Role,
    meters::Meters,
    reconciler, registration,
    secrets::SealedStore,
    term::Term,
    upkeep,
};

/// How long an orderly resignation may take.
const RESIGN_WITHIN: Duration = Duration::from_secs(1);

/// How long a coordinator that could not load stands back, so that another may try.
const STAND_BACK: Duration = Duration::from_secs(1);

/// What the office needs to hold terms.
pub(crate) struct Office {
    pub config: Arc<Config>,
    pub registry: Registry,
    pub store: Arc<SealedStore>,
    pub address: Arc<str>,
    pub role: watch::Sender<Role>,
    pub cancel: CancellationToken,
}

impl Office {
    /// Holds terms until the coordinator stops. Errors: `Config` if the store holds what this release cannot read; the
    /// coordinator stops then.
    pub async fn run(self) -> Result<()> {
        let keys = Keyspace::new(&self.config.cluster);
        let timing = ElectionTiming {
            lease: self.config.timing.leader_lease,
            keep_alive: self.config.timing.leader_keep_alive,
        };
        let meters = Arc::new(Meters::new());
        loop {
            meters.leader.record(0, &[]);
            let campaign = store::campaign(self.store.clone(), &keys, &self.address, timing, &self.cancel);
            let leadership = tokio::select! {
                biased;
                leadership = campaign => leadership,
                () = self.follow(&keys) => None,
            };
            let Some(leadership) = leadership else { return Ok(()) };
            meters.leader.record(1, &[]);
            meters.leader_changes.add(1, &[]);
            match self.hold(leadership, &meters).await {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::Config => {
                    self.cancel.cancel();
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(STAND_BACK).await,
            }
        }
    }

    /// Tells who leads, for as long as this coordinator does not.
    async fn follow(&self, keys: &Keyspace) {
        let mut leader = store::watch_leader(self.store.clone(), keys);
        loop {
            let address = leader.borrow_and_update().as_ref().map(|leader| leader.address.clone());
            // Our own name in the key is that of an earlier term, and about to go.
            let other = address.filter(|address| **address != *self.address);
            self.role.send_replace(Role::Follows(other));
            if leader.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// One term, from election to end. An error if it never loaded.
    async fn hold(&self, leadership: store::Leadership, meters: &Arc<Meters>) -> Result<()> {
        let over = leadership.over();
        let term = Arc::new(Term::new(
            (self.config.clone(), self.address.clone(), Arc::clone(meters)),
            self.registry.clone(),
            self.store.clone(),
            leadership,
            self.cancel.child_token(),
        ));
        // Heartbeats are answered from here on, before anything is loaded (P3).
        self.role.send_replace(Role::Leads(Arc::clone(&term)));
        let message = format!("`{}` leads, term {}", self.address, term.revision());
        term.events.tell(Level::Info, "leader_elected", message, &[("leader", &self.address)]);
        let mut loops = JoinSet::new();
        let loaded = tokio::select! {
            biased;
            () = term.cancel.cancelled() => Err(Error::not_leader()),
            () = over.cancelled() => Err(Error::not_leader()),
            loaded = load(&term) => loaded,
        };
        if loaded.is_ok() {
            loops.spawn(checkpointer::run(Arc::clone(&term)));
            loops.spawn(discovery::run(Arc::clone(&term)));
            loops.spawn(reconciler::run(Arc::clone(&term)));
            loops.spawn(reconciler::watch_silence(Arc::clone(&term)));
            loops.spawn(upkeep::run(Arc::clone(&term)));
            loops.spawn(registration::run(Arc::clone(&term)));
            loops.spawn(credentials::renew(Arc::clone(&term)));
            tokio::select! {
                biased;
                () = term.cancel.cancelled() => {}
                () = over.cancelled(), if !mutant::on("deposed_leader_answers") => {
                    term.end(Level::Warn, "the leadership is over");
                }
                Some(ended) = loops.join_next() => {
                    term.end(Level::Error, &format!("a loop of the term ended: {ended:?}"));
                }
            }
        }
        term.cancel.cancel();
        loops.shutdown().await;
        meters.leader.record(0, &[]);
        meters.seen.wipe();
        self.role.send_replace(Role::Follows(None));
        match tokio::time::timeout(RESIGN_WITHIN, term.resign()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "resignation was not stored, the lease will end"),
            Err(_) => tracing::warn!("resignation was not stored in time, the lease will end"),
        }
        loaded
    }
}

/// Loads, asking again while the store does not answer.
async fn load(term: &Term) -> Result<()> {
    loop {
        match term.load().await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind == ErrorKind::Unavailable => {
                tracing::warn!(%error, "cluster could not be loaded, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => {
                term.end(Level::Error, &format!("the cluster could not be loaded: {error}"));
                return Err(error);
            }
        }
    }
}
