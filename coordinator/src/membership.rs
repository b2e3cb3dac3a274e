//! Who may speak for a worker's name (P1), and what the term has heard of each process (P2, P5, P10).
//!
//! What was heard is kept in `logic::gate::Heard`, which starts empty with each term; a process that the store names but that
//! was not heard yet counts as heard when the term had loaded. Only the session room writes here.

use std::time::Duration;

use logic::gate::{Heard, Process};
use model::WorkerRecord;
use proto::v1;

/// What becomes of a process that wants to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It may.
    Join,
    /// Another process under this name may still be alive: not yet.
    Wait(String),
    /// It spoke for this name, and another process does since: never again (P1, P2).
    Over(String),
}

/// The record that a hello asks for. A drain that an operator asked for ends with the process that it was asked for.
pub(crate) fn record_of(hello: &v1::Hello, stored: Option<&WorkerRecord>) -> WorkerRecord {
    WorkerRecord {
        process: hello.process.clone(),
        instance: hello.instance.clone(),
        capacity: hello.capacity,
        version: hello.version.clone(),
        zone: hello.zone.clone(),
        address: hello.exchange_address.clone(),
        draining: stored.is_some_and(|stored| stored.process == hello.process && stored.draining),
    }
}

/// Whether the process may take its worker's name. `stored` is the store's record of that name.
pub(crate) fn may_join(
    heard: &Heard,
    hello: &v1::Hello,
    stored: Option<&WorkerRecord>,
    now: Duration,
    session_timeout: Duration,
) -> Verdict {
    let known = heard.processes.contains_key(&hello.process);
    if known && heard.superseded_at(&hello.process, &hello.instance).is_some() {
        return Verdict::Over(superseded(hello, "a later process of the same instance"));
    }
    let (process, instance) = match (heard.current(&hello.worker), stored) {
        (Some((id, process)), _) => (id, process.instance.as_str()),
        (None, Some(record)) => (record.process.as_str(), record.instance.as_str()),
        (None, None) => return Verdict::Join,
    };
    // An instance runs one process at a time, so its new process proves that the old one is over.
    let same_instance = !instance.is_empty() && instance == hello.instance;
    let silent = now.saturating_sub(heard.last_heard(process));
    if process == hello.process || same_instance || silent >= session_timeout {
        return Verdict::Join;
    }
    if known {
        return Verdict::Over(superseded(hello, &format!("process {process}")));
    }
    Verdict::Wait(format!(
        "a worker named `{}` is alive: its process {process} was heard {} ms ago, and names must be unique",
        hello.worker,
        silent.as_millis()
    ))
}

fn superseded(hello: &v1::Hello, by: &str) -> String {
    let v1::Hello { process, worker, .. } = hello;
    format!(
        "process {process} was silent for too long and {by} speaks for `{worker}` now: start this one again under another name \
         if both shall run"
    )
}

/// The join counts: the process speaks for the name from now on. A process that merely comes back through a new stream keeps
/// the moment of its join.
pub(crate) fn join(heard: &mut Heard, worker: &str, record: &WorkerRecord, now: Duration) {
    let speaks = heard.current(worker).is_some_and(|(id, _)| id == record.process);
    let before = heard.processes.get(&record.process).filter(|_| speaks);
    let process = Process {
        worker: worker.to_owned(),
        instance: record.instance.clone(),
        capacity: record.capacity,
        zone: record.zone.clone(),
        joined_at: before.map_or(now, |process| process.joined_at),
        heard_at: now,
        draining: record.draining || before.is_some_and(|process| process.draining),
    };
    heard.processes.insert(record.process.clone(), process);
}

/// A heartbeat of a joined process came.
pub(crate) fn heartbeat(heard: &mut Heard, process: &str, now: Duration) {
    if let Some(process) = heard.processes.get_mut(process) {
        process.heard_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(6);

    fn hello(process: &str, instance: &str) -> v1::Hello {
        v1::Hello {
            worker: "w1".to_owned(),
            process: process.to_owned(),
            instance: instance.to_owned(),
            capacity: 1,
            ..v1::Hello::default()
        }
    }

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn joined(process: &str, instance: &str, at: Duration) -> Heard {
        let mut heard = Heard::default();
        join(&mut heard, "w1", &record_of(&hello(process, instance), None), at);
        heard
    }

    #[test]
    fn a_second_live_process_under_one_name_is_refused_until_the_first_is_silent() {
        let mut heard = joined("p1", "i1", s(0));
        let second = hello("p2", "i2");
        let verdict = may_join(&heard, &second, None, s(5), TIMEOUT);
        assert!(matches!(verdict, Verdict::Wait(why) if why.contains("p1")));
        heartbeat(&mut heard, "p1", s(5));
        assert!(matches!(may_join(&heard, &second, None, s(10), TIMEOUT), Verdict::Wait(_)));
        assert_eq!(may_join(&heard, &second, None, s(11), TIMEOUT), Verdict::Join);
    }

    /// P2: it was cut off, lost its name to another process, and comes back while that one lives.
    #[test]
    fn who_lost_its_name_while_it_was_silent_is_over_for_good() {
        let mut heard = joined("p1", "i1", s(0));
        join(&mut heard, "w1", &record_of(&hello("p2", "i2"), None), s(7));
        let verdict = may_join(&heard, &hello("p1", "i1"), None, s(8), TIMEOUT);
        assert!(
            matches!(&verdict, Verdict::Over(why) if why.contains("process p2 speaks for `w1`")),
            "{verdict:?}"
        );
        assert!(matches!(may_join(&heard, &hello("p3", "i3"), None, s(8), TIMEOUT), Verdict::Wait(_)));
    }

    #[test]
    fn a_restart_of_the_same_instance_joins_at_once_and_its_old_process_never_again() {
        let mut heard = joined("p1", "i1", s(0));
        assert_eq!(may_join(&heard, &hello("p2", "i1"), None, s(1), TIMEOUT), Verdict::Join);
        join(&mut heard, "w1", &record_of(&hello("p2", "i1"), None), s(1));
        assert_eq!(heard.current("w1").unwrap().0, "p2");
        assert!(matches!(may_join(&heard, &hello("p1", "i1"), None, s(20), TIMEOUT), Verdict::Over(_)));
        assert_eq!(may_join(&heard, &hello("p3", "i1"), None, s(2), TIMEOUT), Verdict::Join);
    }

    #[test]
    fn a_new_leader_counts_the_process_that_the_store_names_as_heard_at_its_election() {
        let heard = Heard { elected_at: s(2), ..Heard::default() };
        let stored = record_of(&hello("p1", "i1"), None);
        let other = hello("p2", "i2");
        assert!(matches!(may_join(&heard, &other, Some(&stored), s(7), TIMEOUT), Verdict::Wait(_)));
        assert_eq!(may_join(&heard, &other, Some(&stored), s(8), TIMEOUT), Verdict::Join);
        assert_eq!(may_join(&heard, &hello("p1", "i1"), Some(&stored), s(2), TIMEOUT), Verdict::Join);
    }

    #[test]
    fn workers_without_an_instance_are_not_taken_for_each_other() {
        let heard = joined("p1", "", s(0));
        assert!(matches!(may_join(&heard, &hello("p2", ""), None, s(1), TIMEOUT), Verdict::Wait(_)));
    }

    #[test]
    fn an_operators_drain_ends_with_the_process() {
        let stored = WorkerRecord { draining: true, ..record_of(&hello("p1", "i1"), None) };
        assert!(record_of(&hello("p1", "i1"), Some(&stored)).draining);
        assert!(!record_of(&hello("p2", "i1"), Some(&stored)).draining);
    }
}
