//! One term of a leader: everything that lives from its election to its end, and nothing longer (P5).
//!
//! The term's memory sits behind one lock that is never held across an await; whoever reads, decides and sends under it sees
//! one moment. Sessions, reconciler, checkpointer, discovery and upkeep are loops around it, each ended by `cancel`. All
//! writes go through [`Term::commit`], guarded by the leader key (I3).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use connector::Registry;
use logic::mutant;
use model::{ObjectId, TaskId};
use proto::v1;
use store::{Commit, Guard, Health, Leadership, MetadataStore, Revision, Snapshot, Write};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    checkpointer::Lanes,
    clock::Clock,
    discovery::SourceState,
    error::{Error, ErrorKind, Result},
    events::{Events, Level},
    handle::BadRow,
    memory::Memory,
    meters::Meters,
    secrets::SealedStore,
    session::{Lists, Session},
};

/// One term.
pub(crate) struct Term {
    pub config: Arc<Config>,
    pub store: Arc<dyn MetadataStore>,
    /// The same store, for who asks how secrets are kept in it.
    pub secrets: Arc<SealedStore>,
    /// The URL at which others reach this coordinator.
    pub address: Arc<str>,
    generation: u64,
    revision: u64,
    leader: Guard,
    leadership: Mutex<Option<Leadership>>,
    /// Starts at the election.
    pub clock: Clock,
    pub events: Events,
    pub meters: Arc<Meters>,
    /// Ends every loop of the term.
    pub cancel: CancellationToken,
    /// Wakes the reconciler; carries nothing.
    pub nudge: Notify,
    /// Wakes the checkpointer; carries nothing.
    pub moved: Notify,
    /// Wakes discovery: a source came or went.
    pub sources_changed: Notify,
    /// Lets one process at a time take a name, so that the record in the store is that of the process that joined.
    pub joining: tokio::sync::Mutex<()>,
    /// Lets one listing at a time be merged: whether it is a source's first must not change meanwhile.
    pub listing: tokio::sync::Mutex<()>,
    /// Lets one statement at a time say which credentials there are and who uses them.
    pub naming: tokio::sync::Mutex<()>,
    /// Wakes who gives the users of a changed credential their new revision.
    pub renewals: Notify,
    loaded: watch::Sender<bool>,
    state: Mutex<State>,
}

/// What the term knows and heard.
pub(crate) struct State {
    pub memory: Memory,
    /// False until the listing is in memory: until then heartbeats are answered and no list is sent (P3).
    pub loaded: bool,
    pub sessions: HashMap<u64, Session>,
    /// The task lists of all processes.
    pub lists: Lists,
    pub session_next: u64,
    /// The newest session of each instance whose join counted.
    pub instances: HashMap<String, u64>,
    pub lanes: Lanes,
    /// Why tasks are not simply running, in words: the newest plan's.
    pub waiting: BTreeMap<TaskId, String>,
    /// The newest report of each run.
    pub reports: BTreeMap<TaskId, v1::Report>,
    /// Runs that failed in a row, by task.
    pub failures: HashMap<TaskId, Failures>,
    /// When a task came to its end in this term: what the start of its children is measured from.
    pub ended: HashMap<TaskId, Duration>,
    /// The newest bad records of all runs.
    pub bad: VecDeque<BadRow>,
    pub discovery: BTreeMap<ObjectId, SourceState>,
    pub health: Health,
    /// What `invariant::check` found last.
    pub violations: Vec<String>,
}

/// Runs of a task that failed in a row.
pub(crate) struct Failures {
    /// The revision of the checkpoint that they could not pass.
    pub checkpoint: u64,
    pub count: u32,
    /// When the last of them failed.
    pub last: Duration,
}

/// What came of a guarded commit.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is durable, at this revision, and in memory.
    Done(u64),
    /// A guard other than the leader's failed; the memory was corrected by what stands there.
    Lost(Snapshot),
}

/// A commit that is under way. Who gives one up does not know what came of it, as if its answer had been lost, and the memory
/// does not know either: that ends the term.
struct Unanswered<'a>(&'a Term);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.end(Level::Warn, "a commit was given up half way");
    }
}

impl Term {
    /// A term that has not loaded yet: it answers heartbeats.
    pub fn new(
        (config, address, meters): (Arc<Config>, Arc<str>, Arc<Meters>),
        registry: Registry,
        secrets: Arc<SealedStore>,
        leadership: Leadership,
        cancel: CancellationToken,
    ) -> Self {
        let keys = store::Keyspace::new(&config.cluster);
        let state = State {
            memory: Memory::new(keys, registry),
            loaded: false,
            sessions: HashMap::new(),
            lists: Lists::default(),
            session_next: 0,
            instances: HashMap::new(),
            lanes: Lanes::default(),
            waiting: BTreeMap::new(),
            reports: BTreeMap::new(),
            failures: HashMap::new(),
            ended: HashMap::new(),
            bad: VecDeque::new(),
            discovery: BTreeMap::new(),
            health: Health::default(),
            violations: Vec::new(),
        };
        Self {
            events: Events::new(leadership.revision()),
            meters,
            generation: leadership.generation(),
            revision: leadership.revision(),
            leader: leadership.guard(),
            leadership: Mutex::new(Some(leadership)),
            config,
            store: secrets.clone(),
            secrets,
            address,
            clock: Clock::start(),
            cancel,
            nudge: Notify::new(),
            moved: Notify::new(),
            sources_changed: Notify::new(),
            joining: tokio::sync::Mutex::new(()),
            listing: tokio::sync::Mutex::new(()),
            naming: tokio::sync::Mutex::new(()),
            renewals: Notify::new(),
            loaded: watch::Sender::new(false),
            state: Mutex::new(state),
        }
    }

    /// The term's memory, for the moment of one decision.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the term's memory")
    }

    /// Revision at which this coordinator became leader.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// This leadership as workers compare it: by the generation of the store first (P4).
    pub fn leader(&self) -> v1::Leader {
        v1::Leader { generation: self.generation, revision: self.revision }
    }

    /// What guards a write of this leader (I3).
    pub fn guard(&self) -> Guard {
        self.leader.clone()
    }

    /// Whether a heartbeat may be answered now: only while nobody else can lead (P3).
    pub fn may_answer(&self) -> bool {
        let leadership = self.leadership.lock().expect("no code panics while it holds the leadership");
        let answers = |leadership: &Leadership| {
            mutant::on("deposed_leader_answers") || leadership.may_answer(Instant::now())
        };
        leadership.as_ref().is_some_and(answers)
    }

    /// Gives the leadership back, so that another may lead at once. Never to be had again under this revision (P5).
    pub async fn resign(&self) -> Result<()> {
        let taken = self.leadership.lock().expect("no code panics while it holds the leadership").take();
        match taken {
            Some(leadership) => Ok(leadership.resign().await?),
            None => Ok(()),
        }
    }

    /// Lists the cluster once and takes it over. From here on task lists are sent.
    pub async fn load(&self) -> Result<()> {
        let keys = self.state().memory.keys.clone();
        let schema = store::ensure_schema(&*self.store, &keys, &self.leader).await?;
        if schema.begins {
            self.begin_generation(&keys).await?;
        }
        let snapshot = self.store.list(&keys.all()).await?;
        let view = store::View::decode(&keys, &snapshot)?;
        self.state().memory.load(view);
        self.ensure_administrator().await?;
        let mut state = self.state();
        state.memory.observed.heard.generation_begins = schema.begins;
        // Heartbeats were answered before now, also of processes that had not joined: what was not heard counts from here.
        if !mutant::on("term_remembers") {
            state.memory.observed.heard.elected_at = self.clock.now();
        }
        state.loaded = true;
        drop(state);
        self.secrets.warn();
        self.loaded.send_replace(true);
        Ok(())
    }

    /// Waits until the term has loaded; an error if it ends before.
    pub async fn wait_loaded(&self) -> Result<()> {
        let mut loaded = self.loaded.subscribe();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::not_leader()),
            found = loaded.wait_for(|loaded| *loaded) => found.map(drop).map_err(|_| Error::not_leader()),
        }
    }

    /// Commits under the leader's guard and keeps the memory true. An outcome that stays unknown ends the term: the next one
    /// lists again, and nothing that was guarded by this leadership can land after its end. (Checkpoints read their lane
    /// instead, see the checkpointer.)
    pub async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Outcome> {
        let keep = |memory: &mut Memory, revision| memory.apply(&writes, revision);
        match self.try_commit(guards, &writes, keep).await {
            Err(error) if error.kind == ErrorKind::Unknown => {
                self.end(Level::Warn, &format!("the outcome of a commit is unknown: {error}"));
                Err(error)
            }
            other => other,
        }
    }

    /// As [`Term::commit`], but an unknown outcome is the caller's to find out, and so is how to `keep` in memory what was
    /// written.
    pub async fn try_commit(
        &self,
        mut guards: Vec<Guard>,
        writes: &[Write],
        keep: impl FnOnce(&mut Memory, Revision),
    ) -> Result<Outcome> {
        if self.cancel.is_cancelled() {
            return Err(Error::not_leader());
        }
        let guarded = !mutant::on("leader_unguarded");
        if guarded {
            guards.push(self.leader.clone());
        }
        let unanswered = Unanswered(self);
        let answer = self.store.commit(&guards, writes.to_vec()).await;
        std::mem::forget(unanswered);
        match answer? {
            Commit::Done(revision) => {
                keep(&mut self.state().memory, revision);
                Ok(Outcome::Done(revision))
            }
            Commit::Lost(present) => {
                let leader = present.get(self.leader.key());
                if guarded && leader.is_none_or(|leader| leader.create_revision != self.revision) {
                    self.end(Level::Warn, "the leader key is not ours any more");
                    return Err(Error::not_leader());
                }
                if guarded {
                    guards.pop();
                }
                self.state().memory.correct(&guards, &present);
                Ok(Outcome::Lost(present))
            }
        }
    }

    /// Ends the term. Workers are told nothing (P14): their streams end, and they look for the next leader.
    pub fn end(&self, level: Level, why: &str) {
        if !self.cancel.is_cancelled() {
            if mutant::on("deposed_leader_stops_workers") {
                let mut state = self.state();
                state.memory.observed.assignments.clear();
                state.memory.lists += 1;
                drop(state);
                self.push_lists();
            }
            self.events.tell(level, "leader_resigned", format!("this coordinator leads no more: {why}"), &[]);
            self.cancel.cancel();
        }
    }
}
