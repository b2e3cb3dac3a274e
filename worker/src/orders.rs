//! A run as the leader's list orders it, with everything that it needs. Called by `runs`.

use std::{sync::Arc, time::Duration};

use logic::mutant;
use model::{Epoch, ObjectId, Position, TaskId, Timestamp};
use proto::v1;
use tokio::{sync::Notify, time::Instant};

use crate::{
    exchange::{Owner, Peers},
    fence::Fence,
    objects::Objects,
    runs::from_wire,
    task::{Commons, Failure, Job, Partitions, Shown, Tenure},
};

/// A run that can be started.
pub(crate) enum Order {
    /// It reads a split.
    Reads(Box<Job>),
    /// It writes a partition.
    Writes(Arc<Tenure>),
}

impl Order {
    pub(crate) fn tenure(&self) -> &Arc<Tenure> {
        match self {
            Self::Reads(job) => &job.tenure,
            Self::Writes(tenure) => tenure,
        }
    }
}

/// The owners of the partitions of one sink, under the name of their set.
type Set = (ObjectId, Epoch, Vec<Owner>);

/// What all runs of a process have in common.
pub(crate) struct Orders {
    pub(crate) objects: Objects,
    pub(crate) commons: Arc<Commons>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) wake: Arc<Notify>,
    /// Of the newest list.
    sets: Vec<Set>,
}

impl Orders {
    pub(crate) fn new(objects: Objects, commons: Arc<Commons>, peers: Arc<Peers>, wake: Arc<Notify>) -> Self {
        Self { objects, commons, fence: Fence::new(), peers, wake, sets: Vec::new() }
    }

    /// Takes what the runs of a list refer to.
    pub(crate) fn take(&mut self, list: &v1::SetTasks) {
        self.objects.take(&list.sources, &list.sinks);
        self.sets = list.partitions.iter().filter_map(set).collect();
    }

    /// What a run needs. `None`: the partitions that it names are not those of this list (P16); a later list has them, or
    /// stops it.
    pub(crate) fn prepare(
        &mut self,
        task: &TaskId,
        epoch: Epoch,
        run: v1::RunTask,
        at: Instant,
    ) -> Result<Option<Order>, Failure> {
        let bug = |error: String| Failure { error, kind: "bug" };
        let partitions = match run.partitions {
            None => None,
            Some(named) => match self.partitions(task.sink, named.into()) {
                Some(partitions) => Some(partitions),
                None => return Ok(None),
            },
        };
        let sink = self.objects.sink(task.sink)?;
        let mut gate = run.gate.map(from_wire).unwrap_or_default();
        if mutant::on("gate_by_wall_clock") {
            gate = gate
                .saturating_sub(Duration::from_millis(chrono::Utc::now().timestamp_millis().unsigned_abs()));
        }
        let mut start = match (run.start, task.split()) {
            (Some(start), _) => Position::try_from(start).map_err(|e| bug(e.to_string()))?,
            // A partition has no position.
            (None, None) => Position::End,
            (None, Some(_)) => return Err(bug("a run without a start".to_owned())),
        };
        if mutant::on("run_begins_at_horizon") && matches!(start, Position::After(_)) {
            start = Position::Start(model::StartFrom::Horizon);
        }
        let tenure = Arc::new(Tenure {
            task: task.clone(),
            epoch,
            gate: at + gate,
            source_name: sink.spec.source_name.clone(),
            sink,
            fence: Arc::clone(&self.fence),
            shown: Shown::new(start.clone(), Arc::clone(&self.wake)),
            commons: Arc::clone(&self.commons),
        });
        let Some(split) = task.split().cloned() else { return Ok(Some(Order::Writes(tenure))) };
        let source: ObjectId = run.source_id.parse().map_err(|e| bug(format!("{e}")))?;
        let source = self.objects.source(source)?;
        source.source.share(&split, run.readers.max(1));
        let caught_up_at = run.caught_up_at_ms.map(Timestamp);
        Ok(Some(Order::Reads(Box::new(Job { split, start, caught_up_at, source, tenure, partitions }))))
    }

    fn partitions(&self, sink: ObjectId, named: Epoch) -> Option<Partitions> {
        let right = |(of, newest, _): &&Set| *of == sink && (*newest == named || mutant::on("p16_not_named"));
        let (.., owners) = self.sets.iter().find(right)?;
        Some(Partitions { owners: owners.clone(), peers: Arc::clone(&self.peers) })
    }
}

fn set(set: &v1::PartitionSet) -> Option<Set> {
    let owner = |owner: &v1::PartitionOwner| {
        let epoch = owner.epoch?.into();
        let (process, address) = (owner.process.clone(), owner.address.clone());
        Some(Owner { epoch, process, address, worker: owner.worker.clone() })
    };
    let owners: Vec<Owner> = set.owners.iter().map(owner).collect::<Option<_>>()?;
    Some((set.sink_id.parse().ok()?, set.newest?.into(), owners)).filter(|(.., owners)| !owners.is_empty())
}
