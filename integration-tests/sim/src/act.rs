//! Makes what a script says happen, when it says so, and undoes it again.

use std::{collections::VecDeque, time::Duration};

use model::{Assignment, TaskId};
use store::{Keyspace, View};

use crate::{
    cluster::{Cluster, NAME, SOURCE},
    faults::{Fault, Script},
    kinesis::Throttle,
    net::Link,
    place::Place,
    user::Order,
};

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Start(Place),
    Resume(Place),
    Reopen(Place, Place),
    ResumeSink,
}

/// What is still to come.
pub struct Acts {
    faults: VecDeque<(Duration, Fault)>,
    undo: Vec<(Duration, Undo)>,
    /// Processes that end stay away.
    rests: bool,
}

impl Acts {
    /// Of a script.
    #[must_use]
    pub fn of(script: &Script) -> Self {
        Self { faults: script.faults.clone().into(), undo: Vec::new(), rests: false }
    }

    /// Does what is due.
    pub fn step(&mut self, cluster: &mut Cluster) {
        let now = cluster.net().now();
        while self.faults.front().is_some_and(|(at, _)| *at <= now) {
            let (_, fault) = self.faults.pop_front().expect("it was there a line ago");
            cluster.net().note(Place::World, fault.to_string());
            self.happen(fault, cluster, now);
        }
        let (due, later) = self.undo.iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            revert(undo, cluster);
        }
        for place in cluster.world.reap() {
            // As an orchestrator would.
            if !self.rests && !matches!(place, Place::User) {
                self.later(now + Duration::from_secs(1), Undo::Start(place));
            }
        }
    }

    /// Makes something happen that is in no script.
    pub fn happen_now(&mut self, fault: Fault, cluster: &mut Cluster) {
        let now = cluster.net().now();
        cluster.net().note(Place::World, fault.to_string());
        self.happen(fault, cluster, now);
    }

    /// Whether processes that end by themselves stay away, as when everything is shut down.
    pub fn rest(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// Ends everything that is still wrong, at once.
    pub fn heal(&mut self, cluster: &mut Cluster) {
        cluster.net().note(Place::World, "everything is healed");
        self.faults.clear();
        for (_, undo) in std::mem::take(&mut self.undo) {
            revert(undo, cluster);
        }
        let places = everywhere(cluster);
        for &from in &places {
            for &to in &places {
                reopen(cluster, from, to);
            }
        }
        for place in cluster.places() {
            if !cluster.world.runs(place) {
                cluster.start(place);
            }
        }
        cluster.store.heal();
        cluster.ledger.heal();
        cluster.kinesis().heal();
    }

    fn later(&mut self, at: Duration, undo: Undo) {
        self.undo.push((at, undo));
    }

    fn happen(&mut self, fault: Fault, cluster: &mut Cluster, now: Duration) {
        match fault {
            Fault::Kill(..)
            | Fault::Vanish(..)
            | Fault::Suspend(..)
            | Fault::Stop(..)
            | Fault::KillLeader(_)
            | Fault::KillOwner(..)
            | Fault::KillReader(..)
            | Fault::SuspendOwner(..)
            | Fault::SuspendLeader(_)
            | Fault::CutLeader(_) => self.hit_process(fault, cluster, now),
            Fault::OneWay(from, to, span) => self.close(cluster, &[(from, to)], now + span),
            Fault::Partition(a, b, span) => self.close(cluster, &[(a, b), (b, a)], now + span),
            Fault::Far(from, to, delay, span) => {
                let link = Link { delay: (delay, delay), ..Link::default() };
                cluster.net().set_link(from, to, link, 0.0);
                self.later(now + span, Undo::Reopen(from, to));
            }
            Fault::Reset(a, b) => cluster.reset(a, b),
            Fault::Isolate(place, span) => self.close(cluster, &around(cluster, place), now + span),
            Fault::Lossy(place, loss, span) => {
                for (from, to) in around(cluster, place) {
                    cluster.net().set_link(from, to, Link { loss, ..Link::default() }, 0.0);
                    self.later(now + span, Undo::Reopen(from, to));
                }
            }
            Fault::Drain(worker) => {
                let place = Place::Worker(worker);
                cluster.user.ask(Order::Drain(place.to_string()));
                // Only a new process takes tasks again.
                self.later(now + Duration::from_secs(12), Undo::Start(place));
            }
            Fault::Pause(span) => {
                cluster.user.ask(Order::Sql("ALTER SINK ledger PAUSE".to_owned()));
                self.later(now + span, Undo::ResumeSink);
            }
            Fault::Distribute(into) => cluster.user.ask(Order::Sql(format!(
                "ALTER SINK ledger SET (distribution = '{}')",
                into.map_or_else(|| "split".to_owned(), |n| format!("key({n})"))
            ))),
            Fault::Aggregate(count) => drop(cluster.put_aggregate(&vec!["k0"; count])),
            other => hit_server(other, cluster, now),
        }
    }

    fn hit_process(&mut self, fault: Fault, cluster: &mut Cluster, now: Duration) {
        let leader = leader(cluster);
        let fault = match (fault, leader) {
            (Fault::KillLeader(span), Some(place)) => Fault::Kill(place, span),
            (Fault::SuspendLeader(span), Some(place)) => Fault::Suspend(place, span),
            (Fault::CutLeader(span), Some(place)) => {
                return self.close(cluster, &[(place, Place::Store), (Place::Store, place)], now + span);
            }
            (fault, _) => fault,
        };
        let (writes, reads): (IsIt, IsIt) =
            (|task, _| task.partition().is_some(), |_, run| run.partitions.is_some());
        let fault = match fault {
            Fault::KillOwner(n, span) => owner(cluster, n, writes).map(|place| Fault::Kill(place, span)),
            Fault::KillReader(n, span) => owner(cluster, n, reads).map(|place| Fault::Kill(place, span)),
            Fault::SuspendOwner(n, span) => {
                owner(cluster, n, writes).map(|place| Fault::Suspend(place, span))
            }
            fault => Some(fault),
        };
        let Some(fault) = fault else { return };
        match fault {
            Fault::Kill(place, span) => {
                cluster.world.kill(place);
                self.later(now + span, Undo::Start(place));
            }
            Fault::Vanish(place, span) => {
                // What its kernel would have said is never heard.
                let ways = around(cluster, place);
                self.close(cluster, &ways, now + span);
                cluster.world.kill(place);
                self.later(now + span, Undo::Start(place));
            }
            Fault::Suspend(place, span) => {
                cluster.world.suspend(place);
                self.later(now + span, Undo::Resume(place));
            }
            Fault::Stop(place, span) => {
                cluster.stop(place);
                self.later(now + Duration::from_secs(15) + span, Undo::Start(place));
            }
            _ => {}
        }
    }

    fn close(&mut self, cluster: &Cluster, ways: &[(Place, Place)], until: Duration) {
        for &(from, to) in ways {
            cluster.net().set_link(from, to, Link { closed: true, ..Link::default() }, 0.0);
            self.later(until, Undo::Reopen(from, to));
        }
    }
}

fn revert(undo: Undo, cluster: &mut Cluster) {
    match undo {
        Undo::Start(place) => cluster.start(place),
        Undo::Resume(place) => cluster.world.resume(place),
        Undo::Reopen(from, to) => reopen(cluster, from, to),
        Undo::ResumeSink => cluster.user.ask(Order::Sql("ALTER SINK ledger RESUME".to_owned())),
    }
}

/// Half of the connections that a partition cut do not survive it.
fn reopen(cluster: &Cluster, from: Place, to: Place) {
    cluster.net().set_link(from, to, Link::default(), 0.5);
}

fn everywhere(cluster: &Cluster) -> Vec<Place> {
    let mut places = cluster.places();
    places.extend([Place::Store, Place::Kinesis, Place::Ledger, Place::User]);
    places
}

/// Both directions between a place and every other.
fn around(cluster: &Cluster, place: Place) -> Vec<(Place, Place)> {
    let others = everywhere(cluster).into_iter().filter(|other| *other != place);
    others.flat_map(|other| [(place, other), (other, place)]).collect()
}

/// Where whoever leads runs.
fn leader(cluster: &Cluster) -> Option<Place> {
    let view = View::decode(&Keyspace::new(NAME), &cluster.stored()).ok()?;
    let address = view.leader?.value.address;
    cluster.places().into_iter().find(|place| address.contains(&format!("//{place}:")))
}

type IsIt = fn(&TaskId, &Assignment) -> bool;

/// Where the n-th of all such tasks runs.
fn owner(cluster: &Cluster, n: u64, is_it: IsIt) -> Option<Place> {
    let view = View::decode(&Keyspace::new(NAME), &cluster.stored()).ok()?;
    let tasks = view.assignments.iter().filter(|(task, entry)| is_it(task, &entry.value));
    let workers: Vec<&str> = tasks.map(|(_, entry)| entry.value.worker.as_str()).collect();
    let worker = *workers.get(usize::try_from(n % (workers.len().max(1) as u64)).ok()?)?;
    cluster.places().into_iter().find(|place| place.to_string() == worker)
}

fn hit_server(fault: Fault, cluster: &mut Cluster, now: Duration) {
    match fault {
        Fault::StoreFails(outage, span) => cluster.store.fail(outage, span),
        Fault::StoreSlow(most, span) => cluster.store.slow(most, span),
        Fault::RemoveLeader => cluster.store.remove(&Keyspace::new(NAME).leader()),
        Fault::WatchesLag(lag, span) => cluster.store.lag_watches(lag, span),
        Fault::WatchesBreak => cluster.store.break_watches(),
        Fault::WatchesCompacted => cluster.store.compact_watches(),
        Fault::CommitsLate(chance, span) => cluster.store.delay(chance, span),
        Fault::CommitsForget(chance, span) => cluster.store.forget(chance, span),
        Fault::SinkSlow(delay, span) => cluster.ledger.slow(delay, span),
        Fault::SinkDown(span) => cluster.ledger.refuse(span),
        Fault::SinkHangs(span) => cluster.ledger.hang(span),
        Fault::SinkThrottles(chance, span) => cluster.ledger.throttle(chance, span),
        Fault::SinkLate(chance, span) => cluster.ledger.delay(chance, span),
        Fault::SinkTears(chance, span) => cluster.ledger.tear(chance, span),
        Fault::SinkFailsRows(chance, span) => cluster.ledger.fail_rows(chance, span),
        Fault::SinkForgets(chance, span) => cluster.ledger.forget(chance, span),
        other => hit_kinesis(other, cluster, now),
    }
}

fn hit_kinesis(fault: Fault, cluster: &Cluster, now: Duration) {
    let mut kinesis = cluster.kinesis();
    let open = kinesis.open_shards(SOURCE);
    let pick = |n: u64| open[usize::try_from(n % open.len() as u64).unwrap_or(0)];
    match fault {
        Fault::Split(n) => drop(kinesis.split(now, SOURCE, pick(n))),
        Fault::Merge(n) if open.len() > 1 => {
            let first = usize::try_from(n % (open.len() as u64 - 1)).unwrap_or(0);
            drop(kinesis.merge(now, SOURCE, open[first], open[first + 1]));
        }
        Fault::ThrottleReads(n, span) => kinesis.throttle(SOURCE, pick(n), now + span, Throttle::Error),
        Fault::EmptyReads(n, span) => kinesis.throttle(SOURCE, pick(n), now + span, Throttle::Silence),
        Fault::EmptyPages(n, pages) => kinesis.empty_pages(SOURCE, pick(n), pages),
        Fault::HalfOpen(n, span) => kinesis.half_open(SOURCE, pick(n), now + span),
        Fault::KinesisSlow(delay, span) => kinesis.slow_down(now + span, delay),
        Fault::ExpireIterators => kinesis.expire_iterators(now),
        Fault::ListingsLag(lag) => kinesis.lag_listings(lag),
        Fault::Hide(n, span) => kinesis.hide(SOURCE, pick(n), now + span),
        Fault::KinesisFails(chance, span) => kinesis.fail_calls(now + span, chance),
        Fault::FailPuts(chance, span) => kinesis.fail_some_entries(now + span, chance),
        Fault::PutsForget(calls) => kinesis.lose_answers(calls),
        _ => {}
    }
}
