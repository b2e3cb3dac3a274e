//! The leader's memory: one listing at election plus its own commits, in the shape that the decisions take.
//!
//! [`Memory`] holds the store's view and mirrors each key that changes into `Desired` and `Observed`. Because every write of
//! the cluster is guarded by the leader key, this is the whole truth for as long as the term lasts (I3). Written by
//! [`Term::commit`](crate::term::Term::commit) only; what the term *heard* (sessions, releases, reports) is written by the
//! session room.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use connector::{Credentials, Registry, Takeover};
use logic::checkpoint::Group;
use logic::plan::{Desired, DesiredSink, DesiredSource, Observed, Stored};
use model::{ObjectId, ObjectKind, SinkSpec, SourceSpec};
use store::{
    AssignmentKey, CheckpointKey, Guard, Key, Keyspace, Lane, ObjectKey, Revision, Snapshot, Spec, SplitKey,
    Versioned, View, Write,
};

/// What the leader knows.
pub(crate) struct Memory {
    pub keys: Keyspace,
    /// As stored.
    pub view: View,
    /// What users asked for.
    pub desired: Desired,
    /// What is: the mirrored keys, and what was heard.
    pub observed: Observed,
    /// Grows whenever some worker's task list may have changed.
    pub lists: u64,
    /// Tasks that nobody had before were assigned since. Their lists may wait for the next push: nobody has to give anything up,
    /// and while thousands are assigned, each heartbeat would otherwise find all lists changed.
    pub fresh: bool,
    /// `checkpoint_interval` of every sink that has one.
    intervals: BTreeMap<ObjectId, Duration>,
    /// The connectors, with the credentials of the catalog.
    pub registry: Registry,
}

impl Memory {
    /// An empty one: before the term has loaded.
    pub fn new(keys: Keyspace, registry: Registry) -> Self {
        Self {
            keys,
            view: View::default(),
            desired: Desired::default(),
            observed: Observed::default(),
            lists: 1,
            fresh: false,
            intervals: BTreeMap::new(),
            registry,
        }
    }

    /// Takes over a listing of the whole cluster.
    pub fn load(&mut self, view: View) {
        self.view = view;
        // What is mirrored is built, and what is built may name a credential.
        self.take_credentials();
        for id in self.view.objects.keys().copied().collect::<Vec<_>>() {
            self.mirror_object(id);
        }
        for (source, split) in self.view.splits.keys().cloned().collect::<Vec<_>>() {
            self.mirror_split(source, split);
        }
        for task in self.view.assignments.keys().cloned().collect::<Vec<_>>() {
            self.mirror_assignment(task);
        }
        for task in self.view.checkpoints.keys().cloned().collect::<Vec<_>>() {
            self.mirror_checkpoint(task);
        }
        self.lists += 1;
    }

    /// Applies the writes of a commit of ours.
    pub fn apply(&mut self, writes: &[Write], revision: Revision) {
        let newer = |view: &View, key: &Key| {
            let task = self.keys.parse::<CheckpointKey>(key);
            task.and_then(|task| view.checkpoints.get(&task)).is_some_and(|c| c.mod_revision > revision)
        };
        // Two lanes may carry the same task one after the other; their answers may arrive in the other order.
        let writes: Vec<Write> = writes.iter().filter(|w| !newer(&self.view, key_of(w))).cloned().collect();
        if let Err(error) = self.view.apply(&self.keys, &writes, revision) {
            tracing::error!(%error, "own write is not readable");
        }
        for write in &writes {
            self.mirror(key_of(write));
        }
    }

    /// As [`Memory::apply`] of a checkpoint transaction: what was written is at hand, and thousands a second need not be read
    /// back from their text.
    pub fn checkpointed(&mut self, group: &Group, serial: u64, revision: Revision) {
        for (task, checkpoint) in &group.writes {
            let old = self.view.checkpoints.get(task);
            if old.is_some_and(|old| old.mod_revision > revision) {
                continue;
            }
            let create_revision = old.map_or(revision, |old| old.create_revision);
            let entry = Versioned { value: checkpoint.clone(), create_revision, mod_revision: revision };
            self.view.checkpoints.insert(task.clone(), entry);
            self.mirror_checkpoint(task.clone());
        }
        let create_revision = self.view.lanes.get(&group.lane).map_or(revision, |old| old.create_revision);
        let lane = Versioned { value: Lane { serial }, create_revision, mod_revision: revision };
        self.view.lanes.insert(group.lane.clone(), lane);
        self.view.revision = self.view.revision.max(revision);
    }

    /// Takes over what a lost commit told of its guarded keys.
    pub fn correct(&mut self, guards: &[Guard], present: &Snapshot) {
        if let Err(error) = self.view.correct(&self.keys, guards, present) {
            tracing::error!(%error, "a key in the store is not readable");
        }
        for guard in guards {
            self.mirror(guard.key());
        }
    }

    /// The shortest time between two checkpoint transactions of a lane: a sink may ask for less than the coordinator's own
    /// setting. Each task is held to its own sink's interval by its worker, which says no more often where it is.
    pub fn checkpoint_interval(&self, configured: Duration) -> Duration {
        self.intervals.values().copied().chain([configured]).min().unwrap_or(configured)
    }

    /// The source behind an id.
    pub fn source(&self, id: ObjectId) -> Option<&SourceSpec> {
        match &self.view.objects.get(&id)?.value.spec {
            Spec::Source(spec) => Some(spec),
            Spec::Sink(_) | Spec::Credential(_) => None,
        }
    }

    /// The sink behind an id.
    pub fn sink(&self, id: ObjectId) -> Option<&SinkSpec> {
        match &self.view.objects.get(&id)?.value.spec {
            Spec::Sink(spec) => Some(spec),
            Spec::Source(_) | Spec::Credential(_) => None,
        }
    }

    /// The id behind a name.
    pub fn named(&self, kind: ObjectKind, name: &str) -> Option<ObjectId> {
        self.view.names.get(&(kind, name.to_owned())).map(|id| id.value)
    }

    /// Every source that has a name, sorted by it.
    pub fn sources(&self) -> Vec<Arc<SourceSpec>> {
        self.of_kind(ObjectKind::Source).filter_map(|id| Some(Arc::new(self.source(id)?.clone()))).collect()
    }

    /// Every sink that has a name, sorted by it.
    pub fn sinks(&self) -> Vec<Arc<SinkSpec>> {
        self.of_kind(ObjectKind::Sink).filter_map(|id| Some(Arc::new(self.sink(id)?.clone()))).collect()
    }

    pub(crate) fn of_kind(&self, kind: ObjectKind) -> impl Iterator<Item = ObjectId> {
        self.view.names.iter().filter(move |((k, _), _)| *k == kind).map(|(_, id)| id.value)
    }

    fn mirror(&mut self, key: &Key) {
        if let Some(task) = self.keys.parse::<CheckpointKey>(key) {
            self.mirror_checkpoint(task);
        } else if let Some(task) = self.keys.parse::<AssignmentKey>(key) {
            self.mirror_assignment(task);
        } else if let Some((source, split)) = self.keys.parse::<SplitKey>(key) {
            self.mirror_split(source, split);
        } else if let Some(id) = self.keys.parse::<ObjectKey>(key) {
            self.mirror_object(id);
        }
    }

    fn mirror_checkpoint(&mut self, task: model::TaskId) {
        let ended = |observed: &Observed| {
            observed.checkpoints.get(&task).is_some_and(|stored| stored.value.position.is_end())
        };
        let before = ended(&self.observed);
        match self.view.checkpoints.get(&task) {
            Some(entry) => {
                let stored = Stored { value: entry.value.clone(), revision: entry.mod_revision };
                self.observed.checkpoints.insert(task.clone(), stored);
            }
            None => drop(self.observed.checkpoints.remove(&task)),
        }
        if before != ended(&self.observed) {
            self.lists += 1;
        }
    }

    fn mirror_assignment(&mut self, task: model::TaskId) {
        let (before, alone) = match self.view.assignments.get(&task) {
            Some(entry) => {
                let epoch = self.view.epoch(entry.mod_revision);
                let alone = entry.value.predecessors.is_empty();
                (self.observed.assignments.insert(task, (epoch, entry.value.clone())), alone)
            }
            None => (self.observed.assignments.remove(&task), false),
        };
        if before.is_none() && alone {
            self.fresh = true;
        } else {
            self.lists += 1;
        }
    }

    fn mirror_split(&mut self, source: ObjectId, split: model::SplitId) {
        match self.view.splits.get(&(source, split.clone())) {
            Some(entry) => {
                self.observed.splits.entry(source).or_default().insert(split, entry.value.clone());
            }
            None => {
                if let Some(table) = self.observed.splits.get_mut(&source) {
                    table.remove(&split);
                    if table.is_empty() {
                        self.observed.splits.remove(&source);
                    }
                }
            }
        }
    }

    /// By the names in the records: those are sealed, the keys of names are not.
    fn take_credentials(&mut self) {
        let named = |record: &store::ObjectRecord| match &record.spec {
            Spec::Credential(spec) if !record.dropping => Some((spec.name.clone(), spec.as_ref().clone())),
            _ => None,
        };
        let credentials: Credentials =
            self.view.objects.values().filter_map(|object| named(&object.value)).collect();
        self.registry = self.registry.with_credentials(Arc::new(credentials));
    }

    fn mirror_object(&mut self, id: ObjectId) {
        if self.registry.has_credential(id) {
            self.take_credentials();
        }
        self.desired.sources.remove(&id);
        self.desired.sinks.remove(&id);
        self.intervals.remove(&id);
        self.lists += 1;
        let Some(record) = self.view.objects.get(&id).map(|entry| &entry.value) else { return };
        let dropping = record.dropping;
        match &record.spec {
            Spec::Credential(_) => self.take_credentials(),
            Spec::Source(spec) => {
                let source = DesiredSource { name: spec.name.clone(), revision: spec.revision, dropping };
                self.desired.sources.insert(id, source);
            }
            Spec::Sink(spec) => {
                let built = built(&self.registry, spec);
                // Where the sink says nothing, the coordinator's setting holds.
                if let Some((_, interval)) =
                    built.filter(|_| spec.options.get("checkpoint_interval").is_some())
                {
                    self.intervals.insert(id, interval);
                }
                let sink = DesiredSink {
                    name: spec.name.clone(),
                    source: spec.source,
                    revision: spec.revision,
                    instance: spec.instance,
                    paused: spec.paused,
                    dropping,
                    partitions: spec.distribution.partitions(),
                    // In doubt it has.
                    gated: built.is_none_or(|(gated, _)| gated),
                    created_at: spec.created_at,
                };
                self.desired.sinks.insert(id, sink);
            }
        }
    }
}

fn key_of(write: &Write) -> &Key {
    match write {
        Write::Put(key, _) | Write::PutLeased(key, _, _) | Write::Delete(key) => key,
    }
}

/// Whether a new owner must wait for its gate (P10), and how often its positions are stored; nothing if it cannot be built.
fn built(registry: &Registry, spec: &SinkSpec) -> Option<(bool, Duration)> {
    let (sink, common) = registry.build_sink(spec).ok()?;
    let gated = !sink.capability().fenced && common.takeover == Takeover::Ordered;
    Some((gated, common.checkpoint_interval))
}
