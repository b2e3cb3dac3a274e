//! What the admin room stands on: `Handle` is any coordinator, `Leader` the one that leads, for as long as it does.
//!
//! Every method of `Leader` answers from the term's memory or through a guarded commit; a term that ends makes each of them
//! answer [`ErrorKind::NotLeader`](crate::ErrorKind). Followers forward to [`Handle::leader_address`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use connector::Registry;
use model::{ObjectKind, TaskId};
use proto::{Wire, v1};
use tokio::sync::{broadcast, watch};

use crate::{
    Config, Result,
    error::{Error, ErrorKind},
    grantees::Viewer,
    term::Term,
};

/// Where the leader is, as one coordinator sees it.
#[derive(Clone)]
pub(crate) enum Role {
    /// This coordinator leads. It may not have loaded yet.
    Leads(Arc<Term>),
    /// Another one leads at this address, or nobody does.
    Follows(Option<String>),
}

/// One coordinator, leading or not. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Registry,
    pub(crate) address: Arc<str>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) wire: Wire,
    /// What it is bound to.
    pub(crate) listener: SocketAddr,
}

impl Handle {
    /// Settings of this coordinator.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The connectors it knows.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The URL at which others reach it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address of whoever leads now, this one included; `None` while nobody does.
    #[must_use]
    pub fn leader_address(&self) -> Option<String> {
        match &*self.role.borrow() {
            Role::Leads(_) => Some(self.address.to_string()),
            Role::Follows(leader) => leader.clone(),
        }
    }

    /// Resolves when another leads, or nobody does, or this one does; false once this coordinator has ended.
    pub async fn leader_changes(&mut self) -> bool {
        self.role.changed().await.is_ok()
    }

    /// So many of the tasks as the leader sees them, for people who debug; who does not lead says who does.
    #[must_use]
    pub fn tasks(&self, most: usize) -> serde_json::Value {
        let term = match &*self.role.borrow() {
            Role::Leads(term) => Arc::clone(term),
            Role::Follows(leader) => return serde_json::json!({ "leads": false, "leader": leader }),
        };
        let tasks = Leader { term, viewer: None }.splits(None, None, false);
        let shown: Vec<_> = tasks.iter().take(most).map(shown).collect();
        serde_json::json!({ "leads": true, "tasks": shown, "left_out": tasks.len() - shown.len() })
    }

    /// The leading side, if this coordinator leads, once it has loaded. `Err(NotLeader)` at once if another one leads; waits
    /// up to `patience` while nobody does or the leader still loads.
    pub async fn leader(&self, patience: Duration) -> Result<Leader> {
        let mut role = self.role.clone();
        let wait = async {
            loop {
                let now = role.borrow_and_update().clone();
                match now {
                    Role::Leads(term) => {
                        term.wait_loaded().await?;
                        return Ok(Leader { term, viewer: None });
                    }
                    Role::Follows(Some(_)) => return Err(Error::not_leader()),
                    Role::Follows(None) => {}
                }
                role.changed().await.map_err(|_| Error::not_leader())?;
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(found) => found,
            Err(_) => Err(Error::new(ErrorKind::NotLeader, "no coordinator leads at the moment")),
        }
    }
}

fn shown(task: &v1::SplitStatus) -> serde_json::Value {
    serde_json::json!({
        "source": task.source,
        "sink": task.sink,
        "task": task.split,
        "state": task.state,
        "worker": task.worker,
        "epoch": task.epoch,
        "checkpoint": task.position,
        "lag_ms": task.lag_ms,
        "waits_for": task.waits_for,
        "error": task.error,
    })
}

/// Where [`Leader::reset_position`] moves a sink to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResetTo {
    /// The oldest record that is still there.
    Horizon,
    /// The first record at or after this moment, milliseconds since 1970.
    At(i64),
    /// Just after this cursor; needs one split.
    After(String),
}

/// What a drop did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The kind and the name of everything that was dropped, dependents first.
    pub objects: Vec<(ObjectKind, String)>,
}

/// A bad record that a worker reported.
#[derive(Clone, Debug)]
pub struct BadRow {
    /// Name of the source.
    pub source: String,
    /// Name of the sink.
    pub sink: String,
    /// Name of the split.
    pub split: String,
    /// What the worker said.
    pub record: v1::BadRecord,
}

/// The leading coordinator. Cheap to clone; outlives its term only to say so.
#[derive(Clone)]
pub struct Leader {
    pub(crate) term: Arc<Term>,
    /// Whose eyes these are; `None` sees everything.
    pub(crate) viewer: Option<Arc<Viewer>>,
}

impl Leader {
    /// Revision at which it became leader.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.term.revision()
    }

    /// How far the drain of a worker is.
    pub fn drain_progress(&self, worker: &str) -> Result<v1::DrainProgress> {
        let state = self.term.state();
        if !state.memory.view.workers.contains_key(worker) {
            return Err(Error::new(ErrorKind::Missing, format!("worker \"{worker}\" does not exist")));
        }
        let observed = &state.memory.observed;
        let left: Vec<&TaskId> = observed
            .assignments
            .iter()
            .filter(|(task, (epoch, run))| {
                run.worker == worker && !observed.heard.releases.contains_key(&((*task).clone(), *epoch))
            })
            .map(|(task, _)| task)
            .collect();
        let waits_for = left.iter().find_map(|task| state.waiting.get(*task)).cloned().unwrap_or_default();
        Ok(v1::DrainProgress { tasks_left: u32::try_from(left.len()).unwrap_or(u32::MAX), waits_for })
    }

    /// The newest bad records, oldest first.
    #[must_use]
    pub fn bad_rows(&self) -> Vec<BadRow> {
        let seen = |row: &&BadRow| self.shows_of(&row.source, &row.sink);
        self.term.state().bad.iter().filter(seen).cloned().collect()
    }

    /// The kept events after number `after`, and what comes from now on. Watch [`Leader::lost`] too: the term may end.
    #[must_use]
    pub fn watch_events(&self, after: u64) -> (Vec<v1::Event>, broadcast::Receiver<v1::Event>) {
        self.term.events.watch(after)
    }

    /// Resolves when this coordinator no longer leads.
    pub async fn lost(&self) {
        self.term.cancel.cancelled().await;
    }

    /// Wakes the reconciler.
    pub fn nudge(&self) {
        self.term.nudge.notify_one();
    }
}
