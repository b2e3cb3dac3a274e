//! When a new owner may write: the gate of P10, and whether an earlier run is over at all.
//!
//! Called by `plan` (to pass on predecessors, P9) and by the session room each time it sends a task list (P11). Everything is
//! computed from what *this* leader heard in *this* term (P5); what it did not hear counts from its election. Keeps I11.

use std::{collections::BTreeMap, time::Duration};

use model::{Assignment, Epoch, Predecessor, Release, TaskId};

use crate::{Timing, mutant};

/// What the leader heard since its election. Moments are durations since any fixed origin of the leader's.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// When this term began: after the leader key was won.
    pub elected_at: Duration,
    /// The store has begun a new generation (it was restored): runs that no key names may be under way until they fence
    /// themselves.
    pub generation_begins: bool,
    /// Every process whose join counted in this term (P1), by process id.
    pub processes: BTreeMap<String, Process>,
    /// Every end of a run that a worker told (P7). The first answer for an epoch stays.
    pub releases: BTreeMap<(TaskId, Epoch), Released>,
}

/// One start of a worker, as heard in this term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// The worker's stable name.
    pub worker: String,
    /// What it runs in; empty is like no other.
    pub instance: String,
    /// Relative share of tasks; 0 takes none.
    pub capacity: u32,
    /// Failure domain, empty if none was given.
    pub zone: String,
    /// When its join counted: the process has answered in that stream (P1).
    pub joined_at: Duration,
    /// When it was heard last.
    pub heard_at: Duration,
    /// It wants to be emptied, or an operator wants it.
    pub draining: bool,
}

/// The end of a run, as its worker told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    /// Nothing of it can land any more (P8).
    pub drained: bool,
    /// When the leader heard of it.
    pub at: Duration,
    /// Why, when nobody had asked for it.
    pub failure: Option<Failure>,
}

/// A run that ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Trying again soon is no use: `on_error = 'fail'`, access denied, a wrong setting.
    pub needs_human: bool,
    /// One line without secrets.
    pub message: String,
    /// Failed runs of this task in a row, this one counted; a moved checkpoint starts anew.
    pub count: u32,
}

/// Whether a run is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// Its process is alive and has not told of an end.
    Alive,
    /// Its process was not heard lately; it is given up after this long.
    Silent(Duration),
    /// It is over, and that is how sure we are.
    Over(Release),
}

impl Heard {
    /// The process that holds the name of a worker now: the one that joined last.
    #[must_use]
    pub fn current(&self, worker: &str) -> Option<(&str, &Process)> {
        self.processes
            .iter()
            .filter(|(_, p)| p.worker == worker)
            .max_by_key(|(_, p)| p.joined_at)
            .map(|(id, p)| (id.as_str(), p))
    }

    /// Whether this process holds the name of that worker now.
    #[must_use]
    pub fn speaks_for(&self, process: &str, worker: &str) -> bool {
        self.current(worker).is_some_and(|(id, _)| id == process)
    }

    /// The processes that may be given tasks: each the current one of its worker, and heard within the session timeout.
    pub fn live<'a>(
        &'a self,
        timing: &'a Timing,
        now: Duration,
    ) -> impl Iterator<Item = (&'a str, &'a Process)> {
        self.processes
            .iter()
            .filter(move |(id, p)| {
                p.heard_at + timing.session_timeout > now && self.speaks_for(id, &p.worker)
            })
            .map(|(id, p)| (id.as_str(), p))
    }

    /// When a process was last heard; one that was not heard in this term counts from the election.
    #[must_use]
    pub fn last_heard(&self, process: &str) -> Duration {
        self.processes.get(process).map_or(self.elected_at, |p| p.heard_at.max(self.elected_at))
    }

    /// When a later process of the same instance joined: proof that this one is over, since an instance runs one at a time.
    #[must_use]
    pub fn superseded_at(&self, process: &str, instance: &str) -> Option<Duration> {
        if instance.is_empty() {
            return None;
        }
        let joined = self.processes.get(process).map(|p| p.joined_at);
        self.processes
            .iter()
            .filter(|(id, p)| *id != process && p.instance == instance)
            .map(|(_, p)| p.joined_at)
            .filter(|at| joined.is_none_or(|joined| joined < *at))
            .min()
    }

    /// The moment after which nothing can land of runs that the store knows nothing of. Such a run got its last answer before
    /// this leader had loaded: every later one comes behind a list that does not name it.
    #[must_use]
    pub fn unknown_until(&self, timing: &Timing) -> Duration {
        if self.generation_begins {
            self.elected_at + timing.fence_after + timing.last_breath()
        } else {
            Duration::ZERO
        }
    }

    /// Whether the run of this assignment is over.
    #[must_use]
    pub fn run_end(
        &self,
        task: &TaskId,
        (epoch, run): (Epoch, &Assignment),
        timing: &Timing,
        now: Duration,
    ) -> RunEnd {
        self.told(task, epoch).unwrap_or_else(|| self.process_end(run, timing, now))
    }

    /// The end of a run, if its worker told of it.
    fn told(&self, task: &TaskId, epoch: Epoch) -> Option<RunEnd> {
        let released = self.releases.get(&(task.clone(), epoch))?;
        Some(RunEnd::Over(if released.drained { Release::Drained } else { Release::Stopped }))
    }

    /// What is known of a run of which nothing was told: what is known of its process.
    fn process_end(&self, run: &Assignment, timing: &Timing, now: Duration) -> RunEnd {
        let superseded = self.superseded_at(&run.process, &run.instance).is_some();
        if superseded && !mutant::on("restart_under_old_epoch") {
            return RunEnd::Over(Release::Stopped);
        }
        let given_up = self.last_heard(&run.process) + timing.session_timeout;
        if given_up <= now {
            return RunEnd::Over(Release::No);
        }
        match self.current(&run.worker) {
            Some((id, _)) if id == run.process => RunEnd::Alive,
            _ => RunEnd::Silent(given_up - now),
        }
    }

    /// A predecessor, with what was heard of its end in the meantime.
    #[must_use]
    pub fn as_heard(&self, task: &TaskId, run: Predecessor) -> Predecessor {
        let release = match (self.releases.get(&(whose(task, &run), run.epoch)), run.release) {
            (Some(released), _) if released.drained => Release::Drained,
            (Some(_), _) => Release::Stopped,
            (None, Release::No) if self.superseded_at(&run.process, &run.instance).is_some() => {
                Release::Stopped
            }
            (None, release) => release,
        };
        Predecessor { release, ..run }
    }

    /// The moment after which nothing of this run can land any more (P10). It may move while more is heard.
    #[must_use]
    pub fn moment(&self, task: &TaskId, run: &Predecessor, timing: &Timing) -> Duration {
        let breath = timing.last_breath();
        if let Some(released) = self.releases.get(&(whose(task, run), run.epoch)) {
            let nothing_left = released.drained || mutant::on("stopped_counts_as_drained");
            return if nothing_left { Duration::ZERO } else { released.at + breath };
        }
        // Two proofs, each enough: a later process of the same instance, and silence so long that the process has fenced itself.
        let silence = self.last_heard(&run.process) + timing.fence_after + breath;
        let superseded = self.superseded_at(&run.process, &run.instance).map(|at| at + breath);
        match run.release {
            Release::Drained => Duration::ZERO,
            // This leader wrote it because a later process joined, or an earlier leader wrote it.
            Release::Stopped => superseded.unwrap_or(self.elected_at + breath).min(silence),
            Release::No => superseded.map_or(silence, |at| at.min(silence)),
        }
    }
}

/// [`Heard::run_end`] for very many runs at one moment: each process is looked at once.
pub struct Ends<'a> {
    heard: &'a Heard,
    timing: &'a Timing,
    now: Duration,
    processes: BTreeMap<&'a str, RunEnd>,
}

impl<'a> Ends<'a> {
    /// As of now.
    #[must_use]
    pub fn new(heard: &'a Heard, timing: &'a Timing, now: Duration) -> Self {
        Self { heard, timing, now, processes: BTreeMap::new() }
    }

    /// Whether the run of this assignment is over.
    pub fn of(&mut self, task: &TaskId, (epoch, run): (Epoch, &'a Assignment)) -> RunEnd {
        if let Some(told) = self.heard.told(task, epoch) {
            return told;
        }
        let Self { heard, timing, now, processes } = self;
        *processes.entry(&run.process).or_insert_with(|| heard.process_end(run, timing, *now))
    }
}

/// The task that a predecessor of `task` was a run of (P22).
#[must_use]
pub fn whose(task: &TaskId, run: &Predecessor) -> TaskId {
    let work = run.of.clone().unwrap_or_else(|| task.work.clone());
    TaskId { sink: task.sink, work }
}

/// A run as the predecessor of the next (P9).
#[must_use]
pub fn predecessor(epoch: Epoch, run: &Assignment, release: Release) -> Predecessor {
    let (worker, process, instance) = (run.worker.clone(), run.process.clone(), run.instance.clone());
    Predecessor { of: None, worker, process, instance, epoch, release }
}

/// How long from now a new owner may neither write nor ack anything, `End` included (P10). Zero is an open gate. Sinks that
/// claim `fenced`, and `takeover = 'fast'`, have none: do not ask for them.
#[must_use]
pub fn gate(
    task: &TaskId,
    predecessors: &[Predecessor],
    heard: &Heard,
    timing: &Timing,
    now: Duration,
) -> Duration {
    predecessors
        .iter()
        .map(|run| heard.moment(task, run, timing).saturating_sub(now))
        .fold(heard.unknown_until(timing).saturating_sub(now), Duration::max)
}

#[cfg(test)]
mod tests {
    use model::{Creation, ObjectId, SplitId};

    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn process(joined_at: Duration, heard_at: Duration) -> Process {
        let (worker, instance) = ("w1".to_owned(), "i1".to_owned());
        Process { worker, instance, capacity: 1, zone: String::new(), joined_at, heard_at, draining: false }
    }

    #[test]
    fn nobody_writes_in_a_new_generation_before_the_runs_of_the_former_one_have_fenced_themselves() {
        let timing = Timing::default();
        let task = TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "s"));
        let heard = Heard { elected_at: s(3), generation_begins: true, ..Heard::default() };
        assert_eq!(gate(&task, &[], &heard, &timing, s(4)), s(10), "election 3 + fence 5 + last breath 6");
        assert_eq!(gate(&task, &[], &heard, &timing, s(14)), s(0));
        let settled = Heard { generation_begins: false, ..heard };
        assert_eq!(gate(&task, &[], &settled, &timing, s(4)), s(0));
    }

    #[test]
    fn a_restart_long_after_a_crash_does_not_make_the_crash_young_again() {
        let timing = Timing::default();
        let task = TaskId::reads(ObjectId::from_parts(1, 1), SplitId::new(Creation(1), "s"));
        let epoch = Epoch { generation: 1, revision: 1 };
        let run = Predecessor {
            of: None,
            worker: "w1".to_owned(),
            process: "p1".to_owned(),
            instance: "i1".to_owned(),
            epoch,
            release: Release::No,
        };
        let mut heard = Heard::default();
        heard.processes.insert("p1".to_owned(), process(s(0), s(10)));
        assert_eq!(heard.moment(&task, &run, &timing), s(21), "silence: last heard + 5 s + 6 s");
        heard.processes.insert("p2".to_owned(), process(s(12), s(12)));
        assert_eq!(heard.moment(&task, &run, &timing), s(18), "restart: joined + 6 s");
        heard.processes.insert("p2".to_owned(), process(s(40), s(40)));
        assert_eq!(heard.moment(&task, &run, &timing), s(21));
        let run = heard.as_heard(&task, run);
        assert_eq!((run.release, heard.moment(&task, &run, &timing)), (Release::Stopped, s(21)));
    }
}
