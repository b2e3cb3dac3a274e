//! Looks at the store after each change of it, with the eyes of `logic::invariant`: the same predicate as in production, but on
//! what is stored, not on what one leader believes.

use logic::{
    invariant::{World, check},
    plan::{Desired, DesiredSink, DesiredSource, Observed, Stored},
};
use model::TaskId;
use store::{Keyspace, Snapshot, Spec, View};

/// What the store said last.
pub struct Judge {
    keys: Keyspace,
    last: Option<(Desired, Observed)>,
    /// No run may be replaced.
    calm: bool,
}

impl Judge {
    /// Of the cluster with this name.
    #[must_use]
    pub fn new(cluster: &str, calm: bool) -> Self {
        Self { keys: Keyspace::new(cluster), last: None, calm }
    }

    /// Everything that is wrong with the store as it stands now, or with how it came to be.
    pub fn look(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let view = match View::decode(&self.keys, snapshot) {
            Ok(view) => view,
            Err(error) => return vec![format!("the store is not readable: {error}")],
        };
        let now = (desired(&view), observed(&view));
        let earlier = self.last.as_ref().map(|(desired, observed)| World { desired, observed });
        let mut broken: Vec<String> = check(World { desired: &now.0, observed: &now.1 }, earlier)
            .into_iter()
            .map(|violation| format!("{}: {}", violation.id, violation.message))
            .collect();
        if let Some(earlier) = earlier.filter(|_| self.calm) {
            broken.extend(replaced(earlier.observed, &now.1));
        }
        self.last = Some(now);
        broken
    }
}

/// Runs that were replaced.
fn replaced(before: &Observed, now: &Observed) -> Vec<String> {
    let old = |task: &TaskId| before.assignments.get(task).map(|(epoch, _)| *epoch);
    let new = now.assignments.iter().filter(|(task, (epoch, _))| old(task).is_some_and(|old| old != *epoch));
    new.map(|(task, _)| format!("task {task} got a new run, and nothing was wrong with the old one"))
        .collect()
}

fn desired(view: &View) -> Desired {
    let mut desired = Desired::default();
    for (id, entry) in &view.objects {
        let dropping = entry.value.dropping;
        match &entry.value.spec {
            Spec::Source(spec) => {
                let source = DesiredSource { name: spec.name.clone(), revision: spec.revision, dropping };
                desired.sources.insert(*id, source);
            }
            Spec::Sink(spec) => {
                let sink = DesiredSink {
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
