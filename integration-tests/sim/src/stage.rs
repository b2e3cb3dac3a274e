//! The stage of a run: a cluster, the load on it, what goes wrong, and the judge who looks at the store after each change of it.
//! Random runs (`trial`) and scenarios (`scenario`) play on the same.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    act::Acts,
    books,
    cluster::{Cluster, NAME},
    faults::Fault,
    judge::Judge,
    place::Place,
};

/// How long after everything healed the destinations may take to hold everything.
pub const SETTLE: Duration = Duration::from_secs(120);

/// How long is watched after that: a write that comes late must not spoil it.
const AFTERMATH: Duration = Duration::from_secs(15);

/// A cluster under watch.
pub struct Stage<'a> {
    /// The cluster and all around it.
    pub cluster: &'a mut Cluster,
    /// What a story leaves to chance.
    pub random: StdRng,
    acts: Acts,
    judge: Judge,
    /// The store's revision when it was judged last.
    seen: u64,
    /// Records are put until this moment.
    load_until: Duration,
    failures: Vec<String>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl<'a> Stage<'a> {
    /// A stage on which nothing runs yet. Each machine's clock is wrong in its own way.
    pub fn new(cluster: &'a mut Cluster) -> Self {
        let mut stage = Self {
            acts: Acts::of(&cluster.script),
            judge: Judge::new(NAME, cluster.script.calm_from()),
            seen: 0,
            random: StdRng::seed_from_u64(cluster.script.seed ^ 0x10AD),
            load_until: Duration::ZERO,
            failures: Vec::new(),
            panics: watch_panics(),
            cluster,
        };
        stage.skew(0.02, Duration::from_secs(3600));
        stage
    }

    /// Makes the machines' clocks run wrong by up to a part of their speed, and their wall clocks be up to so far ahead. Only
    /// before their processes start.
    pub fn skew(&mut self, rate: f64, ahead: Duration) {
        for place in self.cluster.places() {
            let rate = self.random.random_range(1.0 - rate..1.0 + rate);
            let ahead = Duration::from_secs(self.random.random_range(0..ahead.as_secs()));
            self.cluster.world.set_clock(place, rate, ahead);
        }
    }

    /// Starts every process that does not run.
    pub fn start_all(&mut self) {
        self.acts.rest(false);
        for place in self.cluster.places() {
            if !self.cluster.world.runs(place) {
                self.cluster.start(place);
            }
        }
    }

    /// Stops every process in order, the workers before the coordinators, and waits until none is there.
    pub fn stop_all(&mut self) {
        self.acts.rest(true);
        let is_worker = |place: &Place| matches!(place, Place::Worker(_));
        let (workers, coordinators): (Vec<Place>, Vec<Place>) =
            self.cluster.places().into_iter().partition(is_worker);
        for places in [workers, coordinators] {
            self.stop(places);
        }
    }

    fn stop(&mut self, places: Vec<Place>) {
        for &place in &places {
            self.cluster.stop(place);
        }
        let gone = |cluster: &Cluster| !places.iter().any(|place| cluster.world.runs(*place));
        self.until("the processes have stopped", Duration::from_secs(60), gone);
    }

    /// kill -9 for every process.
    pub fn kill_all(&mut self) {
        self.acts.rest(true);
        for place in self.cluster.places() {
            self.cluster.world.kill(place);
        }
    }

    /// Since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.cluster.net().now()
    }

    /// Puts records until a moment.
    pub fn load_until(&mut self, moment: Duration) {
        self.load_until = moment;
    }

    /// Puts records for so long.
    pub fn load(&mut self, span: Duration) {
        self.load_until = self.now() + span;
        self.run_for(span);
    }

    /// Makes something happen now.
    pub fn happen(&mut self, fault: Fault) {
        self.acts.happen_now(fault, self.cluster);
    }

    /// One step of the world.
    pub fn step(&mut self) {
        self.acts.step(self.cluster);
        let now = self.now();
        if now < self.load_until && now.as_millis() % 100 < 4 {
            self.put();
        }
        self.cluster.world.step();
        if self.cluster.revision() != self.seen {
            self.seen = self.cluster.revision();
            self.failures.extend(self.judge.look(now, &self.cluster.stored()));
            self.failures.extend(self.cluster.intruders());
        }
    }

    /// Lets time pass, until something is wrong.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now() + span;
        while self.now() < end && !self.has_failed() {
            self.step();
        }
    }

    /// Lets time pass until something is so; it is wrong if that takes longer than `bound`.
    pub fn until(&mut self, what: &str, bound: Duration, mut is_so: impl FnMut(&Cluster) -> bool) {
        let end = self.now() + bound;
        while !self.has_failed() && !is_so(self.cluster) {
            if self.now() > end {
                return self.fail(format!("not within {bound:?}: {what}"));
            }
            self.run_for(Duration::from_millis(100));
        }
    }

    /// Ends everything that is wrong, waits until everything is complete, and watches on for a while. Returns how long it took
    /// to be complete.
    pub fn settle(&mut self, mut is_complete: impl FnMut(&Cluster) -> bool) -> Option<Duration> {
        self.acts.rest(false);
        self.acts.heal(self.cluster);
        let healed = self.now();
        let mut settled = None;
        while !self.has_failed() {
            self.step();
            let now = self.now();
            match settled {
                None if now > healed + SETTLE => {
                    self.fail(format!("not settled {SETTLE:?} after everything healed"));
                }
                None if now.as_millis() % 200 < 4 && is_complete(self.cluster) => settled = Some(now),
                Some(at) if now > at + AFTERMATH => break,
                _ => {}
            }
        }
        settled.map(|at| at - healed)
    }

    /// Something is wrong.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Whether something is wrong: then the story is over.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Everything that is wrong; with processes that gave up by themselves, as none ever has a reason to, and with a panic anywhere
    /// in the product, whatever caught it.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        let mut failures = self.failures;
        let lines = self.cluster.net().trace().lines().into_iter();
        let ended = lines.filter(|line| line.what.starts_with("failed: "));
        failures.extend(ended.map(|line| line.to_string()));
        failures.extend(books::behind_the_start(self.cluster, self.judge.starts()));
        failures.extend(std::mem::take(&mut *self.panics.lock().expect("no panic holds it")));
        failures
    }

    /// A tenth of a second's records.
    fn put(&mut self) {
        let mut left = self.cluster.script.rate.div_ceil(10);
        while left > 0 {
            let key = format!("k{}", self.random.random_range(0..self.cluster.script.keys));
            if self.random.random_bool(self.cluster.script.aggregated) {
                let count = self.random.random_range(1..=5.min(left));
                self.cluster.put_aggregate(&vec![key.as_str(); usize::try_from(count).unwrap_or(1)]);
                left -= count;
            } else {
                self.cluster.put(&key);
                left -= 1;
            }
        }
    }
}

fn watch_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        if let Ok(mut seen) = seen.lock() {
            seen.push(format!("panic: {panic}"));
        }
    }));
    panics
}
