//! The cluster as users see it, made from the term's memory at one moment. Decides nothing.

use std::{collections::BTreeMap, time::Duration};

use logic::lineage::{Standing, standing};
use model::{ObjectKind, SinkSpec, SplitRecord, TaskId};
use proto::v1;
use sql::access::On;

use crate::{
    balance::Loads,
    clock,
    error::{Error, ErrorKind, Result},
    handle::Leader,
    session::to_wire,
    term::{State, Term},
};

/// Every state of a split.
pub(crate) const STATES: &[&str] = &[
    "pending",
    "unassigned",
    "gated",
    "reading",
    "writing",
    "retrying",
    "failed",
    "draining",
    "paused",
    "drained",
    "gap",
];

/// How long a gap is shown after it was found, unless the task's position is reset before: as long as the shortest retention that
/// a stream of Kinesis can have.
const GAP_SHOWN_MS: i64 = 24 * 3_600_000;

/// Bytes from which the size of the store is worth a warning: etcd's default quota is 2 GiB.
const STORE_BYTES_WARN: u64 = 3 << 29;

impl Leader {
    /// The whole cluster.
    #[must_use]
    pub fn status(&self) -> v1::StatusReply {
        let (term, state) = (&self.term, self.term.state());
        let splits = splits(term, &state, None, None, false);
        let hot = match hot_splits(&splits) {
            0 => None,
            1 => Some("a split is hot: SHOW SPLITS says which, and where to split it".to_owned()),
            n => Some(format!("{n} splits are hot: SHOW SPLITS says which, and where to split them")),
        };
        let mut reply = v1::StatusReply {
            cluster: term.config.cluster.clone(),
            leader: term.address.to_string(),
            leader_revision: term.revision(),
            store: store_name(&state.health.version),
            workers: workers(term, &state),
            sources: sources(term, &state),
            sinks: sinks(&state, &splits),
            splits,
            warnings: warnings(term, &state).into_iter().chain(hot).collect(),
        };
        drop(state);
        self.narrow(&mut reply);
        reply
    }

    /// Every worker that is known.
    #[must_use]
    pub fn workers(&self) -> Vec<v1::WorkerStatus> {
        workers(&self.term, &self.term.state())
    }

    /// Splits per sink, sorted by source, sink and split; `None` is all; ended ones only if asked for.
    #[must_use]
    pub fn splits(&self, source: Option<&str>, sink: Option<&str>, ended: bool) -> Vec<v1::SplitStatus> {
        let mut found = splits(&self.term, &self.term.state(), source, sink, ended);
        found.retain(|split| self.shows_of(&split.source, &split.sink));
        found
    }

    /// Leaves out what whom it is for may not see.
    fn narrow(&self, reply: &mut v1::StatusReply) {
        reply.sources.retain(|source| self.shows(&On::Source(source.name.clone())));
        reply.sinks.retain(|sink| self.shows(&On::Sink(sink.name.clone())));
        reply.splits.retain(|split| self.shows_of(&split.source, &split.sink));
        if !self.shows(&On::Cluster) {
            reply.workers.clear();
            reply.warnings.clear();
        }
    }

    /// One split, once per sink. Errors: `Missing`.
    pub fn describe_split(&self, source: &str, split: &str) -> Result<Vec<v1::SplitStatus>> {
        let state = self.term.state();
        let missing = |what: String| Error::new(ErrorKind::Missing, what);
        let id = state
            .memory
            .named(ObjectKind::Source, source)
            .ok_or_else(|| missing(format!("source \"{source}\" does not exist")))?;
        let table = state.memory.observed.splits.get(&id);
        if !table.is_some_and(|table| table.keys().any(|known| known.name() == split)) {
            return Err(missing(format!("split \"{split}\" of source \"{source}\" does not exist")));
        }
        let mut found = splits(&self.term, &state, Some(source), None, true);
        found.retain(|status| status.split == split && self.shows_of(&status.source, &status.sink));
        Ok(found)
    }
}

/// How many splits should be split, each counted once however many sinks read it.
pub(crate) fn hot_splits(splits: &[v1::SplitStatus]) -> usize {
    let hot = splits.iter().filter(|split| !split.advice.is_empty());
    hot.map(|split| (&split.source, &split.split)).collect::<std::collections::BTreeSet<_>>().len()
}

/// `embedded`, or the server with its version.
fn store_name(version: &str) -> String {
    match version {
        "" | "embedded" => version.to_owned(),
        version => format!("etcd {version}"),
    }
}

/// Every worker: those that were heard in this term, and those that only the store knows.
pub(crate) fn workers(term: &Term, state: &State) -> Vec<v1::WorkerStatus> {
    let heard = &state.memory.observed.heard;
    let mut tasks: BTreeMap<&str, u32> = BTreeMap::new();
    for (task, (epoch, run)) in &state.memory.observed.assignments {
        if !heard.releases.contains_key(&(task.clone(), *epoch)) {
            *tasks.entry(run.worker.as_str()).or_default() += 1;
        }
    }
    let now = term.clock.now();
    let one = |(name, stored): (&String, &store::Versioned<model::WorkerRecord>)| {
        let record = &stored.value;
        let process = heard.processes.get(&record.process);
        let silent = now.saturating_sub(heard.last_heard(&record.process));
        let tasks = tasks.get(name.as_str()).copied().unwrap_or(0);
        let draining = record.draining || process.is_some_and(|process| process.draining);
        let timing = &term.config.timing;
        let session = state.session_of(&record.process).map(|(_, session)| session);
        let condition = if draining && session.is_none() && tasks == 0 {
            "drained"
        } else if silent >= timing.session_timeout {
            "dead"
        } else if silent >= timing.heartbeat * 3 || session.is_none() {
            "silent"
        } else if draining {
            if tasks == 0 { "drained" } else { "draining" }
        } else {
            "live"
        };
        let budget = session.map_or((0, 0), |session| session.budget);
        let cpu = session.map_or((0.0, 0), |session| session.cpu);
        v1::WorkerStatus {
            name: name.clone(),
            process: record.process.clone(),
            state: condition.to_owned(),
            version: record.version.clone(),
            zone: record.zone.clone(),
            capacity: record.capacity,
            tasks,
            heard_ago: Some(to_wire(silent)),
            budget_used: budget.0,
            budget_size: budget.1,
            cpu: cpu.0,
            cores: cpu.1,
        }
    };
    state.memory.view.workers.iter().map(one).collect()
}

fn sources(term: &Term, state: &State) -> Vec<v1::SourceStatus> {
    let one = |spec: std::sync::Arc<model::SourceSpec>| {
        let table = state.memory.observed.splits.get(&spec.id);
        let count = |closed: bool| {
            let records = table.into_iter().flat_map(|table| table.values());
            let of =
                |record: &&SplitRecord| record.closed == closed && record.state == model::SplitState::Listed;
            u32::try_from(records.filter(of).count()).unwrap_or(u32::MAX)
        };
        let discovery = state.discovery.get(&spec.id);
        let listed = discovery.and_then(|discovery| discovery.listed_at);
        v1::SourceStatus {
            name: spec.name.clone(),
            connector: spec.connector.clone(),
            splits_open: count(false),
            splits_closed: count(true),
            error: discovery.map(|discovery| discovery.error.clone()).unwrap_or_default(),
            discovered_ago: listed.map(|at| to_wire(term.clock.now().saturating_sub(at))),
        }
    };
    state.memory.sources().into_iter().map(one).collect()
}

/// Every sink, those that are being dropped included.
fn sinks(state: &State, splits: &[v1::SplitStatus]) -> Vec<v1::SinkStatus> {
    let mut sinks: Vec<v1::SinkStatus> = state
        .memory
        .desired
        .sinks
        .iter()
        .filter_map(|(id, desired)| Some(sink(state, state.memory.sink(*id)?, desired.dropping, splits)))
        .collect();
    sinks.sort_by(|a, b| a.name.cmp(&b.name));
    sinks
}

fn sink(state: &State, spec: &SinkSpec, dropping: bool, splits: &[v1::SplitStatus]) -> v1::SinkStatus {
    let ours = || splits.iter().filter(|split| split.sink == spec.name);
    let any = |condition: &str| ours().any(|split| split.state == condition);
    let condition = if dropping {
        "dropping"
    } else if spec.paused {
        "paused"
    } else if any("failed") {
        "failed"
    } else if any("retrying") {
        "retrying"
    } else {
        "running"
    };
    let reports = || state.reports.iter().filter(|(task, _)| task.sink == spec.id).map(|(_, report)| report);
    let durable = state.memory.observed.checkpoints.iter().filter(|(task, _)| task.sink == spec.id);
    v1::SinkStatus {
        name: spec.name.clone(),
        source: spec.source_name.clone(),
        connector: spec.connector.clone(),
        state: condition.to_owned(),
        lag_ms_max: ours().filter_map(|split| split.lag_ms).max().unwrap_or(0),
        records_per_second: ours().map(|split| split.records_per_second).sum(),
        records: durable.map(|(_, checkpoint)| checkpoint.value.records).sum(),
        skipped: reports().map(|report| report.records_skipped).sum(),
        dead_lettered: reports().map(|report| report.records_dead_lettered).sum(),
        error: ours().map(|split| &split.error).find(|error| !error.is_empty()).cloned().unwrap_or_default(),
    }
}

/// Splits per sink, and the partitions of sinks that are distributed by key, sorted by source, sink and name.
pub(crate) fn splits(
    term: &Term,
    state: &State,
    source: Option<&str>,
    sink: Option<&str>,
    ended: bool,
) -> Vec<v1::SplitStatus> {
    let mut found = Vec::new();
    let loads = Loads::of(state);
    for (id, desired) in &state.memory.desired.sinks {
        let Some(spec) = state.memory.sink(*id) else { continue };
        let wanted = source.is_none_or(|name| name == spec.source_name)
            && sink.is_none_or(|name| name == spec.name)
            && !desired.dropping;
        let Some(table) = state.memory.observed.splits.get(&spec.source).filter(|_| wanted) else { continue };
        for (split, record) in table {
            let task = TaskId::reads(*id, split.clone());
            let standing = standing(table, &state.memory.observed, (*id, desired), split);
            let mut status = split_status(term, state, (spec, &task), Some(record), standing);
            status.advice = loads.advice(state, &task, record.range);
            if ended || !matches!(status.state.as_str(), "drained") {
                found.push(status);
            }
        }
        let partitions = (0..desired.partitions).map(|n| TaskId::writes(*id, n));
        found.extend(partitions.map(|task| split_status(term, state, (spec, &task), None, None)));
    }
    found.sort_by(|a, b| (&a.source, &a.sink, &a.split).cmp(&(&b.source, &b.sink, &b.split)));
    found
}

fn split_status(
    term: &Term,
    state: &State,
    (spec, task): (&SinkSpec, &TaskId),
    record: Option<&SplitRecord>,
    standing: Option<Standing>,
) -> v1::SplitStatus {
    let observed = &state.memory.observed;
    let run = observed.assignments.get(task);
    let report = run.and_then(|(epoch, _)| {
        let of_run = |report: &&v1::Report| report.epoch == Some((*epoch).into());
        state.reports.get(task).filter(of_run)
    });
    let checkpoint = observed.checkpoints.get(task).map(|stored| &stored.value);
    let position = checkpoint.map(|checkpoint| checkpoint.position.clone());
    let position = position.or_else(|| record.map(|record| model::Position::Start(record.start.clone())));
    let age = checkpoint.map(|checkpoint| clock::wall_ms().saturating_sub(checkpoint.at.0).max(0));
    let mut live = report.cloned().unwrap_or_default();
    if let Some(failure) = failure(state, spec, task) {
        live = v1::Report { error: failure.message.clone(), ..v1::Report::default() };
    }
    let waits_for = match state.waiting.get(task) {
        Some(waits_for) => waits_for.clone(),
        None => live.waits_for.clone(),
    };
    let range = record.and_then(|record| record.range);
    v1::SplitStatus {
        source: spec.source_name.clone(),
        sink: spec.name.clone(),
        split: task.work.to_string(),
        state: condition(term, state, spec, task, standing.as_ref()).to_owned(),
        worker: run.map(|(_, run)| run.worker.clone()).unwrap_or_default(),
        epoch: run.map(|(epoch, _)| epoch.to_string()).unwrap_or_default(),
        position: position.map_or_else(String::new, |position| position.to_string()),
        lag_ms: live.lag_ms,
        records_per_second: live.records_per_second,
        bytes_per_second: live.bytes_per_second,
        records: checkpoint.map_or(0, |checkpoint| checkpoint.records),
        error: live.error,
        next_retry: live.next_retry,
        waits_for,
        parents: record.map(|record| record.parents.clone()).unwrap_or_default(),
        checkpoint_age: age.map(|ms| to_wire(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))),
        hash_first: range.map(|range| range.first.to_string()).unwrap_or_default(),
        hash_last: range.map(|range| range.last.to_string()).unwrap_or_default(),
        gap: fresh_gap(state, task)
            .map_or_else(String::new, |gap| format!("{} (found at {})", gap.message, gap.at)),
        advice: String::new(),
    }
}

/// Why the newest run of a task ended by itself, while no other has taken its place.
fn failure<'a>(state: &'a State, spec: &SinkSpec, task: &TaskId) -> Option<&'a logic::gate::Failure> {
    let observed = &state.memory.observed;
    let (epoch, _) = observed.assignments.get(task).filter(|_| !spec.paused)?;
    observed.heard.releases.get(&(task.clone(), *epoch))?.failure.as_ref()
}

/// What the source let go before the task could read it, while that is news.
fn fresh_gap<'a>(state: &'a State, task: &TaskId) -> Option<&'a model::Gap> {
    let gap = state.memory.observed.checkpoints.get(task)?.value.gap.as_ref()?;
    (clock::wall_ms() - gap.at.0 < GAP_SHOWN_MS).then_some(gap)
}

/// One word for where a task stands: a gap takes the place of a word that asks nobody to do anything.
fn condition(
    term: &Term,
    state: &State,
    spec: &SinkSpec,
    task: &TaskId,
    standing: Option<&Standing>,
) -> &'static str {
    match doing(term, state, spec, task, standing) {
        "reading" | "drained" if fresh_gap(state, task).is_some() => "gap",
        "reading" if task.partition().is_some() => "writing",
        word => word,
    }
}

/// What it does, gaps aside.
fn doing(
    term: &Term,
    state: &State,
    spec: &SinkSpec,
    task: &TaskId,
    standing: Option<&Standing>,
) -> &'static str {
    let observed = &state.memory.observed;
    match standing {
        Some(Standing::Done) => return "drained",
        Some(Standing::Gone { lost: true }) => return "gap",
        Some(Standing::Gone { lost: false }) => return "drained",
        _ => {}
    }
    let run = observed.assignments.get(task);
    let Some((epoch, assignment)) =
        run.filter(|(epoch, _)| !observed.heard.releases.contains_key(&(task.clone(), *epoch)))
    else {
        return match standing {
            _ if spec.paused => "paused",
            Some(Standing::WaitsFor(_)) => "pending",
            _ => match failure(state, spec, task) {
                Some(failure) if failure.needs_human => "failed",
                Some(_) => "retrying",
                None => "unassigned",
            },
        };
    };
    if observed.stopping.contains_key(&(task.clone(), *epoch)) {
        return "draining";
    }
    let report = state.reports.get(task).filter(|report| report.epoch == Some((*epoch).into()));
    match report.map(v1::Report::state) {
        Some(v1::RunState::Gated) => "gated",
        Some(v1::RunState::Retrying) => "retrying",
        Some(v1::RunState::Failed) => "failed",
        Some(v1::RunState::Draining) => "draining",
        Some(v1::RunState::Running) => "reading",
        Some(v1::RunState::Unspecified) | None => {
            let gate = logic::gate::gate(
                task,
                &assignment.predecessors,
                &observed.heard,
                &term.config.timing,
                term.clock.now(),
            );
            let writes = assignment.partitions.is_none();
            let gated = writes && state.memory.desired.sinks.get(&task.sink).is_some_and(|sink| sink.gated);
            if gated && !gate.is_zero() { "gated" } else { "reading" }
        }
    }
}

/// What stands in the way, in words.
fn warnings(term: &Term, state: &State) -> Vec<String> {
    let mut warnings: Vec<String> =
        state.health.alarms.iter().map(|alarm| format!("the store raises an alarm: {alarm}")).collect();
    if state.health.size_bytes > STORE_BYTES_WARN {
        let mebibytes = state.health.size_bytes >> 20;
        warnings.push(format!("the store is large: {mebibytes} MiB"));
    }
    let observed = &state.memory.observed;
    let wants_workers = state.memory.desired.sinks.values().any(|sink| !sink.paused && !sink.dropping);
    if wants_workers && observed.heard.live(&term.config.timing, term.clock.now()).next().is_none() {
        warnings.push("no worker is alive: nothing is read".to_owned());
    }
    for (id, discovery) in &state.discovery {
        if discovery.holes > 0
            && let Some(source) = state.memory.source(*id)
        {
            warnings.push(format!(
                "{} parts of source `{}` are owned by no known split",
                discovery.holes, source.name
            ));
        }
    }
    warnings.extend(term.secrets.warning());
    warnings.extend(state.violations.iter().map(|violation| format!("broken invariant {violation}")));
    warnings
}
