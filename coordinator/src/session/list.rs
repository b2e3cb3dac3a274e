//! The task list of one process as a message: computed, compared with what is in the stream, sent when it differs. Gates are
//! those of the moment of sending (P11); the worker keeps the first it got for an epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use logic::{
    lineage, mutant,
    plan::{RunOrder, StopOrder, TaskList, open_gates},
};
use model::{ObjectId, SplitId, TaskId};
use proto::v1::{self, coordinator_message::Message};

use super::Sent;
use crate::{
    clock,
    memory::Memory,
    term::{State, Term},
};

impl Term {
    /// Puts the current list of a joined session into its stream, unless it is there already. `false` if the session was cut.
    pub(crate) fn send_list(&self, state: &mut State, id: u64) -> bool {
        let State { memory, sessions, lists, .. } = state;
        let Some(session) = sessions.get_mut(&id) else { return false };
        if session.sent.as_ref().is_some_and(|sent| sent.version == memory.lists) {
            return true;
        }
        // A list answers a heartbeat too (P4), so it is sent only while nobody else can lead (P3).
        if !self.may_answer() {
            return false;
        }
        if lists.version != memory.lists {
            *lists = Lists::of(memory);
        }
        let mut list = lists.by_process.get(&session.hello.process).cloned().unwrap_or_default();
        let timing = &self.config.timing;
        open_gates(&mut list, &memory.desired, &memory.observed, timing, self.clock.now());
        list.stop.extend(session.strays.iter().map(|(task, epoch)| StopOrder {
            task: task.clone(),
            epoch: *epoch,
            deadline: Duration::ZERO,
        }));
        let readers = lists.readers(memory, &list);
        let same = session.sent.as_ref().is_some_and(|sent| sent.list.same(&list) && sent.readers == readers);
        let sent = same || session.send(self.leader(), message(memory, &list, &readers, session.heartbeat));
        session.sent = Some(Sent { version: memory.lists, list, readers });
        sent
    }
}

/// What all processes shall do, as of one version of the memory: made once for all of them.
#[derive(Default)]
pub(crate) struct Lists {
    version: u64,
    by_process: BTreeMap<String, TaskList>,
    /// How many processes read each split of a source, where it is not one.
    readers: BTreeMap<(ObjectId, SplitId), u32>,
}

impl Lists {
    fn of(memory: &Memory) -> Self {
        let mut processes: BTreeMap<(ObjectId, &SplitId), BTreeSet<&str>> = BTreeMap::new();
        for (task, (_, run)) in &memory.observed.assignments {
            if let (Some(source), Some(split)) = (source(memory, task), task.split()) {
                processes.entry((source, split)).or_default().insert(&run.process);
            }
        }
        let several = processes.into_iter().filter(|(_, reading)| reading.len() > 1);
        let readers = several.map(|((source, split), reading)| {
            ((source, split.clone()), u32::try_from(reading.len()).unwrap_or(u32::MAX))
        });
        Self {
            version: memory.lists,
            readers: readers.collect(),
            by_process: logic::plan::lists(&memory.observed),
        }
    }

    /// How many processes read the split of each run now: each keeps to its part of the source's quota.
    fn readers(&self, memory: &Memory, list: &TaskList) -> Vec<u32> {
        let count = |run: &RunOrder| {
            let split = source(memory, &run.task).zip(run.task.split().cloned());
            split.and_then(|split| self.readers.get(&split).copied()).unwrap_or(1)
        };
        list.run.iter().map(count).collect()
    }
}

fn source(memory: &Memory, task: &TaskId) -> Option<ObjectId> {
    memory.desired.sinks.get(&task.sink).map(|sink| sink.source)
}

fn message(memory: &Memory, list: &TaskList, readers: &[u32], heartbeat: u64) -> Message {
    let sinks: BTreeSet<ObjectId> = list.run.iter().map(|run| run.task.sink).collect();
    let sinks: Vec<&model::SinkSpec> = sinks.iter().filter_map(|id| memory.sink(*id)).collect();
    let sources: BTreeSet<ObjectId> = sinks.iter().map(|sink| sink.source).collect();
    let gate = |left: Duration| match mutant::on("gate_by_wall_clock") {
        true => left + Duration::from_millis(clock::wall_ms().unsigned_abs()),
        false => left,
    };
    let run = list.run.iter().zip(readers).map(|(run, readers)| v1::RunTask {
        task: Some((&run.task).into()),
        epoch: Some(run.epoch.into()),
        source_id: memory.sink(run.task.sink).map(|sink| sink.source.to_string()).unwrap_or_default(),
        start: Some(proto::position_to_wire(&run.start)),
        gate: Some(to_wire(gate(run.gate))),
        readers: *readers,
        caught_up_at_ms: lineage::owed_since(&memory.desired, &memory.observed, &run.task).map(|at| at.0),
        partitions: run.partitions.map(Into::into),
    });
    let stop = list.stop.iter().map(|stop| v1::StopTask {
        task: Some((&stop.task).into()),
        epoch: Some(stop.epoch.into()),
        deadline: Some(to_wire(stop.deadline)),
    });
    Message::SetTasks(v1::SetTasks {
        heartbeat,
        sources: sources
            .iter()
            .filter_map(|id| memory.source(*id))
            .map(|spec| sent_source(memory, spec))
            .collect(),
        sinks: sinks.into_iter().map(|spec| sent_sink(memory, spec)).collect(),
        run: run.collect(),
        stop: stop.collect(),
        partitions: sets(memory, list),
    })
}

/// Who writes the partitions of every sink that a run of the list sends to. A run whose named set is not the one here does not
/// start: its leader has a newer epoch for it (P16).
fn sets(memory: &Memory, list: &TaskList) -> Vec<v1::PartitionSet> {
    let sinks: BTreeSet<ObjectId> =
        list.run.iter().filter(|run| run.partitions.is_some()).map(|run| run.task.sink).collect();
    let owner = |sink: ObjectId, n: u32| {
        let (epoch, run) = memory.observed.assignments.get(&TaskId::writes(sink, n))?;
        let record = memory.view.workers.get(&run.worker).map(|record| &record.value);
        // Another process of that worker listens elsewhere.
        let address = record.filter(|record| record.process == run.process).map(|r| r.address.clone());
        let owner = v1::PartitionOwner {
            epoch: Some((*epoch).into()),
            process: run.process.clone(),
            address: address.unwrap_or_default(),
            worker: run.worker.clone(),
        };
        Some((*epoch, owner))
    };
    let set = |sink: ObjectId| {
        let count = memory.desired.sinks.get(&sink)?.partitions;
        let owners: Vec<_> = (0..count).map(|n| owner(sink, n)).collect::<Option<_>>()?;
        let newest = owners.iter().map(|(epoch, _)| *epoch).max()?;
        Some(v1::PartitionSet {
            sink_id: sink.to_string(),
            newest: Some(newest.into()),
            owners: owners.into_iter().map(|(_, owner)| owner).collect(),
        })
    };
    sinks.into_iter().filter_map(set).collect()
}

/// A source as its worker gets it: the options of its credential in place of the credential's name. This stream is the only
/// way that secrets take to workers, and those keep them in memory alone. What cannot be put in place is said by the worker, which
/// cannot build the source.
fn sent_source(memory: &Memory, spec: &model::SourceSpec) -> Vec<u8> {
    memory.registry.expanded_source(spec).map_or_else(|_| json(spec), |spec| json(&spec))
}

/// The same of a sink.
fn sent_sink(memory: &Memory, spec: &model::SinkSpec) -> Vec<u8> {
    memory.registry.expanded_sink(spec).map_or_else(|_| json(spec), |spec| json(&spec))
}

fn json<T: serde::Serialize>(spec: &T) -> Vec<u8> {
    serde_json::to_vec(spec).expect("specs have text keys only, so JSON can hold them")
}

/// A duration as a message, rounded up: a gate must not open early.
pub(crate) fn to_wire(span: Duration) -> prost_types::Duration {
    let span = span.min(Duration::from_secs(u64::from(u32::MAX)));
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(999_999_999),
    }
}
