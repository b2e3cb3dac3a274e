//! Looks at the store after each change of it, with the eyes of `logic::invariant`: the same predicate as in production, but on
//! what is stored, not on what one leader believes.

use std::{collections::BTreeMap, time::Duration};

use logic::{
    invariant::{World, check},
    plan::{Desired, DesiredSink, DesiredSource, Observed, Stored},
};
use model::{Epoch, Position, TaskId};
use store::{Keyspace, Snapshot, Spec, View};

/// What the store said last.
pub struct Judge {
    keys: Keyspace,
    last: Option<(Desired, Observed)>,
    /// From then on no run may be replaced.
    calm: Option<Duration>,
    /// Where each run of a split began: its checkpoint at that time (P13).
    starts: BTreeMap<(TaskId, Epoch), Position>,
}

impl Judge {
    /// Of the cluster with this name; from the moment `calm` on there is no reason to replace a run.
    #[must_use]
    pub fn new(cluster: &str, calm: Option<Duration>) -> Self {
        Self { keys: Keyspace::new(cluster), last: None, calm, starts: BTreeMap::new() }
    }

    /// Where each run began that was seen.
    #[must_use]
    pub fn starts(&self) -> &BTreeMap<(TaskId, Epoch), Position> {
        &self.starts
    }

    /// Everything that is wrong with the store as it stands now, or with how it came to be.
    pub fn look(&mut self, at: Duration, snapshot: &Snapshot) -> Vec<String> {
        let view = match View::decode(&self.keys, snapshot) {
            Ok(view) => view,
            Err(error) => return vec![format!("the store is not readable: {error}")],
        };
        let now = (desired(&view), observed(&view));
        let runs = now.1.assignments.iter();
        self.starts.extend(runs.map(|(task, (epoch, run))| ((task.clone(), *epoch), run.start.clone())));
        let earlier = self.last.as_ref().map(|(desired, observed)| World { desired, observed });
        let mut broken: Vec<String> = check(World { desired: &now.0, observed: &now.1 }, earlier)
            .into_iter()
            .map(|violation| format!("{}: {}", violation.id, violation.message))
            .collect();
        if let Some(earlier) = earlier {
            let new = replaced(earlier.observed, &now.1);
            broken.extend(new.iter().filter_map(|task| begins_elsewhere(task, &now.1)));
            broken.extend(new.iter().filter_map(|task| sends_too_early(task, &now)));
            if self.calm.is_some_and(|calm| at >= calm) {
                let word =
                    |task| format!("task {task} got a new run, and nothing was wrong with the old one");
                broken.extend(new.into_iter().map(word));
            }
        }
        self.last = Some(now);
        broken
    }
}

/// The tasks whose run was replaced.
fn replaced<'a>(before: &Observed, now: &'a Observed) -> Vec<&'a TaskId> {
    let old = |task: &TaskId| before.assignments.get(task).map(|(epoch, _)| *epoch);
    let new = now.assignments.iter().filter(|(task, (epoch, _))| old(task).is_some_and(|old| old != *epoch));
    new.map(|(task, _)| task).collect()
}

/// P13: a run begins at the checkpoint as of the revision at which it was assigned.
fn begins_elsewhere(task: &TaskId, now: &Observed) -> Option<String> {
    let (_, run) = now.assignments.get(task)?;
    let position = &now.checkpoints.get(task)?.value.position;
    (run.start != *position)
        .then(|| format!("P13: task {task} begins at {}, and its checkpoint is {position}", run.start))
}

/// P17: a split is assigned only when every partition of its sink is, at the catalog's revision. A new run of an older revision
/// was under way when the catalog changed.
fn sends_too_early(task: &TaskId, (desired, observed): &(Desired, Observed)) -> Option<String> {
    task.split()?;
    let wanted = desired.spec_revision(task.sink)?;
    let count = desired.sinks.get(&task.sink)?.partitions;
    observed.assignments.get(task).filter(|(_, run)| run.spec_revision == wanted)?;
    let stands = |n: &u32| {
        let run = observed.assignments.get(&TaskId::writes(task.sink, *n));
        run.is_some_and(|(_, run)| run.spec_revision == wanted)
    };
    let lacking = (0..count).find(|n| !stands(n))?;
    Some(format!("P17: task {task} is assigned, and partition {lacking} is not at revision {wanted}"))
}

fn desired(view: &View) -> Desired {
    let mut desired = Desired::default();
    for (id, entry) in &view.objects {
        let dropping = entry.value.dropping;
        match &entry.value.spec {
            Spec::Credential(_) => {}
            Spec::Source(spec) => {
                let source = DesiredSource { name: spec.name.clone(), revision: spec.revision, dropping };
                desired.sources.insert(*id, source);
            }
            Spec::Sink(spec) => {
                let sink = DesiredSink {
                    partitions: spec.distribution.partitions(),
                    name: spec.name.clone(),
                    source: spec.source,
                    revision: spec.revision,
                    instance: spec.instance,
                    paused: spec.paused,
                    dropping,
                    gated: true,
                    created_at: spec.created_at,
                };
                desired.sinks.insert(*id, sink);
            }
        }
    }
    desired
}

fn observed(view: &View) -> Observed {
    let mut observed = Observed::default();
    for ((source, split), entry) in &view.splits {
        observed.splits.entry(*source).or_default().insert(split.clone(), entry.value.clone());
    }
    for (task, entry) in &view.assignments {
        let epoch = view.epoch(entry.mod_revision);
        observed.assignments.insert(task.clone(), (epoch, entry.value.clone()));
    }
    for (task, entry) in &view.checkpoints {
        let stored = Stored { value: entry.value.clone(), revision: entry.mod_revision };
        observed.checkpoints.insert(task.clone(), stored);
    }
    observed
}
