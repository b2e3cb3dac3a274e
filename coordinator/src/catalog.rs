//! Names and objects: created, changed and dropped by guarded commits. A statement is done when it is durable (I7: a name is
//! freed at once, and what it named goes when its runs have ended).
//!
//! Called by the admin room through [`Leader`]. Validation against the outside happened before; here only the catalog itself
//! can object.

use std::{sync::Arc, time::Duration};

use connector::Listing;
use model::{
    Checkpoint, Cursor, Epoch, ObjectId, ObjectKind, Position, SinkSpec, SourceSpec, SplitState, StartFrom,
};
use model::{TaskId, Timestamp};
use sql::access::On;
use store::{
    AssignmentKey, CheckpointKey, Guard, Key, NameKey, ObjectKey, ObjectRecord, Spec, WorkerKey, Write,
};

use crate::{
    clock, discovery,
    error::{Error, ErrorKind, Result},
    events::Level,
    handle::{Dropped, Leader, ResetTo},
    memory::Memory,
    replace::revision,
    term::{Outcome, Term},
};

/// How often a change is tried again when others change the same object.
pub(crate) const ATTEMPTS_MAX: u32 = 8;

/// Tasks whose positions are reset in one transaction: two guards each, and the sink's.
const RESETS_MAX: usize = (store::COMMIT_OPS_MAX - 2) / 2;

/// Objects that are dropped in one transaction: two writes each.
const DROPS_MAX: usize = store::COMMIT_OPS_MAX / 2;

impl Leader {
    /// The source of this name.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<Arc<SourceSpec>> {
        let state = self.term.state();
        let id = state.memory.named(ObjectKind::Source, name)?;
        state.memory.source(id).cloned().map(Arc::new)
    }

    /// The sink of this name.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<Arc<SinkSpec>> {
        let state = self.term.state();
        let id = state.memory.named(ObjectKind::Sink, name)?;
        state.memory.sink(id).cloned().map(Arc::new)
    }

    /// All sources that have a name, sorted by it.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<SourceSpec>> {
        let mut sources = self.term.state().memory.sources();
        sources.retain(|spec| self.shows(&On::Source(spec.name.clone())));
        sources
    }

    /// All sinks that have a name, sorted by it.
    #[must_use]
    pub fn sinks(&self) -> Vec<Arc<SinkSpec>> {
        let mut sinks = self.all_sinks();
        sinks.retain(|spec| self.shows(&On::Sink(spec.name.clone())));
        sinks
    }

    /// All sinks, whoever asks: what depends on an object does so unseen, too.
    pub(crate) fn all_sinks(&self) -> Vec<Arc<SinkSpec>> {
        self.term.state().memory.sinks()
    }

    /// Makes a source durable; `listing` is the first complete listing, taken *after* `draft.start` was pinned. The draft's
    /// id, `created_at` and revision are chosen here. Errors: `Exists`.
    pub async fn create_source(
        &self,
        mut draft: SourceSpec,
        listing: Option<&Listing>,
    ) -> Result<Arc<SourceSpec>> {
        (draft.id, draft.created_at, draft.revision) = (new_id(), clock::wall(), 1);
        self.term.create(Spec::Source(Box::new(draft.clone())), None, self.owner()).await?;
        if let Some(listing) = listing
            && let Err(error) = discovery::take(&self.term, &draft, listing).await
        {
            // The source is durable; its discovery will list it again.
            tracing::warn!(source = draft.name, %error, "first listing was not stored");
        }
        self.term.sources_changed.notify_one();
        self.term.nudge.notify_one();
        Ok(Arc::new(draft))
    }

    /// Makes a sink durable; `source` is its source as the draft was bound to it. The draft's id, `created_at`, revision and
    /// instance are chosen here. Errors: `Exists`; `Missing` if the source is not there any more; `Unavailable` if it has
    /// other columns now.
    pub async fn create_sink(&self, mut draft: SinkSpec, source: &SourceSpec) -> Result<Arc<SinkSpec>> {
        (draft.id, draft.created_at, draft.revision, draft.instance) = (new_id(), clock::wall(), 1, 0);
        for _ in 0..ATTEMPTS_MAX {
            let source = self.term.state().memory.bound_to(draft.source, source)?;
            if self.term.create(Spec::Sink(Box::new(draft.clone())), Some(source), self.owner()).await? {
                self.term.nudge.notify_one();
                return Ok(Arc::new(draft));
            }
        }
        Err(busy(&draft.name))
    }

    /// Changes a source; every run of it restarts at the new revision. `change` may be called again after a lost race.
    pub async fn update_source(
        &self,
        name: &str,
        change: impl Fn(&mut SourceSpec) -> Result<()> + Send,
    ) -> Result<Arc<SourceSpec>> {
        let _one_at_a_time = self.term.naming.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let mut spec =
                self.source(name).ok_or_else(|| missing(ObjectKind::Source, name))?.as_ref().clone();
            change(&mut spec)?;
            spec.revision += 1;
            if self.term.replace(Spec::Source(Box::new(spec.clone()))).await? {
                self.term.state().wake_discovery(spec.id);
                return Ok(Arc::new(spec));
            }
        }
        Err(busy(name))
    }

    /// Changes a sink; every run of it restarts at the new revision. `change` may be called again after a lost race.
    pub async fn update_sink(
        &self,
        name: &str,
        change: impl Fn(&mut SinkSpec) -> Result<()> + Send,
    ) -> Result<Arc<SinkSpec>> {
        let _one_at_a_time = self.term.naming.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let mut spec = self.sink(name).ok_or_else(|| missing(ObjectKind::Sink, name))?.as_ref().clone();
            change(&mut spec)?;
            spec.revision += 1;
            if self.term.replace(Spec::Sink(Box::new(spec.clone()))).await? {
                return Ok(Arc::new(spec));
            }
        }
        Err(busy(name))
    }

    /// Frees the name at once; the runs are drained and the keys deleted afterwards (I7). A source with sinks is `InUse`
    /// unless `cascade`. Very many sinks take several transactions, the source goes with the last of them; if one fails, the
    /// call may be repeated.
    pub async fn drop_object(&self, kind: ObjectKind, name: &str, cascade: bool) -> Result<Dropped> {
        // No sink is created meanwhile on a source that goes.
        let _one_at_a_time = self.term.naming.lock().await;
        let (mut all, mut attempts) = (Dropped { objects: Vec::new() }, 0);
        while attempts < ATTEMPTS_MAX {
            let (dropped, guards, writes) = self.term.state().memory.drop_of(kind, name, cascade)?;
            let Outcome::Done(_) = self.term.commit(guards, writes).await? else {
                attempts += 1;
                continue;
            };
            for (kind, name) in &dropped.objects {
                let kind = kind.as_str();
                let message = format!("{kind} `{name}` dropped");
                self.term.events.tell(Level::Info, &format!("{kind}_dropped"), message, &[(kind, name)]);
            }
            self.term.sources_changed.notify_one();
            self.term.nudge.notify_one();
            all.objects.extend(dropped.objects);
            if all.objects.last().is_some_and(|(dropped, last)| (*dropped, last.as_str()) == (kind, name)) {
                return Ok(all);
            }
        }
        Err(busy(name))
    }

    /// Stops the runs of a sink; they keep their positions. Pausing twice is no error.
    pub async fn pause_sink(&self, name: &str) -> Result<()> {
        if self.sink(name).is_some_and(|sink| sink.paused) {
            return Ok(());
        }
        self.update_sink(name, |sink| {
            sink.paused = true;
            Ok(())
        })
        .await?;
        self.term.events.tell(Level::Info, "sink_paused", format!("sink `{name}` paused"), &[("sink", name)]);
        Ok(())
    }

    /// Lets a sink run again; also tries failed runs again.
    pub async fn resume_sink(&self, name: &str) -> Result<()> {
        self.update_sink(name, |sink| {
            sink.paused = false;
            Ok(())
        })
        .await?;
        self.term.events.tell(
            Level::Info,
            "sink_resumed",
            format!("sink `{name}` resumed"),
            &[("sink", name)],
        );
        Ok(())
    }

    /// Moves the positions of a paused sink, of one split or of all that it knows; says how many. Waits until its runs have
    /// ended and nothing of them can land. Errors: `State` unless it is paused.
    ///
    /// Many splits take several transactions; if one fails, the call may be repeated.
    pub async fn reset_position(&self, sink: &str, split: Option<&str>, to: ResetTo) -> Result<u32> {
        if matches!(to, ResetTo::After(_)) && split.is_none() {
            return Err(Error::new(ErrorKind::State, "a cursor belongs to one split: name the split"));
        }
        self.wait_idle(sink).await?;
        // What is not there is said before anything is changed.
        let known = self.sink(sink).ok_or_else(|| missing(ObjectKind::Sink, sink))?;
        self.term.state().memory.tasks_of(&known, split)?;
        let spec = self
            .update_sink(sink, |sink| {
                sink.instance += 1;
                if sink.paused { Ok(()) } else { Err(not_paused(&sink.name)) }
            })
            .await?;
        let tasks = self.term.state().memory.tasks_of(&spec, split)?;
        for chunk in tasks.chunks(RESETS_MAX) {
            let (guards, writes) = self.term.state().memory.reset_of(&spec, chunk, &to)?;
            if let Outcome::Lost(_) = self.term.commit(guards, writes).await? {
                return Err(busy(sink));
            }
        }
        let message = format!("positions of sink `{sink}` reset, {} splits", tasks.len());
        self.term.events.tell(Level::Warn, "position_reset", message, &[("sink", sink)]);
        Ok(u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    /// Waits until a paused sink has no assignment any more.
    async fn wait_idle(&self, name: &str) -> Result<()> {
        let timing = &self.term.config.timing;
        let patience = timing.handoff_deadline + timing.session_timeout + timing.last_breath() * 2;
        let idle = async {
            loop {
                let sink = self.sink(name).ok_or_else(|| missing(ObjectKind::Sink, name))?;
                if !sink.paused {
                    return Err(not_paused(name));
                }
                let runs = |task: &TaskId| task.sink == sink.id;
                if !self.term.state().memory.observed.assignments.keys().any(runs) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(patience, idle).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::State, format!("runs of sink \"{name}\" have not ended yet")))
        })
    }

    /// Hands every task of a worker to others and gives it no new ones; `undo` lets it take tasks again.
    pub async fn drain_worker(&self, worker: &str, undo: bool) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            let (guard, write, process) = {
                let memory = &self.term.state().memory;
                let stored = memory.view.workers.get(worker).ok_or_else(|| {
                    Error::new(ErrorKind::Missing, format!("worker \"{worker}\" does not exist"))
                })?;
                let mut record = stored.value.clone();
                record.draining = !undo;
                let guard = Guard::Unchanged(memory.keys.worker(worker), stored.mod_revision);
                let write = memory.keys.put::<WorkerKey>(&worker.to_owned(), &record);
                (guard, write, record.process)
            };
            if let Outcome::Done(_) = self.term.commit(vec![guard], vec![write]).await? {
                let mut state = self.term.state();
                let leaving = state.session_of(&process).is_some_and(|(_, session)| session.leaving);
                if let Some(process) = state.memory.observed.heard.processes.get_mut(&process) {
                    process.draining = !undo || leaving;
                }
                let what = if undo { "takes tasks again" } else { "is being drained" };
                let message = format!("worker `{worker}` {what}");
                self.term.events.tell(Level::Info, "worker_draining", message, &[("worker", worker)]);
                self.term.nudge.notify_one();
                return Ok(());
            }
        }
        Err(busy(worker))
    }
}

impl Term {
    /// Commits a new object under its name, as its owner's. `false` if `source` has changed meanwhile.
    pub(crate) async fn create(
        &self,
        spec: Spec,
        source: Option<Guard>,
        owner: Option<String>,
    ) -> Result<bool> {
        let _one_at_a_time = self.naming.lock().await;
        self.check_credentials(&spec)?;
        let (kind, id, name) = (spec.kind(), spec.id(), spec.name().to_owned());
        let (guards, writes) = {
            let memory = &self.state().memory;
            if memory.named(kind, &name).is_some() {
                return Err(exists(kind, &name));
            }
            let mut guards = vec![Guard::Absent(memory.keys.name(kind, &name))];
            guards.extend(source);
            let listing_due = kind == ObjectKind::Source;
            let record = ObjectRecord { spec, dropping: false, listing_due, registration: None, owner };
            let writes = vec![
                memory.keys.put::<NameKey>(&(kind, name.clone()), &id),
                memory.keys.put::<ObjectKey>(&id, &record),
            ];
            (guards, writes)
        };
        match self.commit(guards, writes).await? {
            Outcome::Done(_) => {
                let kind = kind.as_str();
                let message = format!("{kind} `{name}` created");
                self.events.tell(Level::Info, &format!("{kind}_created"), message, &[(kind, &name)]);
                Ok(true)
            }
            Outcome::Lost(present) => {
                let taken = present.get(&self.state().memory.keys.name(kind, &name)).is_some();
                if taken { Err(exists(kind, &name)) } else { Ok(false) }
            }
        }
    }

    /// Commits a changed object, under the lock of `naming` since it was read. `false` if it has changed nevertheless.
    async fn replace(&self, spec: Spec) -> Result<bool> {
        self.check_credentials(&spec)?;
        let (guard, write) = {
            let memory = &self.state().memory;
            let id = spec.id();
            let (Some(guard), Some(before)) = (memory.living(id), memory.view.objects.get(&id)) else {
                return Err(missing(spec.kind(), spec.name()));
            };
            if revision(&before.value.spec) + 1 != revision(&spec) {
                return Ok(false);
            }
            let record = ObjectRecord { spec, ..before.value.clone() };
            (guard, memory.keys.put::<ObjectKey>(&id, &record))
        };
        let done = matches!(self.commit(vec![guard], vec![write]).await?, Outcome::Done(_));
        self.nudge.notify_one();
        Ok(done)
    }
}

impl Memory {
    /// The guard that an object is there as we know it and is not being dropped.
    fn living(&self, id: ObjectId) -> Option<Guard> {
        let object = self.view.objects.get(&id).filter(|object| !object.value.dropping)?;
        Some(Guard::Unchanged(self.keys.object(id), object.mod_revision))
    }

    /// The guard that the source `id` is there, with the columns that something was bound to.
    fn bound_to(&self, id: ObjectId, bound: &SourceSpec) -> Result<Guard> {
        let now = self.source(id).zip(self.living(id));
        let (now, guard) = now.ok_or_else(|| missing(ObjectKind::Source, &bound.name))?;
        if now.all_columns().eq(bound.all_columns()) { Ok(guard) } else { Err(busy(&bound.name)) }
    }

    /// What dropping an object guards and writes: its dependents go first, as many as one transaction takes.
    fn drop_of(
        &self,
        kind: ObjectKind,
        name: &str,
        cascade: bool,
    ) -> Result<(Dropped, Vec<Guard>, Vec<Write>)> {
        let id = self.named(kind, name).ok_or_else(|| missing(kind, name))?;
        let reads = |sink: &&Arc<SinkSpec>| kind == ObjectKind::Source && sink.source == id;
        let mut ids: Vec<ObjectId> = self.sinks().iter().filter(reads).map(|sink| sink.id).collect();
        if !ids.is_empty() && !cascade {
            let names: Vec<String> =
                ids.iter().filter_map(|id| Some(format!("\"{}\"", self.sink(*id)?.name))).collect();
            let message = format!("source \"{name}\" is still read by sink {}", names.join(", "));
            return Err(Error::new(ErrorKind::InUse, message));
        }
        ids.push(id);
        ids.truncate(DROPS_MAX);
        let (mut objects, mut guards, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let Some(entry) = self.view.objects.get(&id) else { continue };
            let (kind, name) = (entry.value.spec.kind(), entry.value.spec.name().to_owned());
            guards.push(Guard::Unchanged(self.keys.object(id), entry.mod_revision));
            writes.push(self.keys.delete::<NameKey>(&(kind, name.clone())));
            let record = ObjectRecord { dropping: true, ..entry.value.clone() };
            writes.push(self.keys.put::<ObjectKey>(&id, &record));
            objects.push((kind, name));
        }
        Ok((Dropped { objects }, guards, writes))
    }

    /// The tasks of a sink: one per listed split of its source, or that of one split.
    fn tasks_of(&self, sink: &SinkSpec, split: Option<&str>) -> Result<Vec<TaskId>> {
        let table = self.observed.splits.get(&sink.source);
        let tasks: Vec<TaskId> = table
            .into_iter()
            .flatten()
            .filter(|(id, record)| {
                record.state == SplitState::Listed && split.is_none_or(|name| name == id.name())
            })
            .map(|(id, _)| TaskId::reads(sink.id, id.clone()))
            .collect();
        match split {
            Some(split) if tasks.is_empty() => {
                let message = format!("split \"{split}\" of source \"{}\" does not exist", sink.source_name);
                Err(Error::new(ErrorKind::Missing, message))
            }
            _ => Ok(tasks),
        }
    }

    /// What a reset guards and writes: the sink as it is, no run of the task, its checkpoint as it is.
    fn reset_of(&self, sink: &SinkSpec, tasks: &[TaskId], to: &ResetTo) -> Result<(Vec<Guard>, Vec<Write>)> {
        let mut guards = vec![self.living(sink.id).ok_or_else(|| missing(ObjectKind::Sink, &sink.name))?];
        let mut writes = Vec::new();
        for task in tasks {
            let key: Key = self.keys.key::<CheckpointKey>(task);
            let before = self.view.checkpoints.get(task);
            guards.push(Guard::Absent(self.keys.key::<AssignmentKey>(task)));
            guards.push(match before {
                Some(before) => Guard::Unchanged(key, before.mod_revision),
                None => Guard::Absent(key),
            });
            let checkpoint = Checkpoint {
                position: position(to),
                // Of no run: whatever the next one reports is newer.
                epoch: Epoch::default(),
                serial: 0,
                caught_up_at: None,
                records: before.map_or(0, |before| before.value.records),
                run_records: 0,
                at: clock::wall(),
                // An operator has seen to it.
                gap: None,
            };
            writes.push(self.keys.put::<CheckpointKey>(task, &checkpoint));
        }
        Ok((guards, writes))
    }
}

fn position(to: &ResetTo) -> Position {
    match to {
        ResetTo::Horizon => Position::Start(StartFrom::Horizon),
        ResetTo::At(at) => Position::Start(StartFrom::At(Timestamp(*at))),
        ResetTo::After(cursor) => Position::After(Cursor::new(cursor.as_str())),
    }
}

pub(crate) fn new_id() -> ObjectId {
    ObjectId::from_parts(u64::try_from(clock::wall_ms()).unwrap_or(0), rand::random())
}

fn exists(kind: ObjectKind, name: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("{} \"{name}\" already exists", kind.as_str()))
}

pub(crate) fn missing(kind: ObjectKind, name: &str) -> Error {
    Error::new(ErrorKind::Missing, format!("{} \"{name}\" does not exist", kind.as_str()))
}

fn not_paused(name: &str) -> Error {
    Error::new(ErrorKind::State, format!("sink \"{name}\" is not paused: pause it first"))
}

pub(crate) fn busy(name: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("\"{name}\" is being changed by others, try again"))
}
